"""CharacterBERT (El Boukkouri et al. 2020): words are read as bytes of UTF-8; the vocabulary of words serves masked prediction only.

Numbers of a byte row, as in the authors' CharacterMapper: bytes 0 to 255, begin of sequence 256, end of sequence 257, begin of word
258, end of word 259, padding 260, mask 261; all one higher, so that 0 pads a sequence; 263 rows of embeddings.
"""

from collections.abc import Sequence

import numpy as np

from kitae.tokenization.wordpiece import Cache, Span

BEGIN, END, BEGIN_WORD, END_WORD, PAD, MASK = 256, 257, 258, 259, 260, 261
ROWS = 263
"""Rows of the embedding table."""
FEWEST = 4
"""Bytes of the shortest row: begin and end of the word, and two bytes between."""


def row(word: str, word_bytes: int) -> np.ndarray:
    """A word's bytes as int64 [word_bytes]; what is beyond word_bytes - 2 is cut, within a character too, as the authors do it."""
    return _framed(list(word.encode()[: word_bytes - 2]), word_bytes)


def special_row(role: str, word_bytes: int) -> np.ndarray:
    """The row of "cls", "sep", "mask" or "pad" (all zero) as int64 [word_bytes]."""
    if role == "pad":
        return np.zeros(word_bytes, dtype=np.int64)
    return _framed([{"cls": BEGIN, "sep": END, "mask": MASK}[role]], word_bytes)


def rows(words: Sequence[str], word_bytes: int) -> np.ndarray:
    """Rows of many words as int64 [words, word_bytes]."""
    out = np.zeros((len(words), word_bytes), dtype=np.int64)
    for number, word in enumerate(words):
        out[number] = row(word, word_bytes)
    return out


def _framed(inside: list[int], word_bytes: int) -> np.ndarray:
    out = np.full(word_bytes, PAD, dtype=np.int64)
    framed = [BEGIN_WORD, *inside, END_WORD]
    out[: len(framed)] = framed
    return out + 1


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
