"""Packing "documents": pieces of documents fill rows completely. See packing.py for which pieces meet in a row.

Memory does not grow with the corpus: the first tokens of the pieces that wait for a row lie in one scratch file, 8 bytes each,
sorted by length in blocks; a block costs about 150 bytes. At 10^8 documents of 500 tokens (5 * 10^10 tokens, 373 shards) and rows
of 128 that is 0.8 GB of scratch, 373 * 126 blocks = 7 MB, and 25 MB for the chunk at work.
"""

import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from kitae.data.packing import SPECIALS, Packer, Pattern
from kitae.data.rows import RowWriter
from kitae.data.shards import Ints, Shards

_CHUNK = 1 << 20


def pack_documents(shards: Shards, source: int, *, max_length: int, rows: RowWriter) -> None:
    """Pack the documents of one source into rows. Deterministic.

    Documents longer than a row give full rows; what remains of them and all shorter ones are packed.
    """
    capacity = max_length - SPECIALS
    with _Queues(rows.folder, capacity) as queues:
        histogram = np.zeros(capacity + 1, dtype=np.int64)
        for starts, ends in shards.documents_of(source):
            histogram += _sort(starts, ends, capacity=capacity, rows=rows, queues=queues)
        for pattern in Packer(histogram, max_length=max_length).patterns():
            for starts_RP, lengths_P in _lay(pattern, queues):
                count, each = starts_RP.shape
                rows.add(starts_RP.ravel(), np.tile(lengths_P, count), np.full(count, each))


@dataclass(frozen=True)
class _Block:
    """Numbers in the scratch file: the first one's place, and how many."""

    first: int
    count: int


class _Queues:
    """Starts of the pieces of each length, first in, first out, in a scratch file."""

    def __init__(self, folder: Path, capacity: int) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".sort-")  # noqa: SIM115
        self._blocks: list[deque[_Block]] = [deque() for _ in range(capacity + 1)]
        self._written = 0

    def __enter__(self) -> "_Queues":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def push(self, lengths: Ints, bounds: Ints, starts: Ints) -> None:
        """starts[bounds[i]:bounds[i + 1]] are pieces of lengths[i] tokens."""
        self._file.seek(8 * self._written)
        self._file.write(starts.astype("<i8").tobytes())
        for length, first, end in zip(lengths.tolist(), bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            if end > first:
                self._blocks[length].append(_Block(self._written + first, end - first))
        self._written += len(starts)

    def pop(self, length: int, count: int) -> Ints:
        """The first `count` starts; the packer never asks for more than there are."""
        blocks, taken = self._blocks[length], []
        while count:
            block = blocks.popleft()
            take = min(count, block.count)
            if take < block.count:
                blocks.appendleft(_Block(block.first + take, block.count - take))
            self._file.seek(8 * block.first)
            taken.append(np.frombuffer(self._file.read(8 * take), dtype="<i8"))
            count -= take
        return np.concatenate(taken)


def _sort(starts: Ints, ends: Ints, *, capacity: int, rows: RowWriter, queues: _Queues) -> NDArray[np.int64]:
    """Write the full rows of long documents, and queue what is left by length; returns how many pieces of each length that are."""
    full = (ends - starts) // capacity
    number = np.arange(full.sum()) - np.repeat(full.cumsum() - full, full)
    whole = np.repeat(starts, full) + number * capacity
    rows.add(whole, np.full(len(whole), capacity), np.ones(len(whole), dtype=np.int64))
    rest_starts = starts + full * capacity
    rest = ends - rest_starts
    counts = np.bincount(rest, minlength=capacity + 1)
    by_length = rest_starts[np.argsort(rest, kind="stable")][counts[0] :]
    counts[0] = 0
    queues.push(np.arange(1, capacity + 1), counts.cumsum(), by_length)
    return counts


def _lay(pattern: Pattern, queues: _Queues) -> Iterator[tuple[Ints, Ints]]:
    """Give a pattern its pieces: starts [rows, pieces of a row], and their lengths."""
    lengths = np.array([*pattern.lengths, *((pattern.head,) if pattern.cut else ())], dtype=np.int64)
    for first in range(0, pattern.repeats, _CHUNK):
        count = min(_CHUNK, pattern.repeats - first)
        columns = [queues.pop(length, count) for length in pattern.lengths]
        if pattern.cut:
            cut = queues.pop(pattern.cut, count)
            columns.append(cut)
            queues.push(np.array([pattern.cut - pattern.head]), np.array([0, count]), cut + pattern.head)
        yield np.stack(columns, axis=1), lengths
