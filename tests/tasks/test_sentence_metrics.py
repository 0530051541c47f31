"""Metrics of labels, numbers and several labels equal scikit-learn's and scipy's, also where an example counts several times."""

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from kitae.tasks import correlations, indicators
from kitae.tasks.examples import Gold
from kitae.tasks.metrics import ACCURACY, ACCURACY_AND_F1, F1, MACRO_F1, MCC, MICRO_F1, Metric, confusion

Draw = tuple[list[Gold], list[Gold], tuple[str, ...]]


def equal_when_repeated(metric: Metric, draw: Draw, times: np.ndarray) -> float:
    """The metric where example n counts times[n] times, after a look that it is the one of the examples written out so often."""
    golds, values, labels = draw
    found = metric.under(metric.items(golds, values, labels), np.stack([times, np.ones(len(times))]).astype(np.float64))
    out = [i for i, count in enumerate(times) for _ in range(count)]
    assert found[0] == pytest.approx(metric.score([golds[i] for i in out], [values[i] for i in out], labels), abs=1e-12)
    assert found[1] == pytest.approx(metric.score(golds, values, labels), abs=1e-12)
    assert metric.within.cut(found[1]) == pytest.approx(found[1], abs=1e-12), "it lies where the metric says"
    return float(found[1])


def labelled(seed: int) -> Draw:
    generator = np.random.default_rng(seed)
    labels = tuple("abcdefgh"[: 2 if seed % 2 else int(generator.integers(2, 8))])
    size = int(generator.integers(1, 60))
    used = len(labels) if seed % 3 else max(1, len(labels) - 1)
    truth, guess = generator.integers(used, size=size), generator.integers(used, size=size)
    if seed in (4, 5):
        guess[:] = 0
    if seed == 7:
        truth[:] = 0
    return [labels[i] for i in truth], [labels[i] for i in guess], labels


@pytest.mark.parametrize("seed", range(16))
def test_metrics_of_one_label_are_those_of_scikit_learn(seed: int) -> None:
    draw = golds, values, labels = labelled(seed)
    times = np.random.default_rng(seed).integers(0, 4, size=len(golds))
    f1 = reference.f1_score(golds, values, labels=[labels[-1]], average="macro", zero_division=0)
    accuracy = reference.accuracy_score(golds, values)
    expected = {
        ACCURACY: accuracy,
        MACRO_F1: reference.f1_score(golds, values, average="macro", zero_division=0),
        MICRO_F1: reference.f1_score(golds, values, average="micro"),
        MCC: reference.matthews_corrcoef(golds, values),
        F1: f1,
        ACCURACY_AND_F1: (accuracy + f1) / 2,
    }
    for metric, score in expected.items():
        assert equal_when_repeated(metric, draw, times) == pytest.approx(score, abs=1e-12), metric.name
    assert np.array_equal(confusion(golds, values, labels), reference.confusion_matrix(golds, values, labels=labels))


def test_f1_of_two_labels_is_that_of_the_positive_one() -> None:
    golds, values = ["1", "0", "1", "1"], ["1", "1", "0", "1"]
    assert F1.score(golds, values, ("0", "1")) == reference.f1_score([1, 0, 1, 1], [1, 1, 0, 1]) == pytest.approx(2 / 3)
    assert F1.score(golds, values, ("1", "0")) == 0.0


def numbers(seed: int) -> Draw:
    generator = np.random.default_rng(seed)
    size = int(generator.integers(2, 80))
    golds = generator.normal(size=size) * 10.0 ** generator.integers(-6, 7) + 10.0 ** generator.integers(-3, 7)
    values = golds * generator.normal() + generator.normal(size=size)
    if seed % 2:  # many ties
        golds, values = generator.integers(0, 4, size=size), generator.integers(0, 3, size=size)
    return [float(x) for x in golds], [float(x) for x in values], ()


