"""Wall-clock budgets, with a clock that the test drives, and one real short run."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from test_train_parallel import start
from toy_training import Toy, ToyBatches, config

from kitae.core.artifact import checkpoints
from kitae.core.errors import KitaeError, Stopped
from kitae.tensor.batch import Batch
from kitae.tensor.world import World
from kitae.train import checkpoint
from kitae.train.checkpoint import Content
from kitae.train.clock import RECORD, Clock
from kitae.train.config import TrainConfig
from kitae.train.loop import Fitted, fit
from kitae.train.monitor import read_metrics
from kitae.train.schedule import rate, timetable

LIMIT, SAVE, EVALUATE = 30.0, 1.5, 0.75


class Hand:
    """A clock that stands still until somebody moves it."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class Watched(Toy):
    """Remembers how far its batches said that the training was."""

    def prepare(self, batch: Batch, seed: int) -> Batch:
        self.__dict__.setdefault("seen", {})[batch.step] = batch.progress
        return super().prepare(batch, seed)


class Timed(ToyBatches):
    """Every step moves the hand; `before(step)` may do more."""

    def __init__(self, hand: Hand, seconds: Callable[[int], float], before: Callable[[int], None] = lambda step: None) -> None:
        super().__init__()
        self.hand, self.seconds, self.before = hand, seconds, before

    def micro(self, step: int, micro: int) -> Batch:
        if micro == 1:  # number 0 of the first step is prepared once more, to look at
            self.before(step)
            self.hand.time += self.seconds(step)
        return super().micro(step, micro)


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    hand, real = Hand(), checkpoint.save

    def save(*given: object) -> Path:
        hand.time += SAVE
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("kitae.train.clock.monotonic", hand)
    monkeypatch.setattr(checkpoint, "save", save)
    return hand


def settings(**fields: object) -> TrainConfig:
    given = {"length": "30s", "warmup": "6s", "schedule": "cosine", "save_every": "0.25 of length", "evaluate_every": "9s", "keep_last": 9}
    return config(**(given | {"save_async": False} | fields))


def run(folder: Path, hand: Hand, batches: Timed, given: TrainConfig, toy: Toy | None = None) -> Fitted:
    def evaluate(step: int) -> dict[str, float]:
        hand.time += EVALUATE
        return {"mlm_loss": 1.0}

    return fit(toy or Toy(), batches, given, folder, world=World(), seed=1, attach={}, evaluate=evaluate)


def rates(folder: Path) -> list[float]:
    return [float(str(record["learning_rate"])) for record in read_metrics(folder) if record["kind"] == "train"]


def record(folder: Path) -> list[dict[str, float]]:
    return [line for line in map(json.loads, (folder / RECORD).read_text().splitlines()) if "step" in line]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoints(folder)[-1] / "weights.safetensors")


def same(one: Path, two: Path) -> bool:
    first, second = weights(one), weights(two)
    return checkpoints(one)[-1].name == checkpoints(two)[-1].name and all(torch.equal(first[name], second[name]) for name in first)


SPEEDS: dict[str, Callable[[int], float]] = {
    "even": lambda step: 0.5,
    "slow": lambda step: 3.0,
    "fast": lambda step: 0.0625,
    "uneven": lambda step: 0.25 + 0.5 * (step * 7 % 5) / 5,
    "slower and slower": lambda step: 0.125 * 1.03**step,
}


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_budget_is_spent_and_not_passed_by_more_than_a_step(tmp_path: Path, hand: Hand, speed: str) -> None:
    begun, longest = hand.time, 0.0

    def seconds(step: int) -> float:
        nonlocal longest
        longest = max(longest, SPEEDS[speed](step))
        return SPEEDS[speed](step)

    fitted = run(tmp_path, hand, Timed(hand, seconds), settings())
    spent = hand.time - begun
    assert LIMIT - 2 * (longest + SAVE + EVALUATE) <= spent <= LIMIT + longest
    assert fitted.checkpoint == checkpoints(tmp_path)[-1]
    assert fitted.checkpoint.is_dir()
    assert [line["step"] for line in record(tmp_path)] == list(range(fitted.steps))
    assert max(line["step"] for line in read_metrics(tmp_path) if line["kind"] == "evaluate") == fitted.steps


