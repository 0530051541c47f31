"""Scores of a classification, in numpy, equal to scikit-learn's (a test holds them together)."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Metric = Literal["accuracy", "macro_f1", "micro_f1"]


def confusion(truth: ArrayLike, predicted: ArrayLike, *, labels: int) -> NDArray[np.int64]:
    """How often label i (row) was predicted as j (column): [labels, labels]."""
    truth, predicted = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
    return np.bincount(truth * labels + predicted, minlength=labels * labels).reshape(labels, labels)


def score(metric: Metric, matrix: NDArray[np.int64]) -> float:
    """A metric of a confusion matrix, between 0 and 1.

    macro_f1 is the plain mean of the F1 of the labels that occur in the truth or in the predictions (scikit-learn's default);
    micro_f1 equals the accuracy when every text has exactly one label.
    """
    if metric == "macro_f1":
        hits = np.diag(matrix)[None].astype(float)
        return float(macro_f1(hits, matrix.sum(0)[None].astype(float), matrix.sum(1)[None].astype(float))[0])
    return float(np.trace(matrix) / matrix.sum())


def scores(truth: ArrayLike, predicted: ArrayLike, *, labels: int) -> dict[str, float]:
    """accuracy, macro_f1 and micro_f1 at once."""
    matrix = confusion(truth, predicted, labels=labels)
    return {name: score(name, matrix) for name in ("accuracy", "macro_f1", "micro_f1")}


def macro_f1(hits: NDArray[np.floating], predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> NDArray[np.floating]:
    """Macro F1 of many tables at once: each argument is [tables, labels], counts of hits, of predictions and of true labels."""
    total = predicted + truth
    f1 = np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)
    return f1.sum(1) / np.maximum((total > 0).sum(1), 1)
