"""A loss as named sums and counts, so that micro-batches, ranks and padding average exactly."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Term:
    """One part of a loss: the sum over `count` predictions, weighted by `weight` after averaging."""

    name: str
    sum: Tensor
    count: int
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The terms of one micro-batch."""

    terms: tuple[Term, ...]

    def total(self, counts: Mapping[str, float]) -> Tensor:
        """Scalar: this micro-batch's share of the loss of the whole step, whose counts are given.

        Over all micro-batches and ranks these shares add up to sum_t weight_t * sum_t / count_t. A term that
        nothing in the whole step predicts (count 0) contributes a zero that still has a gradient.
        """
        return torch.stack([term.weight * term.sum / max(counts[term.name], 1) for term in self.terms]).sum()
