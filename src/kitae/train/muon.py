"""Muon: steps of matrices along their average gradient, made nearly orthogonal (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

Shapes: M matrices, R rows, C columns.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from kitae.train.config import TrainConfig
from kitae.train.flat import Slot, Span, Weights
from kitae.train.layers import fused
from kitae.train.rule_config import MuonConfig
from kitae.train.rules import by_name, gated

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: steep at zero, so that few iterations bring every singular value to between 0.7 and 1.2."""
EPSILON = 1e-7
CHUNK = 1 << 26  # elements that are made orthogonal at once: 128 MiB in bf16


@dataclass(frozen=True, kw_only=True)
class _Owner:
    """A weight: views of what of it lies here, rows x C."""

    slot: Slot
    weight: Tensor
    grad: Tensor
    average: Tensor


@dataclass(frozen=True, kw_only=True)
class _Matrix:
    """One matrix R x C, or one of those that lie in one weight."""

    owner: _Owner
    rows: range
    """Of the weight."""
    rate: float
    """Factor of the learning rate for the step, its adjustment included."""

    @property
    def columns(self) -> int:
        return self.owner.slot.parameter.shape[1]

    @property
    def tall(self) -> bool:
        return len(self.rows) > self.columns


class Muon:
    """For the matrices inside the layers; everything else needs another rule, as AdamW.

    As torch.optim.Muon, with whose numbers it agrees, but queries, keys and values (and the halves of a gated feed-forward part) are each
    made orthogonal by themselves, as where they are matrices of their own; and matrices of one shape are worked on together. The
    iterations run in bf16 where the weights are used in half precision, else in the weights' precision.
    """

    def __init__(self, flat: Weights, spans: Sequence[Span], config: TrainConfig) -> None:
        self._flat, self._spans = flat, spans
        self._config = config.muon or MuonConfig()
        self._factor = 1.0 if self._config.learning_rate is None else self._config.learning_rate / config.learning_rate
        self._decay = config.weight_decay if self._config.weight_decay is None else self._config.weight_decay
        self._dtype = torch.bfloat16 if flat.work_dtype.itemsize == 2 else flat.dtype
        self._averages = [torch.zeros_like(flat.master[span.start : span.end]) for span in spans]
        self._chunks = list(_chunks(self._matrices()))

    def _matrices(self) -> Iterator[_Matrix]:
        counts = fused({slot.name: slot.parameter.shape for slot in self._flat.slots})
        for span, average in zip(self._spans, self._averages, strict=True):
            flats = (self._flat.master[span.start : span.end], self._flat.grad[span.start : span.end], average)
            weights, grads, averages = (span.named(flat) for flat in flats)
            for slot in span.slots:
                name, (rows, columns) = slot.name, slot.parameter.shape
                owner = _Owner(slot=slot, weight=weights[name], grad=grads[name], average=averages[name])
                each = rows // counts.get(name, 1)
                rate = span.key.scale * self._adjustment(each, columns)
                yield from (_Matrix(owner=owner, rows=range(first, first + each), rate=rate) for first in range(0, rows, each))

    def _adjustment(self, rows: int, columns: int) -> float:
        if self._config.adjust == "original":
            return math.sqrt(max(1.0, rows / columns))
        return 0.2 * math.sqrt(max(rows, columns))

    @torch.no_grad()
    def update(self, rate: float, *, unless: Tensor | None) -> None:
        """See `Rule`."""
        rate = rate * self._factor
        for span, average in zip(self._spans, self._averages, strict=True):
            weights, grad = self._flat.master[span.start : span.end], self._flat.grad[span.start : span.end]
            if unless is not None:
                grad.masked_fill_(unless, 0.0)  # what is not finite would get through a factor of 0
            average.lerp_(grad, gated(1 - self._config.momentum, unless, average))
            if self._decay:
                weights.mul_(gated(1 - rate * span.key.scale * self._decay, unless, weights, otherwise=1.0))
        for chunk in self._chunks:
            steps_MRC = orthogonal(torch.stack(list(self._directions(chunk))), self._config.iterations)
            if unless is not None:
                steps_MRC = steps_MRC * gated(1.0, unless, steps_MRC)
            for matrix, step_RC in zip(chunk, steps_MRC, strict=True):
                whole, slot = step_RC.mT if matrix.tall else step_RC, matrix.owner.slot
                first, last = max(slot.first, matrix.rows.start), min(slot.first + slot.shape[0], matrix.rows.stop)
                if first < last:  # of the rows that lie here
                    own = matrix.owner.weight[first - slot.first : last - slot.first]
                    own.add_(whole[first - matrix.rows.start : last - matrix.rows.start], alpha=-rate * matrix.rate)

    def _directions(self, chunk: list[_Matrix]) -> Iterator[Tensor]:
        """Where matrices want to go, wider than high. Those of one weight follow each other: it is put together once."""
        for _, of_one in groupby(chunk, key=lambda matrix: matrix.owner.slot.name):
            matrices = list(of_one)
            owner = matrices[0].owner
            found = torch.lerp(owner.grad, owner.average, self._config.momentum) if self._config.nesterov else owner.average
            whole = self._flat.assembled(owner.slot, found.to(self._dtype))
            for matrix in matrices:
                direction = whole[matrix.rows.start : matrix.rows.stop]
                yield direction.mT if matrix.tall else direction

    def state(self) -> dict[str, Tensor]:
        """The running averages by "muon_momentum.NAME"."""
        return by_name(self._spans, {"muon_momentum": self._averages})

    def set_steps(self, steps: int) -> None:
        """See `Rule`; Muon does not count."""


def orthogonal(x_MRC: Tensor, iterations: int) -> Tensor:
    """Matrices with R <= C -> matrices of the same singular vectors, whose singular values are all near 1 (see COEFFICIENTS)."""
    a, b, c = COEFFICIENTS
    x_MRC = x_MRC / torch.linalg.vector_norm(x_MRC, dim=(-2, -1), keepdim=True).clamp(min=EPSILON)
    for _ in range(iterations):
        gram_MRR = x_MRC @ x_MRC.mT
        poly_MRR = torch.baddbmm(gram_MRR, gram_MRR, gram_MRR, beta=b, alpha=c)
        x_MRC = torch.baddbmm(x_MRC, poly_MRR, x_MRC, beta=a)
    return x_MRC


def _chunks(matrices: Iterator[_Matrix]) -> Iterator[list[_Matrix]]:
    """Matrices of one shape, turned wider than high, as many as are worked on at once."""
    alike: dict[tuple[int, ...], list[_Matrix]] = {}
    for matrix in matrices:
        alike.setdefault(tuple(sorted((len(matrix.rows), matrix.columns))), []).append(matrix)
    for (rows, columns), found in alike.items():
        most = max(1, CHUNK // (rows * columns))
        yield from (found[first : first + most] for first in range(0, len(found), most))
