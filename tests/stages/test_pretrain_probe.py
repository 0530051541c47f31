"""A probe beside a training: it changes nothing of it, says what fine-tuning that checkpoint would say, and may end the training."""

import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_pretraining import TOKENS, WORDS, config, losses, pretrain

from kitae.chain import nodes, recipe
from kitae.core.artifact import checkpoints, newest
from kitae.core.errors import KitaeError, Stopped
from kitae.procedures.finetuned import Finetuned
from kitae.procedures.probe import DownstreamProbe, ProbeConfig
from kitae.procedures.trials import read_start, run_trial
from kitae.stages.pretrain import new_objective
from kitae.tasks.records import load
from kitae.tensor.random import key, numpy_generator
from kitae.tensor.world import World
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.monitor import read_metrics
from kitae.train.probing import stands_still
from tiny_recipe import write_recipe

SCRIPT = Path(__file__).with_name("tiny_pretraining.py")
LABELS = ("art", "law")
FILES = ("weights.safetensors", "optimizer.safetensors")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Texts of which the label is the half of the vocabulary that most words are from."""
    path = tmp_path_factory.mktemp("task") / "halves.jsonl"
    generator = numpy_generator(1, "halves")
    with path.open("w", encoding="utf-8") as file:
        for number in range(60):
            half = 30 * (number % 2)
            text = " ".join(WORDS[half + int(i)] for i in generator.integers(30, size=8))
            file.write(json.dumps({"text": text, "label": LABELS[number % 2]}) + "\n")
    return {"name": "halves", "path": [str(path)], "split": {"train": 0.5, "validation": 0.25, "test": 0.25}}


def probe(task: dict[str, object], **more: object) -> dict[str, object]:
    return {"task": task, "epochs": 2, "finetune": {"batch": 8, "learning_rate": 1e-3, "max_length": 32}} | more


def probed(folder: Path) -> dict[int, dict[str, float]]:
    records = [record for record in read_metrics(folder) if record["kind"] == "evaluate"]
    found = {int(str(r["step"])): {name: float(str(r[name])) for name in r if name.startswith("probe/")} for r in records}
    return {step: values for step, values in found.items() if values}


def test_a_probe_changes_nothing_of_the_training(dataset: Path, task: dict[str, object], tmp_path: Path) -> None:
    plain = pretrain(tmp_path / "plain", dataset)
    with_probe = pretrain(tmp_path / "probed", dataset, probe=probe(task, seeds=2), train={"probe_every": "5 steps"})
    assert losses(plain.path) == losses(with_probe.path)
    for name in FILES:
        assert (newest(plain.path) / name).read_bytes() == (newest(with_probe.path) / name).read_bytes(), name
    assert list(probed(with_probe.path)) == [5, 10, 12]
    assert plain.counts["heldout"] == with_probe.counts["heldout"]
    scores = probed(with_probe.path)[12]
    assert with_probe.counts["probe"] == scores
    names = ("accuracy", "macro_f1", "micro_f1", "mcc", "f1", "accuracy_and_f1", "loss", "epoch", "accuracy_sd")
    assert set(scores) == {f"probe/halves/{name}" for name in names}
    assert not [item for item in (with_probe.path / "probes").iterdir() if item.name.startswith(".")]


def test_the_score_is_that_of_fine_tuning_the_checkpoint(dataset: Path, task: dict[str, object], tmp_path: Path) -> None:
    train = {"probe_every": "4 steps", "save_every": "4 steps"}
    out = pretrain(tmp_path / "run", dataset, probe=probe(task), train=train)
    (tmp_path / "trial").mkdir()
    settings = ProbeConfig.model_validate(probe(task))
    outcome = run_trial(
        load(settings.chosen),
        read_start(checkpoints(out.path)[-2]),
        settings.trial(device="cpu", deterministic=True),
        seed=key(key(1, "pretrain"), "probe", 0),
        folder=tmp_path / "trial",
    )
    assert probed(out.path)[8] == {f"probe/halves/{name}": value for name, value in outcome.chosen.items()}


def test_no_better_score_by_hand() -> None:
    assert not stands_still([], 1, 0.0)
    assert not stands_still([0.5], 1, 0.0)
    assert stands_still([0.5, 0.5], 1, 0.0)
    assert not stands_still([0.5, 0.6], 1, 0.0)
    assert stands_still([0.5, 0.6], 1, 0.1)
    assert not stands_still([0.5, 0.7, 0.6], 2, 0.0)
    assert stands_still([0.7, 0.6, 0.7], 2, 0.0)


def test_evidence_ends_the_training_and_a_resumed_one_decides_the_same(
    dataset: Path, task: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"probe": probe(task, patience=2, gain=0.9), "train": {"probe_every": "2 steps", "save_every": "3 steps"}}
    whole = pretrain(tmp_path / "whole", dataset, **asked)
    assert list(probed(whole.path)) == [2, 4, 6]
    assert newest(whole.path).name == "step-00000006"
    shutil.copytree(whole.path, tmp_path / "killed")
    shutil.rmtree(checkpoints(tmp_path / "killed")[-1])  # back to step 3
    monkeypatch.setattr(Finetuned, "raws", None)  # what was probed is not probed again
    again = pretrain(tmp_path / "killed", dataset, **asked)
    assert probed(again.path) == probed(whole.path)
    for name in FILES:
        assert (newest(again.path) / name).read_bytes() == (newest(whole.path) / name).read_bytes()
    with pytest.raises(KitaeError, match=r"data\.probe.*patience"):
        pretrain(tmp_path / "killed", dataset, **asked | {"probe": probe(task, patience=3, gain=0.9)})


def test_a_signal_within_a_probe_stops_the_training_there_and_it_is_made_up_for(
    dataset: Path, task: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"probe": probe(task), "train": {"probe_every": "5 steps"}}
    whole = pretrain(tmp_path / "whole", dataset, **asked)
    predict = Finetuned.raws

    def interrupted(self: Finetuned, *arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return predict(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(Stopped) as stopped:
        patch.setattr(Finetuned, "raws", interrupted)
        pretrain(tmp_path / "cut", dataset, **asked)
    assert (stopped.value.signal, stopped.value.step, stopped.value.saved) == (signal.SIGTERM, 5, True)
    assert not probed(tmp_path / "cut")
    cut = pretrain(tmp_path / "cut", dataset, **asked)
    assert probed(cut.path) == probed(whole.path)
    assert cut.counts["heldout"] == whole.counts["heldout"]
    for name in FILES:
        assert (newest(cut.path) / name).read_bytes() == (newest(whole.path) / name).read_bytes()


@pytest.mark.slow
def test_two_processes_share_out_the_seeds(dataset: Path, task: dict[str, object], tmp_path: Path) -> None:
    changes = {"probe": probe(task, seeds=3, epochs=1, patience=1, gain=0.9), "train": {"precision": "fp64", "probe_every": "2 steps"}}
    one = pretrain(tmp_path / "one", dataset, **changes)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(tmp_path / "two"), str(dataset), json.dumps(changes)]
    ranks = [
        subprocess.Popen(command, env=os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    for process in ranks:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert newest(tmp_path / "two").name == newest(one.path).name == "step-00000004"
    assert len(list((tmp_path / "two" / "probes").iterdir())) == 6
    found, expected = probed(tmp_path / "two"), probed(one.path)
    assert list(found) == list(expected)
    assert found[2] == pytest.approx(expected[2], rel=1e-4)


def test_only_a_probe_that_may_end_the_training_decides_the_result(task: dict[str, object]) -> None:
    plain = config().semantic()
    assert config(probe=probe(task)).semantic() == plain
    assert config(train={"probe_every": "3 steps"}).semantic() == plain
    patient = config(probe=probe(task, patience=2)).semantic()
    assert patient != plain
    assert patient != config(probe=probe(task, patience=2), train={"probe_every": "3 steps"}).semantic()


def test_a_probe_under_a_budget_counts_its_time(dataset: Path, task: dict[str, object], tmp_path: Path) -> None:
    train = {"length": "3s", "probe_every": "1s", "save_every": None, "evaluate_every": None, "warmup": "0.1 of length"}
    out = pretrain(tmp_path / "run", dataset, probe=probe(task, epochs=1), train=train)
    assert out.counts["steps"] in probed(out.path), "after the last step as well"
    lines = [json.loads(line) for line in (out.path / "clock.jsonl").read_text(encoding="utf-8").splitlines()]
    costs = [line["costs"]["probe"] for line in lines if line.get("costs", {}).get("probe")]
    assert costs
    assert min(costs) > 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"task": "sample-topic"}, 'did you mean "sample-topics"'),
        ({"finetune": {"max_length": 64}}, "max_length = 64, but the encoder has 32 positions"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(
    change: dict[str, object], expected: str, dataset: Path, task: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(KitaeError, match=expected):
        pretrain(tmp_path / "run", dataset, probe=probe(task) | change)
    assert not checkpoints(tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"finetune": {"epochs": 5}}, "epochs is not set here"),
        ({"finetune": {"bach": 5}}, 'did you mean "batch"'),
        ({"gain": 0.1}, "gain needs a patience"),
    ],
)
def test_settings_that_mean_nothing_are_refused(change: dict[str, object], expected: str, task: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=expected):
        ProbeConfig.model_validate(probe(task) | change)


def test_weights_are_copied_and_let_go(dataset: Path, task: dict[str, object], tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(dataset / "tokenizer")
    objective = new_objective(config(), dataset, 32, tokenizer, seed=1)
    given = ProbeConfig.model_validate(probe(task))
    made = DownstreamProbe(objective, given, tokenizer=tokenizer, world=World(), run=tmp_path, seed=1, deterministic=True)
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    made.take()
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(1.0)
    taken = made.run(3)
    objective.load_state_dict(before)
    made.take()
    assert made.run(4) == taken, "what is tried are the weights at the time of taking"
    sizes = [tensor for tensor in gc.get_objects() if isinstance(tensor, torch.Tensor) and tensor.shape == (len(TOKENS), 32)]
    assert len(sizes) <= 2 * sum(name.endswith("embed.token.weight") for name in before), "no copy of the table is left"


def test_leftovers_of_a_killed_probe_are_removed(dataset: Path, task: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "run" / "probes" / ".seed-0.work").mkdir(parents=True)
    (tmp_path / "run" / "probes" / ".stopped-00000012-0").touch()
    given = {"objective": "mlm", "model": "bert-tiny"}
    out = pretrain(tmp_path / "run", dataset, **given, probe=probe(task, epochs=1), train={"probe_every": "12 steps"})
    assert list(probed(out.path)) == [12]
    assert len(list((out.path / "probes").iterdir())) == 1


def test_the_name_of_a_recipes_task_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    tables = {"pretrain": 'pretrain.probe={ task = "topics", patience = 3 }', "adapt": 'adapt.probe={ task = "sample-topics" }'}
    loaded, path = recipe.load("r.toml", tuple(tables.values()))
    made = {node.name: node for node in nodes.nodes(loaded, str(path))}
    assert made["pretrain"].config.probe.task.path == ("topics.jsonl",)
    assert "topics.jsonl" in made["pretrain"].sources
    assert made["adapt"].config.probe.task.name == "sample-topics"
    assert not made["adapt"].sources
    with pytest.raises(KitaeError, match='there is no task "topic": did you mean "topics"'):
        nodes.nodes(recipe.load("r.toml", ('pretrain.probe={ task = "topic" }',))[0], "r.toml")
