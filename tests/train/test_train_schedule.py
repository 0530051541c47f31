"""Settings, lengths and learning rates."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from toy_training import Toy, ToyBatches, config

from kitae.core.errors import KitaeError
from kitae.tensor.world import World
from kitae.train.config import step_rows
from kitae.train.loop import fit
from kitae.train.monitor import read_metrics
from kitae.train.schedule import rate, rate_of_step, timetable


def test_the_trace_of_learning_rates_equals_the_closed_formula(tmp_path: Path) -> None:
    settings = config(length="20 steps", warmup="5 steps", learning_rate=0.04)
    fit(Toy(), ToyBatches(), settings, tmp_path / "run", world=World(), seed=1, attach={})
    trace = [record["learning_rate"] for record in read_metrics(tmp_path / "run") if record["kind"] == "train"]
    expected = [0.04 * min((step + 0.5) / 5, (20 - step - 0.5) / 15) for step in range(20)]
    assert trace == pytest.approx(expected, rel=1e-12)


def test_rates_at_the_corners() -> None:
    settings = config(learning_rate=1.0)
    assert [rate(settings, f, 0.2) for f in (0, 0.1, 0.2, 0.6, 1.0)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert [rate(settings, f, 0.0) for f in (0, 0.5)] == [1, 0.5]
    assert rate(settings, 1.0, 1.0) == 1
    constant = config(learning_rate=1.0, schedule="constant")
    assert [rate(constant, f, 0.5) for f in (0.25, 0.5, 1.0)] == [0.5, 1, 1]


@pytest.mark.parametrize(
    ("length", "total"),
    [("7 steps", 7), ("80 rows", 10), ("81 rows", 11), ("960 tokens", 10), ("2 epochs", 10), ("0.3 epochs", 2)],
)
def test_lengths_in_every_unit(length: str, total: int) -> None:
    assert timetable(config(length=length), ToyBatches()).total == total


def test_intervals_and_milestones() -> None:
    times = timetable(
        config(length="100 steps", save_every="0.25 of length", milestones=["1 epoch", "0.5 of length"], warmup="96 rows"), ToyBatches()
    )
    assert (times.save, times.milestones, times.warmup) == (25, frozenset({5, 50}), 12)
    assert [step for step in range(1, 101) if times.due(times.save, step)] == [25, 50, 75, 100]
    assert rate_of_step(config(), times, 99) > 0
    assert [times.progress(step) for step in (0, 1, 99)] == [0.005, 0.015, 0.995]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("warmup", "30m", "is a time, but length"),
        ("length", "0.5 of length", "is no length"),
        ("length", "400", "unit"),
        ("save_every", "0 steps", "is no interval"),
        ("log_every", "0 of length", "is no interval"),
        ("milestones", ["2h"], "wall-clock"),
        ("batch", "2 epochs", "rows or tokens"),
        ("lenght", "4 steps", "Extra inputs"),
    ],
)
def test_settings_that_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**{field: value})


def test_the_batch_is_cut_into_whole_micro_batches() -> None:
    assert step_rows(config(batch="128 rows"), 128) == (128, 32)
    assert step_rows(config(batch="4096 tokens"), 128) == (32, 32)
    assert step_rows(config(batch="127 rows"), 128) == (127, 127)
    assert step_rows(config(batch="64 rows", micro_batch="1024 tokens"), 128) == (64, 8)
    with pytest.raises(KitaeError, match="take one of these: 4, 2, 8, 1, 16, 32 rows"):
        step_rows(config(batch="32 rows", micro_batch="5 rows"), 128)


def test_only_what_decides_the_result_is_semantic() -> None:
    semantic = config().semantic()
    assert {"length", "batch", "micro_batch", "precision"} <= set(semantic)
    assert not {"compile", "deterministic", "save_every", "keep_last", "milestones", "evaluate_every", "log_every"} & set(semantic)
