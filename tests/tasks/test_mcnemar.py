"""McNemar's test equals scipy's binomial test on the examples that differ, pools seeds by vote, and keeps its level."""

import numpy as np
import pytest
from scipy import stats

from kitae.tasks.mcnemar import mcnemar, right_or_wrong
from kitae.tasks.metrics import Floats


def items(hits: np.ndarray) -> list[Floats]:
    """[seeds, N] of 0 and 1 as the items of every trial."""
    return [np.stack([row, np.ones(len(row))], axis=1).astype(float) for row in np.atleast_2d(hits)]


def test_of_one_seed_it_is_the_binomial_test_of_the_examples_that_differ() -> None:
    first, second = np.array([1] * 9 + [0] * 2 + [1] * 30 + [0] * 9), np.array([0] * 9 + [1] * 2 + [1] * 30 + [0] * 9)
    found = mcnemar(items(first), items(second))
    assert (found.only_a, found.only_b) == (9, 2)
    by_hand = 2 * sum((1, 11, 55)) / 2**11  # 0, 1 or 2 heads in 11 throws, both ways
    assert found.p == pytest.approx(by_hand) == pytest.approx(stats.binomtest(2, 11).pvalue)
    turned = mcnemar(items(second), items(first))
    assert (turned.only_a, turned.only_b, turned.p) == (2, 9, pytest.approx(found.p))
    assert mcnemar(items(first), items(first)).p == 1


def test_seeds_are_pooled_by_vote_and_not_counted_as_new_examples() -> None:
    hits = np.array([1] * 9 + [0] * 2 + [1] * 39)
    other = np.array([0] * 9 + [1] * 2 + [1] * 39)
    once = mcnemar(items(hits), items(other))
    five = mcnemar(items(np.tile(hits, (5, 1))), items(np.tile(other, (5, 1))))
    assert once == five
    two = np.stack([hits, np.zeros(50, int)])  # evenly divided where the first is right
    assert (mcnemar(items(two), items(other)).only_a, mcnemar(items(two), items(other)).only_b) == (0, 2)
    three = np.stack([hits, hits, np.zeros(50, int)])
    assert mcnemar(items(three), items(other)) == once


def test_an_encoder_against_itself_is_rarely_told_apart_and_five_points_of_a_thousand_are() -> None:
    same, found, draws = 0, 0, 60
    for draw in range(draws):
        generator = np.random.default_rng(draw)
        level = generator.beta(1.2, 0.5, size=1000)
        a, b, worse = (generator.random((5, 1000)) < np.clip(level - less, 0, 1) for less in (0, 0, 0.1))
        same += mcnemar(items(a), items(b)).p < 0.05
        found += mcnemar(items(a), items(worse)).p < 0.05
    assert same <= draws / 10
    assert found >= 0.9 * draws


def test_metrics_that_are_neither_right_nor_wrong_are_known() -> None:
    assert right_or_wrong(items(np.array([[1, 0, 1], [0, 0, 1]])))
    assert not right_or_wrong([np.array([[0.5, 1.0]])])
    assert not right_or_wrong([np.array([[1.0, 2.0]])])
    assert not right_or_wrong([np.eye(3)])
