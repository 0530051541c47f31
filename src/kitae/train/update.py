"""The updates of a training: gradients of a step over micro-batches and ranks, and what is done when one is not applied."""

import itertools
import logging
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
from kitae.train.policy import WHY, Policy, PolicyState, Ruling, Verdict

log = logging.getLogger(__name__)
SHOWN = 16
"""Rows of a micro-batch that a message names."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something about one step that is written down for itself."""

    kind: str
    """"skipped": its update was not applied; "empty": a part of the loss had nothing to predict."""
    step: int
    """Steps made, this one included."""
    values: Mapping[str, object]
    """What is known of it, as JSON."""


@dataclass(frozen=True, kw_only=True)
class _Open:
    """A step whose update is under way on the device, and whose numbers nobody has read yet."""

    step: int
    share: list[Batch]
    passes: int
    """Forward and backward passes of this process."""
    counts: Mapping[str, float]
    rate: float
    scale: Tensor | None
    numbers: Tensor
    """float64 on the device: sums of the terms over all ranks, the loss, norm of the gradient, verdict, factor of the loss."""


@dataclass(frozen=True, kw_only=True)
class _Culprit:
    """Where a gradient that is not finite comes from."""

    rows: list[int]
    """The first of a micro-batch's sample ids; none when no single micro-batch makes it so."""
    count: int
    """How many rows that micro-batch has."""
    weight: str
    """The first weight whose gradient is not finite."""
    group: str
    """Its group."""

    @property
    def text(self) -> str:
        if not self.rows:
            return "but no single micro-batch makes it so"
        shown = ", ".join(str(row) for row in self.rows) + (", ..." if self.count > len(self.rows) else "")
        place = f", first at {self.weight} of {self.group}" if self.weight else ""
        return f"in the micro-batch of rows {shown}{place}"


