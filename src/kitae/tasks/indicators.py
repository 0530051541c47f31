"""Metrics of several labels per text, as scikit-learn's of indicator matrices with zero_division = 0.

Shapes: N examples, C labels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kitae.tasks.examples import Gold
from kitae.tasks.metrics import SHARE, Floats, Metric, ratio, share


def indicators(golds: Sequence[Gold | None], labels: Sequence[str]) -> NDArray[np.float64]:
    """[N, C]: 1 where a label applies."""
    number = {label: i for i, label in enumerate(labels)}
    made = np.zeros((len(golds), len(labels)))
    for row, gold in zip(made, golds, strict=True):
        assert isinstance(gold, tuple), "the kind checks its golds"
        row[[number[str(label)] for label in gold]] = 1
    return made


def micro_f1(sums: Floats) -> Floats:
    """The F1 of all labels together."""
    hits, guessed, true = (part.sum(-1) for part in np.split(sums, 3, axis=-1))
    return ratio(2 * hits, guessed + true)


def macro_f1(sums: Floats) -> Floats:
    """The plain mean of the F1 of all labels; one that neither occurs nor is predicted counts as 0."""
    hits, guessed, true = np.split(sums, 3, axis=-1)
    return ratio(2 * hits, guessed + true).mean(-1)


def _by_label(golds: Sequence[Gold | None], values: Sequence[Gold], labels: Sequence[str]) -> Floats:
    """[N, 3 C]: hits, predictions, true ones of each label."""
    true, guessed = indicators(golds, labels), indicators(values, labels)
    return np.concatenate([true * guessed, guessed, true], axis=1)


def _by_text(golds: Sequence[Gold | None], values: Sequence[Gold], labels: Sequence[str]) -> Floats:
    """[N, 2]: the F1 of each text's labels, and 1."""
    true, guessed = indicators(golds, labels), indicators(values, labels)
    return np.stack([ratio(2 * (true * guessed).sum(1), true.sum(1) + guessed.sum(1)), np.ones(len(true))], axis=1)


def _whole(golds: Sequence[Gold | None], values: Sequence[Gold], labels: Sequence[str]) -> Floats:
    """[N, 2]: whether all labels are right, and 1."""
    true, guessed = indicators(golds, labels), indicators(values, labels)
    return np.stack([(true == guessed).all(1), np.ones(len(true))], axis=1)


MICRO_F1 = Metric(name="micro_f1", items=_by_label, value=micro_f1, within=SHARE)
MACRO_F1 = Metric(name="macro_f1", items=_by_label, value=macro_f1, within=SHARE)
SAMPLE_F1 = Metric(name="sample_f1", items=_by_text, value=share, within=SHARE)
"""The mean of the F1 of every text's labels."""
SUBSET_ACCURACY = Metric(name="subset_accuracy", items=_whole, value=share, within=SHARE)
"""Share of the texts of which all labels are right."""
