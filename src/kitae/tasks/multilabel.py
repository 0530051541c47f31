"""Several labels per text or pair of texts, or none.

Shapes: N texts, C labels.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch.nn import functional as F

from kitae.core.config import Config
from kitae.core.errors import KitaeError, did_you_mean
from kitae.models.compose import Classifier
from kitae.models.family import Model
from kitae.tasks.examples import Example, Gold
from kitae.tasks.indicators import MACRO_F1, MICRO_F1, SAMPLE_F1, SUBSET_ACCURACY, indicators
from kitae.tasks.kind import Feature, Predicted, Raw
from kitae.tasks.sentences import SentenceKind, SentenceLearner
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss, Term

TERM = "multilabel"
HALF = 0.5


class MultiLabelConfig(Config):
    """How several labels are written, learnt and decided."""

    separator: Annotated[str, Field(min_length=1)] = ","
    """What stands between the labels of a cell; spaces around it are dropped. A JSON file may have a list instead."""
    empty: bool = False
    """Whether an empty cell says that no label applies; else it is an error. An empty list of JSON always says so."""
    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["tuned"] = HALF
    """The probability from which a label is predicted; "tuned" chooses one for all labels, the best micro F1 on validation."""


class MultiLabel(SentenceLearner):
    """Binary cross-entropy of every label of each text, as BCEWithLogitsLoss: the mean over texts and labels."""

    def counts(self, batch: Batch) -> dict[str, int]:
        """How many decisions are made: texts times labels."""
        return {TERM: batch.targets["labels"].numel()}

    def forward(self, batch: Batch) -> Loss:
        """One term: the summed cross-entropy in nats."""
        labels_NC = batch.targets["labels"]
        logits_NC = self.outputs(batch).float()[: len(labels_NC)]
        total = F.binary_cross_entropy_with_logits(logits_NC, labels_NC, reduction="sum")
        return Loss(terms=(Term(name=TERM, sum=total, count=labels_NC.numel()),))


class MultiLabelKind(SentenceKind[MultiLabelConfig]):
    """Texts or pairs of texts with any number of labels each. See ClassificationKind for exactly one."""

    name = "multilabel"
    line = "any number of labels per text or pair of texts"
    options = MultiLabelConfig
    metrics = {metric.name: metric for metric in (MICRO_F1, MACRO_F1, SAMPLE_F1, SUBSET_ACCURACY)}
    lists = True

    def outputs(self, labels: Sequence[str], options: MultiLabelConfig) -> int:
        """See Kind."""
        return len(labels)

    def labels(self, examples: Sequence[Example], options: MultiLabelConfig) -> tuple[str, ...]:
        """See Kind."""
        return tuple(sorted({str(label) for example in examples if isinstance(example.gold, tuple) for label in example.gold}))

    def check(self, example: Example, labels: Sequence[str], options: MultiLabelConfig) -> None:
        """See Kind."""
        if not isinstance(example.gold, tuple):
            raise KitaeError(f'"{example.gold}" is no list of labels', cure="give a reader that makes tuples", where=example.where)
        unknown = next((str(label) for label in example.gold if label not in labels), None)
        if unknown is not None:
            what = f'the label "{unknown}" is not one of `labels`, or never occurs in the training examples'
            raise KitaeError(what, cure=did_you_mean(unknown, labels), where=example.where)

    def gold(self, cell: str, where: str, options: MultiLabelConfig) -> Gold:
        """See Kind; in the order of the cell."""
        if cell.startswith("["):
            found = _listed(cell, where)
        elif cell:
            found = [label.strip() for label in cell.split(options.separator)]
        elif options.empty:
            found = []
        else:
            raise KitaeError("the label is empty", cure="fill it in, or say kind_config.empty = true: then no label applies", where=where)
        twice = next((label for number, label in enumerate(found) if label in found[:number]), None)
        if twice is not None or "" in found:
            what = f'the label "{twice}" stands there twice' if twice is not None else f"a label of {cell!r} is empty"
            raise KitaeError(what, cure="correct the line", where=where)
        return tuple(found)

    def values(self, gold: Gold, labels: Sequence[str]) -> dict[str, NDArray[Any]]:
        """See SentenceKind."""
        return {"labels": indicators([gold], labels).astype(np.float32)}

    def learner(self, model: Model, labels: Sequence[str], options: MultiLabelConfig, train: Sequence[Example]) -> MultiLabel:
        """See Kind."""
        assert isinstance(model, Classifier), "the head says what the model is"
        return MultiLabel(model)

    def decode(
        self,
        example: Example,
        features: Sequence[Feature],
        raws: Sequence[Raw],
        labels: Sequence[str],
        options: MultiLabelConfig,
        tuned: Mapping[str, float],
    ) -> Predicted:
        """The labels from the threshold on, in their order; "probabilities" of all. What `tune` is to look at names the "labels" too."""
        shares: list[float] = torch.from_numpy(raws[0]).sigmoid().tolist()
        threshold = tuned.get("threshold", HALF) if options.threshold == "tuned" else options.threshold
        value = tuple(label for label, share in zip(labels, shares, strict=True) if share >= threshold)
        untuned = options.threshold == "tuned" and not tuned
        return Predicted(value=value, more={"probabilities": shares, **({"labels": list(labels)} if untuned else {})})

    def tune(self, examples: Sequence[Example], predicted: Sequence[Predicted], options: MultiLabelConfig) -> dict[str, float]:
        """The threshold with the best micro F1, where the options ask for it; of equally good ones the nearest to 0.5."""
        if options.threshold != "tuned":
            return {}
        shares = np.asarray([one.more["probabilities"] for one in predicted], np.float64)
        labels = predicted[0].more["labels"]
        assert isinstance(labels, list)
        return {"threshold": best_threshold(shares, indicators([example.gold for example in examples], labels))}

    def loss(self, example: Example, predicted: Predicted, labels: Sequence[str]) -> float:
        """The mean over the labels of minus the logarithm of the probability of what is true."""
        shares = predicted.more["probabilities"]
        assert isinstance(shares, list)
        assert isinstance(example.gold, tuple)
        true = (share if label in example.gold else 1 - share for label, share in zip(labels, shares, strict=True))
        return -sum(math.log(max(share, 1e-12)) for share in true) / len(labels)


def best_threshold(shares_NC: NDArray[np.float64], true_NC: NDArray[np.float64]) -> float:
    """Between two neighbouring probabilities, so that what lies above has the best micro F1; of equally good ones the nearest to 0.5.

    0.5 where nothing is true.
    """
    order = np.argsort(-shares_NC, axis=None, kind="stable")
    shares, true = shares_NC.flatten()[order], true_NC.flatten()[order]
    if not true.any():
        return HALF
    last = np.append(shares[1:] < shares[:-1], True)  # equal ones go together
    f1 = (2 * true.cumsum() / (np.arange(1, len(true) + 1) + true.sum()))[last]
    kept, below = shares[last], np.append(shares[1:], 0.0)[last]
    low, high = np.nextafter(below, 1.0), kept
    nearest = np.where((low <= HALF) & (high >= HALF), HALF, (low + high) / 2)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(nearest[best[np.argmin(np.abs(nearest[best] - HALF))]])


def _listed(cell: str, where: str) -> list[str]:
    try:
        found = json.loads(cell)
    except ValueError as error:
        raise KitaeError(f"{cell!r} is no list of JSON", cure='write ["one", "two"]', where=where) from error
    if not all(isinstance(label, str) for label in found):
        raise KitaeError(f"{cell!r} holds what is no text", cure='write ["one", "two"]', where=where)
    return [label.strip() for label in found]
