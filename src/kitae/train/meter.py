"""What a training does with its time: real tokens a second, padding, waiting for data, MFU, memory, and how long it will take."""

import functools
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from kitae.core.config import Config
from kitae.tensor.devices import Precision, peak_flops
from kitae.tensor.usage import memory_now
from kitae.tensor.world import World
from kitae.train.batches import Attended, Batches, Costed, Learner

MEASURING = 0.1
"""Seconds (at least three products) to find out what a device can do that the table does not know."""
PACES = 32
"""The remaining time follows the pace since so many log lines before."""


class Spent(Config):
    """What a training came to so far, over all its pieces; part of a checkpoint's state."""

    positions: int = 0
    """Positions of the batches, padding included."""
    seconds: float = 0.0
    """Seconds of the steps that are counted here."""
    tokens: int = 0
    """Real tokens of these steps."""
    waited: float = 0.0
    """Seconds of these steps that the processes waited for data, in the mean over them."""
    flops: float = 0.0
    """Floating-point operations of these steps; 0 when nobody knows what a token costs."""
    memory: int = 0
    """Most bytes that the first process held: allocated on its GPU, or resident."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One update, over all processes."""

    tokens: int
    """Real ones."""
    positions: int
    """Padding included."""
    seconds: float
    waited: float
    """Seconds of waiting for data, in the mean over the processes."""


class Meter:
    """Adds steps up, and tells what they came to since the last time it was asked, and in all."""

    def __init__(self, learner: Learner, batches: Batches | Attended | None, precision: Precision, world: World) -> None:
        self._precision, self._world = precision, world
        self._cost = learner.flops_per_token if isinstance(learner, Costed) else None
        self._context = batches.context if isinstance(batches, Attended) else None
        self._costs: dict[float, float] = {}
        self._peak: float | None = None
        self.total = Spent()
        self._told = Spent()
        self._paces: deque[tuple[float, float]] = deque(maxlen=PACES)

    def resume(self, spent: Spent, *, done: float) -> None:
        """Go on behind what a checkpoint says; `done` is how much of the training is, in the unit of `eta`."""
        self.total = self._told = spent
        if self._world.device.type == "cuda":  # what was made before belongs to others
            torch.cuda.reset_peak_memory_stats(self._world.device)
        if self._cost is not None and self._context is not None and self._world.main:
            self._peak = _peak(self._world.device, self._precision, torch.get_num_threads()) * self._world.size
        self._paces.append((done, time.monotonic()))

    def flops_per_token(self, number: int) -> float | None:
        """Of step number `number`; None when learner or batches do not say."""
        if self._cost is None or self._context is None:
            return None
        context = self._context(number)
        if context not in self._costs:
            self._costs[context] = self._cost(context)
        return self._costs[context]

    def add(self, number: int, step: Step) -> None:
        """Count step number `number`."""
        each, so_far = self.flops_per_token(number), self.total
        self.total = so_far.model_copy(
            update={
                "positions": so_far.positions + step.positions,
                "seconds": so_far.seconds + step.seconds,
                "tokens": so_far.tokens + step.tokens,
                "waited": so_far.waited + step.waited,
                "flops": so_far.flops + (each or 0.0) * step.tokens,
            }
        )

    def read(self, *, done: float, whole: float, left: float | None) -> dict[str, float]:
        """Shares and speeds since the last call. `done` of `whole` is how far the training is; `left` the seconds that a wall-clock
        length leaves, which are then the answer."""
        memory = memory_now(self._world.device)
        self.total = self.total.model_copy(update={"memory": max(self.total.memory, memory)})
        since, self._told = self._since(), self.total
        self._paces.append((done, time.monotonic()))
        pace = self._paces[-1][0] - self._paces[0][0]
        found = {"tokens_per_second": since.tokens / max(since.seconds, 1e-9), **self.shares(since), "memory": float(memory)}
        if left is not None or pace > 0:
            each = (self._paces[-1][1] - self._paces[0][1]) / max(pace, 1e-9)
            found["seconds_left"] = max(0.0, left if left is not None else (whole - done) * each)
        return found

    def shares(self, spent: Spent | None = None) -> dict[str, float]:
        """Padding share, waiting share and MFU of the steps so far, as far as they are known."""
        spent = spent or self.total
        found = {}
        if spent.positions:
            found["padding_share"] = 1 - spent.tokens / spent.positions
        if spent.seconds > 0:
            found["waiting_share"] = spent.waited / spent.seconds
            if spent.flops and self._peak:
                found["mfu"] = spent.flops / spent.seconds / self._peak
        return found

    def _since(self) -> Spent:
        now, then = self.total, self._told
        return Spent(
            positions=now.positions - then.positions,
            seconds=now.seconds - then.seconds,
            tokens=now.tokens - then.tokens,
            waited=now.waited - then.waited,
            flops=now.flops - then.flops,
        )


@functools.cache
def _peak(device: torch.device, precision: Precision, threads: int) -> float:
    """FLOPs a second that this process's device can do; measured once a process (with so many threads) where the table does not know it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        return peak_flops(device, precision, seconds=MEASURING)


def in_words(values: Mapping[str, float]) -> str:
    """What the line of progress says of a reading."""
    parts = [f"{values['tokens_per_second']:,.0f} tokens/s"]
    if "mfu" in values:
        parts.append(f"MFU {100 * values['mfu']:.0f} %")
    for name, word in (("padding_share", "padding"), ("waiting_share", "waiting")):
        if values.get(name, 0.0) >= 0.01:
            parts.append(f"{100 * values[name]:.0f} % {word}")
    parts.append(f"{values['memory'] / 1e9:.1f} GB")
    if "seconds_left" in values:
        parts.append(f"{clock_text(values['seconds_left'])} left")
    return ", ".join(parts)


def clock_text(seconds: float) -> str:
    """A length of time for people: "45 s", "12 min", "3 h 20 min", "2 d 5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
