"""The units of a text that tags belong to (words of the file, words or tokens of the tokenizer), where the model reads each, and the
windows of texts that are too long for it.

Shapes: T tokens, U units, W windows.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kitae.tasks.encoded import Tokens
from kitae.tokenization.tokenizer import Tokenizer

Ints = NDArray[np.int64]
Pieces = Literal["first", "all"]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """The tokens of a text with their places in it, blanks around them left out; a token of nothing but blanks has no length."""

    tokens: Tokens
    starts_T: Ints
    ends_T: Ints


@dataclass(frozen=True, kw_only=True)
class Units:
    """What gets a tag each, in the order of the text. Several units may be read at one token, as words within a token are."""

    tokens_U: Ints
    """The token where each is read."""
    words_U: Ints
    """Its word: a number of the file's words, or of the tokenizer's where the file gives none."""
    starts_U: Ints
    ends_U: Ints
    """Its characters; of a file's word those of the whole word."""

    def __len__(self) -> int:
        return len(self.tokens_U)


def placed(tokenizer: Tokenizer, text: str) -> Placed:
    """Tokenize a text; line breaks count as blanks."""
    text = text.replace("\n", " ")
    found = tokenizer.encode(text)
    rows: list[bytes] = []
    if tokenizer.speller is not None:
        rows = [tokenizer.speller[word] for word in tokenizer.surfaces(text)]
        assert len(rows) == len(found.ids), "both are the words of the text"
    starts, ends = found.starts.astype(np.int64), np.maximum(found.starts, found.ends).astype(np.int64)
    blank = np.fromiter((*map(str.isspace, text), False), np.bool_, len(text) + 1)
    for i in np.flatnonzero((starts < ends) & (blank[starts] | blank[ends - 1])).tolist():
        shown = text[starts[i] : ends[i]]
        starts[i] += len(shown) - len(shown.lstrip())
        ends[i] = starts[i] + len(shown.strip())
    tokens = Tokens(ids=found.ids.tolist(), words=found.word_ids.tolist(), rows=rows)
    return Placed(tokens=tokens, starts_T=starts, ends_T=ends)


def units_of(text: Placed, words: Sequence[tuple[int, int]], pieces: Pieces) -> Units:
    """The units of a text: of every word its first token, or all; without `words`, of every word of the tokenizer, or all tokens.

    A token belongs to the word that it begins in; a word in which none begins is read at the token that covers it, if any. Tokens
    that stand for one character between them (bytes) are one unit.
    """
    real = np.flatnonzero(text.ends_T > text.starts_T)
    starts, ends = np.maximum.accumulate(text.starts_T[real]), np.maximum.accumulate(text.ends_T[real])
    if not len(real):
        none = np.zeros(0, np.int64)
        return Units(tokens_U=none, words_U=none, starts_U=none, ends_U=none)
    return _of_words(real, starts, ends, words, pieces) if words else _of_tokens(text, real, starts, ends, pieces)


def _of_words(real: Ints, starts: Ints, ends: Ints, words: Sequence[tuple[int, int]], pieces: Pieces) -> Units:
    rows: list[tuple[int, int, int, int]] = []
    begin, finish = np.asarray(words, np.int64).T
    touching, behind = np.searchsorted(ends, begin, side="right"), np.searchsorted(starts, finish, side="left")
    inside = np.searchsorted(starts, begin, side="left")
    for number, (start, end) in enumerate(words):
        first, last = int(inside[number]), int(behind[number])
        if first >= last:  # no token begins in it
            first, last = int(touching[number]), min(last, int(touching[number]) + 1)
        if pieces == "first":
            last = min(last, first + 1)
        rows += [(int(real[i]), number, start, end) for i in range(first, last)]
    tokens, numbers, a, b = np.asarray(rows, np.int64).reshape(-1, 4).T
    return Units(tokens_U=tokens, words_U=numbers, starts_U=a, ends_U=b)


def _of_tokens(text: Placed, real: Ints, starts: Ints, ends: Ints, pieces: Pieces) -> Units:
    words = np.asarray(text.tokens.words, np.int64)[real]
    fresh = np.ones(len(real), np.bool_)
    fresh[1:] = words[1:] != words[:-1] if pieces == "first" else starts[1:] >= ends[:-1]
    firsts = np.flatnonzero(fresh)
    lasts = np.append(firsts[1:], len(real)) - 1
    return Units(tokens_U=real[firsts], words_U=words[firsts], starts_U=starts[firsts], ends_U=ends[lasts])


@dataclass(frozen=True, kw_only=True)
class Window:
    """Tokens [start, end) that the model sees at once, and those [first, last) of which it is asked: each token is asked of once."""

    start: int
    end: int
    first: int
    last: int


def windows_of(count: int, *, size: int, overlap: float) -> list[Window]:
    """Windows over `count` tokens, `size` long, each repeating the share `overlap` of the one before; the last ends with the text.

    A token is asked of in the window where the nearer of its two ends is farthest (the first of equal ones), as Devlin et al. choose
    among windows of a document (BERT, run_squad.py, `_check_is_max_context`).
    """
    if count <= size:
        return [Window(start=0, end=count, first=0, last=count)]
    step = max(1, size - int(size * overlap))
    starts = [*range(0, count - size, step), count - size]
    bounds = [0, *((a + size + b - 1) // 2 + 1 for a, b in itertools.pairwise(starts)), count]
    return [
        Window(start=start, end=start + size, first=first, last=last)
        for start, first, last in zip(starts, bounds[:-1], bounds[1:], strict=True)
    ]
