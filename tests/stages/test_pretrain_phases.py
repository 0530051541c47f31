"""Phases of a pre-training with real objectives: rows of another length from the same shards, resumed anywhere to the same bits."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_pretraining import config, losses, pretrain, write_dataset, write_pairs

from kitae.core.artifact import Inputs, Out, checkpoints, newest
from kitae.core.errors import KitaeError, Stopped
from kitae.data.plan import Plan
from kitae.data.sampler import Sampler
from kitae.data.shards import Shards
from kitae.models.cost import flops_per_token
from kitae.models.folder import read_parts
from kitae.models.presets import Architecture
from kitae.objectives import table
from kitae.procedures.heldout import HeldoutMeter
from kitae.procedures.phase_rows import FOLDER, deal, pack
from kitae.stages.pretrain import PretrainConfig, run
from kitae.tensor.world import World
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.monitor import read_metrics
from kitae.train.phases import phases_of

SCRIPT = Path(__file__).with_name("tiny_pretraining.py")
TWO = {  # rows of 32 as the dataset has them, then of 64: 2 micro-batches a step, then 3
    "length": None,
    "optimizer": "lamb",
    "save_every": "100 steps",
    "evaluate_every": "5 steps",
    "phases": [
        {"length": "5 steps"},
        {"length": "7 steps", "max_length": 64, "batch": "12 rows", "micro_batch": "4 rows", "learning_rate": 2e-3},
    ],
}


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same documents as `dataset`, packed in rows of 64."""
    return write_dataset(tmp_path_factory.mktemp("data") / "longer", max_length=64)


