"""Packings "sentences" and "pairs": a piece is a run of whole sentences of one document. Only a sentence longer than a row is cut,
where the row ends.

A window of documents is open at a time. A row begins with the longest run that fits of the document that has been open longest.
What is left of it takes a run from the head of another open document that fits to within SLACK; to find one, the run before may
give up a few of its last sentences, which stay for the next row. A gap that is large goes to the next document in turn. Rows are as
full as the sentences allow, documents stay nearly in order, and few pieces meet in a row. Memory is that of the window, whatever
the corpus: of WINDOW documents the ends of the sentences ahead, PORTION of them and at least a row's tokens, at 40 bytes each:
5 MB, and 40 MB at rows of 8,192 with sentences of 10 tokens.

Pairs (Devlin et al. 2019): a run of two sentences and more is split between two of them, by (seed, place). A share `short` of the
rows begins with a run of at most a random length, so that models see short inputs. A run of a single sentence has no second
segment: nothing is predicted of it but its masked tokens.
"""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain, count, islice

import numpy as np

from kitae.data.packing import MIN_PIECE, SPECIALS
from kitae.data.rows import RowWriter
from kitae.data.shards import Ints, Shards
from kitae.tensor.random import key, mixed

SHORT = 0.1
SLACK = 0.01
"""Share of a row that may stay empty before more is looked for."""
WINDOW = 1024
PORTION = 128
"""Sentences that are read at a time, and the least that a long document is divided into."""
_PORTION_ROWS = 8  # a portion has at least the tokens of so many rows, so that few pieces end where it does
_Heads = list[dict[int, None]]
_GIVEN_UP = 4  # sentences that a run may give up
_OLDEST = 16  # documents that a large gap looks at
_HEADS = 4  # runs from a document's head that others may ask for
_ROWS = 4096  # written at a time
_TOKENS = 1 << 20  # of documents whose sentences are looked up at a time


def pack_sentences(shards: Shards, source: int, *, max_length: int, rows: RowWriter, pairs: bool, short: float, seed: int) -> None:
    """Pack the documents of one source into rows. Deterministic."""
    texts = _texts(shards, source, ahead=max_length)
    made = iter(_Rows(texts, max_length=max_length, pairs=pairs, short=short if pairs else 0.0, seed=key(seed, "source", source)))
    while some := list(islice(made, _ROWS)):
        runs = list(chain.from_iterable(some))
        starts = np.array([run[0] for run in runs], dtype=np.int64)
        lengths = np.array([run[-1] for run in runs], dtype=np.int64) - starts
        rows.add(starts, lengths, np.array(list(map(len, some)), dtype=np.int64), _splits(runs, starts, seed) if pairs else None)


def _splits(runs: list[list[int]], starts: Ints, seed: int) -> Ints:
    """Tokens of the first segments: where each run is split, between which two of its sentences decides (seed, place)."""
    inner = np.array(list(map(len, runs)), dtype=np.int64) - 2
    chosen = 1 + (mixed(key(seed, "split"), starts) % np.maximum(inner, 1).astype(np.uint64)).astype(np.int64)
    ends = [run[place] if many > 0 else run[0] for run, place, many in zip(runs, chosen.tolist(), inner.tolist(), strict=True)]
    return np.array(ends, dtype=np.int64) - starts


