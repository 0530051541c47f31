"""Packings "sentences" and "pairs": a piece is a run of whole sentences of one document. Only a sentence longer than a row is cut,
where the row ends.

A window of documents is open at a time. A row begins with the longest run that fits of the document that has been open longest.
What is left of it takes a run from the head of another open document that fits to within SLACK; to find one, the run before may
give up a few of its last sentences, which stay for the next row. Rows are as full as the sentences allow, documents stay nearly in
order, and memory is that of the window: WINDOW documents in portions of PORTION sentences, at most 6 MB, whatever the corpus.

Pairs (Devlin et al. 2019): a run of two sentences and more is split between two of them, by (seed, place). A share `short` of the
rows begins with a run of at most a random length, so that models see short inputs. A run of a single sentence has no second
segment: nothing is predicted of it but its masked tokens.
"""

from bisect import bisect_right
from collections.abc import Iterator

import numpy as np

from kitae.data.packing import MIN_PIECE, SPECIALS
from kitae.data.rows import RowWriter
from kitae.data.shards import Shards
from kitae.tensor.random import key

SHORT = 0.1
SLACK = 0.01
"""Share of a row that may stay empty before more is looked for."""
WINDOW = 1024
PORTION = 128
_GIVEN_UP = 4  # sentences that a run may give up
_HEADS = 4  # runs from a document's head that others may ask for
_ROWS = 4096  # written at a time
_TOKENS = 1 << 20  # of documents whose sentences are looked up at a time


def pack_sentences(shards: Shards, source: int, *, max_length: int, rows: RowWriter, pairs: bool, short: float, seed: int) -> None:
    """Pack the documents of one source into rows. Deterministic."""
    made = _Rows(_texts(shards, source), max_length=max_length, pairs=pairs, short=short if pairs else 0.0, seed=seed)
    starts: list[int] = []
    lengths: list[int] = []
    splits: list[int] = []
    each: list[int] = []

    def flush() -> None:
        arrays = [np.array(numbers, dtype=np.int64) for numbers in (starts, lengths, each, splits)]
        rows.add(arrays[0], arrays[1], arrays[2], arrays[3] if pairs else None)
        for numbers in (starts, lengths, splits, each):
            numbers.clear()

    for row in made:
        for run in row:
            starts.append(run[0])
            lengths.append(run[-1] - run[0])
            splits.append(run[1 + key(seed, "split", run[0]) % (len(run) - 2)] - run[0] if len(run) > 2 else 0)
        each.append(len(row))
        if len(each) == _ROWS:
            flush()
    flush()


