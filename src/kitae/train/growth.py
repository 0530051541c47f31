"""A batch that grows while training: how many micro-batches a step has, as a function of the step alone.

Early gradients agree with each other, so that small batches learn as much from fewer rows (McCandlish et al. 2018, arXiv:1812.06162;
GPT-3 grew its batch in the same way).
"""

import bisect
import dataclasses
from functools import cached_property
from itertools import accumulate

from kitae.core.config import Config
from kitae.core.duration import BatchSize, Duration
from kitae.core.errors import KitaeError
from kitae.tensor.batch import Batch
from kitae.train.batches import Batches


class BatchWarmup(Config):
    """How the batch grows to `train.batch`: linearly with the steps, in whole micro-batches. Rows are taken in the same order."""

    start: BatchSize
    """Size of the first step: a whole number of micro-batches."""
    over: Duration = Duration(0.1, "of length")
    """How long it grows: "1000 steps", "1e8 tokens", "0.1 of length", ..."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Growth:
    """Micro-batches of every step: from `start` to `full` over `steps` steps, then `full`."""

    start: int
    full: int
    steps: int

    def at(self, step: int) -> int:
        """Micro-batches of step number `step` (from 0)."""
        return self.full if step >= self.steps else self.start + (self.full - self.start) * step // self.steps

    def before(self, step: int) -> int:
        """Micro-batches of the first `step` steps."""
        return self._sums[min(step, self.steps)] + max(0, step - self.steps) * self.full

    def done(self, steps: float) -> float:
        """Micro-batches of so many steps, the last of which may be a part of one."""
        whole = int(steps)
        return self.before(whole) + (steps - whole) * self.at(whole)

    def steps_of(self, micro_batches: float) -> float:
        """After how many steps so many micro-batches are done; not rounded."""
        if micro_batches >= self._sums[-1]:
            return self.steps + (micro_batches - self._sums[-1]) / self.full
        step = bisect.bisect_right(self._sums, micro_batches) - 1
        return step + (micro_batches - self._sums[step]) / self.at(step)

    def micro(self, batches: Batches, step: int, micro: int) -> Batch:
        """Micro-batch `micro` of the step, from batches of full steps: the rows come in their order, none is left out."""
        number = self.before(step) + micro
        return dataclasses.replace(batches.micro(*divmod(number, self.full)), step=step, micro=micro)

    @cached_property
    def _sums(self) -> list[int]:
        return list(accumulate((self.at(step) for step in range(self.steps)), initial=0))


def growth(config: BatchWarmup, batches: Batches, length: Duration) -> Growth:
    """The growth of these settings over these batches.

    Raises KitaeError when the first step is not made of whole micro-batches, or larger than the others.
    """
    full, rows = batches.micro_batches_per_step, batches.rows_per_step
    each = rows // full
    first = config.start.rows(round(batches.tokens_per_step / rows))
    check_start(first, rows, each)
    over = config.over if config.over.unit != "of length" else Duration(config.over.amount * length.amount, length.unit)
    mean = (first // each + full) / 2
    steps = over.amount if over.unit == "steps" else micro_batches(over, batches) / mean
    return Growth(start=first // each, full=full, steps=max(1, round(steps)))


def check_start(first: int, rows: int, micro: int) -> None:
    """Raises KitaeError unless the first step's rows are whole micro-batches, and no more than the others'."""
    if first % micro or first > rows:
        raise KitaeError(
            f"batch_warmup.start = {first} rows is no whole number of micro-batches of {micro} rows, at most {rows // micro} of them",
            cure=f"take a multiple of {micro} rows up to {rows}",
            where="train.batch_warmup",
        )


def micro_batches(duration: Duration, batches: Batches) -> float:
    """A number of rows, tokens or epochs in micro-batches, not rounded."""
    of_step = {"rows": batches.rows_per_step, "tokens": batches.tokens_per_step, "epochs": batches.rows_per_step / batches.rows_per_epoch}
    return duration.amount / of_step[duration.unit] * batches.micro_batches_per_step
