"""Phases in the loop: rates, intervals and progress by formula; interrupted anywhere, the same bits; samples the same on two processes."""

import dataclasses
import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_training import Toy, ToyBatches, config

from kitae.core.artifact import checkpoints
from kitae.core.errors import KitaeError, Stopped
from kitae.tensor.world import World
from kitae.train.config import TrainConfig
from kitae.train.loop import Fitted, fit
from kitae.train.monitor import read_metrics
from kitae.train.phases import phased
from kitae.train.schedule import rate_of_step

SCRIPT = Path(__file__).with_name("toy_training.py")
SIZES = ((8, 2), (12, 2))
"""(rows of a step, rows of a micro-batch) of the two phases: 4 and 6 micro-batches a step."""
PHASES = [{"length": "8 steps"}, {"length": "12 steps", "learning_rate": 0.004, "warmup": "3 steps"}]


def settings(**fields: object) -> TrainConfig:
    return config(**{"length": None, "phases": PHASES, "deterministic": True} | fields)


def batches(number: int = 2) -> tuple[ToyBatches, ...]:
    return tuple(ToyBatches(rows, micro) for rows, micro in (SIZES * 2)[:number])


def train(folder: Path, toy: Toy | None = None, **fields: object) -> Fitted:
    given = settings(**fields)
    return fit(toy or Toy(), batches(len(given.phases)), given, folder, world=World(), seed=7, attach={})


def losses(folder: Path) -> list[tuple[object, ...]]:
    return [(r["step"], r["loss"], r["mlm_loss"], r["learning_rate"]) for r in read_metrics(folder) if r["kind"] == "train"]


def same_bits(one: Fitted, other: Fitted) -> bool:
    names = ("weights.safetensors", "optimizer.safetensors")
    return all((one.checkpoint / name).read_bytes() == (other.checkpoint / name).read_bytes() for name in names)


def test_the_rate_begins_anew_in_every_phase(tmp_path: Path) -> None:
    """Seed 004's two phases by their published numbers: the square root of what is left, cut by the warm-up, at two highest rates."""
    steps, rates, warmups = (7038, 1563), (6e-3, 4e-3), (0.2843, 0.128)
    phases = [
        {"length": f"{length} steps", "learning_rate": rate, "warmup": f"{warmup} of length"}
        for length, rate, warmup in zip(steps, rates, warmups)
    ]
    given = settings(phases=phases, schedule="polynomial", schedule_config={"power": 0.5, "warmup_form": "cut"})
    times = phased(given, batches())

    def expected(step: int) -> float:
        number = int(step >= steps[0])
        done = (step - number * steps[0] + 0.5) / steps[number]
        return rates[number] * (done / warmups[number] if done < warmups[number] else math.sqrt(1 - done))

    trace = [rate_of_step(given, times, step) for step in range(sum(steps))]
    assert trace == pytest.approx([expected(step) for step in range(sum(steps))], rel=1e-12)
    assert times.total == 8601
    assert trace[7037] < 1e-4 < trace[7038 + 250]


def test_intervals_milestones_and_progress_over_phases() -> None:
    times = phased(settings(save_every="24 rows", evaluate_every="5 steps", milestones=["64 rows", "88 rows", "0.5 of length"]), batches())
    saves = [step for step in range(1, 21) if times.due(times.save, step)]
    assert saves == [3, 6, 9, 11, 13, 15, 17, 19, 20]  # rows: 8, 16, 24, ... 64, then 76, 88, 100, ...
    assert [step for step in range(1, 21) if times.measures(step)] == [5, 10, 15, 20]
    assert times.permanent() == {8, 10}
    assert [times.progress(step) for step in (0, 8, 19)] == pytest.approx([0.5 / 20, 8.5 / 20, 19.5 / 20])
    assert [times.phase(step) for step in (0, 7, 8, 19)] == [0, 0, 1, 1]
    assert (times.total, times.expected(), times.over(19), times.over(20)) == (20, 20, False, True)
    assert times.work(8) / times.work(20) == 64 / (64 + 144)  # tokens, for the time that is left
    assert times.place(8) == "step 8 of 20 (phase 1 of 2)"


