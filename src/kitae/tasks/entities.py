"""Scores of entities as conlleval and seqeval (default mode) count them: an entity is right when its class, start and end are.

Golds and predictions are a tag per word, or spans over characters. Tags are read by the rules of kitae.tasks.tags, so a word with a
plain tag is an entity by itself. Shapes: N examples, K numbers, T classes.
"""

from collections.abc import Sequence

import numpy as np

from kitae.tasks.examples import Gold, Span
from kitae.tasks.metrics import SHARE, Floats, Metric, macro_f1, ratio, share
from kitae.tasks.tags import chunks_of, classes_of

Entity = tuple[int, int, str]


def entities(value: Gold | None) -> frozenset[Entity]:
    """(start, end, class) of every entity, counted in words or in characters."""
    assert isinstance(value, tuple), "tags, or spans"
    spans = [item for item in value if isinstance(item, Span)]
    if spans:
        return frozenset((span.start, span.end, span.label) for span in spans)
    return frozenset(map(tuple, chunks_of([str(tag) for tag in value])))  # type: ignore[arg-type]  # of three


def _counts(golds: Sequence[Gold | None], values: Sequence[Gold], labels: Sequence[str]) -> Floats:
    """[N, 3]: hits, predicted, true."""
    del labels
    rows = []
    for gold, value in zip(golds, values, strict=True):
        true, guessed = entities(gold), entities(value)
        rows.append((len(true & guessed), len(guessed), len(true)))
    return np.asarray(rows, np.float64).reshape(-1, 3)


def by_class(golds: Sequence[Gold | None], values: Sequence[Gold], labels: Sequence[str]) -> Floats:
    """[N, 3 T]: hits, predictions and true ones of each class of the labels, sorted."""
    number = {label: i for i, label in enumerate(classes_of(labels))}
    found = np.zeros((len(golds), 3, len(number)), np.float64)
    for n, (gold, value) in enumerate(zip(golds, values, strict=True)):
        true, guessed = entities(gold), entities(value)
        for kind, some in enumerate((true & guessed, guessed, true)):
            for _, _, label in some:
                found[n, kind, number[label]] += 1
    return found.reshape(len(golds), -1)


def _alike(golds: Sequence[Gold | None], values: Sequence[Gold], labels: Sequence[str]) -> Floats:
    """[N, 2]: tags that are right, and tags; of spans characters that are, of those within any."""
    del labels
    return np.asarray([_same(gold, value) for gold, value in zip(golds, values, strict=True)], np.float64).reshape(-1, 2)


def _same(gold: Gold | None, value: Gold) -> tuple[int, int]:
    assert isinstance(gold, tuple), "tags, or spans"
    assert isinstance(value, tuple), "tags, or spans"
    if any(isinstance(item, Span) for item in (*gold, *value)):
        true, guessed = _characters(gold), _characters(value)
        return len(true & guessed), len({place for place, _ in true | guessed})
    return sum(tag == other for tag, other in zip(gold, value, strict=True)), len(gold)


def _characters(value: Gold) -> set[tuple[int, str]]:
    return {(place, label) for start, end, label in entities(value) for place in range(start, end)}


def _precision(sums: Floats) -> Floats:
    return ratio(sums[..., 0], sums[..., 1])


def _recall(sums: Floats) -> Floats:
    return ratio(sums[..., 0], sums[..., 2])


def _f1(sums: Floats) -> Floats:
    return ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


F1 = Metric(name="f1", items=_counts, value=_f1, within=SHARE)
PRECISION = Metric(name="precision", items=_counts, value=_precision, within=SHARE)
RECALL = Metric(name="recall", items=_counts, value=_recall, within=SHARE)
CLASS_F1 = Metric(name="macro_f1", items=by_class, value=macro_f1, within=SHARE)
"""The plain mean of the F1 of classes that occur in the truth or the predictions."""
TAG_ACCURACY = Metric(name="accuracy", items=_alike, value=share, within=SHARE)
"""Of tags. Of spans it is that of characters that lie in a true or predicted one."""


def class_scores(golds: Sequence[Gold | None], values: Sequence[Gold], labels: Sequence[str]) -> dict[str, float]:
    """ "f1/CLASS" of every class that occurs in the truth or the predictions."""
    hits, guessed, true = by_class(golds, values, labels).sum(0).reshape(3, -1)
    scores = _f1(np.stack([hits, guessed, true], axis=-1))
    return {f"f1/{label}": float(score) for label, score, count in zip(classes_of(labels), scores, guessed + true, strict=True) if count}
