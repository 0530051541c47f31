"""Metrics, each as numbers of every example that add up, and a value of their sums; so a bootstrap needs no second look at the texts.

Those of one label per text stand here; see `correlations` and `indicators` for numbers and for several labels. Tests hold every one of
them together with scikit-learn, scipy, seqeval or the official script.
Shapes: N examples, K numbers, S samples (any leading axes), C labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kitae.tasks.examples import Gold

Floats = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Range:
    """The lowest and the highest value that a number can have; None: it has no bound on that side."""

    lowest: float | None = None
    highest: float | None = None

    def cut(self, value: float) -> float:
        """The value, or the bound that it lies beyond."""
        if self.lowest is not None:
            value = max(value, self.lowest)
        return value if self.highest is None else min(value, self.highest)

    @property
    def differences(self) -> "Range":
        """Of one such number minus another one."""
        if self.lowest is None or self.highest is None:
            return Range()
        return Range(lowest=self.lowest - self.highest, highest=self.highest - self.lowest)


SHARE = Range(lowest=0.0, highest=1.0)
CORRELATION = Range(lowest=-1.0, highest=1.0)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A score of predictions, the higher the better."""

    name: str
    items: Callable[[Sequence[Gold | None], Sequence[Gold], Sequence[str]], Floats]
    """(golds, predictions, labels) -> [N, K]. No gold is None where this is called."""
    value: Callable[[Floats], Floats]
    """Sums over examples [S, K] -> [S]. Must hold for weighted sums too."""
    resampled: Callable[[Floats, Floats], Floats] | None = None
    """(items [N, K], weights [S, N]) -> [S], for metrics of which sums do not say enough (ranks)."""
    within: Range = Range()
    """What it can be; its intervals are cut to it. Of a metric that does not say, they are not cut."""

    def score(self, golds: Sequence[Gold | None], values: Sequence[Gold], labels: Sequence[str]) -> float:
        """Of all examples."""
        return float(self.under(self.items(golds, values, labels), np.ones((1, len(golds)), np.float64))[0])

    def under(self, items: Floats, weights: Floats) -> Floats:
        """[S]: the metric where example n counts weights[s, n] times."""
        return self.resampled(items, weights) if self.resampled is not None else self.value(weights @ items.astype(weights.dtype))


def ratio(over: Floats, under: Floats) -> Floats:
    """over / under, 0 where there is nothing below."""
    return np.divide(over, under, out=np.zeros_like(over), where=under > 0)


def places(golds: Sequence[Gold | None], labels: Sequence[str]) -> NDArray[np.int64]:
    """Labels as their numbers."""
    number = {label: i for i, label in enumerate(labels)}
    return np.asarray([number[str(gold)] for gold in golds], np.int64)


def share(sums: Floats) -> Floats:
    """First number over the second."""
    return ratio(sums[..., 0], sums[..., 1])


def macro_f1(sums: Floats) -> Floats:
    """The plain mean of the F1 of labels that occur in the truth or the predictions (scikit-learn's default)."""
    hits, guessed, true = np.split(sums, 3, axis=-1)
    total = guessed + true
    return ratio(2 * hits, total).sum(-1) / np.maximum((total > 0).sum(-1), 1)


def binary_f1(sums: Floats) -> Floats:
    """The F1 of the last label."""
    hits, guessed, true = (part[..., -1] for part in np.split(sums, 3, axis=-1))
    return ratio(2 * hits, guessed + true)


def mcc(sums: Floats) -> Floats:
    """Matthews' correlation of truth and predictions, for any number of labels (Gorodkin, 2004); 0 where one of them is constant."""
    hits, guessed, true = np.split(sums, 3, axis=-1)
    total = true.sum(-1)
    over = hits.sum(-1) * total - (guessed * true).sum(-1)
    squares = (total**2 - (guessed**2).sum(-1)) * (total**2 - (true**2).sum(-1))
    return np.sign(over) * ratio(np.abs(over), np.sqrt(np.maximum(squares, 0)))


def accuracy_and_f1(sums: Floats) -> Floats:
    """The mean of the accuracy and the F1 of the last label."""
    hits, _, true = np.split(sums, 3, axis=-1)
    return (ratio(hits.sum(-1), true.sum(-1)) + binary_f1(sums)) / 2


def _right(golds: Sequence[Gold | None], values: Sequence[Gold], labels: Sequence[str]) -> Floats:
    del labels
    return np.asarray([(gold == value, 1) for gold, value in zip(golds, values, strict=True)], np.float64).reshape(-1, 2)


def _by_label(golds: Sequence[Gold | None], values: Sequence[Gold], labels: Sequence[str]) -> Floats:
    """[N, 3 C]: hits, predictions, true ones of each label."""
    true, guessed = np.eye(len(labels))[places(golds, labels)], np.eye(len(labels))[places(values, labels)]
    return np.concatenate([true * guessed, guessed, true], axis=1)


ACCURACY = Metric(name="accuracy", items=_right, value=share, within=SHARE)
MACRO_F1 = Metric(name="macro_f1", items=_by_label, value=macro_f1, within=SHARE)
MICRO_F1 = Metric(name="micro_f1", items=_right, value=share, within=SHARE)
"""Of one label per text it is the accuracy."""
F1 = Metric(name="f1", items=_by_label, value=binary_f1, within=SHARE)
"""Of the last label, which is the positive one of two."""
MCC = Metric(name="mcc", items=_by_label, value=mcc, within=CORRELATION)
ACCURACY_AND_F1 = Metric(name="accuracy_and_f1", items=_by_label, value=accuracy_and_f1, within=SHARE)
"""What GLUE counts of MRPC and QQP (Wang et al., 2019, section 3)."""


def confusion(golds: Sequence[Gold | None], values: Sequence[Gold], labels: Sequence[str]) -> NDArray[np.int64]:
    """How often label i (row) was predicted as j (column): [C, C]."""
    count = len(labels)
    return np.bincount(places(golds, labels) * count + places(values, labels), minlength=count * count).reshape(count, count)
