"""CharacterBERT (El Boukkouri et al. 2020): words are read as bytes of UTF-8; the vocabulary of words serves masked prediction only.

Numbers of a byte row, as in the authors' CharacterMapper: bytes 0 to 255, begin of sequence 256, end of sequence 257, begin of word
258, end of word 259, padding 260, mask 261; all one higher, so that 0 pads a sequence; 263 rows of embeddings.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from kitae.tokenization.definition import Definition
from kitae.tokenization.wordpiece import Cache, Span

Keys = NDArray[np.bytes_]
"""What rows show of words: bytes of UTF-8, filled up with NUL to one length."""

BEGIN, END, BEGIN_WORD, END_WORD, PAD, MASK = 256, 257, 258, 259, 260, 261
ROWS = 263
"""Rows of the embedding table."""
FEWEST = 4
"""Bytes of the shortest row: begin and end of the word, and two bytes between."""


def key(word: str, word_bytes: int) -> bytes:
    """What a row of `word_bytes` shows of a word: the rest is cut, within a character too, as the authors do it."""
    return word.encode()[: word_bytes - 2]


def keys(words: Iterable[bytes], word_bytes: int) -> Keys:
    """Keys as one array."""
    return np.array(list(words), dtype=f"S{word_bytes - 2}")


def spell(found: Keys) -> NDArray[np.uint16]:
    """Rows of keys, [words, word_bytes]."""
    count, size = len(found), found.dtype.itemsize
    inside = np.frombuffer(found.tobytes(), dtype=np.uint8).reshape(count, size).astype(np.uint16)
    out = np.empty((count, size + 2), dtype=np.uint16)
    out[:, 0], out[:, -1] = BEGIN_WORD, PAD
    out[:, 1:-1] = np.where(inside > 0, inside, PAD)  # no word has a NUL
    out[np.arange(count), (inside > 0).sum(axis=1) + 1] = END_WORD
    return out + np.uint16(1)


def rows(words: Iterable[str], word_bytes: int) -> NDArray[np.uint16]:
    """Rows of words, [words, word_bytes]."""
    return spell(keys((key(word, word_bytes) for word in words), word_bytes))


def special_row(role: str, word_bytes: int) -> NDArray[np.uint16]:
    """The row of "cls", "sep", "mask" or "pad" (all zero), [word_bytes]."""
    out = np.zeros(word_bytes, dtype=np.uint16)
    if role != "pad":
        out[:] = PAD + 1
        out[:3] = BEGIN_WORD + 1, {"cls": BEGIN, "sep": END, "mask": MASK}[role] + 1, END_WORD + 1
    return out


def vocabulary_rows(definition: Definition) -> NDArray[np.uint16]:
    """Rows of a tokenizer's words and special tokens, [tokens, word_bytes]."""
    out = rows(definition.tokens, definition.word_bytes)
    for role, number in asdict(definition.special).items():
        if role != "unk":
            out[number] = special_row(role, definition.word_bytes)
    return out


class Speller(dict[str, bytes]):
    """Word -> its row as bytes (uint16), one object a word; keeps at most `limit` of them."""

    def __init__(self, word_bytes: int, *, limit: int = 200_000) -> None:
        super().__init__()
        self._word_bytes, self._limit = word_bytes, limit

    def __missing__(self, word: str) -> bytes:
        found = rows([word], self._word_bytes).tobytes()
        if len(self) < self._limit:
            self[word] = found
        return found

    def special(self, role: str) -> bytes:
        """The row of a special token."""
        return special_row(role, self._word_bytes).tobytes()


class LabelCache(Cache):
    """Word -> its one label for masked prediction; words outside of the vocabulary are unknown as labels (and known as bytes)."""

    def __init__(self, tokens: Sequence[str], *, reserved: frozenset[str], unk: int) -> None:
        super().__init__()
        self._find = {token: number for number, token in enumerate(tokens) if token not in reserved}.get
        self._unk = unk

    def split(self, word: str) -> tuple[int, ...]:
        """One label."""
        return (self._find(word, self._unk),)

    def spans(self, word: str) -> list[Span]:
        """The whole word."""
        return [(0, len(word))]


class NumberedCache(LabelCache):
    """Word -> its label, or a number behind all labels: words outside of the vocabulary are numbered as they come.

    Words that look alike in their rows share a number. `outside` has their keys, in the order of the numbers.
    """

    def __init__(self, definition: Definition) -> None:
        super().__init__(definition.tokens, reserved=frozenset(definition.names), unk=definition.special.unk)
        self._first, self._word_bytes = len(definition.tokens), definition.word_bytes
        self.outside: dict[bytes, int] = {}
        self[""] = (self._unk,)  # the tokenizer asks for it, no text has it

    def split(self, word: str) -> tuple[int, ...]:
        """One number."""
        label = self._find(word)
        if label is not None:
            return (label,)
        return (self._first + self.outside.setdefault(key(word, self._word_bytes), len(self.outside)),)

    def rows(self) -> NDArray[np.uint16]:
        """Of the words outside of the vocabulary the rows, in the order of their numbers."""
        return spell(keys(self.outside, self._word_bytes))
