"""Pairs of segments as a second thing to learn: does the second follow the first (NSP), are the two in their order (SOP)?

Next sentence prediction is BERT's (Devlin et al. 2019, section 3.1), sentence order prediction ALBERT's (Lan et al. 2020,
arXiv:1909.11942, section 3.1), which is harder: both segments are about the same thing, so only their coherence tells. What stands
in the segments is the data set's business (data/pairs.py); labels are its own: 0 is the true order, as in transformers, unless the
data set says otherwise. RoBERTa (Liu et al. 2019) found NSP to be of no use for long rows; SOP helped ALBERT.

Shapes: P pairs of the micro-batch; their labels and the places of their [CLS] are the targets "pair_labels" and "pairs".
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kitae.core.errors import KitaeError
from kitae.data.pairs import PairConfig
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Term

SentenceOrder = Literal["none", "nsp", "sop"]


def check_order(order: SentenceOrder, pairs: PairConfig | None) -> None:
    """Raise KitaeError when a data set (`pairs` None: it has none) has nothing of the kind that is to be learnt."""
    if order == "none":
        return
    if pairs is None:
        cure = f'set packing = "pairs" and pairs = {{ task = "{order}" }} in [dataset]'
        raise KitaeError(f'sentence_order = "{order}" learns from pairs of segments, and the dataset has none', cure=cure)
    if pairs.task != order:
        raise KitaeError(
            f'sentence_order = "{order}", but the dataset\'s pairs are made for "{pairs.task}"',
            cure=f'set sentence_order = "{pairs.task}", or pairs.task = "{order}" in [dataset]',
        )
    if pairs.negative in (0, 1):
        raise KitaeError(
            f'sentence_order = "{order}" has nothing to tell apart: pairs.negative = {pairs.negative:g} gives all pairs the same label',
            cure="set pairs.negative = 0.5 in [dataset]",
        )


def order_count(batch: Batch) -> int:
    """Pairs with a label."""
    return len(batch.targets["pairs"])


def order_term(name: str, logits_P2: Tensor, batch: Batch, *, weight: float) -> Term:
    """Cross-entropy of the labels, in fp32 or better."""
    return Term(name=name, sum=_losses(logits_P2, batch).sum(dtype=torch.float64), count=order_count(batch), weight=weight)


def order_statistics(name: str, logits_P2: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Additive statistics: sum of the loss, right answers, pairs."""
    labels_P = batch.targets["pair_labels"]
    return {
        f"{name}_sum": _losses(logits_P2, batch).sum(dtype=torch.float64),
        f"{name}_right": (logits_P2.argmax(dim=1) == labels_P).sum(dtype=torch.float64),
        f"{name}_count": torch.tensor(float(len(labels_P)), dtype=torch.float64, device=labels_P.device),
    }


def order_scores(name: str, stats: Mapping[str, Tensor]) -> dict[str, float]:
    """NAME_loss and NAME_accuracy from summed statistics; empty where there were no pairs."""
    count = float(stats[f"{name}_count"])
    if not count:
        return {}
    return {f"{name}_loss": float(stats[f"{name}_sum"]) / count, f"{name}_accuracy": float(stats[f"{name}_right"]) / count}


def _losses(logits_P2: Tensor, batch: Batch) -> Tensor:
    wide = logits_P2 if logits_P2.dtype == torch.float64 else logits_P2.float()
    return F.cross_entropy(wide, batch.targets["pair_labels"], reduction="none")
