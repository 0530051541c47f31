"""What the phases of a training come to: rows and steps of each, and which one a step is in.

A training without phases is one phase here: who shows or estimates trainings need not tell them apart.
"""

import dataclasses
import math
from dataclasses import dataclass

from kitae.core.duration import Duration, Unit
from kitae.train.batches import Batches
from kitae.train.clock import Clock
from kitae.train.config import TrainConfig, step_rows
from kitae.train.schedule import Every, Part, Seconds, Stretch, Timetable, timetable


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase before anything is trained: for the stage, for checks and for estimates."""

    config: TrainConfig
    """Its settings, as those of a training of its own; `length` is the phase's."""
    max_length: int
    """Positions of a row."""
    rows: int
    """Rows of a step, over all processes (at the end of a batch warm-up)."""
    micro_rows: int
    """Rows of a micro-batch."""
    sources: tuple[str, ...]
    """Names of the sources that are learnt; none = all of the corpus."""

    @property
    def same_rows(self) -> tuple[int, tuple[str, ...]]:
        """Phases for which this is the same take their rows from one sequence, one behind the other."""
        return self.max_length, tuple(sorted(self.sources))

    def steps(self, rows_per_epoch: int | None = None) -> int | None:
        """Updates, rounded up as the training does it; a growing batch counts as full. None for a wall-clock length, and for epochs while
        nobody says how many rows an epoch has."""
        length = self.config.length
        per_step = {"steps": 1.0, "rows": float(self.rows), "tokens": float(self.rows * self.max_length)}
        if length.unit == "epochs" and rows_per_epoch:
            per_step["epochs"] = self.rows / rows_per_epoch
        if length.unit not in per_step:
            return None
        return max(1, math.ceil(length.amount / per_step[length.unit] - 1e-9))


def phases_of(config: TrainConfig, max_length: int) -> tuple[Phase, ...]:
    """The phases of a training on a dataset with rows of `max_length`, in order; one for a training without phases.

    Raises KitaeError when a batch is no whole number of micro-batches.
    """
    found: list[Phase] = []
    for own, part in zip(config.phases or (None,), config.parts(), strict=True):
        positions = (own.max_length if own is not None else None) or max_length
        rows, micro_rows = step_rows(part, positions)
        sources = own.sources if own is not None else ()
        found.append(Phase(config=part, max_length=positions, rows=rows, micro_rows=micro_rows, sources=sources))
    return tuple(found)


def longest(config: TrainConfig, max_length: int) -> int:
    """Positions that a model needs for all phases on a dataset with rows of `max_length`."""
    return max((phase.max_length or max_length for phase in config.phases), default=max_length)


def phased(config: TrainConfig, batches: tuple[Batches, ...], clock: Clock | None = None) -> Timetable:
    """The durations of a training with phases, one of `batches` for each.

    Steps are counted through. What is a share of the length is a share of all phases, of their rows, tokens or epochs when these count it.
    """
    parts: list[Part] = []
    first = 0
    for own, given in zip(config.parts(), batches, strict=True):
        times = timetable(own, given)
        per_step: dict[Unit, float] = {"steps": 1.0, "rows": given.rows_per_step, "tokens": given.tokens_per_step}
        per_step["epochs"] = given.rows_per_step / given.rows_per_epoch
        parts.append(Part(first=first, config=own, times=times, per_step=per_step))
        first += times.total
    whole = sum(part.times.total * part.per_step[config.length.unit] for part in parts)
    shared = [{**part.per_step, "of length": part.per_step[config.length.unit] / whole} for part in parts]
    scale = tuple(dataclasses.replace(part, per_step=per_step) for part, per_step in zip(parts, shared, strict=True))
    return Timetable(
        total=first,
        warmup=parts[0].times.warmup,
        decay=parts[0].times.decay,
        save=_interval(config.save_every, config, first),
        evaluate=_interval(config.evaluate_every, config, first),
        log=_interval(config.log_every, config, first),
        probe=_interval(config.probe_every, config, first),
        milestones=frozenset(_point(item, scale) for item in config.milestones),
        flat=0,
        clock=clock,
        phases=scale,
    )


def _interval(duration: Duration | None, config: TrainConfig, total: int) -> Every:
    if duration is None:
        return total
    if duration.unit == "seconds":
        return Seconds(duration.amount)
    if duration.unit == "of length" and config.length.unit == "steps":
        return max(1, round(duration.amount * total))
    return max(1, round(duration.amount)) if duration.unit == "steps" else Stretch(duration.amount, duration.unit)


def _point(duration: Duration, parts: tuple[Part, ...]) -> int:
    left = duration.amount
    for part in parts:
        here = part.times.total * part.per_step[duration.unit]
        if left <= here:
            return max(1, part.first + round(left / part.per_step[duration.unit]))
        left -= here
    return parts[-1].first + parts[-1].times.total + 1  # past the end: never reached
