"""What the training loop itself costs: everything in a step but forward pass, backward pass and optimizer; and the waiting for data.

    python -m benchmarks.loop [--preset electra-mini] [--precision bf16] [--steps 40] [--rounds 5] [--batch 2048]

The setting is that of recipes/kyoto.toml: electra-mini, rows of 256, 2048 tokens a step, bf16, real packing, masks and metrics. By
turns in one process: `fit`, and the same passes and updates alone over micro-batches that were prepared before. `overhead` is the share
of a step of `fit` that is spent outside of forward, backward and optimizer, by a clock around these; `ratio` is what a step of `fit` takes
over a bare one.
"""

import argparse
import collections
import contextlib
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.made import SPECIAL, VOCAB, make_dataset
from benchmarks.paired import keep, ratio
from kitae.core.runtime import keep_memory
from kitae.data.sampler import Sampler
from kitae.models.presets import resolve_preset
from kitae.objectives.protocol import Objective
from kitae.objectives.rtd import RtdConfig
from kitae.objectives.table import build
from kitae.tensor.batch import Batch
from kitae.tensor.random import seed_dropout
from kitae.tensor.world import World
from kitae.train.config import TrainConfig, step_rows
from kitae.train.feed import Feed
from kitae.train.loop import fit
from kitae.train.optimizer import Optimizer

LENGTH = 256
WARM_UP = 4
Spent = collections.Counter[str]


def timed(spent: Spent, name: str, call: Callable) -> Callable:
    """The same, with a clock around it; what runs inside of another clock counts there only."""

    @functools.wraps(call)
    def wrapped(*arguments: object, **named: object) -> object:
        begun, before = time.perf_counter(), spent.total()
        result = call(*arguments, **named)
        spent[name] += time.perf_counter() - begun - (spent.total() - before)  # type: ignore[assignment]
        return result

    return wrapped


@contextlib.contextmanager
def clocks(objective: Objective, spent: Spent) -> Iterator[None]:
    """Clocks around the passes, the optimizer, and what prepares data."""
    watched = [(torch.Tensor, "backward", "backward"), (Feed, "take", "data"), (type(objective), "counts", "counts")]
    watched += [(Optimizer, name, "optimizer") for name in ("start_gradient", "gradient", "clip", "step")]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in watched]
    objective.forward = timed(spent, "forward", objective.forward)  # type: ignore[method-assign]
    for owner, name, part in watched:
        setattr(owner, name, timed(spent, part, getattr(owner, name)))
    try:
        yield
    finally:
        del objective.forward
        for owner, name, call in before:
            setattr(owner, name, call)


class Steps:
    """The real sampler, which remembers when each step asked for its first micro-batch, and what was spent by then."""

    def __init__(self, sampler: Sampler, spent: Spent) -> None:
        self._sampler, self._spent = sampler, spent
        self.rows_per_step, self.rows_per_epoch = sampler.rows_per_step, sampler.rows_per_epoch
        self.micro_batches_per_step, self.tokens_per_step = sampler.micro_batches_per_step, sampler.tokens_per_step
        self.begun: dict[int, float] = {}
        self.parts: dict[int, Spent] = {}

    def context(self, step: int) -> float:
        """The sampler's."""
        return self._sampler.context(step)

    def micro(self, step: int, micro: int) -> Batch:
        """The sampler's."""
        if step not in self.begun:
            self.begun[step], self.parts[step] = time.perf_counter(), self._spent.copy()
        return self._sampler.micro(step, micro)


def new(preset: str) -> Objective:
    """The objective with new weights; dropout is off, as in recipes/kyoto.toml."""
    overrides: dict[str, object] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return build(resolve_preset(preset, overrides, VOCAB, LENGTH), RtdConfig(), SPECIAL, VOCAB, 1)


def whole(preset: str, sampler: Sampler, config: TrainConfig) -> dict[str, float]:
    """Seconds a step of `fit`, and of its parts."""
    objective, spent = new(preset), Spent()
    batches = Steps(sampler, spent)
    with tempfile.TemporaryDirectory() as folder, clocks(objective, spent):
        fit(objective, batches, config, Path(folder), world=World(), seed=1, attach={})
    first, last = WARM_UP, max(batches.begun)
    steps = last - first
    found = {name: (batches.parts[last][name] - batches.parts[first][name]) / steps for name in batches.parts[last]}
    return found | {"step": (batches.begun[last] - batches.begun[first]) / steps}


def bare(preset: str, sampler: Sampler, config: TrainConfig) -> float:
    """Seconds a step of nothing but the passes and the updates."""
    objective, times = new(preset), []
    optimizer = Optimizer(objective, config, torch.device("cpu"))
    steps = int(config.length.amount)
    shares = [
        [objective.prepare(sampler.micro(step, micro), 1) for micro in range(sampler.micro_batches_per_step)] for step in range(steps)
    ]
    every = [{name: sum(objective.counts(batch)[name] for batch in share) for name in objective.counts(share[0])} for share in shares]
    for step, share in enumerate(shares):
        times.append(time.perf_counter())
        optimizer.start_gradient()
        for batch in share:
            seed_dropout(1, "dropout", batch.step, batch.micro)
            objective(batch).total(every[step]).backward()
        optimizer.gradient()
        optimizer.clip()
        optimizer.step(1e-4)
    optimizer.close()
    return (times[-1] - times[WARM_UP]) / (len(times) - 1 - WARM_UP)


def main() -> None:
    """Measure both by turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="electra-mini")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2048)
    arguments = parser.parse_args()
    keep_memory()
    settings = {"length": f"{arguments.steps} steps", "batch": f"{arguments.batch} tokens", "precision": arguments.precision}
    settings |= {"device": "cpu", "save_every": None, "keep_last": 0, "evaluate_every": None}
    config = TrainConfig.model_validate(settings)
    rows, micro = step_rows(config, LENGTH)
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(Path(folder), max_length=LENGTH)
        sampler = Sampler(Path(folder), rows_per_step=rows, rows_per_micro_batch=micro, seed=1)
        found, alone = [], []
        for number in range(arguments.rounds + 1):
            found.append(whole(arguments.preset, sampler, config))
            alone.append(bare(arguments.preset, sampler, config))
            print(f"round {number}: {found[-1]['step'] * 1e3:.1f} ms a step, bare {alone[-1] * 1e3:.1f} ms", flush=True)
    found, alone = found[1:], alone[1:]  # the first warms up
    work = [sum(round_[part] for part in ("forward", "backward", "optimizer")) / round_["step"] for round_ in found]
    keep(
        f"loop-{arguments.preset}",
        {
            "setting": f"rows of {LENGTH}, {rows} a step in micro-batches of {micro}, {arguments.precision}",
            "threads": torch.get_num_threads(),
            "milliseconds_a_step": {part: round(1e3 * statistics.median(row[part] for row in found), 3) for part in found[0]},
            "bare_milliseconds_a_step": round(1e3 * statistics.median(alone), 3),
            "overhead": {"median": 1 - statistics.median(work), "min": 1 - max(work), "max": 1 - min(work)},
            "waiting_for_data": statistics.median(row["data"] / row["step"] for row in found),
            "ratio": ratio([row["step"] for row in found], alone),
        },
    )


if __name__ == "__main__":
    main()
