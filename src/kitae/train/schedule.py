"""From durations to steps, and from the fraction of the training done to the learning rate: pure functions."""

import math
from dataclasses import dataclass

from kitae.core.duration import Duration
from kitae.core.errors import KitaeError
from kitae.train.batches import Batches
from kitae.train.config import TrainConfig
from kitae.train.curves import curve


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """A training's durations in steps. An event "every n" happens after steps n, 2n, ... and after the last."""

    total: int
    warmup: float
    save: int
    evaluate: int
    log: int
    milestones: frozenset[int]
    flat: int
    """Steps between the measurements that may end the training; 0 for none."""
    decay: float = 0.0
    """Of "warmup-stable-decay": how long the rate falls at the end."""

    def progress(self, step: int) -> float:
        """Share of the training that is done in the middle of step number `step` (from 0)."""
        return (step + 0.5) / self.total

    def measures(self, step: int) -> bool:
        """Whether held-out data are measured after `step` steps."""
        return self.due(self.evaluate, step) or bool(self.flat and step % self.flat == 0)

    def due(self, every: int, step: int) -> bool:
        """Whether an event is due after `step` steps."""
        return step % every == 0 or step == self.total


def steps_in(duration: Duration, batches: Batches, total: int) -> float:
    """The duration in optimizer steps, not rounded; `total` is the whole length, for shares of it."""
    match duration.unit:
        case "steps":
            return duration.amount
        case "rows":
            return duration.amount / batches.rows_per_step
        case "tokens":
            return duration.amount / batches.tokens_per_step
        case "epochs":
            return duration.amount * batches.rows_per_epoch / batches.rows_per_step
        case "of length":
            return duration.amount * total
        case "seconds":
            raise AssertionError("refused by TrainConfig")


def steps_of(duration: Duration, config: TrainConfig, batches: Batches) -> int:
    """A duration in whole steps, rounded up; shares of a length are shares of the settings' length."""
    whole = max(1, math.ceil(steps_in(config.length, batches, 0) - 1e-9))
    return max(1, math.ceil(steps_in(duration, batches, whole) - 1e-9))


def timetable(config: TrainConfig, batches: Batches) -> Timetable:
    """Every duration of the settings in steps: lengths rounded up, intervals at least one step.

    Raises KitaeError when warm-up and decay together are longer than the training.
    """
    total = steps_of(config.length, config, batches)
    warmup = min(steps_in(config.warmup, batches, total), total)
    decay = steps_in(config.schedule_config.decay, batches, total) if config.schedule == "warmup-stable-decay" else 0.0
    if warmup + decay > total + 1e-9 and decay:
        raise KitaeError(
            f"the warm-up ({warmup:g} steps) and the decay ({decay:g} steps) are longer than the training ({total} steps)",
            cure="make warmup or schedule_config.decay shorter, or length longer",
            where="train",
        )

    def interval(duration: Duration | None) -> int:
        return total if duration is None else max(1, round(steps_in(duration, batches, total)))

    return Timetable(
        total=total,
        warmup=warmup,
        decay=decay,
        save=interval(config.save_every),
        evaluate=interval(config.evaluate_every),
        log=interval(config.log_every),
        milestones=frozenset(interval(item) for item in config.milestones),
        flat=0 if config.until_flat is None else interval(config.until_flat.every),
    )


def rate(config: TrainConfig, fraction: float, warmup: float, decay: float = 0.0) -> float:
    """The learning rate when `fraction` (0..1) of the training is done; `warmup` and `decay` are shares too. See `curves.curve`."""
    return curve(config.schedule, config.schedule_config, config.learning_rate, fraction=fraction, warmup=warmup, decay=decay)


def rate_of_step(config: TrainConfig, times: Timetable, step: int) -> float:
    """The learning rate of step number `step` (from 0): that of the step's middle, so that no step is wasted on a zero rate."""
    return rate(config, times.progress(step), times.warmup / times.total, times.decay / times.total)
