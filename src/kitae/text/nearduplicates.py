"""Near-duplicates: documents whose sets of character 5-grams, blanks left out, overlap (Jaccard) by a given similarity.

Pass 1 leaves a sketch of 256 bytes a document (fast similarity sketching, Dahlgaard, Knudsen and Thorup 2017: MinHash's
estimate, but the time is linear in the text, not text times hashes). Then all sketches together: bands of equal bytes
propose pairs (LSH), the whole sketches confirm them, and the earliest document of each cluster stays. On disk, 780 bytes a
document; in memory, fixed buffers. datatrove's own stages propose without confirming, keep a
document that hangs on the order of the parts, and spend Python objects on every band of every document.
"""

import collections
import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

from kitae.core.errors import KitaeError
from kitae.text.parts import SKETCHES, whole_file

NGRAM = 5
BINS = 256
ROUNDS = 2 * BINS  # after them every bin has something: the last BINS rounds throw all grams into one bin each
ENOUGH = 10 * BINS  # throws that most likely fill all bins: BINS * ln(BINS) + 4 * BINS
PIECE = 1 << 16  # grams hashed at a time
CHUNK = 1 << 16  # documents, or pairs, at a time
MOST_KEYS = 1 << 22  # keys of one band sorted at a time
MARGIN = 2.0  # standard deviations of the estimate that a true pair may lie below the similarity: 98 % of them lie above
PRIME = np.uint64(0x9E3779B97F4A7C15)
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # finalizer of splitmix64 (Steele et al. 2014)
LOW = np.uint64((1 << 54) - 1)
EMPTY = np.uint64((1 << 64) - 1)

MOST_DOCUMENTS = (1 << 32) - 1

Words = NDArray[np.uint64]
Parts = NDArray[np.uint32]
Mask = NDArray[np.bool_]
Parents = NDArray[np.uint32]
Sketches = NDArray[np.uint8]


def grams(text: str) -> Words:
    """Hashes of the character 5-grams, repeated ones repeated; a shorter text is one gram."""
    data = "".join(text.split()).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(data.ljust(4 * NGRAM, b"\0"), np.uint32).astype(np.uint64)
    with np.errstate(over="ignore"):
        two = codes[:-1] * PRIME + codes[1:]
        four = two[:-2] * (PRIME * PRIME) + two[2:]
        return four[:-1] * PRIME + codes[4:]


