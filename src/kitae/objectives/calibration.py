"""Whether the probabilities that a model gives are right: the expected calibration error (Naeini et al. 2015; Guo et al. 2017,
arXiv:1706.04599, section 2), from bins that add up over batches and processes."""

import torch
from torch import Tensor
from torch.nn import functional as F

BINS = 15
"""Of equal width from 0 to 1, as in Guo et al."""


def calibration_bins(probabilities_N: Tensor, true_N: Tensor) -> Tensor:
    """float64 [3, BINS]: in each bin of the probabilities how many there are, their sum, and how many came true (bool `true_N`)."""
    wide = probabilities_N.double()
    inside_NK = F.one_hot((wide * BINS).long().clamp(0, BINS - 1), BINS).double()  # a weighted bincount is not reproducible on a GPU
    return torch.stack([torch.ones_like(wide), wide, true_N.double()]) @ inside_NK


def calibration_error(table_3K: Tensor) -> float | None:
    """How far the mean probability of a bin is from the share that came true, averaged over what lies in the bins; None over nothing."""
    counts, sums, true = table_3K
    total = float(counts.sum())
    return float((sums - true).abs().sum()) / total if total else None
