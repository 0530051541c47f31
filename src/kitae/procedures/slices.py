"""Parts of the test examples that errors are counted by: ranges of length, labels, and the columns that a task names."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kitae.tasks.examples import Example
from kitae.tasks.marks import marks

LENGTH, LABEL, NUMBER = "length", "label", "gold"
PARTS = 4
"""How many ranges lengths and numbers are divided into, with about as many examples each."""
MOST_LABELS = 50
"""Slices by label are made of so many of the most frequent ones."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Some of the examples, by their numbers."""

    name: str
    """"length" (characters), "label", "gold" (of numbers), or a column."""
    value: str
    inside: NDArray[np.int64]


def slices(examples: Sequence[Example]) -> Iterator[Slice]:
    """Every slice; what does not divide the examples is left out. Their golds are known."""
    yield from _ranges(LENGTH, [sum(map(len, example.texts)) for example in examples], lambda value: f"{value:.0f}")
    numbers = [float(example.gold) for example in examples if isinstance(example.gold, int | float) and not example.choices]
    if len(numbers) == len(examples):
        yield from _ranges(NUMBER, numbers, lambda value: f"{value:g}")
    else:
        said = [{name for name, *_ in marks(example, example.gold)} if example.gold is not None else set() for example in examples]
        frequent = [name for name, _ in Counter(name for names in said for name in sorted(names)).most_common(MOST_LABELS)]
        for name in sorted(frequent) if len(frequent) > 1 else []:
            yield Slice(name=LABEL, value=name, inside=np.flatnonzero([name in names for names in said]))
    for column in sorted({column for example in examples for column in example.slices}):
        values = np.asarray([example.slices.get(column, "") for example in examples])
        different = np.unique(values)
        for value in different if len(different) > 1 else []:
            yield Slice(name=column, value=str(value), inside=np.flatnonzero(values == value))


def _ranges(name: str, numbers: Sequence[float], say: Callable[[float], str]) -> Iterator[Slice]:
    """Parts with about equally many examples; equal numbers are not parted."""
    values = np.asarray(numbers, float)
    ends = np.unique(np.quantile(values, np.arange(1, PARTS + 1) / PARTS, method="inverted_cdf")) if len(values) else values
    low = -np.inf
    for end in ends if len(ends) > 1 else []:
        inside = np.flatnonzero((values > low) & (values <= end))
        yield Slice(name=name, value=f"{say(values[inside].min())} to {say(values[inside].max())}", inside=inside)
        low = end