class Updates:
    """Makes one update after another. What a step came to is known once it is settled, at the latest by the next one's."""

    def __init__(
        self, module: nn.Module, optimizer: Optimizer, world: World, *, seed: int, first: Batch, folder: Path, state: PolicyState
    ) -> None:
        """`first` is any micro-batch: a rank without a share learns from it which parts the loss has, and takes it, so that none of it
        counts, where it must work while others have more to do. `folder` is for messages; `state` of a checkpoint."""
        self._module, self._optimizer, self._world = module, optimizer, world
        self._seed, self._first, self._folder = seed, first, folder
        self._names = tuple(sorted(module.counts(first)))
        self._config = optimizer.config
        self._policy = Policy(self._config, world.device, state)
        self._skipped, self._in_a_row, self._empty = state.skipped, state.in_a_row, dict(state.empty)
        self._open: _Open | None = None
        self._events: list[Event] = []
        self.last: dict[str, float] = {}
        """Losses, learning rate and norm of the gradient of the last step that was settled, as far as they are finite."""

    def begin_phase(self) -> None:
        """The next step is the first of a phase: what stands out is asked anew."""
        self._policy.forget()

    def make(self, step: int, share: list[Batch], rate: float, *, most: int) -> Mapping[str, float]:
        """One update from this rank's micro-batches, of which the rank with the most has so many; returns the counts over all ranks, real
        tokens and positions among them.

        Counts are added up first, so that each micro-batch contributes its share of the exactly averaged loss.
        """
        local = dict.fromkeys(self._names, 0.0) | {"tokens": 0.0, "positions": 0.0}
        for batch in share:
            local["tokens"] += batch.num_tokens
            local["positions"] += batch.ids_BL.numel()
            for name, count in self._module.counts(batch).items():
                local[name] += count
        counts = self._world.sum_numbers(local)
        passes = most if self._optimizer.flat.in_step else len(share)
        self._note_empty(step, share, counts)
        scale = self._policy.scale
        sums = self._backward(share, counts, scale, passes)
        if self.settle():  # the last step's gradient was worked out again, where this one's was
            sums = self._backward(share, counts, scale, passes)
        self._optimizer.gradient()
        self._policy.unscale(self._optimizer.flat.add_up(self._world))
        norm = self._optimizer.clip()
        ruling = self._policy.rule(self._world.sum(sums), norm)
        self._optimizer.step(rate, unless=ruling.unless)
        numbers = _numbers(sums, norm, ruling)
        self._open = _Open(step=step, share=share, passes=passes, counts=counts, rate=rate, scale=scale, numbers=numbers)
        return counts

    def _in_step(self) -> range:
        """The ranks that must work in step; none when each works for itself."""
        return range(self._world.size if self._optimizer.flat.in_step else 0)

    def rehearse(self, batch: Batch) -> None:
        """Forward and backward of one micro-batch, for its time alone: the next step's gradient begins anew."""
        self._backward([batch], dict.fromkeys(self._names, 1.0), self._policy.scale, 1).tolist()

    def settle(self) -> bool:
        """Wait for the numbers of the last step, if they are not known yet, and act on what was not applied. Whether gradients were
        worked out again for that. Raises KitaeError when the run has to stop.

        On CUDA that happens when the next step's work is under way, so that the device never waits for the host.
        """
        if self._open is None:
            return False
        done, self._open = self._open, None
        with self._world.waiting("update"):  # a device adds gradients up over ranks now
            *sums, loss, norm, verdict, scale = done.numbers.tolist()
        seen = dict(zip(self._names, sums, strict=True))
        found = {f"{name}_loss": seen[name] / max(done.counts[name], 1) for name in self._names}
        found |= {"loss": loss, "learning_rate": done.rate, "gradient_norm": norm}
        self.last = {name: value for name, value in found.items() if math.isfinite(value)}
        if done.scale is not None:
            self.last["loss_scale"] = scale
        sought = self._skip(done, Verdict(int(verdict)), found) if verdict else False
        if not verdict or int(verdict) == Verdict.SPIKE:
            self._in_a_row = 0
        if self._skipped:
            self.last["skipped"] = self._skipped
        return sought

    @property
    def skipped(self) -> int:
        """Steps so far whose update was not applied, of those that are settled."""
        return self._skipped

    def events(self) -> list[Event]:
        """What happened since the last call, of settled steps."""
        taken, self._events = self._events, []
        return taken

    def state(self) -> PolicyState:
        """What a checkpoint keeps; the last step must be settled."""
        assert self._open is None, "settled"
        return self._policy.state(skipped=self._skipped, in_a_row=self._in_a_row, empty=dict(self._empty))

    def _backward(self, share: list[Batch], counts: Mapping[str, float], scale: Tensor | None, passes: int) -> Tensor:
        """Gradients of this rank's share into the flat buffer, in so many passes, times `scale`; on the device, in float64: the sums of
        its terms (`names`), and last its share of the loss."""
        sums = torch.zeros(len(self._names) + 1, dtype=torch.float64, device=self._world.device)
        self._optimizer.start_gradient()
        learner = self._optimizer.flat.learner
        for _ in range(passes - len(share)):
            self._world.doing("forward and backward", slow=not self.last)
            (learner(self._first.to(self._world.device)).total(counts) * 0).backward()
        for batch in share:
            self._world.doing("forward and backward", batch.step, slow=not self.last)  # the first may be compiled
            seed_dropout(self._seed, "dropout", batch.step, batch.micro)
            loss = learner(batch.to(self._world.device))
            total = loss.total(counts)
            total.backward(None if scale is None else scale.to(total.dtype))
            found = {term.name: term.sum.detach() for term in loss.terms} | {"loss": total.detach()}
            zero = sums.new_zeros(())
            sums += torch.stack([found.get(name, zero).to(torch.float64) for name in (*self._names, "loss")])
        return sums

    def _note_empty(self, step: int, share: list[Batch], counts: Mapping[str, float]) -> None:
        """Count and name the parts of the loss for which this whole step has nothing to predict. They are zero, with zero gradients."""
        for name in self._names:
            if counts[name]:
                continue
            self._empty[name] = self._empty.get(name, 0) + 1
            rows = [row for batch in share for row in batch.rows.tolist()][:SHOWN]
            self._events.append(Event(kind="empty", step=step + 1, values={"term": name, "rows": rows, "so_far": self._empty[name]}))
            if self._empty[name] == 1 and self._world.main:
                shown = ", ".join(map(str, rows))
                log.warning(
                    '%s: step %d has nothing to predict for "%s" (rows %s, ...); such steps are counted in metrics.jsonl',
                    self._folder.name,
                    step,
                    name,
                    shown,
                )

    def _skip(self, done: _Open, verdict: Verdict, found: Mapping[str, float]) -> bool:
        """Note a step that was not applied; whether its gradients were worked out again."""
        self._skipped += 1
        values: dict[str, object] = {"why": WHY[verdict], **self.last}
        if verdict is Verdict.NOT_FINITE:
            self._in_a_row += 1
            culprit = self._culprit(done)
            norm = found["gradient_norm"]
            self._refuse(done.step, norm, culprit)
            values |= {"rows": culprit.rows, "weight": culprit.weight, "group": culprit.group}
            said = f"the gradient is not finite (norm {norm}), {culprit.text}"
        elif verdict is Verdict.SPIKE:
            said = f"a spike (loss {found['loss']:.4g}, norm of the gradient {found['gradient_norm']:.4g})"
        else:
            said = f"the gradient overflowed at a loss scale of {self.last['loss_scale']:g}"
        self._events.append(Event(kind="skipped", step=done.step + 1, values=values))
        if self._world.main:
            level = logging.INFO if verdict is Verdict.OVERFLOW else logging.WARNING
            log.log(level, "%s: step %d is skipped: %s", self._folder.name, done.step, said)
        return verdict is Verdict.NOT_FINITE

    def _culprit(self, done: _Open) -> _Culprit:
        """The first micro-batch of the step, over all ranks, whose gradient is not finite. Every rank calls it, and learns the same."""
        place = torch.zeros(self._world.size, SHOWN + 3, dtype=torch.float64, device=self._world.device)
        names = [slot.name for slot in self._optimizer.flat.slots]
        for rank, number in itertools.product(self._in_step() or [self._world.rank], reversed(range(done.passes))):
            own = done.share[number : number + 1] if rank == self._world.rank else []
            sums = self._backward(own, done.counts, done.scale, 1)
            weights = self._optimizer.not_finite()
            if not own or (bool(sums[-1].isfinite()) and not weights):
                continue
            batch = own[0]  # the first one stays
            rows = batch.rows.tolist()
            weight = names.index(weights[0]) + 1 if weights else 0
            line = [batch.micro + 1, weight, len(rows), *rows[:SHOWN]]
            place[self._world.rank] = 0
            place[self._world.rank, : len(line)] = torch.tensor(line, dtype=torch.float64)
        lines = [list(map(int, line)) for line in self._world.sum(place).tolist() if line[0]]
        if not lines:
            return _Culprit(rows=[], count=0, weight="", group="")
        _, weight, count, *rows = min(lines)
        name = names[weight - 1] if weight else ""
        return _Culprit(rows=rows[: min(count, SHOWN)], count=count, weight=name, group=self._optimizer.group(name) if name else "")

    def _refuse(self, step: int, norm: float, culprit: _Culprit) -> None:
        """Stop, where the settings say so."""
        cure = "the update was not applied: lower learning_rate, or use precision fp32, and run again from the last checkpoint"
        what = f"the gradient of step {step} is not finite (norm {norm}), {culprit.text}"
        if self._config.non_finite == "stop":
            raise KitaeError(what, cure=f'{cure}; non_finite = "skip" passes over such steps', where=str(self._folder))
        if self._in_a_row >= self._config.non_finite_limit:
            raise KitaeError(f"{what}; it is number {self._in_a_row} in a row", cure=cure, where=str(self._folder))


def _numbers(sums: Tensor, norm: Tensor, ruling: Ruling) -> Tensor:
    """What the host reads of a step, in one tensor."""
    return torch.cat([sums, norm.to(torch.float64)[None], ruling.verdict[None], ruling.scale[None]])