def _texts(shards: Shards, source: int) -> Iterator[list[int]]:
    """Documents, or portions of long ones, as boundaries of their sentences."""
    for all_starts, all_ends in shards.documents_of(source):
        cuts = np.flatnonzero(np.diff(all_ends // _TOKENS)) + 1
        for starts, ends in zip(np.split(all_starts, cuts), np.split(all_ends, cuts), strict=True):
            bounds = shards.sentence_ends(int(starts[0]), int(ends[-1]))
            first = np.searchsorted(bounds, starts, side="right").tolist()
            last = np.searchsorted(bounds, ends, side="right").tolist()
            for start, begin, end in zip(starts.tolist(), first, last, strict=True):
                for portion in range(begin, end, PORTION):
                    piece = bounds[portion : min(portion + PORTION, end)].tolist()
                    yield [start if portion == begin else int(bounds[portion - 1]), *piece]


_Heads = list[dict[int, None]]


class _Text:
    """An open document: boundaries of its sentences, how far it is used up, and where others find its head."""

    __slots__ = ("at", "bounds", "heads")

    def __init__(self, bounds: list[int]) -> None:
        self.bounds, self.at = bounds, 0
        self.heads: list[tuple[_Heads, int]] = []

    def length(self, sentences: int) -> int:
        """Tokens of the next so many sentences."""
        return self.bounds[self.at + sentences] - self.bounds[self.at]

    @property
    def left(self) -> int:
        """Sentences that are not used up."""
        return len(self.bounds) - 1 - self.at


class _Rows:
    """Iterates over rows; a row is a list of runs, a run the boundaries of its sentences. A size is positions, special ones too."""

    def __init__(self, texts: Iterator[list[int]], *, max_length: int, pairs: bool, short: float, seed: int) -> None:
        self._texts = texts
        self._max_length, self._pairs, self._short, self._seed = max_length, pairs, short, seed
        self._slack = max(1, int(SLACK * max_length))
        self._open: dict[int, _Text] = {}  # by number, in the order of arrival
        # documents by the size of a run at their head: those that are asked first, and for pairs the single sentences
        self._heads: _Heads = [{} for _ in range(max_length + 1)]
        self._singles: _Heads = [{} for _ in range(max_length + 1)]
        self._arrived = 0

    def __iter__(self) -> Iterator[list[list[int]]]:
        self._refill()
        while self._open:
            yield self._row()
            self._refill()

    def _refill(self) -> None:
        while len(self._open) < WINDOW and (bounds := next(self._texts, None)) is not None:
            self._open[self._arrived] = _Text(bounds)
            self._list(self._arrived)
            self._arrived += 1

    def _row(self) -> list[list[int]]:
        runs: list[list[int]] = []
        used: list[int] = []
        space = self._max_length
        while (found := self._choose(space, first=not runs)) is not None:
            number, sentences = found
            text = self._open[number]
            runs.append(text.bounds[text.at : text.at + sentences + 1])
            space -= self._size(text, sentences)
            text.at += sentences
            used.append(number)
        for number in used:
            if self._open[number].left:
                self._list(number)
            else:
                del self._open[number]
        return runs

    def _size(self, text: _Text, sentences: int) -> int:
        return text.length(sentences) + SPECIALS + (self._pairs and sentences > 1)

    def _fitting(self, text: _Text, size: int) -> int:
        """How many of the next sentences have at most this size."""
        goal = text.bounds[text.at] + size - SPECIALS
        many = bisect_right(text.bounds, goal - self._pairs) - 1 - text.at
        return many if many > 0 else int(text.bounds[text.at + 1] <= goal)

    def _choose(self, space: int, *, first: bool) -> tuple[int, int] | None:
        """A document (taken off the lists) and how many of its sentences come next; None when nothing fits."""
        if first:
            number = next(iter(self._open))
            limit = self._limit(self._open[number])
        else:
            lists = (self._heads, self._singles)
            limit = next((size for heads in lists if (size := self._exact(space, heads))), 0) or self._largest(space)
            if not limit:
                return None
            number = next(iter(self._heads[limit] or self._singles[limit]))
        self._unlist(number)
        return number, self._shortened(self._open[number], limit, space)

    def _limit(self, text: _Text) -> int:
        """The size that the first run of a row may have."""
        place, size = text.bounds[text.at], self._max_length
        if not self._short or key(self._seed, "short", place) % 1000 >= 1000 * self._short:
            return size
        wanted = SPECIALS + 3 + key(self._seed, "length", place) % (size - SPECIALS - 2)
        return max(wanted, self._size(text, min(2, self._fitting(text, size))))

    def _shortened(self, text: _Text, limit: int, space: int) -> int:
        """The most sentences within the limit behind which the row can be filled; the most at all if it can behind none."""
        most = self._fitting(text, limit)
        if self._cut_next(text, most, limit):
            return most + 1
        least = max(min(2 if self._pairs else 1, most), most - _GIVEN_UP)
        for heads in (self._heads, self._singles) if self._pairs else (self._heads,):
            for sentences in range(most, least - 1, -1):
                left = space - self._size(text, sentences)
                if left <= self._slack or self._exact(left, heads):
                    return sentences
        return most

    def _cut_next(self, text: _Text, sentences: int, limit: int) -> bool:
        """If behind these sentences stands one that fits into no row, cut it where the limit is reached."""
        room = limit - (self._size(text, sentences) + (self._pairs and sentences == 1) if sentences else SPECIALS)
        least = min(MIN_PIECE, self._max_length - SPECIALS)
        room = max(room, 0 if sentences else least)
        if sentences == text.left or room < least:
            return False
        start, end = text.bounds[text.at + sentences : text.at + sentences + 2]
        if end - start <= self._max_length - SPECIALS:
            return False
        text.bounds.insert(text.at + sentences + 1, start + room)
        return True

    def _exact(self, space: int, heads: _Heads) -> int:
        """The greatest size of a listed run that fills this space to within the slack; 0 if there is none."""
        return next((size for size in range(space, max(space - self._slack - 1, SPECIALS), -1) if heads[size]), 0)

    def _largest(self, space: int) -> int:
        """The greatest size of any listed run within this space; 0 if there is none."""
        return next((size for size in range(space, SPECIALS, -1) if self._heads[size] or self._singles[size]), 0)

    def _list(self, number: int) -> None:
        """Let others find the document by the sizes of its shortest runs, and by all that is left."""
        text = self._open[number]
        most = self._fitting(text, self._max_length)
        counts = dict.fromkeys([*range(1, min(_HEADS, most) + 1), *((most,) if most == text.left else ())])
        text.heads = [(self._singles if self._pairs and count == 1 else self._heads, self._size(text, count)) for count in counts]
        for heads, size in text.heads:
            heads[size][number] = None

    def _unlist(self, number: int) -> None:
        for heads, size in self._open[number].heads:
            del heads[size][number]
