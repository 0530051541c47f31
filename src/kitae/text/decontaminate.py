"""Which documents contain evaluation text.

Texts are compared by their letters and digits only (NFKC, lower case, no blanks, no punctuation). An item of some length
is found by its overlapping n-grams of 24 characters, of which the same eighth is kept on both sides (those whose hash
begins with three zero bits): a document is contaminated when it holds at least the share `overlap` of an item's, or when the
item holds that share of the document's. A short item is found when it stands in the document as a whole. Items with
fewer than 12 letters occur everywhere by chance and are not looked for. Linear in the text; memory by the items only.
Source of the method: n-gram overlap as in the appendices of GPT-3 (Brown et al. 2020), with characters for Japanese.
"""

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kitae.text.clean import normalize

ANCHOR = 12
NGRAM = 24
SHORT = 160
KEEP_BITS = 3
SPREAD = np.uint64(0xD6E8FEB86659FD93)
PRIME = np.uint64(0x9E3779B97F4A7C15)
TABLE_BITS = np.uint64(20)
NOT_LETTERS = re.compile(r"[\W_]+")

Hashes = NDArray[np.uint64]


def letters(text: str) -> str:
    """What is compared of a text: its letters and digits in normal form, in lower case."""
    return NOT_LETTERS.sub("", normalize(text)).lower()


@dataclass(frozen=True, kw_only=True)
class Hit:
    """The items that a document contains, by number; empty when it is clean."""

    items: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.items)


