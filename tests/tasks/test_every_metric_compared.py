"""Encoders compared by every kind of metric: one against itself shows no difference, and five points that are planted are found.

Simulated: examples differ in difficulty (shared by all trials), seeds in quality, predictions in luck.
"""

import functools
from collections.abc import Callable

import numpy as np
import pytest

from kitae.tasks.answer_scores import METRICS as ANSWERS
from kitae.tasks.correlations import PEARSON, SPEARMAN
from kitae.tasks.entities import F1 as ENTITY_F1
from kitae.tasks.examples import Answer, Gold
from kitae.tasks.indicators import MICRO_F1
from kitae.tasks.metrics import ACCURACY, F1, MACRO_F1, MCC, Floats, Metric
from kitae.tasks.statistics import Replicates

EXAMPLES, SEEDS, DRAWS = 1000, 5, 20
Random = np.random.Generator
Make = Callable[[Random], tuple[Gold, Gold]]
"""A gold, and what is said where it is missed."""


def of_four(random: Random) -> tuple[Gold, Gold]:
    right, wrong = random.choice(4, size=2, replace=False)
    return "abcd"[right], "abcd"[wrong]


def of_two(random: Random) -> tuple[Gold, Gold]:
    right = int(random.integers(2))
    return "ab"[right], "ab"[1 - right]


def some_labels(random: Random) -> tuple[Gold, Gold]:
    there, other = random.random(4) < 0.4, random.random(4) < 0.3
    return tuple(np.array(list("abcd"))[there].tolist()), tuple(np.array(list("abcd"))[there ^ other].tolist())


def tags(random: Random) -> tuple[Gold, Gold]:
    """Two entities of two words; missed, one of them lacks its end."""
    first, second = ("XY"[int(random.integers(2))] for _ in range(2))
    right = (f"B-{first}", f"I-{first}", "O", f"B-{second}", f"I-{second}")
    return right, (*right[:4], "O")


def answer(random: Random) -> tuple[Gold, Gold]:
    del random
    return (Answer(start=0, text="one two three four"),), (Answer(start=0, text="one two"),)


@functools.cache
def items(metric: Metric, make: Make) -> tuple[Floats, Floats]:
    """Of the examples, which are the same in every draw: where they are right, and where they are missed."""
    random = np.random.default_rng(0)
    golds, wrong = zip(*(make(random) for _ in range(EXAMPLES)), strict=True)
    labels = ("a", "b") if make is of_two else ("a", "b", "c", "d")
    return metric.items(golds, golds, labels), metric.items(golds, wrong, labels)


def sampled(metric: Metric, make: Make, less: float, draw: int) -> dict[str, list[Floats]]:
    """The items of the seeds of two encoders, of which the second is right less often by so much."""
    random = np.random.default_rng(draw)
    right_NK, wrong_NK = items(metric, make)
    level = random.beta(2.5, 0.8, size=EXAMPLES)
    made: dict[str, list[Floats]] = {"a": [], "b": []}
    for name, minus in (("a", 0.0), ("b", less)):
        for _ in range(SEEDS):
            hit = random.random(EXAMPLES) < np.clip(level + random.normal(0, 0.01), 0, 1) * (1 - minus)
            made[name].append(np.where(hit[:, None], right_NK, wrong_NK))
    return made


def numbers(metric: Metric, make: Make, less: float, draw: int) -> dict[str, list[Floats]]:
    """The same of numbers, which are never right, but near."""
    del make
    random = np.random.default_rng(draw)
    golds, level = random.normal(size=EXAMPLES), random.beta(2.5, 0.8, size=EXAMPLES)
    made: dict[str, list[Floats]] = {"a": [], "b": []}
    for name, minus in (("a", 0.0), ("b", less)):
        for _ in range(SEEDS):
            noise = random.normal(size=EXAMPLES) * np.maximum(1.1 - level + minus + random.normal(0, 0.01), 0.01)
            made[name].append(metric.items(golds.tolist(), (golds + noise).tolist(), ()))
    return made


CASES: list[tuple[Metric, Make, float]] = [  # the last: how much less often the second encoder is right
    (ACCURACY, of_four, 0.066),
    (MACRO_F1, of_four, 0.066),
    (MCC, of_four, 0.05),
    (F1, of_two, 0.066),
    (MICRO_F1, some_labels, 0.175),
    (ENTITY_F1, tags, 0.12),
    (ANSWERS["f1"], answer, 0.2),
    (PEARSON, numbers, 0.185),  # type: ignore[list-item]  # made otherwise
    (SPEARMAN, numbers, 0.16),  # type: ignore[list-item]
]
SLOW = (SPEARMAN,)


@pytest.mark.parametrize(
    ("metric", "make", "less"),
    [pytest.param(*case, id=f"{case[0].name} of {case[1].__name__}", marks=pytest.mark.slow if case[0] in SLOW else ()) for case in CASES],
)
def test_no_difference_of_the_same_and_five_points_found(metric: Metric, make: Make, less: float) -> None:
    trials = numbers if make is numbers else sampled  # type: ignore[comparison-overlap]
    same = found = 0
    differences = []
    for draw in range(DRAWS):
        alike = Replicates(metric, trials(metric, make, 0, draw), samples=300, seed=draw).compare("a", "b")
        planted = Replicates(metric, trials(metric, make, less, 100 + draw), samples=300, seed=draw).compare("a", "b")
        same += alike.verdict == "no difference shown"
        found += planted.verdict == "better"
        differences.append(planted.difference)
    assert 0.04 < np.mean(differences) < 0.06, "five points are planted"
    assert same >= 18
    assert found >= 18
