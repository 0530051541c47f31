"""What every step is made of: micro-batches of one training, of a batch that grows, or of the phase that the step is in."""

import dataclasses

from kitae.tensor.batch import Batch
from kitae.train.batches import Attended, Batches
from kitae.train.clock import Clock
from kitae.train.config import TrainConfig
from kitae.train.phases import phased
from kitae.train.schedule import Timetable, timetable

Dealt = Batches | tuple[Batches, ...]
"""The batches of a training, or those of every phase."""


def times_of(config: TrainConfig, batches: Dealt, clock: Clock) -> Timetable:
    """The durations of a training, with or without phases. Raises KitaeError as `timetable` does."""
    return phased(config, batches, clock) if isinstance(batches, tuple) else timetable(config, batches, clock)


class Course:
    """How many micro-batches a step has, and which: pure functions of the step."""

    def __init__(self, batches: Dealt, times: Timetable) -> None:
        """`times` was made from the same batches."""
        self._batches, self._times = batches, times

    def count(self, step: int) -> int:
        """Micro-batches of step number `step` (from 0), over all processes."""
        if isinstance(self._batches, tuple):
            return self._batches[self._times.phase(step)].micro_batches_per_step
        growth = self._times.growth
        return self._batches.micro_batches_per_step if growth is None else growth.at(step)

    def micro(self, step: int, micro: int) -> Batch:
        """Micro-batch `micro` of the step, which knows how far the training is.

        A phase's batches count their steps from its beginning; randomness is keyed by the training's own steps.
        """
        times, batches = self._times, self._batches
        if isinstance(batches, tuple):
            number = times.phase(step)
            batch = dataclasses.replace(batches[number].micro(step - times.phases[number].first, micro), step=step)
        else:
            batch = batches.micro(step, micro) if times.growth is None else times.growth.micro(batches, step, micro)
        return dataclasses.replace(batch, progress=times.progress(step))


class _Contexts:
    """Attended positions by the steps of a training with phases."""

    def __init__(self, parts: tuple[Attended, ...], times: Timetable) -> None:
        self._parts, self._times = parts, times

    def context(self, step: int) -> float:
        number = self._times.phase(step)
        return self._parts[number].context(step - self._times.phases[number].first)


def attended(batches: Dealt, times: Timetable) -> Attended | None:
    """Who knows how many positions a token of a step attends to; None when nobody does."""
    if not isinstance(batches, tuple):
        return batches if isinstance(batches, Attended) else None
    parts = tuple(part for part in batches if isinstance(part, Attended))
    return _Contexts(parts, times) if len(parts) == len(batches) else None


def of_phase(batches: Dealt, number: int) -> Batches:
    """The batches of a phase, from 0. Shares of processes are for those of the first, and dealt in proportion in later ones."""
    return batches[number] if isinstance(batches, tuple) else batches


def sizes(batches: Dealt) -> dict[str, object]:
    """What a run's identity says of its batches."""
    if isinstance(batches, tuple):
        return {"micro_batches": [part.micro_batches_per_step for part in batches], "rows": [part.rows_per_step for part in batches]}
    return {"micro_batches": batches.micro_batches_per_step, "rows": batches.rows_per_step}