@dataclass(frozen=True, kw_only=True)
class Index:
    """Evaluation items, ready to be looked for. Arrays only, so that worker processes share them through a file."""

    tasks: tuple[str, ...]
    """Task name of every item."""
    ids: tuple[str, ...]
    """Id of every item."""
    lengths: NDArray[np.int64]
    """Letters of every item; below ANCHOR it is not looked for."""
    grams: Hashes
    """Sorted distinct hashes of the long items' kept n-grams."""
    owner_starts: NDArray[np.int64]
    """Where the owners of each hash begin in `owners`; one longer than `grams`."""
    owners: NDArray[np.int32]
    totals: NDArray[np.int32]
    """Kept distinct n-grams of every item."""
    anchors: dict[int, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """Hash of a short item's first ANCHOR letters -> (letters, item number)."""
    table: NDArray[np.bool_]
    """Which leading bits of a hash any anchor has: a filter before the dictionary."""


def build_index(items: Iterable[tuple[str, str, str]]) -> Index:
    """An index over (task name, item id, text)."""
    tasks, ids, lengths, grams = [], [], [], []
    anchors: dict[int, list[tuple[str, int]]] = {}
    for number, (task, item, text) in enumerate(items):
        key = letters(text)
        tasks.append(task)
        ids.append(item)
        lengths.append(len(key))
        long = len(key) >= SHORT
        grams.append(_kept(_window(key)[1]) if long else np.empty(0, np.uint64))
        if ANCHOR <= len(key) < SHORT:
            anchors.setdefault(int(_window(key[:ANCHOR])[0][0]), []).append((key, number))
    totals = np.array([len(each) for each in grams], np.int32)
    every = np.concatenate(grams) if grams else np.empty(0, np.uint64)
    owners = np.repeat(np.arange(len(grams), dtype=np.int32), totals)
    order = np.argsort(every, kind="stable")
    distinct, starts = np.unique(every[order], return_index=True)
    table = np.zeros(1 << int(TABLE_BITS), bool)
    for anchor in anchors:
        table[anchor >> (64 - int(TABLE_BITS))] = True
    return Index(
        tasks=tuple(tasks), ids=tuple(ids), lengths=np.array(lengths, np.int64), grams=distinct, owners=owners[order], totals=totals,
        owner_starts=np.append(starts, len(every)).astype(np.int64), table=table,
        anchors={anchor: tuple(found) for anchor, found in anchors.items()},
    )  # fmt: skip


def find(index: Index, text: str, overlap: float) -> Hit:
    """The items of the index that a document contains, or that contain the document."""
    key = letters(text)
    if len(key) < ANCHOR:
        return Hit()
    short, long = _window(key)
    found = _whole_items(index, key, short) if index.anchors else set()
    if len(index.grams) and len(long):
        found |= _overlapping(index, _kept(long), overlap)
    return Hit(items=tuple(sorted(found)))


def _overlapping(index: Index, kept: Hashes, overlap: float) -> set[int]:
    if not len(kept):
        return set()
    places = np.searchsorted(index.grams, kept)
    places[places == len(index.grams)] = 0
    places = places[index.grams[places] == kept]
    if not len(places):
        return set()
    pieces = [index.owners[index.owner_starts[place] : index.owner_starts[place + 1]] for place in places]
    numbers, counts = np.unique(np.concatenate(pieces), return_counts=True)
    hit = (counts >= overlap * index.totals[numbers]) | (counts >= overlap * len(kept))
    return {int(number) for number in numbers[hit]}


def _whole_items(index: Index, key: str, short: Hashes) -> set[int]:
    candidates = np.flatnonzero(index.table[short >> (np.uint64(64) - TABLE_BITS)])
    found = set()
    for place in candidates.tolist():
        for item, number in index.anchors.get(int(short[place]), ()):
            if key.startswith(item, place):
                found.add(number)
    return found


def _window(key: str) -> tuple[Hashes, Hashes]:
    """Hashes of all windows of ANCHOR and of NGRAM letters: a polynomial built by doubling, then spread."""
    codes = np.frombuffer(key.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    with np.errstate(over="ignore"):
        four = _join(_join(codes, codes, 1), _join(codes, codes, 1), 2)
        twelve = _join(_join(four, four, 4), four, 8) if len(codes) >= ANCHOR else codes[:0]
        double = _join(twelve, twelve, ANCHOR) if len(codes) >= NGRAM else codes[:0]
        return _spread(twelve), _spread(double)


def _join(left: Hashes, right: Hashes, shift: int) -> Hashes:
    """Hash of the window `left` followed by the window `right`, which begins `shift` letters later."""
    length = max(0, len(right) - shift)
    power = np.uint64(pow(int(PRIME), _length_of[shift], 1 << 64))
    return left[:length] * power + right[shift : shift + length]


_length_of = {1: 1, 2: 2, 4: 4, 8: 4, ANCHOR: ANCHOR}  # letters that the right window is long


def _spread(hashes: Hashes) -> Hashes:
    """Brings the letters' bits to the top, one to one (multiplicative hashing, Knuth 6.4)."""
    return hashes * SPREAD


def _kept(hashes: Hashes) -> Hashes:
    return np.unique(hashes[hashes >> np.uint64(64 - KEEP_BITS) == 0])


def missing(index: Index, found: Set[int]) -> dict[str, dict[str, object]]:
    """Per task: items, those found, those too short to be looked for, and the first 20 ids of those without a match."""
    report: dict[str, dict[str, object]] = {}
    for task in dict.fromkeys(index.tasks):
        numbers = [number for number, name in enumerate(index.tasks) if name == task]
        short = [number for number in numbers if index.lengths[number] < ANCHOR]
        absent = [index.ids[number] for number in numbers if number not in found and index.lengths[number] >= ANCHOR]
        report[task] = {
            "items": len(numbers),
            "found": len([number for number in numbers if number in found]),
            "too_short": len(short),
            "not_found": len(absent),
            "examples_not_found": absent[:20],
        }
    return report


def save_index(index: Index, path: Path) -> None:
    """Write the index as one .npz file without any pickled object."""
    pairs = [(item, number) for found in index.anchors.values() for item, number in found]
    np.savez(
        path, tasks=_bytes(index.tasks), ids=_bytes(index.ids), lengths=index.lengths, grams=index.grams, owners=index.owners,
        owner_starts=index.owner_starts, totals=index.totals, shorts=_bytes(item for item, _ in pairs),
        short_numbers=np.array([number for _, number in pairs], np.int64), table=index.table,
    )  # fmt: skip


def load_index(path: Path) -> Index:
    """Read what `save_index` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        anchors: dict[int, list[tuple[str, int]]] = {}
        for item, number in zip(_strings(arrays["shorts"]), arrays["short_numbers"].tolist()):
            anchors.setdefault(int(_window(item[:ANCHOR])[0][0]), []).append((item, number))
        return Index(
            tasks=_strings(arrays["tasks"]), ids=_strings(arrays["ids"]), lengths=arrays["lengths"], grams=arrays["grams"],
            owners=arrays["owners"], owner_starts=arrays["owner_starts"], totals=arrays["totals"], table=arrays["table"],
            anchors={anchor: tuple(found) for anchor, found in anchors.items()},
        )  # fmt: skip


def _bytes(strings: Iterable[str]) -> NDArray[np.uint8]:
    return np.frombuffer("\0".join(string.replace("\0", "") + "\1" for string in strings).encode("utf-8", "replace"), np.uint8)


def _strings(data: NDArray[np.uint8]) -> tuple[str, ...]:
    return tuple(string.removesuffix("\1") for string in data.tobytes().decode("utf-8").split("\0")) if len(data) else ()