def test_shares_of_a_length_in_rows_are_shares_of_rows() -> None:
    """96 rows are 12 steps of 8, 144 rows 12 steps of 12: half of all rows is done after 14 steps, not after 12."""
    phases = [{"length": "0.4 of length"}, {"length": "0.6 of length"}]
    times = phased(settings(length="240 rows", phases=phases, save_every="0.1 of length", milestones=["0.5 of length"]), batches())
    assert times.total == 24
    assert times.permanent() == {14}
    assert times.progress(11) == pytest.approx(11.5 * 8 / 240)
    assert times.progress(12) == pytest.approx((96 + 6) / 240)
    assert [step for step in range(1, 25) if times.due(times.save, step)] == [3, 6, 9, 12, 14, 16, 18, 20, 22, 24]


def test_a_phase_of_its_own_settings_is_the_plain_training(tmp_path: Path) -> None:
    """One phase that says nothing but its length gives the bits of a training without phases."""
    whole = fit(Toy(), ToyBatches(8, 4), config(), tmp_path / "plain", world=World(), seed=7, attach={})
    one = fit(Toy(), (ToyBatches(8, 4),), config(phases=[{"length": "1 of length"}]), tmp_path / "one", world=World(), seed=7, attach={})
    assert same_bits(whole, one)
    assert losses(tmp_path / "plain") == losses(tmp_path / "one")


def test_a_phase_counts_its_rows_from_its_beginning_and_draws_by_the_steps_of_all(tmp_path: Path) -> None:
    train(tmp_path / "run", Toy(log=tmp_path / "samples"))
    lines = [line.split() for line in (tmp_path / "samples").read_text().splitlines()]
    assert [(int(step), int(micro)) for step, micro, _ in lines] == [
        (step, micro) for step in range(20) for micro in range(4 if step < 8 else 6)
    ]
    assert len({digest for *_, digest in lines}) == len(lines)
    own = ToyBatches(12, 2)
    seen = sum(own.micro(step, micro).num_tokens for step in range(12) for micro in range(6))
    before = sum(ToyBatches(8, 2).micro(step, micro).num_tokens for step in range(8) for micro in range(4))
    assert read_metrics(tmp_path / "run")[-1]["tokens"] == before + seen


class Cut(Toy):
    """Asks for a stop while the second micro-batch of a step is computed."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.stop_in = step

    def prepare(self, batch, seed):
        if batch.step == self.stop_in and batch.micro == 1:
            signal.raise_signal(signal.SIGTERM)
        return super().prepare(batch, seed)


@pytest.mark.parametrize("cuts", [(5,), (7,), (8,), (15,), (2, 7, 8, 12, 18)])
def test_interrupted_in_any_phase_it_goes_on_bit_equal(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    """Step 7 is the last of phase 1, step 8 the first of phase 2, which makes its updates from more micro-batches."""
    whole = train(tmp_path / "whole")
    for cut in cuts:
        with pytest.raises(Stopped):
            train(tmp_path / "cut", Cut(cut))
        assert checkpoints(tmp_path / "cut")[-1].name == f"step-{cut + 1:08d}"
    resumed = train(tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert same_bits(whole, resumed)


def test_the_averages_go_on_into_the_next_phase(tmp_path: Path) -> None:
    """The first update of phase 2 is AdamW's ninth, of the averages that phase 1 left: made by hand from its last checkpoint."""
    with pytest.raises(Stopped):
        train(tmp_path / "run", Cut(7), precision="fp64")
    with pytest.raises(Stopped):
        train(tmp_path / "run", Cut(8), precision="fp64")
    before, after = checkpoints(tmp_path / "run")[-2:]
    assert [path.name[-2:] for path in (before, after)] == ["08", "09"]
    old, new = (load_file(path / "optimizer.safetensors") for path in (before, after))
    weights = [load_file(path / "weights.safetensors") for path in (before, after)]
    name = "head.bias"
    first, second = (f"{kind}.{name}" for kind in sorted({key.partition(".")[0] for key in old}))
    assert old[first].abs().max() > 0
    gradient = (new[first] - 0.9 * old[first]) / 0.1
    torch.testing.assert_close(new[second], 0.999 * old[second] + 0.001 * gradient**2, rtol=1e-9, atol=0)
    rate = 0.004 * 0.5 / 3
    step = new[first] / (1 - 0.9**9) / ((new[second] / (1 - 0.999**9)).sqrt() + 1e-6)
    torch.testing.assert_close(weights[1][name], weights[0][name] - rate * step, rtol=1e-9, atol=1e-12)