@pytest.mark.parametrize("save", [0.5, 4.0])
def test_a_save_in_the_background_is_part_of_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: float) -> None:
    """Steps go on meanwhile, or come to their end while one is under way; the last one waits for it, within the limit."""
    hand, real, during = Hand(), checkpoint.save, []

    def slow(folder: Path, content: Content, attach: Mapping[str, Path]) -> Path:
        begun = seen = hand.time
        moved = time.monotonic()
        while hand.time < begun + save:
            time.sleep(0.001)
            if hand.time != seen:
                seen, moved = hand.time, time.monotonic()
            elif time.monotonic() > moved + 0.1:  # the training waits: its steps do not move the hand
                hand.time = begun + save
        during.append(hand.time - begun)
        return real(folder, content, attach)

    monkeypatch.setattr("kitae.train.clock.monotonic", hand)
    monkeypatch.setattr(checkpoint, "save", slow)
    begun = hand.time
    batches = Timed(hand, lambda step: 0.5, before=lambda step: time.sleep(0.005))
    fitted = run(tmp_path, hand, batches, settings(save_async=True, save_every="5s"))
    assert LIMIT / 2 <= hand.time - begun <= LIMIT + 0.5
    assert fitted.checkpoint == checkpoints(tmp_path)[-1]
    assert len(during) > 3


def test_the_rate_is_one_function_of_the_fraction_whatever_the_speed(tmp_path: Path, hand: Hand) -> None:
    given = settings()
    for name, seconds in SPEEDS.items():
        run(tmp_path / name, hand, Timed(hand, seconds), given)
        fractions = [line["middle"] / LIMIT for line in record(tmp_path / name)]
        assert rates(tmp_path / name) == [rate(given, fraction, 0.2) for fraction in fractions]
        assert fractions == sorted(fractions)
        assert fractions[0] == 0
        assert fractions[-1] > 0.75
    assert len({len(rates(tmp_path / name)) for name in SPEEDS}) == len(SPEEDS)


def test_the_fraction_is_that_of_the_middle_of_a_step(tmp_path: Path, hand: Hand) -> None:
    run(tmp_path, hand, Timed(hand, SPEEDS["even"]), settings(save_every=None, evaluate_every=None))
    assert [line["middle"] for line in record(tmp_path)[:6]] == [0, 0.75, 1.25, 1.75, 2.25, 2.75]


def test_what_data_see_follows_the_time_too(tmp_path: Path, hand: Hand) -> None:
    toy = Watched()
    run(tmp_path, hand, Timed(hand, SPEEDS["uneven"]), settings(), toy)
    fractions = [line["middle"] / LIMIT for line in record(tmp_path)]
    assert toy.seen == {step: fractions[max(0, step - 3)] for step in range(len(fractions))}


def test_a_run_that_is_made_again_takes_its_times_from_the_record(tmp_path: Path, hand: Hand) -> None:
    run(tmp_path / "one", hand, Timed(hand, SPEEDS["uneven"]), settings())
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for late in checkpoints(tmp_path / "two")[1:]:
        shutil.rmtree(late)
    run(tmp_path / "two", hand, Timed(hand, lambda step: 2.0), settings())
    assert same(tmp_path / "one", tmp_path / "two")
    assert rates(tmp_path / "one") == rates(tmp_path / "two")
    assert [path.name for path in checkpoints(tmp_path / "one")] == [path.name for path in checkpoints(tmp_path / "two")]
    assert (tmp_path / "one" / RECORD).read_text() == (tmp_path / "two" / RECORD).read_text()


@pytest.mark.parametrize("at", [3, 14, 29])
def test_a_run_that_dies_goes_on_bit_equal(tmp_path: Path, hand: Hand, at: int) -> None:
    run(tmp_path / "one", hand, Timed(hand, SPEEDS["even"]), settings())

    def die(step: int) -> None:
        if step == at:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "two", hand, Timed(hand, SPEEDS["even"], die), settings())
    run(tmp_path / "two", hand, Timed(hand, SPEEDS["even"]), settings())
    assert same(tmp_path / "one", tmp_path / "two")
    assert rates(tmp_path / "one") == rates(tmp_path / "two")


def test_time_is_counted_over_all_pieces(tmp_path: Path, hand: Hand) -> None:
    begun = hand.time
    for stop in (5, 9, 10, 31):
        with pytest.raises(Stopped):
            run(
                tmp_path,
                hand,
                Timed(hand, SPEEDS["even"], lambda step, at=stop: os.kill(os.getpid(), signal.SIGTERM) if step == at else None),
                settings(),
            )
    run(tmp_path, hand, Timed(hand, SPEEDS["even"]), settings())
    assert LIMIT - 2 * (0.5 + SAVE + EVALUATE) <= hand.time - begun <= LIMIT + 0.5
    steps = checkpoints(tmp_path)[-1].name
    run(tmp_path, hand, Timed(hand, SPEEDS["even"]), settings())
    assert checkpoints(tmp_path)[-1].name == steps, "a spent budget is spent"


