"""What becomes of every document, decided from all records together, on disk: memory stays bounded at any number of documents.

The records of all parts are merged into one file in the order of the sources; a document's place in it is its row. A byte
a row says its fate. Duplicates are found bucket by bucket of their digests, what is held out by a histogram of hashes.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kitae.core.errors import KitaeError
from kitae.text.dedup import first_occurrences
from kitae.text.nearduplicates import near_duplicates
from kitae.text.parts import RECORD, PartReader, Rows

PLACED = np.dtype([*RECORD.descr, ("part", "<u4"), ("line", "<u8")])
"""A record with its part, and the number of its line there (of the next kept line, when it has none)."""
ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u8")])
ROWS, FATES = "rows", "fates"
TRAIN, HELDOUT, DUPLICATE, DROPPED, NEAR = range(5)
CHUNK = 1 << 17
"""Records looked at together: 6 MB."""
BUCKET = 1 << 20
"""Digests compared together: 24 MB, and as much again twice for sorting them."""
BINS = 1 << 16

Fates = NDArray[np.uint8]


def chunks(records: Rows) -> Iterator[tuple[int, NDArray[np.void]]]:
    """(first row, some rows) over all records in order."""
    for first in range(0, len(records), CHUNK):
        yield first, records.read(first, CHUNK)


class _Queue:
    """One part's records while parts are merged: those in memory (none: it has ended), and how many lines were passed."""

    def __init__(self, records: Rows, each: int) -> None:
        self._records, self._each, self._at, self.kept = records, each, 0, 0
        self.ahead = records.read(0, each)

    def take(self, upto: int) -> NDArray[np.void]:
        """The records in memory up to this number."""
        count = int(np.searchsorted(self.ahead["number"], upto, side="right"))
        chosen, self.ahead = self.ahead[:count], self.ahead[count:]
        self._at += count
        if not len(self.ahead):
            self.ahead = self._records.read(self._at, self._each)
        return chosen


def merge(parts: Sequence[tuple[int, PartReader, NDArray[np.uint16]]], folder: Path, *, every: bool = True) -> int:
    """Append to the folder a source's records, given by part (rank, reader, its reasons' numbers in the source), in document order.

    Returns how many there are. Raises KitaeError when two parts hold one document or, with `every` (numbers are counted 0, 1, 2, ...),
    one is in none.
    """
    each, last, total = max(1, CHUNK // max(1, len(parts))), -1, 0
    queues = [_Queue(part.records, each) for _, part, _ in parts]
    with (folder / ROWS).open("ab") as file:
        while any(len(queue.ahead) for queue in queues):
            upto = min(int(queue.ahead["number"][-1]) for queue in queues if len(queue.ahead))
            taken = []
            for (rank, _, codes), queue in zip(parts, queues):
                chosen = queue.take(upto)
                rows = np.empty(len(chosen), PLACED)
                for name in RECORD.names or ():
                    rows[name] = chosen[name]
                rows["reason"], rows["part"] = codes[chosen["reason"]], rank
                stays = chosen["reason"] == 0
                rows["line"] = queue.kept + np.cumsum(stays) - stays
                queue.kept += int(stays.sum())
                taken.append(rows)
            block = np.concatenate(taken)
            block = block[np.argsort(block["number"], kind="stable")]
            numbers = block["number"].astype(np.int64)
            steps = np.diff(numbers, prepend=last)
            wrong = np.flatnonzero((steps != 1) if every else (steps < 1))
            if len(wrong):
                number = int(numbers[wrong[0]])
                what = f"the parts do not fit together: two hold the same document, or none holds one, near number {number:,} of a source"
                raise KitaeError(what, cure="remove the folder and run again", where=str(folder.parent))
            last, total = int(numbers[-1]), total + len(block)
            file.write(block.tobytes())
    return total


def all_rows(folder: Path) -> Rows:
    """The merged records of a folder."""
    return Rows(folder / ROWS, PLACED)


def new_fates(folder: Path, records: Rows) -> Fates:
    """A byte a row on disk: TRAIN or DROPPED as the reasons say."""
    path = folder / FATES
    with path.open("wb") as file:
        for _, rows in chunks(records):
            file.write(np.where(rows["reason"] == 0, TRAIN, DROPPED).astype(np.uint8).tobytes())
    return np.asarray(np.memmap(path, np.uint8, "r+")) if len(records) else np.empty(0, np.uint8)


def decided_rows(folder: Path, begin: int, end: int) -> Iterator[tuple[NDArray[np.void], Fates]]:
    """The merged records from one row to another with their fates, some at a time."""
    rows, fates = all_rows(folder), Rows(folder / FATES, np.dtype(np.uint8))
    for first in range(begin, end, CHUNK):
        count = min(CHUNK, end - first)
        yield rows.read(first, count), fates.read(first, count).astype(np.uint8)


def mark_duplicates(records: Rows, fates: Fates, scratch: Path) -> None:
    """DUPLICATE for rows whose text came before, among those that are kept so far. `scratch` is an empty folder."""
    bits = min(9, max(0, len(records).bit_length() - (BUCKET - 1).bit_length()))  # at most 512 files: systems allow 1024
    paths = [scratch / f"bucket-{number}" for number in range(1 << bits)]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for first, rows in chunks(records):
            chosen = np.flatnonzero(fates[first : first + len(rows)] == TRAIN)
            entries = np.empty(len(chosen), ENTRY)
            entries["high"], entries["low"], entries["row"] = rows["high"][chosen], rows["low"][chosen], first + chosen
            bucket = (entries["high"] >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(entries), np.int64)
            order = np.argsort(bucket, kind="stable")
            ends = np.cumsum(np.bincount(bucket, minlength=len(files)))
            for file, begin, end in zip(files, [0, *ends[:-1]], ends):
                if end > begin:
                    file.write(entries[order[begin:end]].tobytes())
    for path in paths:
        entries = np.fromfile(path, ENTRY)
        path.unlink()
        again = ~first_occurrences(entries["high"], entries["low"])
        fates[entries["row"][again]] = DUPLICATE


def mark_near_duplicates(records: Rows, fates: Fates, sketches: Path, similarity: float) -> None:
    """NEAR for rows much like one that came before, among those that are kept so far.

    `sketches` holds the parts' sketches, of all rows that no step dropped. Memory: a chunk of rows, and near_duplicates' buffers.
    """

    def kept() -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint32]]]:
        for first, rows in chunks(records):
            chosen = np.flatnonzero(rows["reason"] == 0)
            yield first + chosen, rows["part"][chosen]

    near = near_duplicates(sketches, ((part, fates[places] == TRAIN) for places, part in kept()), similarity)
    done = 0
    for places, _ in kept():
        taken = places[fates[places] == TRAIN]
        fates[taken[near(done, done + len(taken))]] = NEAR
        done += len(taken)


