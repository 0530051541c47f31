"""Which row comes when: a pure function of (seed, number), for any number at once, without state."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kitae.core.errors import KitaeError, did_you_mean
from kitae.data.plan import Plan
from kitae.data.shards import Ints
from kitae.tensor.random import key

BLOCK = 1000
"""Rows in which every weighted source has its exact quota."""
MOST = 1e6
"""The largest repeat or weight."""
_ROUNDS = 6


class Permutation:
    """A pseudo-random bijection of 0 .. size-1 that is computed, not stored: a Feistel network with cycle walking.

    The network permutes the next even power of two; a number that lands outside is sent through again until it is inside.
    """

    def __init__(self, size: int, seed: int) -> None:
        assert size > 0
        self._size = size
        half = max(1, ((size - 1).bit_length() + 1) // 2)
        self._half, self._mask = np.uint64(half), np.uint64((1 << half) - 1)
        self._keys = [np.uint64(key(seed, "feistel", number)) for number in range(_ROUNDS)]

    def __call__(self, index: Ints) -> Ints:
        """Where these indices (int64, each below size) go."""
        values = index.astype(np.uint64)
        todo = np.arange(len(values))
        while len(todo):
            moved = self._network(values[todo])
            values[todo] = moved
            todo = todo[moved >= self._size]
        return values.astype(np.int64)

    def _network(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._half, values & self._mask
        for salt in self._keys:
            # the finalizer of splitmix64 as round function
            mixed = (right ^ salt) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(27)
            left, right = right, left ^ ((mixed >> np.uint64(17)) & self._mask)
        return (left << self._half) | right


class Order(Protocol):
    """The endless sequence of rows."""

    rows_per_epoch: int
    """Rows of one pass over the data."""
    tokens_per_epoch: int
    """Real positions of one pass, special tokens included."""

    def __call__(self, numbers: Ints) -> tuple[Ints, Ints]:
        """(row of the plan, which visit of that row it is, from 0) for places in the sequence, int64 each."""


class Epochs:
    """Every pass is a permutation of all rows, those of a source as often as it is to be repeated: exactly so many visits a pass."""

    def __init__(self, plan: Plan, repeats: Sequence[int], *, seed: int) -> None:
        self._first, self._sizes = plan.source_rows[:-1], np.diff(plan.source_rows)
        self._repeats, self._seed = np.array(repeats, dtype=np.int64), seed
        self._bounds: Ints = np.concatenate([[0], np.cumsum(self._sizes * self._repeats)])  # of the sources among the visits of a pass
        self.rows_per_epoch = int(self._bounds[-1])
        self.tokens_per_epoch = sum(source.real_positions * times for source, times in zip(plan.sources, repeats, strict=True))

    def __call__(self, numbers: Ints) -> tuple[Ints, Ints]:
        """See Order."""
        epochs, within = np.divmod(numbers, self.rows_per_epoch)
        for epoch in np.unique(epochs).tolist():
            mine = epochs == epoch
            within[mine] = Permutation(self.rows_per_epoch, key(self._seed, "epoch", epoch))(within[mine])
        source = np.searchsorted(self._bounds, within, side="right") - 1
        visit, row = np.divmod(within - self._bounds[source], self._sizes[source])
        return self._first[source] + row, epochs * self._repeats[source] + visit


class Quotas:
    """Every source has its exact share of every BLOCK rows, in mixed order, and an endless permutation of its own.

    A pass is as many rows as there are, whichever they are.
    """

    def __init__(self, plan: Plan, weights: Sequence[float], *, seed: int) -> None:
        self._first, self._sizes = plan.source_rows[:-1], np.diff(plan.source_rows)
        self._quotas, self._seed = quotas(weights), seed
        self._bounds: Ints = np.concatenate([[0], np.cumsum(self._quotas)])
        self.rows_per_epoch = int(self._sizes[self._quotas > 0].sum())
        real = np.array([source.real_positions for source in plan.sources]) / np.maximum(self._sizes, 1)
        self.tokens_per_epoch = round(float((real * self._quotas).sum()) * self.rows_per_epoch / BLOCK)

    def __call__(self, numbers: Ints) -> tuple[Ints, Ints]:
        """See Order."""
        blocks, within = np.divmod(numbers, BLOCK)
        for block in np.unique(blocks).tolist():
            mine = blocks == block
            within[mine] = Permutation(BLOCK, key(self._seed, "block", block))(within[mine])
        source = np.searchsorted(self._bounds, within, side="right") - 1
        visits, rows = np.divmod(blocks * self._quotas[source] + within - self._bounds[source], self._sizes[source])
        for number, visit in np.unique(np.stack([source, visits]), axis=1).T.tolist():
            mine = (source == number) & (visits == visit)
            permutation = Permutation(int(self._sizes[number]), key(self._seed, "source", number, "visit", visit))
            rows[mine] = permutation(rows[mine])
        return self._first[source] + rows, visits


def quotas(weights: Sequence[float]) -> Ints:
    """Rows of each source in a block: its share of the weights, rounded by largest remainder; the first of equals is preferred."""
    shares = np.array(weights, dtype=np.float64) / sum(weights) * BLOCK
    found = np.floor(shares).astype(np.int64)
    order = np.argsort(found - shares, kind="stable")
    found[order[: BLOCK - int(found.sum())]] += 1
    return found


def order(
    plan: Plan, names: Sequence[str], *, repeats: Mapping[str, int], weights: Mapping[str, float], seed: int, only: Sequence[str] = ()
) -> Order:
    """The order of a plan's rows; `only` those of some sources, with the repeats and weights that these have, or of all.

    Raises KitaeError when repeats and weights (by source) cannot be honoured, or a source is unknown or has no rows.
    """
    check(names, repeats=repeats, weights=weights)
    check_plan(plan, names, weights=weights)
    check_sources(plan, names, only)
    here = names[: len(plan.sources)]
    if weights:
        return Quotas(plan, [weights.get(name, 0.0) if not only or name in only else 0.0 for name in here], seed=seed)
    return Epochs(plan, [repeats.get(name, 1) if not only or name in only else 0 for name in here], seed=seed)


def check_sources(plan: Plan, names: Sequence[str], only: Sequence[str]) -> None:
    """Refuse sources that there are not, or that have no text to train on."""
    sized = {name for name, source in zip(names, plan.sources) if source.rows}
    for name in only:
        if name not in names:
            raise KitaeError(f'there is no source "{name}"', cure=did_you_mean(name, names))
        if name not in sized:
            raise KitaeError(f'source "{name}" has no text to train on', cure="take it out, or hold less of it out")


def check(names: Sequence[str], *, repeats: Mapping[str, int], weights: Mapping[str, float]) -> None:
    """Refuse what no text can honour: unknown sources, numbers that are none, repeat and weight on one source, too small a share."""
    for kind, given in (("repeat", repeats), ("weight", weights)):
        odd = {name: value for name, value in given.items() if name not in names or not 0 < value <= MOST}
        if odd:
            raise KitaeError(
                f"a {kind} of {odd} is none: sources are {', '.join(names)}",
                cure=f"give a source of the corpus a number above 0, at most {MOST:,.0f}",
            )
    if not weights:
        return
    both = sorted(name for name in weights if repeats.get(name, 1) != 1)
    if both:
        raise KitaeError(f'source "{both[0]}" has a repeat and a weight', cure="give it one: a weight already says how often it comes")
    least = min(weights, key=lambda name: weights[name])
    if quotas(list(weights.values()))[list(weights).index(least)] < 1:
        raise KitaeError(
            f'the weight of source "{least}" ({weights[least]:g}) is less than one row in {BLOCK:,}',
            cure="raise it, or take the source out",
        )


def check_plan(plan: Plan, names: Sequence[str], *, weights: Mapping[str, float]) -> None:
    """Refuse weights that this text cannot honour: some sources with one and some without, or one on a source without text."""
    if not weights:
        return
    sized = [name for name, source in zip(names, plan.sources) if source.rows]
    bare = [name for name in sized if name not in weights]
    if bare:
        raise KitaeError(f'source "{bare[0]}" has no weight, but others have', cure="give every source a weight, or none")
    empty = sorted(set(weights) - set(sized))
    if empty:
        raise KitaeError(f'source "{empty[0]}" has a weight, but no text to train on', cure="take it out, or hold less of it out")
