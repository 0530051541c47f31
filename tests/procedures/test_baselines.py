"""The baselines are what their names say, and choose on validation only."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from tiny_trials import LABELS, relabelled, task

from kitae.procedures.baselines import STRENGTHS, majority, rotation, tfidf
from kitae.procedures.outcome import Outcome
from kitae.tasks.records import TaskData


def test_majority_gives_the_most_frequent_training_label() -> None:
    data = task(train=30)
    data = dataclasses.replace(data, train=tuple(e for e in data.train if e.gold != "art" or int(e.id[5:]) < 10))
    share = Counter(e.gold for e in data.train)
    outcome = majority(data, "accuracy")
    assert len(outcome.predicted) == 60
    assert outcome.predicted[0].more["probabilities"] == pytest.approx([share[label] / len(data.train) for label in LABELS])
    assert outcome.predicted[7].value == share.most_common(1)[0][0]


def right(outcome: Outcome, data: TaskData) -> float:
    return float(np.mean([found.value == e.gold for found, e in zip(outcome.predicted, data.test, strict=True)]))


def test_tfidf_learns_words_and_ignores_test_labels() -> None:
    data = task()
    outcome = tfidf(data, "accuracy")
    assert right(outcome, data) >= 0.8
    assert all(sum(found.more["probabilities"]) == pytest.approx(1) for found in outcome.predicted)
    assert [point["C"] for point in outcome.curve] == list(STRENGTHS)
    best = max(point["accuracy"] for point in outcome.curve)
    assert outcome.chosen == next(point for point in outcome.curve if point["accuracy"] == best)
    other = tfidf(dataclasses.replace(data, test=relabelled(data.test, 2)), "accuracy")
    assert other.predicted == outcome.predicted
    assert other.chosen == outcome.chosen
    permuted = tfidf(dataclasses.replace(data, train=relabelled(data.train, 1)), "accuracy")
    assert right(permuted, data) <= 0.55


def test_rotated_coordinates_give_scikit_learns_model() -> None:
    data = task(train=60)
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3))
    features, truth = vectorizer.fit_transform([e.text for e in data.train]), [e.gold for e in data.train]
    held, turn = vectorizer.transform([e.text for e in data.test]), rotation(features)
    assert turn(features).shape[1] <= 60 < features.shape[1]
    plain, turned = (LogisticRegression(C=10, tol=1e-9, max_iter=5000).fit(x, truth) for x in (features, turn(features)))
    assert np.abs(plain.predict_proba(held) - turned.predict_proba(turn(held))).max() < 1e-5
