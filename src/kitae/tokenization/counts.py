"""Tables of counts on disk: sorted runs that are merged a few at a time, and the most frequent units of them, whatever their number."""

import functools
import heapq
import itertools
import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FILES = 128
"""Runs that are open at once; a machine allows 1,024 files or fewer."""
Row = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Units with their counts, in the order of their text. They are read anew each time, so that millions of them take no memory."""

    rows: Callable[[], Iterable[Row]]
    """The units with their counts."""
    distinct: int
    """Number of units."""
    total: int
    """Sum of the counts."""

    @classmethod
    def of(cls, table: Mapping[str, int]) -> "Counts":
        """From a table in memory."""
        rows = sorted(table.items())
        return cls(rows=lambda: rows, distinct=len(rows), total=sum(table.values()))

    def most_frequent(self, *, units: int, characters: int) -> "Counts":
        """The most frequent units: at most so many, and of at most so many characters together. Ties go by the text."""
        floor = _floor(self.rows(), units, characters)
        if floor is None:
            return self
        rows = functools.partial(_kept, self.rows, floor)
        distinct = total = 0
        for _, count in rows():
            distinct, total = distinct + 1, total + count
        return Counts(rows=rows, distinct=distinct, total=total)


@dataclass(frozen=True, kw_only=True)
class _Floor:
    """More frequent units than `count` are kept, and of those that occur so often the first, as long as there is room."""

    count: int
    units: int
    characters: int


def _floor(rows: Iterable[Row], units: int, characters: int) -> _Floor | None:
    """The floor that these bounds need; None when all rows fit. Holds two numbers for each different count."""
    sizes: dict[int, tuple[int, int]] = {}
    for unit, count in rows:
        number, size = sizes.get(count, (0, 0))
        sizes[count] = number + 1, size + len(unit)
    for count in sorted(sizes, reverse=True):
        number, size = sizes[count]
        if number > units or size > characters:
            return _Floor(count=count, units=units, characters=characters)
        units, characters = units - number, characters - size
    return None


def _kept(rows: Callable[[], Iterable[Row]], floor: _Floor) -> Iterator[Row]:
    units, characters = floor.units, floor.characters
    for unit, count in rows():
        if count > floor.count:
            yield unit, count
        elif count == floor.count and units > 0:
            units, characters = units - 1, characters - len(unit)
            if characters < 0:
                units = 0
            else:
                yield unit, count


def write(rows: Iterable[Row], path: Path) -> Counts:
    """Rows that are in the order of their text, written down: code points and their UTF-8 sort alike."""
    distinct = total = 0
    with path.open("wb") as file:
        for unit, count in rows:
            file.write(b"%s\t%d\n" % (unit.encode(), count))
            distinct, total = distinct + 1, total + count
    return Counts(rows=functools.partial(_read, path), distinct=distinct, total=total)


def merge(runs: Sequence[Path], path: Path) -> Counts:
    """The sums of all runs, written to `path`; the runs go. At most FILES of them are open at once."""
    waiting = deque(runs)
    for number in itertools.count():
        parts = [waiting.popleft() for _ in range(min(FILES, len(waiting)))]
        target = path.with_suffix(f".{number}") if waiting else path
        merged = write(_sums(parts), target)
        for part in parts:
            part.unlink()
        if not waiting:
            return merged
        waiting.append(target)
    raise AssertionError("every round leaves fewer runs")


def _read(path: Path) -> Iterator[Row]:
    return ((unit.decode(), count) for unit, count in _encoded(path))


def _encoded(path: Path) -> Iterator[tuple[bytes, int]]:
    with path.open("rb") as file:
        for line in file:
            unit, _, count = line.rpartition(b"\t")
            yield unit, int(count)


def _sums(runs: Sequence[Path]) -> Iterator[Row]:
    rows = heapq.merge(*map(_encoded, runs), key=operator.itemgetter(0))
    for unit, group in itertools.groupby(rows, key=operator.itemgetter(0)):
        yield unit.decode(), sum(count for _, count in group)
