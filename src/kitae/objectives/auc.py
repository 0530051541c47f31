"""Area under the ROC curve from a histogram that adds up over batches and processes."""

import torch
from torch import Tensor

BINS = 1 << 18
LIMIT = 16.0
"""Logits beyond this tie with each other; within, a bin is 1/8192 wide: the scores of a young model differ by thousandths."""


def histogram(logits_N: Tensor, positive_N: Tensor) -> Tensor:
    """float64 [2, BINS]: how many negatives and how many positives have their score in each bin."""
    bins = ((logits_N.double().clamp(-LIMIT, LIMIT) + LIMIT) * (BINS / (2 * LIMIT))).long().clamp_max(BINS - 1)
    counts = torch.bincount(bins + BINS * positive_N.long(), minlength=2 * BINS)
    return counts.view(2, BINS).double()


def area(counts_2K: Tensor) -> float | None:
    """Probability that a positive scores above a negative, a tie counting half; None without both kinds."""
    negatives, positives = counts_2K[0], counts_2K[1]
    if not negatives.sum() or not positives.sum():
        return None
    below = negatives.cumsum(dim=0) - negatives / 2
    return float((positives * below).sum() / (positives.sum() * negatives.sum()))
