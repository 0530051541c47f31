"""LAMB: AdamW's step, scaled for every matrix so that it is in proportion to the matrix (You et al. 2019, arXiv:1904.00962)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kitae.train.config import TrainConfig
from kitae.train.flat import Span, Weights
from kitae.train.layers import fused
from kitae.train.rule_config import LambConfig
from kitae.train.rules import by_name, gated


@dataclass(frozen=True, kw_only=True)
class _Pieces:
    """How a span falls into weights that have a norm of their own, or the parts of them that lie here."""

    lengths: list[int]
    wholes: Tensor
    """int64: of every piece, the number of the weight."""
    count: int
    """Of weights."""


class Lamb:
    """r = m / (sqrt(v) + epsilon) + decay * w; w moves by rate * |w| / |r| * r, or by rate * r where one of the norms is zero.

    With `bias_correction` and clip = 1 these are the defaults of apex's FusedLAMB, with which NVIDIA's BERT and those after it were
    trained. Queries, keys and values have a norm each, as in models where they are three matrices. The whole gradient is clipped before,
    as there. Norms are worked out on the device.
    """

    def __init__(self, flat: Weights, spans: Sequence[Span], config: TrainConfig) -> None:
        self._flat, self._spans, self._config = flat, spans, config
        everything = (config.lamb or LambConfig()).adapts == "all"
        self._adapted = [everything or span.key.decays for span in spans]
        self._averages = {
            name: [torch.zeros_like(flat.master[span.start : span.end]) for span in spans] for name in ("lamb_avg", "lamb_avg_sq")
        }
        self._steps = torch.zeros((), dtype=torch.float64, device=flat.master.device)
        counts = fused({slot.name: slot.parameter.shape for slot in flat.slots})
        self._pieces = [_pieces(span, counts, flat.master.device) for span in spans]

    @torch.no_grad()
    def update(self, rate: float, *, unless: Tensor | None) -> None:
        """See `Rule`."""
        self._steps += gated(1.0, unless, self._steps)
        for number, span in enumerate(self._spans):
            weights, grad = self._flat.master[span.start : span.end], self._flat.grad[span.start : span.end]
            if unless is not None:
                grad.masked_fill_(unless, 0.0)  # what is not finite would get through a factor of 0
            step = self._direction(number, weights, grad, unless)
            size = gated(-rate * span.key.scale, unless, weights)
            if not self._adapted[number]:
                weights.add_(step.mul_(size))
                continue
            pieces = self._pieces[number]
            of_weights, of_steps = self._norms(pieces, weights), self._norms(pieces, step)
            trust = torch.where((of_weights > 0) & (of_steps > 0), of_weights / of_steps, 1.0)
            torch._foreach_mul_(step.split(pieces.lengths), (trust * size)[pieces.wholes].unbind())
            weights.add_(step)

    def _norms(self, pieces: _Pieces, flat: Tensor) -> Tensor:
        """Of every weight that has one of its own, over all processes."""
        found = torch.stack(torch._foreach_norm(flat.split(pieces.lengths))) if pieces.lengths else flat.new_zeros(0)
        return self._flat.norms(found, pieces.wholes, pieces.count)

    def _direction(self, number: int, weights: Tensor, grad: Tensor, unless: Tensor | None) -> Tensor:
        """Bring the averages of a span up to date; a new tensor of its step before any norm."""
        config, (average, squares) = self._config, (kept[number] for kept in self._averages.values())
        first, second = config.betas
        step = grad * grad
        average.lerp_(grad, gated(1 - first, unless, average))
        squares.lerp_(step, gated(1 - second, unless, squares))
        torch.div(squares, self._correction(second, squares), out=step).sqrt_().add_(config.epsilon)
        torch.div(average, step, out=step).div_(self._correction(first, step))
        decay = config.weight_decay if self._spans[number].key.decays else 0.0
        return step.add_(weights, alpha=decay) if decay else step

    def _correction(self, beta: float, like: Tensor) -> Tensor:
        """1 - beta**steps, or 1 without bias correction, and before the first step that was made."""
        if not self._config.bias_correction:
            return gated(1.0, None, like)
        corrected = 1 - torch.full_like(self._steps, beta) ** self._steps
        return gated(corrected, self._steps == 0, like, otherwise=1.0)

    def state(self) -> dict[str, Tensor]:
        """The running averages by "lamb_avg.NAME" and "lamb_avg_sq.NAME"."""
        return by_name(self._spans, self._averages)

    def set_steps(self, steps: int) -> None:
        """See `Rule`; for the bias correction."""
        self._steps.fill_(steps)


def _pieces(span: Span, counts: Mapping[str, int], device: torch.device) -> _Pieces:
    """Zeros between weights count as the one's before."""
    lengths: list[int] = []
    wholes: list[int] = []
    count = 0
    ends = [*(slot.start for slot in span.slots[1:]), span.end]
    for slot, end in zip(span.slots, ends, strict=True):
        rows, parts = len(slot.parameter), counts.get(slot.name, 1)
        here = range(slot.first, slot.first + slot.shape[0])
        for part in range(parts):
            first, last = (max(here.start, part * rows // parts), min(here.stop, (part + 1) * rows // parts))
            if first < last:
                lengths.append((last - first) * (slot.parameter.numel() // rows))
                wholes.append(count)
            count += 1
        if here:
            lengths[-1] += end - slot.end
    return _Pieces(lengths=lengths, wholes=torch.tensor(wholes, dtype=torch.int64, device=device), count=count)
