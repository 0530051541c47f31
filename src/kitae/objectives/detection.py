"""Replaced tokens: how they are put into a batch, and the loss and the scores of whoever has to find them.

Shapes: B rows, L positions, N masked positions, T real tokens, V vocabulary.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from kitae.objectives.auc import area, histogram
from kitae.objectives.calibration import calibration_bins, calibration_error
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
    """Additive statistics of real tokens: loss without smoothing, right answers, counts, what is said to be replaced and what of it is,
    histogram of the scores, bins of the probabilities."""
    found_T = logits_T > 0
    wide = logits_T if logits_T.dtype == torch.float64 else logits_T.float()
    return {
        f"{name}_sum": binary_losses(logits_T, replaced_T).sum(dtype=torch.float64),
        f"{name}_right": (found_T == replaced_T).sum(dtype=torch.float64),
        f"{name}_count": torch.tensor(float(len(replaced_T)), dtype=torch.float64, device=logits_T.device),
        f"{name}_positives": replaced_T.sum(dtype=torch.float64),
        f"{name}_found": found_T.sum(dtype=torch.float64),
        f"{name}_hits": (found_T & replaced_T).sum(dtype=torch.float64),
        f"{name}_scores": histogram(logits_T, replaced_T),
        f"{name}_bins": calibration_bins(torch.sigmoid(wide), replaced_T),
    }


def detection_scores(stats: Mapping[str, Tensor], *, name: str = "rtd") -> dict[str, float]:
    """NAME_loss, NAME_accuracy, NAME_precision (where something is said to be replaced), NAME_recall (where something is),
    NAME_calibration_error and, where there are both kinds, NAME_auc."""
    count, positives, found, hits = (float(stats[f"{name}_{part}"]) for part in ("count", "positives", "found", "hits"))
    scores: dict[str, float | None] = {
        f"{name}_loss": float(stats[f"{name}_sum"]) / count if count else None,
        f"{name}_accuracy": float(stats[f"{name}_right"]) / count if count else None,
        f"{name}_precision": hits / found if found else None,
        f"{name}_recall": hits / positives if positives else None,
        f"{name}_auc": area(stats[f"{name}_scores"]),
        f"{name}_calibration_error": calibration_error(stats[f"{name}_bins"]),
    }
    return {score: value for score, value in scores.items() if value is not None}


def sampling_statistics(sampled_N: Tensor, labels_N: Tensor) -> dict[str, Tensor]:
    """Additive statistics of what was put at the chosen positions: how many there are, how many samples are the token that stood there."""
    return {
        "sampled_count": torch.tensor(float(len(labels_N)), dtype=torch.float64, device=labels_N.device),
        "sampled_right": (sampled_N == labels_N).sum(dtype=torch.float64),
    }


def sampling_scores(stats: Mapping[str, Tensor]) -> dict[str, float]:
    """sampled_accuracy, the share of samples that are the token that stood there, and what it leaves: replaced_share_of_masked."""
    count, right = float(stats["sampled_count"]), float(stats["sampled_right"])
    return {"sampled_accuracy": right / count, "replaced_share_of_masked": (count - right) / count} if count else {}
