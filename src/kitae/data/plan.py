"""The packing plan: which pieces of which documents stand in which row. Every token of the shards stands in exactly one piece.

A row holds text of one source; rows lie source by source. See rows.py for the files, packing.py, documents.py and sentences.py
for the choice of pieces.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kitae.core.config import Config
from kitae.data.documents import pack_documents
from kitae.data.files import check_sizes, read_index
from kitae.data.packing import SPECIALS
from kitae.data.rows import INDEX, RowWriter
from kitae.data.sentences import SHORT, pack_sentences
from kitae.data.shards import Ints, Shards

Packing = Literal["documents", "sentences", "pairs"]


def build(shards: Shards, *, max_length: int, folder: Path, packing: Packing = "documents", short: float = SHORT, seed: int = 0) -> "Plan":
    """Pack the documents of the shards into rows of `max_length` positions, source by source, and write the plan. Deterministic.

    `short` and `seed` are for pairs only; see sentences.py.
    """
    with RowWriter(folder, packing=packing, max_length=max_length, pairs=packing == "pairs") as rows:
        for source in range(max(shards.source_numbers, default=-1) + 1):
            rows.begin_source()
            if packing == "documents":
                pack_documents(shards, source, max_length=max_length, rows=rows)
            else:
                pack_sentences(shards, source, max_length=max_length, rows=rows, pairs=packing == "pairs", short=short, seed=seed)
    return Plan(folder)


class SourceRows(Config):
    """What a plan holds of one source."""

    rows: int
    """Its rows."""
    pieces: int
    """Pieces in them."""
    tokens: int
    """Tokens in them, special ones not counted."""
    pairs: int = 0
    """Pieces of two segments."""

    @property
    def real_positions(self) -> int:
        """Positions that are not padding: tokens, [CLS] and [SEP] of every piece, and the second [SEP] of every pair."""
        return self.tokens + SPECIALS * self.pieces + self.pairs


class _Index(SourceRows):
    """What `plan.json` says: first of all sources together."""

    format: int
    packing: Packing
    max_length: int
    squares: int | None = None
    sources: tuple[SourceRows, ...] | None = None
    """Plans of the first layout mix the sources in their rows, and say nothing of them."""


class Plan:
    """Reads a plan, memory mapped. Raises KitaeError when there is none, or a file has not the size that its index says."""

    def __init__(self, folder: Path) -> None:
        index = read_index(folder / INDEX, _Index, what="packing plan")
        self.max_length = index.max_length
        self.num_rows, self.num_pieces, self.num_tokens, self.num_pairs = index.rows, index.pieces, index.tokens, index.pairs
        sizes = {"starts": 8 * index.pieces, "lengths": 4 * index.pieces, "rows": 8 * (index.rows + 1)}
        sizes |= {"splits": 4 * index.pieces} if index.packing == "pairs" else {}
        check_sizes(folder, {f"{name}.bin": size for name, size in sizes.items()})
        whole = SourceRows(rows=index.rows, pieces=index.pieces, tokens=index.tokens, pairs=index.pairs)
        self.sources = (whole,) if index.sources is None else index.sources
        """What there is of each source, in order of their numbers."""
        self.source_rows: Ints = np.concatenate([[0], np.cumsum([source.rows for source in self.sources])]).astype(np.int64)
        """int64 [sources + 1]: first row of each source, and the number of rows."""
        self._folder, self._squares = folder, index.squares
        self.starts = self._map("starts", "<i8", self.num_pieces)
        """int64 [pieces]: first token, counted over all shards."""
        self.lengths = self._map("lengths", "<u4", self.num_pieces)
        """uint32 [pieces]: tokens without special ones."""
        self.rows = self._map("rows", "<i8", self.num_rows + 1)
        """int64 [rows + 1]: first piece of each row, and the number of pieces."""
        self.splits = self._map("splits", "<u4", self.num_pieces) if index.packing == "pairs" else None
        """uint32 [pieces]: tokens of the first segment, 0 where there is no second; None in another packing."""

    @property
    def real_positions(self) -> int:
        """Positions that are not padding."""
        return sum(source.real_positions for source in self.sources)

    @property
    def fill(self) -> float:
        """Real positions, special tokens included, over all positions; 0 without rows."""
        return self.real_positions / max(self.num_rows * self.max_length, 1)

    @cached_property
    def context(self) -> float:
        """How many positions a position attends to in the mean."""
        squares = self._squares
        if squares is None:
            squares = int(((self.lengths.astype(np.int64) + SPECIALS) ** 2).sum())
        return squares / max(self.real_positions, 1)

    def context_of(self, numbers: Sequence[int]) -> float:
        """The same for the text of some sources, by their numbers; 0 without any."""
        squares = 0
        for number in numbers:
            first, end = self.rows[self.source_rows[number : number + 2]]
            squares += int(((self.lengths[first:end].astype(np.int64) + SPECIALS) ** 2).sum())
        return squares / max(sum(self.sources[number].real_positions for number in numbers), 1)

    def _map(self, name: str, dtype: str, count: int) -> NDArray:
        if not count:
            return np.zeros(0, dtype=dtype)
        return np.asarray(np.memmap(self._folder / f"{name}.bin", dtype=dtype, mode="r", shape=(count,)))
