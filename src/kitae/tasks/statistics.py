"""How sure a score is: intervals over test items and seeds, and the comparison of two encoders.

A replicate draws the test items anew, the same for every encoder (paired), and each encoder's seeds anew. Drawn both ways the
noise of single predictions counts more than once (Owen, 2007, "The pigeonhole bootstrap"), so it is taken out of the seeds' part;
and few seeds make a bootstrap too narrow, so that part is widened to Student's t (Hesterberg, 2015, expanded percentiles). What is
widened may leave the values that the metric can have, where no truth lies: intervals are cut to them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from kitae.core.score import Score
from kitae.tasks.metrics import Metric, Range
from kitae.tensor.random import numpy_generator

Floats = NDArray[np.floating]
LEVEL = 0.95
_CHUNK = 1 << 21  # numbers drawn at a time: bounds the memory
_EXACT = 1 << 24  # fp32 holds every whole number below


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Scores of one encoder over its seeds; `low` and `high` are the 95 % t-interval of the mean over seeds (None with one seed)."""

    mean: float
    median: float
    sd: float
    min: float
    max: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Mean score of `a` minus that of `b`, with a 95 % interval over items and seeds, a two-sided p, and the verdict on `a`."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    verdict: Literal["better", "worse", "no difference shown"]


def spread(values: ArrayLike, within: Range | None = None) -> Spread:
    """Mean, median, sample standard deviation (0 with one seed), extremes, and the t-interval of the mean, cut to what it can be."""
    scores = np.asarray(values, float)
    mean, count = float(scores.mean()), len(scores)
    sd = float(scores.std(ddof=1)) if count > 1 else 0.0
    cut = (within or Range()).cut
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * sd / count**0.5 if count > 1 else None
    return Spread(
        mean=mean,
        median=float(np.median(scores)),
        sd=sd,
        min=float(scores.min()),
        max=float(scores.max()),
        low=None if half is None else cut(mean - half),
        high=None if half is None else cut(mean + half),
    )


def bootstrap(metric: Metric, items: Floats, *, samples: int = 10_000, seed: int = 1) -> Score:
    """A metric of items [N, K] with its 95 % percentile interval over them."""
    drawn = np.concatenate([_scores(metric, [items], weights)[:, 0] for weights in _resamples(len(items), samples, seed)])
    low, high = _percentiles(drawn, metric.within)
    return Score(value=float(metric.under(items, np.ones((1, len(items))))[0]), low=low, high=high, n=len(items))


class Replicates:
    """The scores of several encoders' trials under the same resampled test items.

    items: encoder -> of every seed the metric's items [N, K]. The result depends on `seed` only.
    """

    def __init__(self, metric: Metric, items: Mapping[str, Sequence[Floats]], *, samples: int = 10_000, seed: int = 1) -> None:
        self._seed, self._samples, self._within = seed, samples, metric.within
        self._columns: dict[str, slice] = {}
        trials: list[Floats] = []
        for name, tables in items.items():
            self._columns[name] = slice(len(trials), len(trials) + len(tables))
            trials.extend(tables)
        self._count = len(trials[0])
        self._observed = _scores(metric, trials, np.ones((1, self._count)))[0]
        self._drawn = np.concatenate([_scores(metric, trials, weights) for weights in _resamples(self._count, samples, seed)])

    def seeds(self, name: str) -> Floats:
        """The scores of an encoder's trials on the real test items."""
        return self._observed[self._columns[name]]

    def interval(self, name: str) -> Score:
        """Mean over the seeds with a 95 % interval over items and seeds."""
        scores = self.seeds(name)
        low, high = _percentiles(self._items(name) + _widening(len(scores) - 1) * self._seeds(name), self._within)
        return Score(value=float(scores.mean()), low=low, high=high, n=self._count)

    def compare(self, a: str, b: str) -> Comparison:
        """Paired over items, with the seeds of each drawn independently."""
        first, second = self.seeds(a), self.seeds(b)
        widening = _widening(_freedom(first, second))
        noise = self._seeds(a) - self._seeds(b) if a != b else np.zeros(self._samples)
        drawn = self._items(a) - self._items(b) + widening * noise
        low, high = _percentiles(drawn, self._within.differences)
        p = min(1.0, 2 * (1 + min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))) / (1 + self._samples))
        verdict: Literal["better", "worse", "no difference shown"] = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
        return Comparison(a=a, b=b, difference=float(first.mean() - second.mean()), low=low, high=high, p=p, verdict=verdict)

    def _items(self, name: str) -> Floats:
        return self._drawn[:, self._columns[name]].mean(1)

    def _seeds(self, name: str) -> Floats:
        """What redrawing the seeds adds to the mean over them: [samples], of the unbiased variance between seeds.

        The part of that variance which is items and seeds together is taken out: the items' resampling has it already.
        """
        scores, drawn = self.seeds(name), self._drawn[:, self._columns[name]]
        count, variance = len(scores), float(scores.var(ddof=1)) if len(scores) > 1 else 0.0
        if variance <= 1e-18:
            return np.zeros(len(drawn))
        both = float((drawn - drawn.mean(1, keepdims=True)).var(0).mean()) * count / (count - 1)
        share = max(0.0, 1 - both / variance)
        picks = numpy_generator(self._seed, "seeds", name).integers(count, size=drawn.shape)
        return (scores[picks].mean(1) - scores.mean()) * (share * count / (count - 1)) ** 0.5


def _scores(metric: Metric, trials: Sequence[Floats], weights: Floats) -> Floats:
    """The metric of every trial under every row of item weights: [samples, trials]."""
    return np.stack([metric.under(items, weights.astype(_precision(metric, items))) for items in trials], axis=1)


def _precision(metric: Metric, items: Floats) -> type[np.floating]:
    """fp32 where it adds counts up exactly, at half of the time; sums of squares would lose their digits in it."""
    counts = metric.resampled is None and bool((items == np.rint(items)).all())
    return np.float32 if counts and len(items) * float(np.abs(items).max(initial=1)) < _EXACT else np.float64


def _resamples(items: int, samples: int, seed: int) -> Iterator[Floats]:
    """How often each item is drawn, in pieces of [some samples, items] that together have `samples` rows."""
    generator = numpy_generator(seed, "items", items)
    rows = max(1, _CHUNK // items)
    for start in range(0, samples, rows):
        size = min(rows, samples - start)
        drawn = generator.integers(items, size=(size, items)) + items * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * items).reshape(size, items).astype(np.float32)


def _percentiles(drawn: Floats, within: Range) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return within.cut(float(low)), within.cut(float(high))


def _widening(freedom: float) -> float:
    """Student's quantile over the normal one."""
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom) / stats.norm.ppf((1 + LEVEL) / 2)) if freedom > 0 else 1.0


def _freedom(a: Floats, b: Floats) -> float:
    """Welch and Satterthwaite's degrees of freedom of the difference of two means; 0 when neither varies."""
    parts = [(float(scores.var(ddof=1)) / len(scores), len(scores) - 1) for scores in (a, b) if len(scores) > 1]
    variance = sum(part for part, _ in parts)
    if variance <= 1e-18:
        return float(min((freedom for _, freedom in parts), default=0))
    return variance**2 / sum(part**2 / freedom for part, freedom in parts)