@pytest.fixture(scope="module")
def whole(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Out:
    return pretrain(tmp_path_factory.mktemp("runs") / "whole", dataset, train=TWO)


def same_bits(one: Path, other: Path) -> bool:
    names = ("weights.safetensors", "optimizer.safetensors")
    return all((newest(one) / name).read_bytes() == (newest(other) / name).read_bytes() for name in names)


def test_rows_of_a_phase_are_those_of_a_fresh_dataset(dataset: Path, longer: Path, tmp_path: Path) -> None:
    """Bit by bit, held-out text too, so that every token stands in one row: none is lost, none twice."""
    phases = phases_of(config(train=TWO).train, 32)
    plans = pack(phases, dataset, tmp_path, seed=1)
    assert plans[32] == dataset
    for split in ("train", "heldout/0", "heldout/1"):
        fresh = sorted(path.name for path in (longer / split / "plan").iterdir())
        assert fresh == sorted(path.name for path in (plans[64] / split / "plan").iterdir())
        assert all((longer / split / "plan" / name).read_bytes() == (plans[64] / split / "plan" / name).read_bytes() for name in fresh)
    plan, shards = Plan(plans[64] / "train/plan"), Shards(dataset / "train")
    covered = torch.cat([torch.arange(start, start + length) for start, length in zip(plan.starts, plan.lengths.astype(int))])
    assert torch.equal(covered.sort().values, torch.arange(shards.num_tokens))
    dealt = deal(phases, dataset, plans, seed=3)
    own = Sampler(longer, rows_per_step=12, rows_per_micro_batch=4, seed=3)
    for step, micro in ((0, 0), (1, 2), (17, 1)):
        ours, theirs = dealt[1].batches.micro(step, micro), own.micro(step, micro)
        assert torch.equal(ours.ids_BL, theirs.ids_BL)
        assert torch.equal(ours.rows, theirs.rows)


def test_phases_of_one_packing_take_their_rows_one_behind_the_other(dataset: Path) -> None:
    phases = [{"length": "3 steps"}, {"length": "2 steps", "batch": "24 rows"}, {"length": "3 steps"}]
    dealt = deal(phases_of(config(train={"length": None, "phases": phases}).train, 32), dataset, {32: dataset}, seed=3)
    seen: list[int] = []
    for one in dealt:
        numbers = [(step, part) for step in range(one.steps) for part in range(one.phase.rows // 8)]
        seen += [row for number in numbers for row in one.batches.micro(*number).rows.tolist()]
    plain = Sampler(dataset, rows_per_step=8, rows_per_micro_batch=8, seed=3)
    assert seen == [row for step in range(18) for row in plain.micro(step, 0).rows.tolist()]


def test_what_two_phases_leave(whole: Out, dataset: Path, longer: Path) -> None:
    parts = read_parts(newest(whole.path))
    assert {part.config.max_position_embeddings for part in parts.values()} == {64}
    first, second = whole.counts["phases"]  # type: ignore[misc]
    assert (first["max_length"], first["rows_per_step"], first["steps"]) == (32, 16, 5)
    assert (second["max_length"], second["rows_per_step"], second["steps"]) == (64, 12, 7)
    pair = Architecture(encoder=parts["discriminator"].config, generator=parts["generator"].config)
    for told, place in ((first, dataset), (second, longer)):
        assert told["flops_per_token"] == flops_per_token(pair, Plan(place / "train/plan").context, "rtd", 0.15)
    assert second["flops_per_token"] > first["flops_per_token"]
    assert first["tokens"] + second["tokens"] == pytest.approx(whole.counts["tokens"])
    flops = sum(told["tokens"] * told["flops_per_token"] for told in (first, second))
    assert whole.counts["flops"] == pytest.approx(flops)
    assert not (whole.path / FOLDER).exists(), "nobody needs the rows once the training is complete"
    trained = [record for record in read_metrics(whole.path) if record["kind"] == "train"]
    assert [record["step"] for record in trained] == list(range(1, 13))
    real = [now["tokens"] - before for now, before in zip(trained, [0, *(record["tokens"] for record in trained)])]
    assert max(real[:5]) <= 16 * 32 < min(real[5:]) <= 12 * 64


def test_heldout_text_is_measured_in_the_rows_of_the_phase(whole: Out, dataset: Path, longer: Path) -> None:
    """At the border those of the phase that ends; in the end those of a dataset of that length."""
    measured = {record["step"]: record["heldout/news/mlm_loss"] for record in read_metrics(whole.path) if record["kind"] == "evaluate"}
    tokenizer = Tokenizer.load(dataset / "tokenizer")
    at_end = table.load(read_parts(newest(whole.path)), config().learnt, tokenizer.special, tokenizer.vocab_size).eval()
    with torch.no_grad():
        fresh = HeldoutMeter(at_end, longer, world=World(), rows=1024)(12)
        other = HeldoutMeter(at_end, dataset, world=World(), rows=1024)(12)
    assert measured[12] == pytest.approx(fresh["heldout/news/mlm_loss"], rel=1e-6)
    assert measured[12] != pytest.approx(other["heldout/news/mlm_loss"], rel=1e-6)
    assert set(measured) == {5, 10, 12}


@pytest.mark.parametrize(("step", "micro"), [(4, 1), (5, 0), (9, 1)])
def test_interrupted_anywhere_it_goes_on_bit_equal(
    whole: Out, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, micro: int
) -> None:
    """In the last step of phase 1, so that the checkpoint lies at the border; in the first of phase 2; in the middle of a later one's
    accumulation."""
    made = Sampler.micro
    counted = {"steps": 0}

    def stopping(self: Sampler, number: int, part: int):
        if self.rows_per_step == (16 if step < 5 else 12) and (number, part) == ((step if step < 5 else step - 5), micro):
            counted["steps"] += 1
            signal.raise_signal(signal.SIGTERM)
        return made(self, number, part)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Sampler, "micro", stopping)
        pretrain(tmp_path / "cut", dataset, train=TWO)
    assert counted["steps"] == 1
    assert checkpoints(tmp_path / "cut")[-1].name == f"step-{step + 1:08d}"
    resumed = pretrain(tmp_path / "cut", dataset, train=TWO)
    assert losses(resumed.path) == losses(whole.path)
    assert resumed.counts["heldout"] == whole.counts["heldout"]
    assert same_bits(resumed.path, whole.path)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective_config": {"optimizers": "separate", "generator_learning_rate": 1e-3, "embedding_sharing": "disentangled"}},
        {"model": "bert-tiny", "objective": "mlm", "objective_config": {"sentence_order": "nsp"}},
    ],
    ids=["two optimizers", "next sentence"],
)
def test_killed_in_the_second_epoch_of_phase_2(changes: dict, dataset: Path, tmp_path: Path) -> None:
    """All checkpoints behind the first step of that epoch are lost."""
    data = write_pairs(tmp_path / "pairs", dataset, task="nsp") if changes.get("objective") == "mlm" else dataset
    phases = [
        {"length": "1 epoch", "batch": "24 rows"},
        {"length": "2 epochs", "max_length": 64, "batch": "8 rows", "micro_batch": "4 rows"},
    ]
    train = {"length": None, "phases": phases, "save_every": "1 step", "keep_last": 99}
    made = pretrain(tmp_path / "whole", data, train=train, **changes)
    first, second = (one["steps"] for one in made.counts["phases"])  # type: ignore[attr-defined]
    cut = first + second // 2 + 1
    assert cut < first + second, "in the second epoch, with steps left"
    shutil.copytree(made.path, tmp_path / "cut")
    for step in range(cut + 1, first + second + 1):
        shutil.rmtree(tmp_path / f"cut/checkpoints/step-{step:08d}")
    resumed = pretrain(tmp_path / "cut", data, train=train, **changes)
    assert losses(resumed.path) == losses(made.path)
    assert same_bits(resumed.path, made.path)