class Steeper(Cut):
    """From step 8 on its loss is ten times as large, as it may be with rows of another length."""

    def forward(self, batch):
        found = super().forward(batch)
        terms = tuple(dataclasses.replace(term, sum=term.sum * (10 if batch.step >= 8 else 1)) for term in found.terms)
        return dataclasses.replace(found, terms=terms)


def test_another_loss_in_another_phase_is_no_spike(tmp_path: Path) -> None:
    """What stands out is asked of the phase's own steps; interrupted around the border, all is decided alike."""
    spikes = {"spikes": {"window": 6, "sigma": 20.0}}
    plain = config(length="20 steps", deterministic=True, **spikes)
    fit(Steeper(-1), ToyBatches(8, 2), plain, tmp_path / "plain", world=World(), seed=7, attach={})
    assert [record["step"] for record in read_metrics(tmp_path / "plain") if record["kind"] == "skipped"][:1] == [9]
    whole = train(tmp_path / "whole", Steeper(-1), **spikes)
    assert not [record for record in read_metrics(tmp_path / "whole") if record["kind"] == "skipped"]
    for cut in (7, 8, 11):
        with pytest.raises(Stopped):
            train(tmp_path / "cut", Steeper(cut), **spikes)
    resumed = train(tmp_path / "cut", Steeper(-1), **spikes)
    assert same_bits(whole, resumed)
    assert (
        json.loads((whole.checkpoint / "state.json").read_text())["policy"]
        == json.loads((resumed.checkpoint / "state.json").read_text())["policy"]
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ([{"length": "8 steps"}, {"length": "12 steps", "learning_rate": 0.002, "warmup": "3 steps"}], "phases\\[1\\].learning_rate"),
        ([{"length": "8 steps"}, {"length": "13 steps", "learning_rate": 0.004, "warmup": "3 steps"}], "length"),
        ([*PHASES, {"length": "2 steps"}], "length"),
        ([{"length": "8 steps"}, {"length": "12 steps", "learning_rate": 0.004, "warmup": "3 steps", "sources": ["a"]}], "sources"),
    ],
)
def test_a_changed_phase_is_named(tmp_path: Path, changed: list[dict], message: str) -> None:
    with pytest.raises(Stopped):
        train(tmp_path / "run", Cut(5))
    with pytest.raises(KitaeError, match=f"other settings: train.*{message}"):
        train(tmp_path / "run", phases=changed)


def test_two_processes_learn_the_same_phases(tmp_path: Path) -> None:
    """Micro-batches dealt 3 to 1 in phase 1, and so 4 to 2 in phase 2: samples bit-equal, losses to 1e-8, also when one process goes on
    from the middle of phase 2."""
    fields = {"phases": PHASES, "length": None, "precision": "fp64", "deterministic": True, "save_every": "4 steps", "keep_last": 9}
    train(tmp_path / "one", Toy(log=tmp_path / "one.log"), precision="fp64")
    options = {"sizes": SIZES, "samples": str(tmp_path / "two.log"), "config": fields | {"shares": [6, 2]}}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    done = subprocess.run([*command, str(tmp_path / "two"), json.dumps(options)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    each = [(tmp_path / f"two.log{rank}").read_text().splitlines() for rank in range(2)]
    assert [len(lines) for lines in each] == [8 * 3 + 12 * 4, 8 * 1 + 12 * 2]
    two = sorted(line for lines in each for line in lines)
    assert two == sorted((tmp_path / "one.log").read_text().splitlines())
    shutil.copytree(tmp_path / "two", tmp_path / "mixed")
    for later in ("step-00000016", "step-00000020"):
        shutil.rmtree(tmp_path / "mixed" / "checkpoints" / later)
    train(tmp_path / "mixed", Toy(log=tmp_path / "mixed.log"), precision="fp64", keep_last=9)
    assert sorted((tmp_path / "mixed.log").read_text().splitlines()) == sorted(line for line in two if int(line.split()[0]) >= 12)
    for run in ("two", "mixed"):
        for ours, theirs in zip(losses(tmp_path / run), losses(tmp_path / "one"), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-8)
