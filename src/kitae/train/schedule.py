"""From durations to steps, and from the fraction of the training done to the learning rate: pure functions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from kitae.core.duration import Duration, Unit
from kitae.core.errors import KitaeError
from kitae.train.batches import Batches
from kitae.train.clock import Clock
from kitae.train.config import TrainConfig
from kitae.train.curves import curve
from kitae.train.growth import Growth, growth, micro_batches

LAG = 3
"""Of a wall-clock length: the data of a step know how far the training was so many steps before, because they may be made ahead."""
ENDLESS = 1 << 62
"""Steps of a training whose length is a time."""


@dataclass(frozen=True)
class Seconds:
    """An interval of wall-clock time."""

    amount: float


@dataclass(frozen=True)
class Portion:
    """An interval in micro-batches, for batches that grow."""

    amount: float


@dataclass(frozen=True)
class Stretch:
    """An interval in rows, tokens, epochs or shares of a training whose phases have steps of different size."""

    amount: float
    unit: Unit

    def passed(self, done: float) -> int:
        """How many of it are in so much of the unit."""
        return math.floor(done / self.amount + 1e-9)


Every = int | Seconds | Portion | Stretch
"""An interval in steps, in time or in data."""


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """A training's durations in steps. An event "every n" happens after steps n, 2n, ... and after the last.

    When the length is a time, warm-up and decay are in seconds, and what is a share of the length is an interval of time.
    """

    total: int
    warmup: float
    save: Every
    evaluate: Every
    log: Every
    milestones: frozenset[int]
    flat: int
    """Steps between the measurements that may end the training; 0 for none."""
    decay: float = 0.0
    """Of "warmup-stable-decay": how long the rate falls at the end."""
    probe: Every | None = None
    """How often a copy of the weights is tried on a task, where there is one."""
    clock: Clock | None = None
    """The time that has passed; needed when something is in seconds."""
    moments: tuple[float, ...] = ()
    """Seconds after which a checkpoint stays."""
    growth: Growth | None = None
    """Of a batch that grows: how many micro-batches each step has."""
    by_data: bool = False
    """Whether what is done is counted in micro-batches and not in steps: the batch grows, and the length is not in steps."""
    phases: "tuple[Part, ...]" = ()
    """Of a training with phases. `warmup` and `decay` are the first one's then."""

    @property
    def limit(self) -> float | None:
        """The length in seconds, when it is a time."""
        return None if self.clock is None else self.clock.limit

    @property
    def whole(self) -> float:
        """The length, in what the warm-up is in: steps, micro-batches or seconds."""
        if self.by_data and self.growth is not None:
            return self.growth.before(self.total)
        return self.total if self.limit is None else self.limit

    def fraction(self, step: int) -> float:
        """Share of the training that is done in the middle of step number `step` (from 0), for the learning rate."""
        if self.by_data and self.growth is not None:
            return (self.growth.before(step) + self.growth.before(step + 1)) / 2 / self.growth.before(self.total)
        if self.phases:
            return (self.done("of length", step) + self.done("of length", step + 1)) / 2
        if self.clock is None or self.limit is None:
            return (step + 0.5) / self.total
        return self.clock.fraction(step)

    def phase(self, step: int) -> int:
        """Number of the phase, from 0, that step number `step` is in; 0 without phases."""
        return max((number for number, part in enumerate(self.phases) if part.first <= step), default=0)

    def begins_phase(self, step: int) -> bool:
        """Whether step number `step` is the first of a phase that follows another."""
        return any(part.first == step for part in self.phases[1:])

    def done(self, unit: Unit, step: int) -> float:
        """What the first `step` steps of a training with phases are, in any unit."""
        made = [(min(max(0, step - part.first), part.times.total), part) for part in self.phases]
        return sum(steps * part.per_step[unit] for steps, part in made)

    def progress(self, step: int) -> float:
        """The same for the step's data; of a wall-clock length that of `LAG` steps before."""
        return self.fraction(step if self.limit is None else max(0, step - LAG))

    def over(self, step: int) -> bool:
        """Whether the training has its length after `step` steps."""
        return step >= self.total or (self.clock is not None and self.clock.over(step))

    def measures(self, step: int) -> bool:
        """Whether held-out data are measured after `step` steps."""
        return self.due(self.evaluate, step) or bool(self.flat and step % self.flat == 0)

    def probes(self, step: int) -> bool:
        """Whether a probe is due after `step` steps."""
        return self.probe is not None and self.due(self.probe, step)

    def due(self, every: Every, step: int) -> bool:
        """Whether an event is due after `step` steps. Under a budget also when half of it is spent, so that the event's time is known."""
        if self.over(step) or (isinstance(every, int) and step % every == 0):
            return True
        if isinstance(every, Portion):
            assert self.growth is not None
            if step and self.growth.before(step) // every.amount > self.growth.before(step - 1) // every.amount:
                return True
        if isinstance(every, Stretch):
            return step > 0 and every.passed(self.done(every.unit, step)) > every.passed(self.done(every.unit, step - 1))
        if self.clock is None:
            return False
        seconds = every.amount if isinstance(every, Seconds) else math.inf
        return self.clock.crossed(min(seconds, math.inf if self.limit is None else self.limit / 2), step)

    def permanent(self) -> frozenset[int]:
        """The steps reached so far, and some later ones, whose checkpoints stay."""
        return self.milestones | {self.clock.first_after(moment) for moment in self.moments if self.clock is not None}

    def expected(self) -> int:
        """How many steps the training has; of a wall-clock length as many as it allows at the recent pace."""
        return self.total if self.clock is None or self.limit is None else self.clock.expected_steps()

    def work(self, step: int) -> float:
        """What is done after `step` steps, for the time that is left: micro-batches where the batch grows, tokens where there are phases,
        else steps."""
        if self.phases:
            return self.done("tokens", step)
        return self.growth.before(step) if self.growth is not None and self.limit is None else step

    def place(self, step: int) -> str:
        """Where the training is, for people."""
        if self.phases:
            return f"step {step} of {self.total} (phase {self.phase(max(0, step - 1)) + 1} of {len(self.phases)})"
        if self.clock is None or self.limit is None:
            return f"step {step} of {self.total}"
        return f"step {step}, {self.clock.moment(step):,.0f} of {self.limit:,.0f} s"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A phase on the scale of its training."""

    first: int
    """The number of its first step."""
    config: TrainConfig
    """Its settings, as those of a training of its own."""
    times: Timetable
    """Its durations, counted from its first step."""
    per_step: Mapping[Unit, float]
    """What one of its steps is in each unit but time; "of length" is a share of the whole training's length, in the unit of that."""


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
            raise KitaeError(f'"{duration}" is a time and not a number of steps', cure="write steps, rows, tokens or epochs", where="train")


