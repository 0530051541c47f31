"""Any model folder is measured on any text without training, with the numbers that a training records."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from tiny_pretraining import TOKENS, pretrain, write_dataset, write_pairs

from kitae.core.artifact import Out, checkpoints, newest
from kitae.models.folder import Part, read_parts, write_huggingface, write_model
from kitae.procedures.finetuned import Use, save
from kitae.procedures.measure import MeasureConfig, measure
from kitae.procedures.predict import Predictor
from kitae.procedures.score import Scorer
from kitae.procedures.trials import TrialConfig, build, read_start
from kitae.tasks.config import TaskConfig
from kitae.tasks.records import TaskData
from kitae.tokenization.tokenizer import Tokenizer
from tiny_recipe import kitae

TEXT = "\n\n".join(" ".join(f"w{(first + i) % 60}" for i in range(5 + first % 30)) for first in range(50))
CPU = MeasureConfig(device="cpu", max_length=32)


@pytest.fixture(scope="module")
def pair(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Out:
    train = {"milestones": ["3 steps"], "evaluate_every": "3 steps"}
    return pretrain(tmp_path_factory.mktemp("measured") / "pair", dataset, train=train)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "news.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def recorded(out: Out, step: int) -> dict[str, float]:
    records = [json.loads(line) for line in (out.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    (found,) = [record for record in records if record["kind"] == "evaluate" and record["step"] == step]
    return {name.removeprefix("heldout/"): value for name, value in found.items() if "/" in name}


def flat(found: dict[str, dict[str, float]], together: dict[str, float]) -> dict[str, float]:
    return {f"{source}/{name}": value for source, scores in found.items() for name, value in scores.items()} | together


@pytest.mark.parametrize("objective", ["mlm", "rtd", "electric"])
def test_every_checkpoint_gives_what_was_recorded_at_its_step(objective: str, dataset: Path, tmp_path: Path) -> None:
    model = "bert-tiny" if objective == "mlm" else "electra-tiny"
    train = {"length": "6 steps", "milestones": ["3 steps"], "evaluate_every": "3 steps"}
    out = pretrain(tmp_path / "run", dataset, model=model, objective=objective, train=train)
    for folder in (*checkpoints(out.path), out.path):
        step = 6 if folder == out.path else int(folder.name.removeprefix("step-"))
        if step % 3:
            continue
        found = measure(folder, [str(dataset)], CPU)
        assert found.what == objective
        scores = flat(dict(found.sources), dict(found.together))
        own = {name for name in scores if name.endswith("log_likelihood_per_token")}
        assert bool(own) is (objective == "electric")
        assert {name: value for name, value in scores.items() if name not in own} == recorded(out, step)
        assert found.counts["books"]["rows"] == found.counts["books"]["rows measured"] > 0


def test_pairs_are_measured_from_their_data_set_with_their_order(dataset: Path, tmp_path: Path) -> None:
    paired = write_pairs(tmp_path / "paired", dataset, task="nsp")
    order = {"sentence_order": "nsp"}
    out = pretrain(tmp_path / "run", paired, model="bert-tiny", objective="mlm", objective_config=order, train={"length": "2 steps"})
    found = measure(out.path, [str(paired)], CPU.model_copy(update={"objective_config": order}))
    assert flat(dict(found.sources), dict(found.together)) == recorded(out, 2)
    plain = measure(out.path, [str(dataset)], CPU)  # which has no pairs
    assert "mlm_loss" in plain.together
    assert "nsp_loss" not in plain.together


def test_halves_alone_and_outside_folders(pair: Out, text: Path, tmp_path: Path) -> None:
    place = newest(pair.path)
    for name, part in read_parts(place).items():
        write_huggingface(part, tmp_path / "pair" / name)
        shutil.copytree(place / "tokenizer", tmp_path / "pair" / name, dirs_exist_ok=True)
    whole, same = measure(pair.path, [str(text)], CPU), measure(tmp_path / "pair", [str(text)], CPU)
    assert whole.together == same.together
    generator = measure(tmp_path / "pair" / "generator", [str(text)], CPU)
    assert generator.what == "mlm"
    given = CPU.model_copy(update={"objective": "mlm", "objective_config": {"replacement": [0.85, 0.0, 0.15]}})
    alone = measure(tmp_path / "pair", [str(text)], given).together
    assert alone["mlm_loss"] == pytest.approx(whole.together["mlm_loss"], rel=1e-6), "the same masks and the same generator"
    discriminator = measure(tmp_path / "pair" / "discriminator", [str(text)], CPU)
    assert discriminator.what == "rtd"
    assert discriminator.settings["objective_config"]["uniform_generator"]  # type: ignore[index]
    assert discriminator.together["replaced_share_of_masked"] > 0.9
    assert "mlm_loss" not in discriminator.together


def test_settings_decide_what_is_measured(pair: Out, text: Path) -> None:
    whole = measure(pair.path, [str(text)], CPU)
    assert whole.counts["news"]["rows"] == whole.counts["news"]["rows measured"]
    assert measure(pair.path, [str(text)], CPU).sources == whole.sources
    few = measure(pair.path, [str(text)], CPU.model_copy(update={"rows": 4}))
    assert few.counts["news"]["rows measured"] == 4
    assert few.sources != whole.sources
    short = measure(pair.path, [str(text)], CPU.model_copy(update={"documents": 3}))
    assert short.counts["news"]["rows"] < whole.counts["news"]["rows"]
    more = measure(pair.path, [str(text)], CPU.model_copy(update={"objective_config": {"rate": 0.4}}))
    assert more.settings["objective_config"]["rate"] == 0.4  # type: ignore[index]
    assert more.together["replaced_share"] > 1.5 * whole.together["replaced_share"]
    exact = measure(pair.path, [str(text)], CPU.model_copy(update={"precision": "fp64"}))
    assert exact.together["rtd_loss"] == pytest.approx(whole.together["rtd_loss"], rel=1e-4)


def test_texts_of_every_kind_stand_side_by_side(pair: Out, text: Path, tmp_path: Path) -> None:
    documents = TEXT.split("\n\n")
    (tmp_path / "table.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in documents), encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for number in (0, 1):
        (tmp_path / "folder" / f"{number}.txt").write_text("\n\n".join(documents[number::2]), encoding="utf-8")
    names = [str(text), str(tmp_path / "table.jsonl"), str(tmp_path / "folder"), "sample:general"]
    found = measure(pair.path, names, CPU)
    assert list(found.sources) == ["news", "table", "folder", "general"]
    assert found.sources["news"] == found.sources["table"]
    assert found.sources["folder"]["mlm_loss"] == pytest.approx(found.sources["news"]["mlm_loss"], abs=0.5)
    labels = [row[0] for row in found.table().rows]
    assert labels[:2] == ["rows measured", "rows"]
    assert len(found.table().columns) == 6
    counts = {name: found.counts[name]["rows measured"] for name in found.sources}
    assert sum(counts.values()) > counts["general"] > 0


def test_the_pseudo_log_likelihood_is_that_of_the_scorer(dataset: Path, tmp_path: Path) -> None:
    out = pretrain(tmp_path / "run", dataset, objective="electric", train={"length": "2 steps"})
    whole = [" ".join(f"w{(first * i) % 60}" for i in range(1, 31)) for first in range(7)]  # as long as a row: none is cut
    place = newest(out.path)
    scorer = Predictor(Scorer.of(read_parts(place), Tokenizer.load(place / "tokenizer")))
    (tmp_path / "whole.txt").write_text("\n\n".join(whole), encoding="utf-8")
    found = measure(out.path, [str(tmp_path / "whole.txt")], CPU)
    expected = list(scorer.predict(whole))
    mean = sum(score.log_likelihood for score in expected) / sum(score.tokens for score in expected)
    assert found.together["log_likelihood_per_token"] == pytest.approx(mean, rel=1e-5)


def test_a_regrown_generator_by_itself(pair: Out, dataset: Path, text: Path, tmp_path: Path) -> None:
    part = read_parts(newest(pair.path))["discriminator"]
    write_huggingface(part, tmp_path / "start")
    shutil.copytree(newest(pair.path) / "tokenizer", tmp_path / "start", dirs_exist_ok=True)
    regrow = {"length": "2 steps"}
    out = pretrain(tmp_path / "run", dataset, start=tmp_path / "start", model=None, regrow=regrow, train={"length": "2 steps"})
    found = measure(out.path / "regrow", [str(text)], CPU)
    assert found.what == "mlm"
    assert 0 < found.together["mlm_loss"] < 2 * math.log(len(TOKENS))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, pair: Out, text: Path) -> dict[str, Path]:
    """Folders and texts that cannot be measured, and two that can."""
    folder = tmp_path_factory.mktemp("broken")
    place = newest(pair.path)
    parts = read_parts(place)
    bare = {name: tensor for name, tensor in parts["discriminator"].state.items() if name.startswith("encoder.")}
    write_model("encoder", Part(head="none", config=parts["discriminator"].config, state=bare), folder / "bare")
    shutil.copytree(place / "tokenizer", folder / "bare", dirs_exist_ok=True)
    write_huggingface(parts["generator"], folder / "mute")
    start = read_start(place)
    task = TaskConfig(name="t", train=("-",), test=("-",))
    data = TaskData(config=task, train=(), validation=(), test=(), labels=("art", "law"), leaked=0)
    save(build(start, data, TrialConfig(), seed=1), Use(labels=data.labels, max_length=20), folder / "classifier")
    other = Tokenizer(dataclasses.replace(start.tokenizer.definition, tokens=(*TOKENS[:-1], "other")))
    write_dataset(folder / "dataset", documents=20, tokens=tuple(other.tokens))
    (folder / "empty.txt").write_text(" \n\n \n", encoding="utf-8")
    (folder / "odd.csv").write_text("text,label\nw1 w2,sea\n", encoding="utf-8")
    (folder / "bare.csv").write_text("words\nw1 w2\n", encoding="utf-8")
    (folder / "none.csv").write_text("text,label\nw1 w2,\n", encoding="utf-8")
    return {"run": pair.path, "text": text, **{item.name: item for item in folder.iterdir()}}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("nowhere", "text"), "nowhere does not exist: give the folder of a run, a checkpoint"),
        (("run", "nowhere.txt"), "nowhere.txt does not exist: give a file, a folder or an archive of text"),
        (("run",), "no text is named to measure it on"),
        (("run", "empty.txt"), 'no document found as format = "text"'),
        (("run", "text", "text"), "is given twice"),
        (("run", "text", "dataset"), "give it alone"),
        (("run", "dataset"), "another vocabulary"),
        (("run", "bare.csv"), 'there is no column "text": the columns are words'),
        (("run", "task:sample-topics/dev"), 'write "task:NAME/test"'),
        (("run", "task:sample-topic/test"), 'did you mean "sample-topics"?'),
        (("run", "text", "--set", "max_length=64"), "max_length = 64, but the model has 32 positions"),
        (("run", "text", "--set", 'output="scores.txt"'), "name it .json or .csv"),
        (("run", "text", "--set", "row=3"), 'did you mean "rows"?'),
        (("run", "text", "--set", "objective_config.rat=0.2"), 'did you mean "rate"?'),
        (("bare", "text"), "nothing can be measured of ELECTRA"),
        (("mute", "text"), "tokenizer"),
        (("classifier", "text"), "plain text has no labels"),
        (("classifier", "odd.csv"), 'the label "sea" is not one of `labels`'),
        (("classifier", "bare.csv"), 'there is no column "text"'),
        (("classifier", "none.csv"), "the label is empty"),
        (("recipe:quickstart", "text"), "is a recipe, and texts are measured with a model"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...], expected: str, known: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = kitae("evaluate", *(str(known.get(argument, argument)) for argument in arguments), "--set", 'device="cpu"')
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 2


def test_weights_are_left_as_they_are(pair: Out, text: Path) -> None:
    place = newest(pair.path)
    before = {name: (place / name).read_bytes() for name in ("weights.safetensors", "model.json")}
    measure(pair.path, [str(text)], CPU)
    assert {name: (place / name).read_bytes() for name in before} == before
    assert torch.is_grad_enabled()
