"""McNemar's exact test: do two encoders fail on different test examples more often than chance lets them? (McNemar, 1947; Dietterich, 1998)

It looks at the examples that one gets right and the other wrong, and asks whether they divide like throws of a coin. An encoder's trials
are one answer each to the same examples, not new examples; so they are pooled by vote: an encoder gets an example right when more
than half of its seeds do, and examples on which its seeds are evenly divided are left out. The test thus speaks of the test
examples alone and takes the trained models as given; the paired bootstrap (kitae.tasks.statistics) counts the seeds' chance too, and
gives the verdict.

Shapes: N examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from kitae.tasks.metrics import Floats


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Examples that only `a`, or only `b`, gets right, and the two-sided p of so uneven a division."""

    only_a: int
    only_b: int
    p: float


def right_or_wrong(items: Sequence[Floats]) -> bool:
    """Whether a metric's items [N, K] of every trial say right (1, 1) or wrong (0, 1), as those of accuracy and exact match do."""
    return all(one.shape[1:] == (2,) and bool((one[:, 1] == 1).all()) and bool(np.isin(one[:, 0], (0, 1)).all()) for one in items)


def mcnemar(a: Sequence[Floats], b: Sequence[Floats]) -> McNemar:
    """The test of two encoders' trials by the items of such a metric; p is 1 where they never differ."""
    first, second = _votes(a), _votes(b)
    only_a, only_b = int(((first > 0) & (second < 0)).sum()), int(((first < 0) & (second > 0)).sum())
    different = only_a + only_b
    p = float(stats.binomtest(only_a, different).pvalue) if different else 1.0
    return McNemar(only_a=only_a, only_b=only_b, p=p)


def _votes(trials: Sequence[Floats]) -> NDArray[np.int64]:
    """[N]: above 0 where more than half of the trials are right, below 0 where more than half are wrong."""
    rights = np.stack([items[:, 0] for items in trials])
    return (2 * rights - 1).sum(0).astype(np.int64)
