"""The packing plan: which pieces of which documents stand in which row. Every token of the shards stands in exactly one piece.

Three memory-mapped files: starts.bin (int64, first token of each piece, counted over all shards), lengths.bin (uint32, its
tokens) and rows.bin (int64, number of each row's first piece, and the number of pieces at the end). See packing.py.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kitae.core.errors import KitaeError
from kitae.data.packing import SPECIALS, Packer, Pattern
from kitae.data.shards import Ints, Shards

INDEX = "plan.json"
_CHUNK = 1 << 20


class _Rows:
    """Appends rows of equally many pieces to the three files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._starts, self._lengths, self._rows = ((folder / f"{name}.bin").open("wb") for name in ("starts", "lengths", "rows"))
        self.pieces = self.rows = self.tokens = 0

    def add(self, starts: Ints, lengths: Ints) -> None:
        """starts, lengths: [rows, pieces of a row]."""
        rows, each = starts.shape
        self._starts.write(starts.astype("<i8").tobytes())
        self._lengths.write(lengths.astype("<u4").tobytes())
        self._rows.write((self.pieces + each * np.arange(rows, dtype="<i8")).tobytes())
        self.pieces += rows * each
        self.rows += rows
        self.tokens += int(lengths.sum())

    def close(self) -> None:
        self._rows.write(np.array([self.pieces], dtype="<i8").tobytes())
        for file in (self._starts, self._lengths, self._rows):
            file.close()


class _Queues:
    """Starts of the pieces of each length, in order. Long blocks lie on disk, so that memory stays bounded."""

    def __init__(self, folder: Path, capacity: int) -> None:
        self._folder = folder
        self._blocks: list[list[Ints]] = [[] for _ in range(capacity + 1)]
        self._spilled = 0

    def push(self, length: int, starts: Ints) -> None:
        if len(starts):
            self._blocks[length].append(starts)

    def spill(self, starts: Ints) -> Ints:
        """The same numbers, on disk when they are many."""
        if len(starts) <= 1 << 16:
            return starts
        path = self._folder / f"block-{self._spilled}.bin"
        self._spilled += 1
        starts.astype("<i8").tofile(path)
        return np.asarray(np.memmap(path, dtype="<i8", mode="r"))

    def pop(self, length: int, count: int) -> Ints:
        """The first `count` starts; the packer never asks for more than there are."""
        blocks = self._blocks[length]
        taken: list[Ints] = []
        while count:
            block = blocks.pop(0)
            if len(block) > count:
                blocks.insert(0, block[count:])
                block = block[:count]
            taken.append(block)
            count -= len(block)
        return np.concatenate(taken)


def build(shards: Shards, *, max_length: int, folder: Path) -> "Plan":
    """Pack the documents of the shards into rows of `max_length` positions and write the plan. Deterministic.

    Documents longer than a row give full rows; what remains of them and all shorter ones are packed.
    """
    capacity = max_length - SPECIALS
    rows = _Rows(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".sort-") as scratch:
        queues = _Queues(Path(scratch), capacity)
        histogram = np.zeros(capacity + 1, dtype=np.int64)
        for shard in range(len(shards)):
            _sort(shards, shard, capacity=capacity, rows=rows, queues=queues, histogram=histogram)
        for pattern in Packer(histogram, max_length=max_length).patterns():
            _lay(pattern, queues, rows)
    rows.close()
    index = {"format": 1, "packing": "documents", "max_length": max_length, "rows": rows.rows, "pieces": rows.pieces, "tokens": rows.tokens}
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    return Plan(folder)


def _sort(shards: Shards, shard: int, *, capacity: int, rows: _Rows, queues: _Queues, histogram: NDArray[np.int64]) -> None:
    """Write the full rows of a shard's long documents, and queue what is left by length."""
    ends = shards.documents(shard)
    starts = np.concatenate([shards.starts[shard : shard + 1], ends[:-1]])
    for first in range(0, len(ends), _CHUNK):
        start, end = starts[first : first + _CHUNK], ends[first : first + _CHUNK]
        full = (end - start) // capacity
        number = np.arange(full.sum()) - np.repeat(full.cumsum() - full, full)
        whole = np.repeat(start, full) + number * capacity
        rows.add(whole[:, None], np.full((len(whole), 1), capacity))
        rest_start = start + full * capacity
        rest = end - rest_start
        by_length = queues.spill(rest_start[np.argsort(rest, kind="stable")])
        counts = np.bincount(rest, minlength=capacity + 1)
        bounds = np.concatenate([[0], counts.cumsum()])
        for length in np.nonzero(counts[1:])[0] + 1:
            queues.push(int(length), by_length[bounds[length] : bounds[length + 1]])
        counts[0] = 0
        histogram += counts


def _lay(pattern: Pattern, queues: _Queues, rows: _Rows) -> None:
    """Give a pattern its pieces and write its rows."""
    lengths = np.array([*pattern.lengths, *((pattern.head,) if pattern.cut else ())], dtype=np.int64)
    for first in range(0, pattern.repeats, _CHUNK):
        count = min(_CHUNK, pattern.repeats - first)
        columns = [queues.pop(length, count) for length in pattern.lengths]
        if pattern.cut:
            cut = queues.pop(pattern.cut, count)
            columns.append(cut)
            queues.push(pattern.cut - pattern.head, queues.spill(cut + pattern.head))
        rows.add(np.stack(columns, axis=1), np.broadcast_to(lengths, (count, len(lengths))))


class Plan:
    """Reads a plan, memory mapped. Raises KitaeError when there is none."""

    def __init__(self, folder: Path) -> None:
        path = folder / INDEX
        if not path.is_file():
            raise KitaeError(f"{folder} holds no packing plan: {INDEX} is missing", cure="run the dataset stage again")
        index = json.loads(path.read_text(encoding="utf-8"))
        self.max_length: int = index["max_length"]
        self.num_rows: int = index["rows"]
        self.num_pieces: int = index["pieces"]
        self.num_tokens: int = index["tokens"]
        self._folder = folder
        self.starts = self._map("starts", "<i8", self.num_pieces)
        """int64 [pieces]: first token, counted over all shards."""
        self.lengths = self._map("lengths", "<u4", self.num_pieces)
        """uint32 [pieces]: tokens without special ones."""
        self.rows = self._map("rows", "<i8", self.num_rows + 1)
        """int64 [rows + 1]: first piece of each row, and the number of pieces."""

    @property
    def real_positions(self) -> int:
        """Positions that are not padding: tokens and the [CLS] and [SEP] of every piece."""
        return self.num_tokens + SPECIALS * self.num_pieces

    @property
    def fill(self) -> float:
        """Real positions, special tokens included, over all positions; 0 without rows."""
        return self.real_positions / max(self.num_rows * self.max_length, 1)

    def _map(self, name: str, dtype: str, count: int) -> NDArray:
        if not count:
            return np.zeros(0, dtype=dtype)
        return np.asarray(np.memmap(self._folder / f"{name}.bin", dtype=dtype, mode="r", shape=(count,)))
