"""How many rows of which pieces: a row's recipe is found on a histogram of lengths and repeated while pieces last.

A piece of n tokens takes n + 2 positions ([CLS] ... [SEP]). A row begins with the longest piece left and takes the longest that
fits again and again (first-fit decreasing). A gap of at least MIN_PIECE tokens is filled with the head of a longer piece, whose
rest stays for other rows; smaller gaps stay empty while they are below SLACK of all positions so far, and are filled as well
beyond that. What cannot be filled is a gap of one or two positions when nothing else is left to choose: a corpus made only of
documents of max_length - 4 tokens, or of one token each, ends at (max_length - 2) / max_length. Memory: one number per length.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPECIALS = 2
"""[CLS] and [SEP] of every piece."""
MIN_PIECE = 8
"""Tokens below which a cut is not worth its two special tokens."""
SLACK = 0.004
"""Share of positions that may stay empty without cutting."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """`repeats` equal rows: whole pieces of these lengths, and at the end the head of a longer piece if `cut` is not 0."""

    lengths: tuple[int, ...]
    """Tokens of the whole pieces."""
    cut: int
    """Tokens of the piece that is cut; 0 = none."""
    head: int
    """Tokens of it that this row takes."""
    repeats: int


class Packer:
    """Turns a histogram of piece lengths (index = tokens, up to max_length - 2) into patterns that use every piece."""

    def __init__(self, histogram: NDArray[np.int64], *, max_length: int) -> None:
        self.left = [int(count) for count in histogram]
        self._capacity = max_length
        self._positions = 0
        self._gaps = 0

    def patterns(self) -> Iterator[Pattern]:
        """Patterns until no piece is left. The rest of a cut piece is back in the histogram when the next pattern is asked for."""
        while (longest := self._largest(self._capacity - SPECIALS, {})) > 0:
            yield self._next(longest)

    def _next(self, longest: int) -> Pattern:
        used: dict[int, int] = {}
        lengths: list[int] = []
        space = self._capacity
        size = longest
        while size > 0:
            lengths.append(size)
            used[size] = used.get(size, 0) + 1
            space -= size + SPECIALS
            size = self._largest(min(space - SPECIALS, size), used)
        cut, head = self._fill(lengths, used, space)
        gap = self._capacity - sum(length + SPECIALS for length in lengths) - (head + SPECIALS if cut else 0)
        taken: dict[int, int] = {}
        for length in (*lengths, *((cut,) if cut else ())):
            taken[length] = taken.get(length, 0) + 1
        repeats = min(self.left[length] // count for length, count in taken.items())
        if cut:  # in portions, so that rests come back early and fill other rows
            repeats = -(-repeats // 4)
        elif gap > SLACK * self._capacity and (allowed := self._affordable(gap)) > 0:
            repeats = min(repeats, allowed)
        for length, count in taken.items():
            self.left[length] -= count * repeats
        if cut:
            self.left[cut - head] += repeats
        self._positions += self._capacity * repeats
        self._gaps += gap * repeats
        return Pattern(lengths=tuple(lengths), cut=cut, head=head, repeats=repeats)

    def _fill(self, lengths: list[int], used: dict[int, int], space: int) -> tuple[int, int]:
        """(length of the piece to cut, head) for what is left of the row; may give back the last piece to make room."""
        head = space - SPECIALS
        if space == 0:
            return 0, 0
        if head >= MIN_PIECE and (cut := self._longer(head, used)):
            return cut, head
        if self._affordable(space) > 0:
            return 0, 0
        if len(lengths) > 1:
            last = lengths.pop()
            used[last] -= 1
            if cut := self._longer(head + last + SPECIALS, used):
                return cut, head + last + SPECIALS
            lengths.append(last)
            used[last] += 1
        if head >= 1 and (cut := self._longer(head, used)):
            return cut, head
        return 0, 0

    def _affordable(self, gap: int) -> int:
        """How many more rows may have this gap before SLACK is spent; 0 for gaps that no row may have."""
        over = gap - SLACK * self._capacity
        return int((SLACK * self._positions - self._gaps) / over) if over > 0 else 1

    def _largest(self, limit: int, used: dict[int, int]) -> int:
        """The longest available length up to the limit; 0 when there is none."""
        for length in range(min(limit, len(self.left) - 1), 0, -1):
            if self.left[length] > used.get(length, 0):
                return length
        return 0

    def _longer(self, head: int, used: dict[int, int]) -> int:
        """The longest available piece if it is longer than this head, so that the rest stays as long as can be; else 0."""
        longest = self._largest(self._capacity - SPECIALS, used)
        return longest if longest > head else 0
