"""The baselines are what their names say for every form of gold, and choose on validation only."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from tiny_trials import LABELS, relabelled, task

from kitae.procedures.baselines import majority, tfidf
from kitae.procedures.linear import STRENGTHS, rotation
from kitae.procedures.outcome import Outcome
from kitae.tasks.examples import Example
from kitae.tasks.metrics import places
from kitae.tasks.records import TaskData


def shares(outcome: Outcome) -> np.ndarray:
    return np.asarray([found.more["probabilities"] for found in outcome.predicted])


def right(outcome: Outcome, data: TaskData) -> float:
    return float(np.mean([found.value == example.gold for found, example in zip(outcome.predicted, data.test, strict=True)]))


def test_majority_gives_the_most_frequent_training_label() -> None:
    data = task(train=30)
    data = dataclasses.replace(data, train=tuple(e for e in data.train if e.gold != "art" or int(e.id[5:]) < 10))
    share = Counter(e.gold for e in data.train)
    outcome = majority(data, "accuracy")
    assert shares(outcome).shape == (60, 3)
    assert shares(outcome)[0].tolist() == pytest.approx([share[label] / len(data.train) for label in LABELS])
    assert outcome.predicted[7].value == share.most_common(1)[0][0]


def test_tfidf_learns_words_and_ignores_test_labels() -> None:
    data = task()
    outcome = tfidf(data, "accuracy")
    assert right(outcome, data) >= 0.8
    assert shares(outcome).sum(1) == pytest.approx(1)
    assert [point["C"] for point in outcome.curve] == list(STRENGTHS)
    best = max(point["accuracy"] for point in outcome.curve)
    assert outcome.chosen == next(point for point in outcome.curve if point["accuracy"] == best)
    other = tfidf(dataclasses.replace(data, test=relabelled(data.test, 2)), "accuracy")
    assert np.array_equal(shares(other), shares(outcome))
    assert other.chosen == outcome.chosen
    assert right(tfidf(dataclasses.replace(data, train=relabelled(data.train, 1)), "accuracy"), data) <= 0.55


def test_rotated_coordinates_give_scikit_learns_model() -> None:
    data = task(train=60)
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3))
    features, truth = vectorizer.fit_transform([e.text for e in data.train]), places([e.gold for e in data.train], data.labels)
    held, turn = vectorizer.transform([e.text for e in data.test]), rotation(features)
    assert turn(features).shape[1] <= 60 < features.shape[1]
    plain, turned = (LogisticRegression(C=10, tol=1e-9, max_iter=5000).fit(x, truth) for x in (features, turn(features)))
    assert np.abs(plain.predict_proba(held) - turned.predict_proba(turn(held))).max() < 1e-5


def paired(part: Sequence[Example]) -> tuple[Example, ...]:
    """Pairs that say "same" when the second text repeats words of the first."""
    others = [*part[1:], part[0]]
    return tuple(
        dataclasses.replace(e, second=" ".join(e.text.split()[::-1]) if i % 2 else other.text, gold="same" if i % 2 else "other")
        for i, (e, other) in enumerate(zip(part, others, strict=True))
    )


def test_tfidf_sees_what_the_texts_of_a_pair_share() -> None:
    data = task()
    parts = {name: paired(getattr(data, name)) for name in ("train", "validation", "test")}
    data = dataclasses.replace(data, labels=("other", "same"), **parts)
    assert right(tfidf(data, "accuracy"), data) >= 0.9
