"""What may be tried now and then beside a training, on a copy of its weights, and may end it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kitae.tensor.world import World
from kitae.train.monitor import Monitor
from kitae.train.schedule import Timetable


class Probe(Protocol):
    """Every rank calls its methods; the training's weights and randomness stay as they are."""

    @property
    def score(self) -> str:
        """The name of the number that decides, the greater the better."""

    @property
    def patience(self) -> int | None:
        """After so many probes without a better score the training ends; None: it never does."""

    @property
    def gain(self) -> float:
        """What is better by no more than this does not count as better."""

    def take(self) -> None:
        """Copy the present weights."""

    def run(self, step: int) -> dict[str, float]:
        """What the copy of these weights comes to; the first rank's is recorded. Raises Stopped, on every rank, when a signal ended it."""


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What is measured on held-out text, and a probe beside it."""

    evaluate: Callable[[int], dict[str, float]]
    probe: Probe

    def __call__(self, step: int) -> dict[str, float]:
        """The held-out scores."""
        return self.evaluate(step)


def stands_still(scores: list[float], patience: int, gain: float) -> bool:
    """Whether none of the last `patience` scores is better, by more than `gain`, than the best before them."""
    before, recent = scores[:-patience], scores[-patience:]
    return bool(before) and max(recent) <= max(before) + gain


def probed_enough(probe: Probe | None, times: Timetable, step: int, *, monitor: Monitor | None, world: World) -> bool:
    """Whether the training ends after `step`: a function of what is recorded on the first rank, which every rank learns."""
    if probe is None or probe.patience is None or not step or not times.probes(step):
        return False
    measured = monitor.evaluated if monitor is not None else {}
    scores = [values[probe.score] for number, values in sorted(measured.items()) if number <= step and probe.score in values]
    still = stands_still(scores, probe.patience, probe.gain)
    return bool(world.sum_numbers({"still": float(still and world.main)})["still"])