def mark_held_out(records: Rows, fates: Fates, number: int, seed: int) -> None:
    """HELDOUT for the `number` rows of TRAIN with the smallest hashes of (seed, text): whatever their order and parts.

    Two passes: how many hashes have which leading bits; then all below the decisive bits, and the smallest of those in it.
    """
    if not number:
        return
    histogram = np.zeros(BINS, np.int64)
    for first, rows in chunks(records):
        top = _mixed(rows[fates[first : first + len(rows)] == TRAIN], seed) >> np.uint64(48)
        histogram += np.bincount(top.astype(np.int64), minlength=BINS)
    through = histogram.cumsum()
    edge = int(np.searchsorted(through, number))
    left = number - int(through[edge - 1] if edge else 0)
    hashes, places = [], []
    for first, rows in chunks(records):
        chosen = np.flatnonzero(fates[first : first + len(rows)] == TRAIN)
        mixed = _mixed(rows[chosen], seed)
        top = (mixed >> np.uint64(48)).astype(np.int64)
        fates[first + chosen[top < edge]] = HELDOUT
        hashes.append(mixed[top == edge])
        places.append(first + chosen[top == edge])
    order = np.argsort(np.concatenate(hashes), kind="stable")
    fates[np.concatenate(places)[order[:left]]] = HELDOUT


def _mixed(rows: NDArray[np.void], seed: int) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        mixed = (rows["high"] ^ np.uint64(seed % (1 << 64))) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(32)) ^ rows["low"]) * np.uint64(0xD6E8FEB86659FD93)
        mixed ^= mixed >> np.uint64(32)
    return mixed


def count(records: Rows, fates: Fates) -> dict[tuple[int, int], tuple[int, int]]:
    """(fate, reason) -> (documents, characters)."""
    counts: dict[tuple[int, int], tuple[int, int]] = {}
    for first, rows in chunks(records):
        both = rows["reason"].astype(np.int64) * 256 + fates[first : first + len(rows)]
        for code in np.unique(both).tolist():
            chosen = both == code
            documents, characters = counts.get((code % 256, code // 256), (0, 0))
            characters += int(rows["characters"][chosen].sum(dtype=np.int64))
            counts[code % 256, code // 256] = (documents + int(chosen.sum()), characters)
    return counts


def first_rows(fates: Fates, fate: int, most: int) -> list[int]:
    """The first rows of a fate."""
    found: list[int] = []
    for first in range(0, len(fates), CHUNK):
        if len(found) < most:
            found += (first + np.flatnonzero(fates[first : first + CHUNK] == fate)[: most - len(found)]).tolist()
    return found


def shard_ends(folder: Path, fate: int, most: int) -> list[int]:
    """The row behind the last one of every shard of a fate: a shard ends with the line that fills it to `most` bytes."""
    ends: list[int] = []
    carried, first, last = 0, 0, -1
    for rows, fates in decided_rows(folder, 0, len(all_rows(folder))):
        chosen = np.flatnonzero(fates == fate)
        if len(chosen):
            last = first + int(chosen[-1])
            filled = carried + np.cumsum(rows["size"][chosen].astype(np.int64) + 1)
            full = 0
            while (place := int(np.searchsorted(filled, full + most))) < len(filled):
                ends.append(first + int(chosen[place]) + 1)
                full = int(filled[place])
            carried = int(filled[-1]) - full
        first += len(rows)
    if carried:
        ends.append(last + 1)
    return ends
