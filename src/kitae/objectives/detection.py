"""Replaced tokens: how they are put into a batch, and the loss and the scores of whoever has to find them.

Shapes: B rows, L positions, N masked positions, T real tokens, V vocabulary.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from kitae.objectives.auc import area, histogram
from kitae.tensor.batch import Batch


def uniform_ids(uniform_N: Tensor, labels_N: Tensor, vocab_size: int, *, wrong_only: bool) -> Tensor:
    """ids_N, every token of the vocabulary equally likely. uniform_N: float64 in [0, 1). wrong_only: never the label."""
    if not wrong_only:
        return (uniform_N * vocab_size).long()
    ids_N = (uniform_N * (vocab_size - 1)).long()
    return ids_N + (ids_N >= labels_N).long()


def put_in(batch: Batch, sampled_N: Tensor) -> tuple[Tensor, Tensor]:
    """(ids_BL with samples at the masked positions, replaced_BL); a sample equal to the original counts as not replaced."""
    picks, labels, shape = batch.targets["picks"], batch.targets["labels"], batch.ids_BL.shape
    ids = batch.ids_BL.flatten().index_copy(0, picks, sampled_N)
    replaced = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device).index_copy(0, picks, sampled_N != labels)
    return ids.view(shape), replaced.view(shape)


def binary_losses(logits: Tensor, replaced: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each position, in float32 or better, whatever the precision of the logits. Smoothing s makes the two labels
    s / 2 and 1 - s / 2 (Szegedy et al. 2016, section 7, for two classes)."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    targets = replaced.to(wide.dtype)
    if smoothing:
        targets = targets * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(wide, targets, reduction="none")


def detection_statistics(logits_T: Tensor, replaced_T: Tensor, *, name: str = "rtd") -> dict[str, Tensor]:
    """Additive statistics of real tokens: loss without smoothing, right answers, counts, histogram of the scores."""
    return {
        f"{name}_sum": binary_losses(logits_T, replaced_T).sum(dtype=torch.float64),
        f"{name}_right": ((logits_T > 0) == replaced_T).sum(dtype=torch.float64),
        f"{name}_count": torch.tensor(float(len(replaced_T)), dtype=torch.float64, device=logits_T.device),
        f"{name}_scores": histogram(logits_T, replaced_T),
    }


def detection_scores(stats: Mapping[str, Tensor], *, name: str = "rtd") -> dict[str, float]:
    """NAME_loss, NAME_accuracy and, where there are both kinds, NAME_auc."""
    scores, count = {}, float(stats[f"{name}_count"])
    if count:
        scores[f"{name}_loss"] = float(stats[f"{name}_sum"]) / count
        scores[f"{name}_accuracy"] = float(stats[f"{name}_right"]) / count
    auc = area(stats[f"{name}_scores"])
    return scores if auc is None else {**scores, f"{name}_auc": auc}
