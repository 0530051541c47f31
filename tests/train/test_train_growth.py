"""Batches that grow: every row once and in order, durations counted right, seeking, resuming."""

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given as always
from hypothesis import strategies
from pydantic import ValidationError
from safetensors.torch import load_file
from toy_training import Toy, ToyBatches, config

from kitae.core.artifact import checkpoints
from kitae.core.duration import BatchSize, Duration
from kitae.core.errors import KitaeError
from kitae.tensor.batch import Batch
from kitae.tensor.world import World
from kitae.train.config import TrainConfig, step_rows
from kitae.train.feed import Feed
from kitae.train.growth import BatchWarmup, Growth, growth
from kitae.train.loop import fit
from kitae.train.monitor import read_metrics
from kitae.train.schedule import rate_of_step, timetable

GROWING = {"start": "4 rows", "over": "6 steps"}
"""With batches of 16 rows in micro-batches of 4: 1 1 2 2 3 3 4 4 4 ... of them."""


class Kept(Toy):
    """Remembers the rows of every step."""

    def prepare(self, batch: Batch, seed: int) -> Batch:
        self.__dict__.setdefault("rows", {}).setdefault(batch.step, []).extend(batch.rows.tolist())
        return super().prepare(batch, seed)


def settings(**fields: object) -> TrainConfig:
    return config(**({"batch": "16 rows", "batch_warmup": GROWING, "precision": "fp64"} | fields))


@always(strategies.integers(1, 40), strategies.integers(0, 60), strategies.integers(1, 200))
def test_growth_is_a_function_of_the_step(start: int, more: int, steps: int) -> None:
    made = Growth(start=start, full=start + more, steps=steps)
    sizes = [made.at(step) for step in range(steps + 5)]
    assert (sizes[0], sizes[steps]) == (start, start + more)
    assert sizes == sorted(sizes)
    assert [made.before(step) for step in range(steps + 6)] == list(itertools.accumulate(sizes, initial=0))
    assert all(made.steps_of(made.before(step)) == step for step in range(steps + 5))
    assert made.done(made.steps_of(start * 2.5)) == pytest.approx(start * 2.5)


def test_every_row_comes_once_and_in_order(tmp_path: Path) -> None:
    toy = Kept()
    fit(toy, ToyBatches(16, 4), settings(length="10 steps"), tmp_path, world=World(), seed=1, attach={})
    toy.rows[0] = toy.rows[0][4:]  # the first micro-batch was looked at before the training
    assert [len(rows) for rows in toy.rows.values()] == [4, 4, 8, 8, 12, 12, 16, 16, 16, 16]
    assert [row for rows in toy.rows.values() for row in rows] == list(range(112))


def test_any_step_is_found_at_once() -> None:
    times = timetable(settings(length="10 steps"), ToyBatches(16, 4))
    feed = Feed(ToyBatches(16, 4), Toy(), seed=1, world=World(), times=times)
    assert [batch.rows.tolist() for batch in feed.take(5)] == [[36, 37, 38, 39], [40, 41, 42, 43], [44, 45, 46, 47]]
    assert [(batch.step, batch.micro) for batch in feed.take(5)] == [(5, 0), (5, 1), (5, 2)]
    assert feed.take(9)[0].rows[0] == 48 + 3 * 16
    two = [Feed(ToyBatches(16, 4), Toy(), seed=1, world=World(rank=rank, size=2), times=times).take(4) for rank in (0, 1)]
    assert [[batch.micro for batch in share] for share in two] == [[0, 2], [1]]


@pytest.mark.parametrize(
    ("length", "steps"),
    [("10 steps", 10), ("112 rows", 10), ("1344 tokens", 10), ("2.8 epochs", 10), ("113 rows", 11), ("24 rows", 4), ("17 rows", 4)],
)
def test_lengths_count_what_is_seen(length: str, steps: int) -> None:
    assert timetable(settings(length=length), ToyBatches(16, 4)).total == steps


@pytest.mark.parametrize("over", ["6 steps", "60 rows", "720 tokens", "1.5 epochs", "0.5 of length"])
def test_growth_over_any_unit(over: str) -> None:
    warmup = BatchWarmup(start=BatchSize.parse("4 rows"), over=Duration.parse(over))
    assert growth(warmup, ToyBatches(16, 4), Duration(12, "steps")).steps == 6
    if over == "0.5 of length":
        assert growth(warmup, ToyBatches(16, 4), Duration(120, "rows")).steps == 6


def test_rates_follow_the_unit_of_the_length() -> None:
    batches = ToyBatches(16, 4)
    by_steps = settings(length="10 steps", warmup="2 steps", learning_rate=1.0)
    assert [rate_of_step(by_steps, timetable(by_steps, batches), step) for step in range(10)] == pytest.approx(
        [min((step + 0.5) / 2, (10 - step - 0.5) / 8) for step in range(10)]
    )
    sizes = [4, 4, 8, 8, 12, 12, 16, 16, 16, 16]
    middles = [before + size / 2 for before, size in zip(itertools.accumulate(sizes, initial=0), sizes, strict=False)]
    for warmup in ("24 rows", "288 tokens", "4 steps", "0.6 epochs", f"{24 / 112!r} of length"):
        by_rows = settings(length="112 rows", warmup=warmup, learning_rate=1.0)
        assert [rate_of_step(by_rows, timetable(by_rows, batches), step) for step in range(10)] == pytest.approx(
            [min(row / 24, (112 - row) / 88) for row in middles]
        )


def test_intervals_and_milestones_count_what_is_seen() -> None:
    times = timetable(settings(length="112 rows", save_every="24 rows", milestones=["0.5 of length", "3 steps"]), ToyBatches(16, 4))
    assert [step for step in range(1, 11) if times.due(times.save, step)] == [4, 6, 8, 9, 10], "24, 48, 80, 96 and 112 rows"
    assert times.permanent() == {3, 6}, "56 rows are nearest to the 48 after six steps"


def test_a_resumed_training_is_bit_equal(tmp_path: Path) -> None:
    given = settings(length="10 steps", keep_last=9, save_every="3 steps")
    for name in ("one", "two"):
        fit(Toy(), ToyBatches(16, 4), given, tmp_path / name, world=World(), seed=1, attach={})
    for late in checkpoints(tmp_path / "two")[1:]:
        late.rename(tmp_path / late.name)
    fit(Toy(), ToyBatches(16, 4), given, tmp_path / "two", world=World(), seed=1, attach={})
    one, two = (load_file(checkpoints(tmp_path / name)[-1] / "weights.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    losses = [[record["loss"] for record in read_metrics(tmp_path / name) if record["kind"] == "train"] for name in ("one", "two")]
    assert losses[0] == losses[1]


def test_a_start_that_is_no_whole_number_of_micro_batches_is_refused() -> None:
    for start in ("6 rows", "20 rows"):
        with pytest.raises(KitaeError, match="take a multiple of 4 rows up to 16"):
            timetable(settings(batch_warmup={"start": start, "over": "6 steps"}), ToyBatches(16, 4))
        with pytest.raises(KitaeError, match="take a multiple of 4 rows up to 16"):
            step_rows(settings(micro_batch="4 rows", batch_warmup={"start": start, "over": "6 steps"}), 128)
    assert step_rows(settings(micro_batch="4 rows", batch_warmup={"start": "512 tokens"}), 128) == (16, 4)
    for fields in ({"batch_warmup": {"start": "4 rows", "over": "5m"}}, {"length": "5m", "batch_warmup": {"start": "4 rows"}}):
        with pytest.raises(ValidationError, match="batch_warmup.over is a number of steps"):
            settings(**fields)
