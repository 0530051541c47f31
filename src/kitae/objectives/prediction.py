"""How well tokens are predicted from a vocabulary: statistics that add up over batches and processes, and scores from their sums.

Shapes: N masked positions, V vocabulary.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from kitae.objectives.softmax import cross_entropy

TOP = 5
CHUNK = 256
"""Predictions at a time where a whole distribution is needed: with a vocabulary of 32,768, 32 MB in fp32."""
MOST = 700.0
"""Nats beyond which a perplexity is no number of float64."""


def prediction_statistics(logits_NV: Tensor, labels_N: Tensor, *, name: str = "mlm") -> dict[str, Tensor]:
    """Additive statistics: loss, right answers (the first, and among the first 5), entropy of the distributions, their number."""
    return {
        f"{name}_sum": cross_entropy(logits_NV, labels_N).sum(),
        f"{name}_right": (logits_NV.argmax(dim=1) == labels_N).sum(dtype=torch.float64),
        f"{name}_among": _among(logits_NV, labels_N),
        f"{name}_entropy": entropy(logits_NV),
        f"{name}_count": torch.tensor(float(len(labels_N)), dtype=torch.float64, device=labels_N.device),
    }


def prediction_scores(stats: Mapping[str, Tensor], *, name: str = "mlm") -> dict[str, float]:
    """NAME_loss (nats a token), NAME_perplexity (its exponential), NAME_accuracy, NAME_top5_accuracy and NAME_entropy (nats); empty when
    nothing was predicted."""
    count = float(stats[f"{name}_count"])
    if not count:
        return {}
    loss = float(stats[f"{name}_sum"]) / count
    scores = {f"{name}_loss": loss, f"{name}_accuracy": float(stats[f"{name}_right"]) / count}
    if f"{name}_among" in stats:
        scores[f"{name}_top5_accuracy"] = float(stats[f"{name}_among"]) / count
    if f"{name}_entropy" in stats:
        scores[f"{name}_entropy"] = float(stats[f"{name}_entropy"]) / count
    return scores | {f"{name}_perplexity": math.exp(loss)} if loss < MOST else scores


def entropy(logits_NV: Tensor) -> Tensor:
    """Sum over the positions of the entropy of softmax(logits), in nats; float64, a scalar."""
    total = torch.zeros((), dtype=torch.float64, device=logits_NV.device)
    for logits in logits_NV.detach().split(CHUNK):
        wide = logits if logits.dtype == torch.float64 else logits.float()
        logs = torch.log_softmax(wide, dim=1)
        total -= (logs.exp() * logs.clamp_min(torch.finfo(logs.dtype).min)).sum(dtype=torch.float64)  # 0 * -inf is no number
    return total


def _among(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    """How many labels have one of the 5 greatest logits."""
    best = logits_NV.topk(min(TOP, logits_NV.shape[1]), dim=1).indices
    return (best == labels_N[:, None]).any(dim=1).sum(dtype=torch.float64)