def sketch(text: str) -> Sketches:
    """256 bytes; the share of equal bytes of two texts' sketches estimates the Jaccard similarity of their 5-grams."""
    words = grams(text)
    found = np.full(BINS, EMPTY)
    done, step = 0, min(ROUNDS, -(-ENOUGH // len(words)))
    while done < ROUNDS and (done == 0 or (found == EMPTY).any()):
        rounds = np.arange(done, min(done + step, ROUNDS), dtype=np.uint64)
        for start in range(0, len(words), PIECE):
            _throw(words[start : start + PIECE], rounds, found)
        done += step
    return found.astype(np.uint8)


def _throw(words: Words, rounds: Words, found: Words) -> None:
    """Throw every gram into a bin each round; a bin keeps the smallest (round, hash)."""
    with np.errstate(over="ignore"):
        mixed = (rounds * PRIME)[:, None] + words[None, :]
        mixed ^= mixed >> np.uint64(30)
        mixed *= MIX[0]
        mixed ^= mixed >> np.uint64(27)
        mixed *= MIX[1]
        mixed ^= mixed >> np.uint64(31)
    places = (mixed >> np.uint64(56)).astype(np.intp)
    fixed = rounds >= BINS
    if fixed.any():
        places[fixed] = (rounds[fixed] - np.uint64(BINS)).astype(np.intp)[:, None]
    mixed &= LOW
    mixed |= (rounds << np.uint64(54))[:, None]
    np.minimum.at(found, places.ravel(), mixed.ravel())


class WriteSketches(PipelineStep):
    """Writes the sketches of a part's kept documents in their order; passes all documents on."""

    type = "dedup"
    name = "write sketches"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """The file `RRRRR.sketch`."""
        with whole_file(sketch_file(self.folder, rank)) as file:
            for document in data:
                if "dropped" not in document.metadata:
                    file.write(sketch(document.text).tobytes())
                yield document


def sketch_file(folder: Path, rank: int) -> Path:
    """Where a part's sketches lie."""
    return folder / f"{rank:05d}{SKETCHES}"


def near_duplicates(folder: Path, documents: Iterable[tuple[Parts, Mask]], similarity: float) -> Callable[[int, int], Mask]:
    """Which documents are near-duplicates of an earlier one.

    `documents` are given some at a time, in document order: in whose part's file the sketch of each comes next, and which of them take
    part; the others (exact duplicates, say) are left alone. The answer is for those that take part, numbered among themselves, from one
    to another. It depends on the order of the documents only.
    """
    width = 8 if similarity >= 0.8 else 4
    kind = np.dtype(f"<u{width}")
    count = _gather(folder, documents, width)
    parents = _parents(folder / "parents", count)
    needed = _needed(similarity)
    with (folder / "sketches").open("rb") as sketches:
        for band in range(BINS // width):
            for places, keys in _slices(_band_file(folder, band), kind, count):
                _join_equal(places, keys, parents, sketches, needed)
    return lambda begin, end: parents[begin:end] != np.arange(begin, end)


def _parents(path: Path, count: int) -> Parents:
    """Every document points at itself, in a file: what is mapped is no memory in use, and the system drops it when it has to."""
    with path.open("wb") as file:
        for start in range(0, count, CHUNK):
            file.write(np.arange(start, min(start + CHUNK, count), dtype=np.uint32).tobytes())
    return np.asarray(np.memmap(path, np.uint32, "r+")) if count else np.empty(0, np.uint32)


def _needed(similarity: float) -> int:
    """How many bytes have to be equal: as many as a pair of that similarity has, less a margin. One in 256 is equal by chance."""
    expected = BINS * (similarity + (1 - similarity) / 256)
    return math.ceil(expected - MARGIN * math.sqrt(BINS * similarity * (1 - similarity)))


def _gather(folder: Path, documents: Iterable[tuple[Parts, Mask]], width: int) -> int:
    """All sketches that take part, in document order, whole and band by band; how many there are."""
    passed: collections.Counter[int] = collections.Counter()
    count = 0
    with contextlib.ExitStack() as stack:
        whole = stack.enter_context((folder / "sketches").open("wb"))
        bands = [stack.enter_context(_band_file(folder, band).open("wb")) for band in range(BINS // width)]
        for part, take in documents:
            for start in range(0, len(part), CHUNK):
                ranks, chosen = part[start : start + CHUNK], take[start : start + CHUNK]
                rows = np.empty((len(ranks), BINS), np.uint8)
                for rank in np.unique(ranks).tolist():  # one file at a time: systems allow 1024
                    mine = ranks == rank
                    number = int(mine.sum())
                    rows[mine] = np.fromfile(sketch_file(folder, rank), np.uint8, number * BINS, offset=passed[rank] * BINS).reshape(
                        -1, BINS
                    )
                    passed[rank] += number
                rows = rows[chosen]
                count += len(rows)
                whole.write(rows.tobytes())
                for band, file in enumerate(bands):
                    file.write(rows[:, band * width : (band + 1) * width].tobytes())
    if count > MOST_DOCUMENTS:
        raise KitaeError(
            f"near-duplicates are looked for among {MOST_DOCUMENTS:,} documents at most, not {count:,}", cure="divide the corpus"
        )
    return count


def _band_file(folder: Path, band: int) -> Path:
    return folder / f"band-{band:03d}"


def _slices(path: Path, kind: np.dtype, count: int) -> Iterator[tuple[NDArray[np.uint32], NDArray]]:
    """A band's documents and keys in slices of about MOST_KEYS, equal keys in one slice; the file is read once and removed."""
    number = min(-(-count // MOST_KEYS), 500)  # systems allow 1024 open files
    entry = np.dtype([("key", kind), ("place", np.uint32)])
    paths = [path.with_suffix(f".{one}") for one in range(number)]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(one.open("wb")) for one in paths]
        for start in range(0, count, CHUNK):
            keys = np.fromfile(path, kind, min(CHUNK, count - start), offset=start * kind.itemsize)
            entries = np.empty(len(keys), entry)
            entries["key"], entries["place"] = keys, np.arange(start, start + len(keys))
            which = keys % np.array(number, kind)
            for one, file in enumerate(files):
                file.write(entries[which == one].tobytes())
    path.unlink()
    for part in paths:
        entries = np.fromfile(part, entry)
        part.unlink()
        yield entries["place"], entries["key"]


def _join_equal(places: NDArray[np.uint32], keys: NDArray, parents: Parents, sketches: BinaryIO, needed: int) -> None:
    """Join documents with equal keys whose sketches agree: each with the first of its group, else with the one before it."""
    order = np.argsort(keys, kind="stable")
    keys, places = keys[order], places[order]
    same = np.append(False, keys[1:] == keys[:-1]) if len(keys) else np.empty(0, bool)
    begins = np.maximum.accumulate(np.where(same, 0, np.arange(len(keys))))
    members = np.flatnonzero(same)
    for start in range(0, len(members), CHUNK):
        some = members[start : start + CHUNK]
        for others in (begins[some], some - 1):
            later, earlier = places[some], places[others]
            apart = _roots(parents, later) != _roots(parents, earlier)
            later, earlier = later[apart], earlier[apart]
            agree = (_rows(sketches, later) == _rows(sketches, earlier)).sum(axis=1) >= needed
            _join(parents, later[agree], earlier[agree])


def _rows(sketches: BinaryIO, places: NDArray[np.uint32]) -> Sketches:
    distinct, back = np.unique(places, return_inverse=True)
    data = b"".join(os.pread(sketches.fileno(), BINS, place * BINS) for place in distinct.tolist())
    return np.frombuffer(data, np.uint8).reshape(-1, BINS)[back]


def _roots(parents: Parents, places: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The first documents of the clusters that these are in; the way there is shortened for the next time."""
    roots = parents[places]
    while ((higher := parents[roots]) != roots).any():
        roots = higher
    parents[places] = roots
    return roots


def _join(parents: Parents, left: NDArray[np.uint32], right: NDArray[np.uint32]) -> None:
    """Union of the pairs' clusters: a parent is never later than its child. Takes time by the pairs, not by the documents."""
    while len(left):
        one, other = _roots(parents, left), _roots(parents, right)
        apart = one != other
        left, right, one, other = left[apart], right[apart], one[apart], other[apart]
        np.minimum.at(parents, np.maximum(one, other), np.minimum(one, other))
