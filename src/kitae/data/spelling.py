"""Words by number, for models that read characters: a token shard has one number a word, a table has every number's characters.

Numbers below the vocabulary's size are its labels. The words outside of it follow in the order of their bytes, whatever process met
them first: a task numbers them as they come and keeps their keys (OUTSIDE), the sorted union of all tasks' keys gives the final
numbers, and each task's tokens are numbered anew when the shards are joined. Nothing is held in memory but one task's words and a
part of the union. words.bin: uint16 [numbers, word_bytes], little endian.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kitae.data.files import check_sizes
from kitae.tokenization.characters import Keys, NumberedCache, keys, spell, vocabulary_rows
from kitae.tokenization.definition import Definition

WORDS = "words.bin"
OUTSIDE = "outside.bin"
"""Of a task: the keys of its words outside of the vocabulary, in the order of its numbers."""
AT_ONCE = 1 << 20
"""Keys that are merged or spelled at a time."""
RUNS = 128
"""Sorted files that are open at once."""
Ints = NDArray[np.int64]


class WordTable:
    """The characters of the words of a data set, memory-mapped. Raises KitaeError when the file is absent or cut off."""

    def __init__(self, folder: Path, *, words: int, word_bytes: int) -> None:
        check_sizes(folder, {WORDS: 2 * words * word_bytes})
        self._rows = np.asarray(np.memmap(folder / WORDS, dtype="<u2", mode="r", shape=(words, word_bytes)))

    def rows(self, numbers: Ints) -> NDArray[np.uint16]:
        """Characters of the words of these numbers, [numbers, word_bytes]."""
        return self._rows[numbers]


@dataclass(frozen=True, kw_only=True)
class Renumber:
    """A task's numbers -> those of the whole data set."""

    first: int
    """The first number behind the vocabulary."""
    words: Keys
    """Keys of all words outside of it, sorted."""
    part: Path
    """The task's folder."""

    def __call__(self, numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """The final numbers of a task's tokens."""
        own = np.fromfile(self.part / OUTSIDE, dtype=self.words.dtype)
        final = np.searchsorted(self.words, own).astype(np.uint32) + np.uint32(self.first)
        outside = numbers >= self.first
        result = numbers.copy()
        result[outside] = final[numbers[outside] - np.uint32(self.first)]
        return result


def keep(cache: NumberedCache, word_bytes: int, folder: Path) -> None:
    """Write a task's words outside of the vocabulary into its folder."""
    keys(cache.outside, word_bytes).tofile(folder / OUTSIDE)


def unite(parts: Sequence[Path], definition: Definition, *, folder: Path, work: Path) -> list[Renumber]:
    """Write the table of all tasks' words into `folder`; returns each task's way to the final numbers. `work` is for sorted keys."""
    kind = np.dtype(f"S{definition.word_bytes - 2}")
    work.mkdir(parents=True, exist_ok=True)
    runs = deque(_sorted(part / OUTSIDE, work / f"{number:06d}", kind) for number, part in enumerate(parts))
    number = len(runs)
    while len(runs) > 1:
        some = [runs.popleft() for _ in range(min(RUNS, len(runs)))]
        runs.append(work / f"{number:06d}")
        with runs[-1].open("wb") as file:
            for keys_ in _union([_mapped(path, kind) for path in some]):
                file.write(keys_.tobytes())
        for path in some:
            path.unlink()
        number += 1
    words = _mapped(runs[0], kind)
    with (folder / WORDS).open("wb") as table:
        table.write(vocabulary_rows(definition).astype("<u2").tobytes())
        for first in range(0, len(words), AT_ONCE):
            table.write(spell(words[first : first + AT_ONCE]).astype("<u2").tobytes())
    return [Renumber(first=len(definition.tokens), words=words, part=part) for part in parts]


def _sorted(source: Path, target: Path, kind: np.dtype) -> Path:
    np.sort(np.fromfile(source, dtype=kind)).tofile(target)
    return target


def _mapped(path: Path, kind: np.dtype) -> Keys:
    count = path.stat().st_size // kind.itemsize
    return np.asarray(np.memmap(path, dtype=kind, mode="r", shape=(count,))) if count else np.zeros(0, dtype=kind)


def _union(parts: Sequence[Keys]) -> Iterator[Keys]:
    """The distinct keys of sorted parts, in order, AT_ONCE of all keys at most at a time."""
    step = max(1, AT_ONCE // len(parts))
    bounds = np.unique(np.concatenate([part[step::step] for part in parts]))  # between two of them a part has `step` keys at most
    before = [0] * len(parts)
    for bound in [*bounds, None]:
        cuts = [len(part) if bound is None else int(np.searchsorted(part, bound)) for part in parts]
        found = np.unique(np.concatenate([part[a:b] for part, a, b in zip(parts, before, cuts, strict=True)]))
        before = cuts
        if len(found):
            yield found