def test_events_and_milestones_in_time(tmp_path: Path, hand: Hand) -> None:
    run(tmp_path, hand, Timed(hand, SPEEDS["even"]), settings(keep_last=1, milestones=["10s", "0.75 of length"], evaluate_every=None))
    ends = {line["step"] + 1: line["end"] for line in record(tmp_path)}
    kept = [int(path.name.removeprefix("step-")) for path in checkpoints(tmp_path)]
    assert kept == [min(step for step, end in ends.items() if end >= moment) for moment in (10, 22.5)] + [max(ends)]
    measured = [int(str(line["step"])) for line in read_metrics(tmp_path) if line["kind"] == "evaluate"]
    assert measured == [min(step for step, end in ends.items() if end >= 15), max(ends)], "halfway, so that its time is known"


def test_intervals_in_time_of_a_length_in_steps(tmp_path: Path, hand: Hand) -> None:
    run(
        tmp_path,
        hand,
        Timed(hand, SPEEDS["even"]),
        config(length="20 steps", save_every="4s", evaluate_every=None, keep_last=9, save_async=False),
    )
    found = [int(path.name.removeprefix("step-")) for path in checkpoints(tmp_path)]
    assert found == [8, 13, 18, 20], "4.0 s, then 1.5 s of the checkpoint and 5 steps make 8.0 s, ..."
    assert not (tmp_path / RECORD).exists()


def test_a_record_without_its_last_line_and_one_of_other_settings(tmp_path: Path, hand: Hand) -> None:
    run(tmp_path / "run", hand, Timed(hand, SPEEDS["even"]), settings())
    path = tmp_path / "run" / RECORD
    whole = path.read_text()
    clock = Clock(World(), tmp_path / "run", limit=LIMIT)
    clock.resume(0, seconds=0, identity="another")
    assert (clock.moment(0), path.read_text()) == (0, '{"identity": "another"}\n')
    path.write_text(whole[:-9])
    clock.resume(0, seconds=0, identity=json.loads(whole.splitlines()[0])["identity"])
    assert path.read_text() == whole[: whole[:-9].rindex("\n") + 1]
    path.write_text(whole.replace('"end"', '"and"'))
    with pytest.raises(KitaeError, match=r"clock.jsonl is damaged"):
        clock.resume(0, seconds=0, identity=json.loads(whole.splitlines()[0])["identity"])


def test_a_lost_record_counts_what_the_checkpoint_says(tmp_path: Path) -> None:
    clock = Clock(World(), tmp_path, limit=LIMIT)
    clock.resume(4, seconds=12.5, identity="x")
    clock.begin(4)
    assert (clock.moment(4), clock.fraction(3)) == (12.5, 12.5 / LIMIT)
    assert clock.fraction(4) >= 12.5 / LIMIT
    clock.close()


def test_a_real_run_of_a_second(tmp_path: Path) -> None:
    given = config(length="1s", warmup="0.2s", save_every="0.5 of length")
    fitted = fit(Toy(), ToyBatches(), given, tmp_path, world=World(), seed=1, attach={})
    fractions = [line["middle"] / 1.0 for line in record(tmp_path)]
    assert len(fractions) == fitted.steps > 1
    assert rates(tmp_path) == [rate(given, fraction, 0.2) for fraction in fractions]
    assert fitted.checkpoint.is_dir()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warmup": "100 steps"}, "of a wall-clock length"),
        ({"schedule": "warmup-stable-decay", "schedule_config": {"decay": "9 rows"}}, "schedule_config.decay"),
        ({"until_flat": {}}, "until_flat.every"),
        ({"length": "20 steps"}, "is a time, but length"),
        ({"length": "20 steps", "warmup": "2 steps", "milestones": ["4s"]}, "milestones in wall-clock time"),
        ({"length": "0s"}, "is no length"),
    ],
)
def test_what_a_budget_cannot_be_combined_with(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**fields)


def test_a_decay_in_time(tmp_path: Path) -> None:
    given = settings(schedule="warmup-stable-decay", schedule_config={"decay": "20s"})
    times = timetable(given, ToyBatches(), Clock(World(), tmp_path, limit=given.budget))
    assert (times.warmup, times.decay, times.whole) == (6, 20, 30)
    with pytest.raises(KitaeError, match="longer than the training"):
        longer = settings(schedule="warmup-stable-decay", schedule_config={"decay": "25s"})
        timetable(longer, ToyBatches(), Clock(World(), tmp_path, limit=30.0))


def test_two_processes_follow_the_first_ones_clock(tmp_path: Path) -> None:
    options = {"samples": str(tmp_path / "samples-"), "config": {"length": "1s", "warmup": "0.2s", "save_every": "0.5 of length"}}
    process = start(str(tmp_path / "run"), json.dumps(options))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    steps = len(record(tmp_path / "run"))
    made = [{int(line.split()[0]) for line in (tmp_path / f"samples-{rank}").read_text().splitlines()} for rank in (0, 1)]
    assert made[0] == made[1] == set(range(steps))
    given = config(**options["config"])
    assert rates(tmp_path / "run") == [rate(given, line["middle"], 0.2) for line in record(tmp_path / "run")]