def test_two_processes_go_through_the_phases(dataset: Path, tmp_path: Path) -> None:
    """The first packs the rows, the other waits for them; three micro-batches of phase 2 on two ranks."""
    train = TWO | {"precision": "fp64"}
    one = pretrain(tmp_path / "one", dataset, train=train)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    arguments = [*command, tmp_path / "two", dataset, json.dumps({"train": train})]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(one.path), rel=1e-8)
    assert not (tmp_path / "two" / FOLDER).exists()


def test_a_phase_of_one_source(dataset: Path, tmp_path: Path) -> None:
    """The tiny dataset's text is all of its first source; the second one has none to train on."""
    phases = [{"length": "1 step"}, {"length": "1 step", "sources": ["news"]}]
    assert pretrain(tmp_path / "run", dataset, train={"length": None, "phases": phases}).counts["steps"] == 2
    for name, message in (
        ("newss", 'there is no source "newss": did you mean "news"'),
        ("books", 'source "books" has no text to train on'),
    ):
        phases[1]["sources"] = [name]
        with pytest.raises(KitaeError, match=message) as caught:
            pretrain(tmp_path / "other", dataset, train={"length": None, "phases": phases})
        assert caught.value.where == "train.phases.1"


def test_rows_of_another_dataset_are_packed_anew(dataset: Path, longer: Path, tmp_path: Path) -> None:
    phases = phases_of(config(train=TWO | {"phases": [{"length": "1 step", "max_length": 48}]}).train, 32)
    plans = pack(phases, dataset, tmp_path, seed=1)
    (kept,) = {path.stat().st_mtime_ns for path in (plans[48] / "train/plan").glob("plan.json")}
    assert pack(phases, dataset, tmp_path, seed=1) == plans
    assert {path.stat().st_mtime_ns for path in (plans[48] / "train/plan").glob("plan.json")} == {kept}, "made once"
    other = write_dataset(tmp_path / "other", documents=60)
    rows = Plan(plans[48] / "train/plan").num_rows
    assert Plan(pack(phases, other, tmp_path, seed=1)[48] / "train/plan").num_rows < rows


def test_a_start_needs_positions_for_the_longest_phase(whole: Out, dataset: Path, tmp_path: Path) -> None:
    phases = [{"length": "1 step"}, {"length": "1 step", "max_length": 128}]
    with pytest.raises(KitaeError, match="64 positions, the data set's rows have 128"):
        pretrain(tmp_path / "adapt", dataset, start=whole.path, train={"length": None, "phases": phases})
    phases[1]["max_length"] = 64
    adapted = pretrain(tmp_path / "fits", dataset, start=whole.path, train={"length": None, "phases": phases})
    assert adapted.counts["steps"] == 2


def test_a_training_without_phases_has_none_in_its_records(dataset: Path, tmp_path: Path) -> None:
    out = Out(path=tmp_path / "run")
    run(PretrainConfig.model_validate(config(train={"length": "2 steps"}).model_dump()), Inputs(parents={"dataset": dataset}, seed=1), out)
    assert "phases" not in out.counts
    assert "phases" not in json.loads((tmp_path / "run/identity.json").read_text())["train"]["config"]
