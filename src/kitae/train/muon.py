"""Muon: steps of matrices along their average gradient, made nearly orthogonal (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

Shapes: M matrices, R rows, C columns.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kitae.train.config import TrainConfig
from kitae.train.flat import Span, Weights
from kitae.train.layers import fused
from kitae.train.rule_config import MuonConfig
from kitae.train.rules import by_name, gated

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: steep at zero, so that few iterations bring every singular value to between 0.7 and 1.2."""
EPSILON = 1e-7
CHUNK = 1 << 26  # elements that are made orthogonal at once: 128 MiB in bf16


@dataclass(frozen=True, kw_only=True)
class _Matrix:
    """One matrix, or one of those that lie in one weight: views R x C."""

    weight: Tensor
    grad: Tensor
    average: Tensor
    rate: float
    """Factor of the learning rate for the step, its adjustment included."""

    @property
    def tall(self) -> bool:
        return self.weight.shape[0] > self.weight.shape[1]


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
            named = [span.named(flat) for flat in flats]
            for name in named[0]:
                count = counts.get(name, 1)
                for weight, grad, kept in zip(*(tensors[name].chunk(count) for tensors in named), strict=True):
                    rate = span.key.scale * self._adjustment(*weight.shape)
                    yield _Matrix(weight=weight, grad=grad, average=kept, rate=rate)

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
            steps_MRC = orthogonal(torch.stack([self._direction(matrix) for matrix in chunk]), self._config.iterations)
            if unless is not None:
                steps_MRC = steps_MRC * gated(1.0, unless, steps_MRC)
            for matrix, step_RC in zip(chunk, steps_MRC, strict=True):
                matrix.weight.add_(step_RC.mT if matrix.tall else step_RC, alpha=-rate * matrix.rate)

    def _direction(self, matrix: _Matrix) -> Tensor:
        """Where a matrix wants to go, wider than high."""
        found = torch.lerp(matrix.grad, matrix.average, self._config.momentum) if self._config.nesterov else matrix.average
        return (found.mT if matrix.tall else found).to(self._dtype)

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
        alike.setdefault(tuple(sorted(matrix.weight.shape)), []).append(matrix)
    for (rows, columns), found in alike.items():
        most = max(1, CHUNK // (rows * columns))
        yield from (found[first : first + most] for first in range(0, len(found), most))