def steps_of(duration: Duration, config: TrainConfig, batches: Batches) -> int:
    """A duration in whole steps, rounded up; shares of a length are shares of the settings' length."""
    if config.batch_warmup is not None:
        return max(1, math.ceil(grown_steps(duration, config, batches, growth(config.batch_warmup, batches, config.length)) - 1e-9))
    whole = max(1, math.ceil(steps_in(config.length, batches, 0) - 1e-9)) if duration.unit == "of length" else 0
    return max(1, math.ceil(steps_in(duration, batches, whole) - 1e-9))


def grown_steps(duration: Duration, config: TrainConfig, batches: Batches, growing: Growth) -> float:
    """A point of a training whose batch grows, in steps, not rounded."""
    if duration.unit == "of length":
        duration = Duration(duration.amount * config.length.amount, config.length.unit)
    if duration.unit in ("steps", "seconds"):
        return steps_in(duration, batches, 0)
    return growing.steps_of(micro_batches(duration, batches))


@dataclass(frozen=True, kw_only=True)
class _Converter:
    """What the durations of one training come to."""

    config: TrainConfig
    batches: Batches
    limit: float | None
    growing: Growth | None

    @property
    def by_data(self) -> bool:
        return self.growing is not None and self.config.length.unit not in ("steps", "seconds")

    @property
    def total(self) -> int:
        return steps_of(self.config.length, self.config, self.batches) if self.limit is None else ENDLESS

    @property
    def whole(self) -> tuple[float, str]:
        """The length, and what it is counted in."""
        if self.growing is not None and self.by_data:
            return self.growing.before(self.total), "micro-batches"
        return (self.total, "steps") if self.limit is None else (self.limit, "seconds")

    def part(self, duration: Duration) -> float:
        """A part of the schedule, in what the length is counted in."""
        if self.limit is not None:
            return seconds_in(duration, self.limit)
        if self.growing is None:
            return steps_in(duration, self.batches, self.total)
        steps = grown_steps(duration, self.config, self.batches, self.growing)
        return self.growing.done(steps) if self.by_data else steps

    def interval(self, duration: Duration | None) -> Every:
        if duration is None:
            return self.total
        if duration.unit == "seconds" or (duration.unit == "of length" and self.limit is not None):
            return Seconds(seconds_in(duration, self.limit or 0.0))
        if self.growing is not None and duration.unit == "of length":
            duration = Duration(duration.amount * self.config.length.amount, self.config.length.unit)
        if self.growing is not None and duration.unit != "steps":
            return Portion(micro_batches(duration, self.batches))
        return max(1, round(steps_in(duration, self.batches, self.total)))

    def point(self, duration: Duration) -> int | Seconds:
        if self.limit is not None and duration.unit in ("seconds", "of length"):
            return Seconds(seconds_in(duration, self.limit))
        if self.growing is not None:
            return max(1, round(grown_steps(duration, self.config, self.batches, self.growing)))
        return max(1, round(steps_in(duration, self.batches, self.total)))


