"""The updates of a training: gradients of a step over micro-batches and ranks, and what is done when one is not finite."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kitae.core.errors import KitaeError
from kitae.tensor.batch import Batch
from kitae.tensor.random import seed_dropout
from kitae.tensor.world import World
from kitae.train.optimizer import Optimizer


@dataclass(frozen=True, kw_only=True)
class _Open:
    """A step whose update is under way on the device, and whose numbers nobody has read yet."""

    step: int
    share: list[Batch]
    passes: int
    """Forward and backward passes of this process."""
    counts: Mapping[str, float]
    rate: float
    numbers: Tensor
    """float64 on the device: sums of the terms, this rank's share of the loss, norm of the gradient."""


class Updates:
    """Makes one update after another. What a step came to is known once it is settled, at the latest by the next one's."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        world: World,
        *,
        seed: int,
        names: tuple[str, ...],
        folder: Path,
        spare: Batch,
    ) -> None:
        """`names` of the loss's terms, which a rank without a share needs too; `folder` is for messages. `spare` is any micro-batch:
        a rank that must work while only others have something to do takes it, and none of it counts."""
        self._module, self._optimizer, self._world = module, optimizer, world
        self._seed, self._names, self._folder, self._spare = seed, names, folder, spare
        self._open: _Open | None = None
        self.last: dict[str, float] = {}
        """Losses, learning rate and norm of the gradient of the last step that was settled."""

    def make(self, step: int, share: list[Batch], rate: float) -> Mapping[str, float]:
        """One update from this rank's micro-batches; returns the counts over all ranks, real tokens among them.

        Counts are added up first, so that each micro-batch contributes its share of the exactly averaged loss.
        """
        local = dict.fromkeys(self._names, 0.0) | {"tokens": 0.0}
        for batch in share:
            local["tokens"] += batch.num_tokens
            for name, count in self._module.counts(batch).items():
                local[name] += count
        shares = {f"passes of rank {rank}": float(rank == self._world.rank) * len(share) for rank in self._ranks()}
        counts = self._world.sum_numbers(local | shares)
        passes = int(max((counts[name] for name in shares), default=len(share)))
        sums = self._backward(share, counts, passes)
        self.settle()
        self._optimizer.gradient()
        self._optimizer.flat.add_up(self._world)
        norm = self._optimizer.clip()
        self._optimizer.step(rate, unless=~(torch.isfinite(norm) & torch.isfinite(sums).all()))
        numbers = torch.cat([sums, norm.to(torch.float64)[None]])
        self._open = _Open(step=step, share=share, passes=passes, counts=counts, rate=rate, numbers=numbers)
        return counts

    def _ranks(self) -> range:
        """Those that must work in step."""
        return range(self._world.size if self._optimizer.flat.in_step else 0)

    def settle(self) -> None:
        """Wait for the numbers of the last step, if they are not known yet, and refuse what is not finite.

        On CUDA that happens when the next step's work is under way, so that the device never waits for the host.
        """
        if self._open is None:
            return
        done, self._open = self._open, None
        *values, norm = done.numbers.tolist()
        seen = self._world.sum_numbers(dict(zip((*self._names, "loss"), values, strict=True)))
        if not math.isfinite(norm) or not all(math.isfinite(value) for value in seen.values()):
            self._refuse(done, norm)
        self.last = {f"{name}_loss": seen[name] / max(done.counts[name], 1) for name in self._names}
        self.last |= {"loss": seen["loss"], "learning_rate": done.rate, "gradient_norm": norm}

    def _backward(self, share: list[Batch], counts: Mapping[str, float], passes: int) -> Tensor:
        """Gradients of this rank's share into the flat buffer, in so many passes; on the device, in float64: the sums of its terms
        (`names`), and last its share of the loss."""
        sums = torch.zeros(len(self._names) + 1, dtype=torch.float64, device=self._world.device)
        self._optimizer.start_gradient()
        learner = self._optimizer.flat.learner
        for _ in range(passes - len(share)):
            (learner(self._spare.to(self._world.device)).total(counts) * 0).backward()
        for batch in share:
            seed_dropout(self._seed, "dropout", batch.step, batch.micro)
            loss = learner(batch.to(self._world.device))
            total = loss.total(counts)
            total.backward()
            found = {term.name: term.sum.detach() for term in loss.terms} | {"loss": total.detach()}
            zero = sums.new_zeros(())
            sums += torch.stack([found.get(name, zero).to(torch.float64) for name in (*self._names, "loss")])
        return sums

    def _refuse(self, done: _Open, norm: float) -> None:
        """Name the first micro-batch of this rank whose gradient is not finite, and stop without an update."""
        rows: list[int] = []
        for rank, number in itertools.product(self._ranks() or [self._world.rank], range(done.passes)):
            own = done.share[number : number + 1] if rank == self._world.rank else []
            sums = self._backward(own, done.counts, 1)
            bad = not bool(sums[-1].isfinite()) or not bool(torch.isfinite(self._optimizer.gradient()).all())
            if self._ranks():  # each sees its part of the gradient of the one whose turn it is
                bad = bool(self._world.sum_numbers({"bad": float(bad)})["bad"])
            if bad and own and not rows:
                rows = own[0].rows.tolist()
        shown = ", ".join(str(row) for row in rows[:16]) + (", ..." if len(rows) > 16 else "")
        raise KitaeError(
            f"the gradient of step {done.step} is not finite (norm {norm}), "
            + (f"in the micro-batch of rows {shown}" if rows else "but no single micro-batch of this process makes it so"),
            cure="the update was not applied: lower learning_rate, or use precision fp32, and run again from the last checkpoint",
            where=str(self._folder),
        )
