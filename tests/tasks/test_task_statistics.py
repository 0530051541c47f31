"""Intervals cover what they say, and comparing an encoder with itself finds nothing."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from kitae.tasks.metrics import ACCURACY, MACRO_F1, SHARE, Floats, Metric, Range
from kitae.tasks.statistics import Replicates, bootstrap, spread


def trials(generator: np.random.Generator, truth: np.ndarray, level: np.ndarray, *, seeds: int, labels: int, noise: float) -> np.ndarray:
    """Predictions [seeds, items]: items differ in difficulty (shared by all trials), seeds in quality."""
    rows = []
    for _ in range(seeds):
        chance = np.clip(level + generator.normal(0, noise), 0, 1)
        wrong = (truth + generator.integers(1, labels, size=truth.shape)) % labels
        rows.append(np.where(generator.random(truth.shape) < chance, truth, wrong))
    return np.stack(rows)


def items(metric: Metric, truth: np.ndarray, predicted: np.ndarray, labels: int) -> list[Floats]:
    names = [str(number) for number in range(labels)]
    golds = [names[number] for number in truth]
    return [metric.items(golds, [names[number] for number in row], names) for row in predicted]


def right(hits: np.ndarray) -> Floats:
    return np.stack([hits, np.ones(len(hits))], axis=1)


@pytest.mark.parametrize("metric", [ACCURACY, MACRO_F1])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_an_encoder_against_itself_shows_no_difference(metric: Metric, noise: float) -> None:
    draws, found = 60, 0
    for draw in range(draws):
        generator = np.random.default_rng([draw, int(noise * 100)])
        truth = generator.integers(4, size=150)
        level = generator.beta(1.2, 0.5, size=150)  # easy and hard items: correlated between trials
        predicted = {name: trials(generator, truth, level, seeds=5, labels=4, noise=noise) for name in "ab"}
        judged = {name: items(metric, truth, rows, 4) for name, rows in predicted.items()}
        replicates = Replicates(metric, judged, samples=1000, seed=draw)
        found += replicates.compare("a", "b").verdict != "no difference shown"
    assert found <= draws / 10, f"{found} of {draws} comparisons of an encoder with itself claim a difference"


def test_a_true_difference_is_found_and_named_the_right_way_round() -> None:
    found = 0
    for draw in range(20):
        generator = np.random.default_rng(draw)
        truth = generator.integers(4, size=300)
        level = generator.beta(1.2, 0.6, size=300)
        low, high = level - 0.12, level
        predicted = {"low": trials(generator, truth, low, seeds=5, labels=4, noise=0.01)}
        predicted["high"] = trials(generator, truth, high, seeds=5, labels=4, noise=0.01)
        judged = {name: items(ACCURACY, truth, rows, 4) for name, rows in predicted.items()}
        replicates = Replicates(ACCURACY, judged, samples=1000, seed=draw)
        one, other = replicates.compare("high", "low"), replicates.compare("low", "high")
        assert one.difference == pytest.approx(-other.difference)
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
        found += one.verdict == "better" and other.verdict == "worse" and one.p < 0.05 and one.low < one.difference < one.high
    assert found >= 18


def test_a_constant_encoder_can_be_compared_and_itself_equals_itself() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(3, size=200)
    predicted = {"majority": np.zeros((1, 200), int), "good": trials(generator, truth, np.full(200, 0.9), seeds=3, labels=3, noise=0)}
    judged = {name: items(MACRO_F1, truth, rows, 3) for name, rows in predicted.items()}
    replicates = Replicates(MACRO_F1, judged, samples=500)
    assert replicates.compare("good", "majority").verdict == "better"
    same = replicates.compare("good", "good")
    assert (same.difference, same.low, same.high, same.p, same.verdict) == (0, 0, 0, 1, "no difference shown")
    assert replicates.seeds("good") == pytest.approx([f1_score(truth, row, average="macro", zero_division=0) for row in predicted["good"]])


def test_bootstrap_interval_equals_scipy_and_covers() -> None:
    hits = (np.random.default_rng(1).random(200) < 0.7).astype(float)
    ours = bootstrap(ACCURACY, right(hits), samples=5000)
    theirs = stats.bootstrap((hits,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert ours == bootstrap(ACCURACY, right(hits), samples=5000), "seeded"
    covered = 0
    for draw in range(100):
        found = bootstrap(ACCURACY, right(np.random.default_rng(draw).random(150) < 0.7), samples=400, seed=draw)
        covered += found.low <= 0.7 <= found.high
    assert covered >= 88


def test_interval_of_few_seeds_covers_the_mean_of_many() -> None:
    covered, draws = 0, 60
    for draw in range(draws):
        generator = np.random.default_rng(draw)
        truth = generator.integers(2, size=400)
        predicted = trials(generator, truth, np.full(400, 0.75), seeds=4, labels=2, noise=0.05)
        found = Replicates(ACCURACY, {"a": items(ACCURACY, truth, predicted, 2)}, samples=600, seed=draw).interval("a")
        covered += found.low <= 0.75 <= found.high
    assert covered >= 0.9 * draws


def test_the_luck_of_single_predictions_counts_once() -> None:
    """Seeds that differ by nothing else make no interval wider: resampled examples have that noise already (Owen, 2007)."""
    widths, draws = [], 20
    for draw in range(draws):
        hits = np.random.default_rng(draw).random((5, 400)) < 0.75
        found = Replicates(ACCURACY, {"a": [right(row) for row in hits.astype(float)]}, samples=300, seed=draw).interval("a")
        widths.append(found.high - found.low)
    true = 2 * 1.96 * (0.75 * 0.25 / hits.size) ** 0.5
    assert 0.85 < np.mean(widths) / true < 1.45, "1.28; counted twice it is 1.78"


def test_spread_is_students() -> None:
    values = [0.7, 0.72, 0.69, 0.75, 0.71]
    found = spread(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.median, found.min, found.max, found.sd) == pytest.approx((0.71, 0.69, 0.75, np.std(values, ddof=1)))
    assert spread([0.5]).low is None


def test_intervals_end_where_the_metric_does() -> None:
    truth = np.arange(200)
    seeds = {"a": [right(truth < 20), right(truth < 190)], "b": [right(truth < 5), right(truth < 195)]}  # two seeds that are far apart
    free = Replicates(replace(ACCURACY, within=Range()), seeds, samples=500)
    cut = Replicates(ACCURACY, seeds, samples=500)
    wide = free.interval("a")
    assert wide.low < 0
    assert wide.high > 1
    assert cut.interval("a") == wide.model_copy(update={"low": 0.0, "high": 1.0})
    far, near = free.compare("a", "b"), cut.compare("a", "b")
    assert far.low < -1
    assert far.high > 1
    assert near == replace(far, low=-1.0, high=1.0), "what is said of them does not change"
    inside = Replicates(ACCURACY, {"a": [right(truth < 100)] * 2}, samples=500).interval("a")
    assert 0.4 < inside.low < inside.high < 0.6
    assert spread([0.1, 0.9], SHARE) == replace(spread([0.1, 0.9]), low=0.0, high=1.0)


def test_a_range_may_have_one_end() -> None:
    errors = Range(lowest=0.0)
    assert (errors.cut(-1), errors.cut(7)) == (0, 7)
    assert errors.differences == Range()
    assert Range(lowest=-1.0, highest=1.0).differences == Range(lowest=-2.0, highest=2.0)
