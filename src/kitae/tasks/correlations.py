"""Metrics of numbers: how far predictions go with the truth. 0 where one of the two is constant, where scipy says "not a number".

Shapes: N examples, S samples.
"""

from collections.abc import Sequence

import numpy as np

from kitae.tasks.examples import Gold
from kitae.tasks.metrics import CORRELATION, Floats, Metric, ratio

CONSTANT = 1e-13
"""A variance below this share of the mean square is what rounding leaves of a constant."""


def pairs(golds: Sequence[Gold | None], values: Sequence[Gold], labels: Sequence[str]) -> Floats:
    """[N, 2]: truth and prediction, each moved and scaled to lie in -1 to 1, to which correlations are blind."""
    del labels
    both = np.asarray([(float(_number(gold)), float(_number(value))) for gold, value in zip(golds, values, strict=True)], np.float64)
    both = both.reshape(-1, 2)
    if not len(both):
        return both
    low, high = both.min(0), both.max(0)
    return ratio(both - (low / 2 + high / 2), np.broadcast_to(high / 2 - low / 2, both.shape))


def products(golds: Sequence[Gold | None], values: Sequence[Gold], labels: Sequence[str]) -> Floats:
    """[N, 6]: 1, x, y, x^2, y^2, xy of each pair."""
    x, y = pairs(golds, values, labels).T
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)


def pearson(sums: Floats) -> Floats:
    """Pearson's correlation from summed products [S, 6]."""
    count, x, y, xx, yy, xy = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    spread_x, spread_y = count * xx - x * x, count * yy - y * y
    moving = (spread_x > CONSTANT * count * xx) & (spread_y > CONSTANT * count * yy)
    over = np.where(moving, count * xy - x * y, 0.0)
    under = np.sqrt(np.where(moving, spread_x, 0.0)) * np.sqrt(np.where(moving, spread_y, 0.0))
    return np.clip(np.sign(over) * ratio(np.abs(over), under), -1.0, 1.0)


def spearman(items: Floats, weights: Floats) -> Floats:
    """[S]: Pearson's correlation of the ranks; equal values share their mean rank, an example of weight w counts as w equal ones."""
    weights = np.asarray(weights, np.float64)
    x, y = (_ranks(column, weights) for column in np.asarray(items, np.float64).T)
    count = weights.sum(-1, keepdims=True)
    x, y = (ratio(ranks, np.broadcast_to(count, ranks.shape)) for ranks in (x - (count + 1) / 2, y - (count + 1) / 2))
    terms = (np.ones_like(x), x, y, x * x, y * y, x * y)
    return pearson(np.stack([(weights * term).sum(-1) for term in terms], axis=-1))


def both(items: Floats, weights: Floats) -> Floats:
    """[S]: the mean of Pearson's and Spearman's correlation."""
    x, y = np.asarray(items, np.float64).T
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
    return (pearson(np.asarray(weights, np.float64) @ terms) + spearman(items, weights)) / 2


def mean_squared_error(golds: Sequence[Gold | None], values: Sequence[Gold]) -> float:
    """The mean of the squared differences; no metric, because less is better. 0 of no examples."""
    squares = [(float(_number(gold)) - float(_number(value))) ** 2 for gold, value in zip(golds, values, strict=True)]
    return float(np.mean(squares)) if squares else 0.0


def _unsaid(sums: Floats) -> Floats:
    raise AssertionError("ranks do not follow from sums")


PEARSON = Metric(name="pearson", items=products, value=pearson, within=CORRELATION)
SPEARMAN = Metric(name="spearman", items=pairs, value=_unsaid, resampled=spearman, within=CORRELATION)
PEARSON_AND_SPEARMAN = Metric(name="pearson_and_spearman", items=pairs, value=_unsaid, resampled=both, within=CORRELATION)
"""What GLUE counts of STS-B (Wang et al., 2019, section 3)."""


def _ranks(column: Floats, weights: Floats) -> Floats:
    """[S, N]: the rank of every example from 1, where those before it and those equal to it count by their weights."""
    if not len(column):
        return np.zeros_like(weights)
    order = np.argsort(column, kind="stable")
    ordered = column[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    of_group = np.add.reduceat(weights[:, order], first, axis=1)
    mean = of_group.cumsum(1) - of_group + (of_group + 1) / 2
    ranks = np.empty_like(weights)
    ranks[:, order] = np.repeat(mean, np.diff(np.append(first, len(column))), axis=1)
    return ranks


def _number(gold: Gold | None) -> int | float:
    assert isinstance(gold, int | float), "the kind checks its golds"
    return gold