@pytest.mark.parametrize("seed", range(16))
def test_correlations_are_those_of_scipy(seed: int) -> None:
    draw = golds, values, _ = numbers(seed)
    if len(set(golds)) == 1 or len(set(values)) == 1:
        pytest.fail("the draw is constant: choose another seed")
    times = np.random.default_rng(seed).integers(0, 4, size=len(golds))
    pearson, spearman = float(stats.pearsonr(golds, values)[0]), float(stats.spearmanr(golds, values)[0])
    assert equal_when_repeated(correlations.PEARSON, draw, times) == pytest.approx(pearson, abs=1e-9)
    assert equal_when_repeated(correlations.SPEARMAN, draw, times) == pytest.approx(spearman, abs=1e-12)
    assert equal_when_repeated(correlations.PEARSON_AND_SPEARMAN, draw, times) == pytest.approx((pearson + spearman) / 2, abs=1e-9)
    assert correlations.mean_squared_error(golds, values) == pytest.approx(reference.mean_squared_error(golds, values), rel=1e-12)


@pytest.mark.parametrize(("golds", "values"), [((0.1, 0.1, 0.1), (1.0, 2.0, 3.0)), ((1.0, 2.0, 3.0), (0.1, 0.1, 0.1)), ((1.0,), (2.0,))])
def test_what_is_constant_has_no_correlation(golds: Sequence[float], values: Sequence[float]) -> None:
    """scipy says "not a number" there."""
    for metric in (correlations.PEARSON, correlations.SPEARMAN, correlations.PEARSON_AND_SPEARMAN):
        assert metric.score(golds, values, ()) == 0.0
        assert metric.score([], [], ()) == 0.0
    items = correlations.PEARSON.items((0.1, 0.1, 7.0), (3.0, 5.0, 5.0), ())
    assert correlations.PEARSON.under(items, np.asarray([[5.0, 3.0, 0.0]])) == 0.0, "a draw in which all golds are the same"


def several(seed: int) -> Draw:
    generator = np.random.default_rng(seed)
    labels, size = tuple("abcde"[: int(generator.integers(1, 6))]), int(generator.integers(1, 40))
    tables = [generator.random((size, len(labels))) < share for share in (0.4, 0.0 if seed == 3 else 0.5)]
    if seed % 2:
        tables[0][:, 0] = tables[1][:, 0] = False  # a label that neither occurs nor is predicted
    golds, values = ([tuple(label for label, here in zip(labels, row, strict=True) if here) for row in table] for table in tables)
    return golds, values, labels


@pytest.mark.parametrize("seed", range(12))
def test_metrics_of_several_labels_are_those_of_scikit_learn(seed: int) -> None:
    draw = golds, values, labels = several(seed)
    true, guess = indicators.indicators(golds, labels), indicators.indicators(values, labels)
    times = np.random.default_rng(seed).integers(0, 4, size=len(golds))
    averages = {indicators.MICRO_F1: "micro", indicators.MACRO_F1: "macro", indicators.SAMPLE_F1: "samples"}
    binary = len(labels) == 1  # a matrix of one column is no matrix of indicators to scikit-learn
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for metric, average in averages.items():
            found = equal_when_repeated(metric, draw, times)
            if not binary:
                assert found == pytest.approx(reference.f1_score(true, guess, average=average, zero_division=0), abs=1e-12), average
        assert equal_when_repeated(indicators.SUBSET_ACCURACY, draw, times) == pytest.approx(reference.accuracy_score(true, guess))


def test_without_examples_every_score_is_zero() -> None:
    for metric in (ACCURACY, MACRO_F1, MICRO_F1, MCC, F1, ACCURACY_AND_F1):
        assert metric.score([], [], ("a", "b")) == 0.0
    for metric in (indicators.MICRO_F1, indicators.MACRO_F1, indicators.SAMPLE_F1, indicators.SUBSET_ACCURACY):
        assert metric.score([], [], ("a", "b")) == 0.0