def timetable(config: TrainConfig, batches: Batches, clock: Clock | None = None) -> Timetable:
    """Every duration of the settings in steps: lengths rounded up, intervals at least one step. Of a wall-clock length, with a `clock`
    that has its limit, shares are in seconds.

    Raises KitaeError when warm-up and decay together are longer than the training.
    """
    limit = None if clock is None else clock.limit
    growing = None if config.batch_warmup is None else growth(config.batch_warmup, batches, config.length)
    of = _Converter(config=config, batches=batches, limit=limit, growing=growing)
    whole, unit = of.whole
    warmup = min(of.part(config.warmup), whole)
    decay = of.part(config.schedule_config.decay) if config.schedule == "warmup-stable-decay" else 0.0
    if warmup + decay > whole + 1e-9 and decay:
        raise KitaeError(
            f"the warm-up ({warmup:g} {unit}) and the decay ({decay:g} {unit}) are longer than the training ({whole:g} {unit})",
            cure="make warmup or schedule_config.decay shorter, or length longer",
            where="train",
        )
    milestones = [of.point(item) for item in config.milestones]
    flat = None if config.until_flat is None else config.until_flat.every
    return Timetable(
        total=of.total,
        warmup=warmup,
        decay=decay,
        save=of.interval(config.save_every),
        evaluate=of.interval(config.evaluate_every),
        log=of.interval(config.log_every),
        probe=of.interval(config.probe_every),
        milestones=frozenset(item for item in milestones if isinstance(item, int)),
        moments=tuple(item.amount for item in milestones if isinstance(item, Seconds)),
        flat=0 if flat is None else max(1, round(steps_in(flat, batches, of.total))),  # in full batches
        clock=clock,
        growth=growing,
        by_data=of.by_data,
    )


def seconds_in(duration: Duration, limit: float) -> float:
    """A time or a share of `limit`, in seconds."""
    assert duration.unit in ("seconds", "of length"), "refused by TrainConfig"
    return duration.amount if duration.unit == "seconds" else duration.amount * limit


def rate(config: TrainConfig, fraction: float, warmup: float, decay: float = 0.0) -> float:
    """The learning rate when `fraction` (0..1) of the training is done; `warmup` and `decay` are shares too. See `curves.curve`."""
    return curve(config.schedule, config.schedule_config, config.learning_rate, fraction=fraction, warmup=warmup, decay=decay)


def rate_of_step(config: TrainConfig, times: Timetable, step: int) -> float:
    """The learning rate of step number `step` (from 0): that of the step's middle, so that no step is wasted on a zero rate."""
    if times.phases:
        part = times.phases[times.phase(step)]
        return rate_of_step(part.config, part.times, step - part.first)
    return rate(config, times.fraction(step), times.warmup / times.whole, times.decay / times.whole)
