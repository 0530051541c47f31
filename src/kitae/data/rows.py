"""Writes a packing plan: memory-mapped files of pieces and rows, and what they add up to source by source.

starts.bin (int64, first token of each piece, counted over all shards), lengths.bin (uint32, its tokens), rows.bin (int64, number
of each row's first piece, and the number of pieces at the end) and, for pairs, splits.bin (uint32, tokens of a piece's first
segment; 0 = it has but one). plan.json is written last: without it there is no plan.
"""

import json
from pathlib import Path

import numpy as np

from kitae.data.packing import SPECIALS
from kitae.data.shards import Ints

INDEX = "plan.json"
COUNTS = ("rows", "pieces", "tokens", "pairs")


class RowWriter:
    """Appends rows, one source after the other. Use as a context manager."""

    def __init__(self, folder: Path, *, packing: str, max_length: int, pairs: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._packing, self._max_length = folder, packing, max_length
        names = ("starts", "lengths", "rows", *(("splits",) if pairs else ()))
        self._files = {name: (folder / f"{name}.bin").open("wb") for name in names}
        self._squares = 0
        self._sources: list[dict[str, int]] = []

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._files["rows"].write(np.array([self._total("pieces")], dtype="<i8").tobytes())
        for file in self._files.values():
            file.close()
        if error is None:
            totals = {name: self._total(name) for name in COUNTS}
            index = {"format": 1, "packing": self._packing, "max_length": self._max_length, **totals}
            index |= {"squares": self._squares, "sources": self._sources}
            (self.folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")

    def begin_source(self) -> None:
        """The rows that follow belong to the next source."""
        self._sources.append(dict.fromkeys(COUNTS, 0))

    def add(self, starts: Ints, lengths: Ints, each: Ints, splits: Ints | None = None) -> None:
        """starts, lengths (and splits): one per piece, row after row; each: how many pieces a row has."""
        first = self._total("pieces") + np.cumsum(each) - each
        self._files["starts"].write(starts.astype("<i8").tobytes())
        self._files["lengths"].write(lengths.astype("<u4").tobytes())
        self._files["rows"].write(first.astype("<i8").tobytes())
        sizes = lengths.astype(np.int64) + SPECIALS
        here = self._sources[-1]
        if splits is not None:
            self._files["splits"].write(splits.astype("<u4").tobytes())
            sizes += splits > 0
            here["pairs"] += int((splits > 0).sum())
        here["rows"] += len(each)
        here["pieces"] += len(starts)
        here["tokens"] += int(lengths.sum(dtype=np.int64))
        self._squares += int((sizes**2).sum())

    def _total(self, name: str) -> int:
        return sum(source[name] for source in self._sources)
