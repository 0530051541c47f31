"""Metrics equal scikit-learn's, absent labels included."""

import numpy as np
import pytest
from sklearn import metrics as reference

from kitae.tasks.metrics import ACCURACY, MACRO_F1, MICRO_F1, confusion


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = int(generator.integers(2, 9))
    size = int(generator.integers(3, 60))
    truth, predicted = generator.integers(labels, size=size), generator.integers(labels, size=size)
    names = [f"label {number}" for number in range(labels + 2)]
    golds, values = [names[number] for number in truth], [names[number] for number in predicted]
    found = {metric.name: metric.score(golds, values, names) for metric in (ACCURACY, MACRO_F1, MICRO_F1)}
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(truth, predicted), abs=1e-12)
    assert found["macro_f1"] == pytest.approx(reference.f1_score(truth, predicted, average="macro", zero_division=0), abs=1e-12)
    assert found["micro_f1"] == pytest.approx(reference.f1_score(truth, predicted, average="micro"), abs=1e-12)
    expected = reference.confusion_matrix(truth, predicted, labels=range(labels + 2))
    assert np.array_equal(confusion(golds, values, names), expected)