def _texts(shards: Shards, source: int, *, ahead: int) -> Iterator["_Text"]:
    """The documents of a source. Long ones come in portions, because rows are filled the better the more heads there are to choose."""
    for all_starts, all_ends in shards.documents_of(source):
        cuts = np.flatnonzero(np.diff(all_ends // _TOKENS)) + 1
        for starts, ends in zip(np.split(all_starts, cuts), np.split(all_ends, cuts), strict=True):
            bounds = shards.sentence_ends(int(starts[0]), int(ends[-1]))
            first = np.searchsorted(bounds, starts, side="right").tolist()
            last = np.searchsorted(bounds, ends, side="right").tolist()
            for start, begin, end in zip(starts.tolist(), first, last, strict=True):
                while begin < end:
                    stop = end
                    if end - begin > PORTION:
                        stop = min(max(begin + PORTION, int(np.searchsorted(bounds, start + _PORTION_ROWS * ahead))), end)
                    known = [start, *bounds[begin : min(begin + PORTION, stop)].tolist()]
                    start, begin = int(bounds[stop - 1]), stop
                    yield _Text(shards, known, start, ahead)


class _Text:
    """An open document, or a portion of one: boundaries of the sentences ahead, how far they are used up, and where others find its head.

    It knows at least `ahead` tokens of what is left, so that a run is never short because the next sentences were not read yet.
    """

    __slots__ = ("_ahead", "_end", "_shards", "at", "bounds", "heads")

    def __init__(self, shards: Shards, bounds: list[int], end: int, ahead: int) -> None:
        self._shards, self._end, self._ahead = shards, end, ahead
        self.bounds, self.at = bounds, 0
        self.heads: list[tuple[_Heads, int]] = []
        if bounds[-1] < end:
            self.take(0)

    def take(self, sentences: int) -> list[int]:
        """The boundaries of the next so many sentences, which are used up now."""
        run = self.bounds[self.at : self.at + sentences + 1]
        self.at += sentences
        while self.bounds[-1] < self._end and self.bounds[-1] - self.bounds[self.at] < self._ahead:
            self.bounds = self.bounds[self.at :] + self._shards.next_sentences(self.bounds[-1], self._end, PORTION).tolist()
            self.at = 0
        return run

    def length(self, sentences: int) -> int:
        """Tokens of the next so many sentences."""
        return self.bounds[self.at + sentences] - self.bounds[self.at]

    @property
    def left(self) -> int:
        """Sentences that are not used up."""
        return len(self.bounds) - 1 - self.at


def _draws(seed: int) -> Iterator[float]:
    """Numbers from 0 up to 1, one after the other."""
    for first in count(0, _ROWS):
        yield from ((mixed(seed, np.arange(first, first + _ROWS)) >> np.uint64(11)) * 2.0**-53).tolist()


class _Rows:
    """Iterates over rows; a row is a list of runs, a run the boundaries of its sentences. A size is positions, special ones too."""

    def __init__(self, texts: Iterator[_Text], *, max_length: int, pairs: bool, short: float, seed: int) -> None:
        self._texts, self._draws = texts, _draws(seed)
        self._max_length, self._pairs, self._short = max_length, pairs, short
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
        while len(self._open) < WINDOW and (text := next(self._texts, None)) is not None:
            self._open[self._arrived] = text
            self._list(self._arrived)
            self._arrived += 1

    def _row(self) -> list[list[int]]:
        runs: list[list[int]] = []
        used: list[int] = []
        space = self._max_length
        while space > self._slack and (found := self._choose(space, used)) is not None:
            number, sentences = found
            text = self._open[number]
            space -= self._size(text, sentences)
            runs.append(text.take(sentences))
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

    def _choose(self, space: int, used: list[int]) -> tuple[int, int] | None:
        """A document (taken off the lists) and how many of its sentences come next; None when nothing fits."""
        if not used:
            number = next(iter(self._open))
            limit = self._limit(self._open[number])
        elif exact := self._exact(space, self._heads) or self._exact(space, self._singles):
            number, limit = self._listed(exact), exact
        else:
            limit = self._largest(space)
            if not limit:
                return None
            oldest = self._oldest(space, used) if 2 * limit < space else None
            number, limit = (self._listed(limit), limit) if oldest is None else (oldest, space)
        self._unlist(number)
        return number, self._shortened(self._open[number], limit, space)

    def _listed(self, size: int) -> int:
        """The document that has been listed longest with a run of this size."""
        return next(iter(self._heads[size] or self._singles[size]))

    def _oldest(self, space: int, used: list[int]) -> int | None:
        """Of the documents open longest, this row's own passed over, the first whose next sentence fits: one run, not many heads."""
        for number in islice((number for number in self._open if number not in used), _OLDEST):
            heads = self._open[number].heads
            if heads and heads[0][1] <= space:
                return number
        return None

    def _limit(self, text: _Text) -> int:
        """The size that the first run of a row may have."""
        size = self._max_length
        if not self._short or next(self._draws) >= self._short:
            return size
        wanted = SPECIALS + 3 + int(next(self._draws) * (size - SPECIALS - 2))
        return max(wanted, self._size(text, min(2, self._fitting(text, size))))

    def _shortened(self, text: _Text, limit: int, space: int) -> int:
        """The most sentences within the limit behind which the row can be filled; the most at all if it can behind none."""
        most = self._fitting(text, limit)
        if self._cut_next(text, most, limit):
            return most + 1
        least = max(min(2 if self._pairs else 1, most), most - _GIVEN_UP)
        left = [(sentences, space - self._size(text, sentences)) for sentences in range(most, least - 1, -1)]
        for heads in (self._heads, self._singles) if self._pairs else (self._heads,):
            for sentences, room in left:
                if room <= self._slack or self._exact(room, heads):
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
        for size in range(space, max(space - self._slack - 1, SPECIALS), -1):
            if heads[size]:
                return size
        return 0

    def _largest(self, space: int) -> int:
        """The greatest size of any listed run within this space; 0 if there is none."""
        return next((size for size in range(space, SPECIALS, -1) if self._heads[size] or self._singles[size]), 0)

    def _list(self, number: int) -> None:
        """Let others find the document by the sizes of its shortest runs, and by all that is left."""
        text, extra = self._open[number], int(self._pairs)
        most = self._fitting(text, self._max_length)
        counts = [*range(2, min(_HEADS, most) + 1), *((most,) if _HEADS < most == text.left else ())]
        base = text.bounds[text.at] - SPECIALS
        text.heads = [(self._singles if self._pairs else self._heads, text.bounds[text.at + 1] - base)] if most else []
        text.heads += [(self._heads, text.bounds[text.at + sentences] - base + extra) for sentences in counts]
        for heads, size in text.heads:
            heads[size][number] = None

    def _unlist(self, number: int) -> None:
        for heads, size in self._open[number].heads:
            del heads[size][number]
