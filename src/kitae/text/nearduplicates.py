"""Near-duplicates: documents whose sets of character 5-grams, blanks left out, overlap (Jaccard) by a given similarity.

Pass 1 leaves a sketch of 256 bytes a document (fast similarity sketching, Dahlgaard, Knudsen and Thorup 2017: MinHash's
estimate, but the time is linear in the text, not text times hashes). Then all sketches together: bands of equal bytes
propose pairs (LSH), the whole sketches confirm them, and the earliest document of each cluster stays. On disk, 512 bytes a
document; in memory, 8 bytes a document and some fixed buffers. datatrove's own stages propose without confirming, keep a
document that hangs on the order of the parts, and spend Python objects on every band of every document.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

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

Words = NDArray[np.uint64]
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
        with sketch_file(self.folder, rank).open("wb") as file:
            for document in data:
                if "dropped" not in document.metadata:
                    file.write(sketch(document.text).tobytes())
                yield document


def sketch_file(folder: Path, rank: int) -> Path:
    """Where a part's sketches lie."""
    return folder / f"{rank:05d}.sketch"


def near_duplicates(folder: Path, part: NDArray[np.uint32], take: NDArray[np.bool_], similarity: float) -> NDArray[np.bool_]:
    """Which documents are near-duplicates of an earlier one.

    `part` says in whose file each document's sketch comes next, in document order; documents outside of `take` (exact
    duplicates, say) are left alone. The result depends on the order of the documents only.
    """
    count, width = int(take.sum()), 8 if similarity >= 0.8 else 4
    kind = np.dtype(f"<u{width}")
    _gather(folder, part, take, width)
    parents = np.arange(count, dtype=np.uint32 if count < 1 << 32 else np.uint64)
    needed = _needed(similarity)
    slices = -(-count // MOST_KEYS)
    with (folder / "sketches").open("rb") as sketches:
        for band in range(BINS // width):
            for number in range(slices):
                places, keys = _keys(_band_file(folder, band), kind, number, slices)
                _join_equal(places, keys, parents, sketches, needed)
    result = np.zeros(len(take), bool)
    result[take] = parents != np.arange(count)
    return result


def _needed(similarity: float) -> int:
    """How many bytes have to be equal: as many as a pair of that similarity has, less a margin. One in 256 is equal by chance."""
    expected = BINS * (similarity + (1 - similarity) / 256)
    return math.ceil(expected - MARGIN * math.sqrt(BINS * similarity * (1 - similarity)))


def _gather(folder: Path, part: NDArray[np.uint32], take: NDArray[np.bool_], width: int) -> None:
    """All sketches in document order, whole and band by band."""
    with contextlib.ExitStack() as stack:
        parts = {rank: stack.enter_context(sketch_file(folder, rank).open("rb")) for rank in np.unique(part).tolist()}
        whole = stack.enter_context((folder / "sketches").open("wb"))
        bands = [stack.enter_context(_band_file(folder, band).open("wb")) for band in range(BINS // width)]
        for start in range(0, len(part), CHUNK):
            ranks = part[start : start + CHUNK]
            rows = np.empty((len(ranks), BINS), np.uint8)
            for rank in np.unique(ranks).tolist():
                mine = ranks == rank
                rows[mine] = np.frombuffer(parts[rank].read(int(mine.sum()) * BINS), np.uint8).reshape(-1, BINS)
            rows = rows[take[start : start + CHUNK]]
            whole.write(rows.tobytes())
            for band, file in enumerate(bands):
                file.write(rows[:, band * width : (band + 1) * width].tobytes())


def _band_file(folder: Path, band: int) -> Path:
    return folder / f"band-{band:03d}"


def _keys(path: Path, kind: np.dtype, number: int, slices: int) -> tuple[NDArray[np.int64], NDArray]:
    """The documents whose key in a band falls into the slice `number`, and the keys."""
    places, keys, start = [], [], 0
    with path.open("rb") as file:
        while data := file.read(CHUNK * 16 * kind.itemsize):
            some = np.frombuffer(data, kind)
            mine = np.arange(len(some)) if slices == 1 else np.flatnonzero(some % slices == number)
            places.append(mine + start)
            keys.append(some[mine])
            start += len(some)
    return (np.concatenate(places), np.concatenate(keys)) if places else (np.empty(0, np.int64), np.empty(0, kind))


def _join_equal(places: NDArray[np.int64], keys: NDArray, parents: NDArray, sketches: BinaryIO, needed: int) -> None:
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
            apart = parents[later] != parents[earlier]
            later, earlier = later[apart], earlier[apart]
            agree = (_rows(sketches, later) == _rows(sketches, earlier)).sum(axis=1) >= needed
            _join(parents, later[agree], earlier[agree])


def _rows(sketches: BinaryIO, places: NDArray[np.int64]) -> Sketches:
    distinct, back = np.unique(places, return_inverse=True)
    data = b"".join(os.pread(sketches.fileno(), BINS, place * BINS) for place in distinct.tolist())
    return np.frombuffer(data, np.uint8).reshape(-1, BINS)[back]


def _join(parents: NDArray, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
    """Union of the pairs' clusters; a parent is never later than its child, and every document points at its cluster's first."""
    while len(left):
        one, other = parents[left], parents[right]
        apart = one != other
        left, right = left[apart], right[apart]
        np.minimum.at(parents, np.maximum(one, other)[apart], np.minimum(one, other)[apart])
        moved = True
        while moved:
            moved = False
            for start in range(0, len(parents), CHUNK * 16):
                some = parents[start : start + CHUNK * 16]
                higher = parents[some]
                moved = moved or bool((higher != some).any())
                parents[start : start + CHUNK * 16] = higher
