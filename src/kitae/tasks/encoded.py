"""Texts and pairs of texts as token ids."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kitae.tokenization.characters import Speller
from kitae.tokenization.segmenter import SURFACES
from kitae.tokenization.tokenizer import Tokenizer

DOUBLE = "<s>"
"""Tokenizers whose first token is called so put two separators between the texts of a pair (RoBERTa and its descendants)."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One text, [CLS] ... [SEP], or a pair, [CLS] ... [SEP] ... [SEP]: ids, and of each token its word (-1 at special ones)."""

    ids: NDArray[np.int64]
    words: NDArray[np.int32]
    rows: tuple[bytes, ...] = ()
    """Of every token its characters (uint16), for models that read these."""
    segments: NDArray[np.int64] | None = None
    """Of pairs 0 at tokens of the first text and 1 at those of the second, with the separators that follow them."""


@dataclass(kw_only=True)
class Tokens:
    """The tokens of one text without special ones."""

    ids: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    """Of each token the number of its word."""
    rows: list[bytes] = field(default_factory=list)
    """Characters of each, for models that read these."""

    def part(self, start: int, end: int) -> "Tokens":
        """Those in [start, end)."""
        return Tokens(ids=self.ids[start:end], words=self.words[start:end], rows=self.rows[start:end])


def encode(tokenizer: Tokenizer, text: str, *, max_length: int, second: str | None = None) -> Encoded:
    """The head of a text or pair, at most `max_length` tokens with the special ones; lines are separate sentences.

    Of a pair that is too long the longer text is cut, or both when each has more than half of the room (transformers' `longest_first`).
    """
    if second is None:
        return framed(tokenizer, tokens_of(tokenizer, text, most=max_length - 2).part(0, max_length - 2))
    room = max_length - 2 - separators(tokenizer)
    a, b = tokens_of(tokenizer, text, most=room), tokens_of(tokenizer, second, most=room)
    first, last = shares(len(a.ids), len(b.ids), room, even=tokenizer.definition.spec.kind in SURFACES)
    return framed(tokenizer, a.part(0, first), b.part(0, last))


def separators(tokenizer: Tokenizer) -> int:
    """How many separators stand between the texts of a pair."""
    return 2 if tokenizer.tokens[tokenizer.special.cls] == DOUBLE else 1


def shares(first: int, second: int, room: int, *, even: bool = False) -> tuple[int, int]:
    """How many tokens of each text of a pair are kept, as the library tokenizers cuts (truncation.rs, LongestFirst).

    Where both have more than half of the room and this is odd, the longer text keeps one more, of equal ones the second; with `even` the
    first does always, as in transformers' tokenizers written in Python (`truncate_sequences`): BertJapaneseTokenizer is one.
    """
    if first + second <= room:
        return first, second
    shorter, half = min(first, second), room // 2
    if shorter <= half:
        return (room - shorter, shorter) if first > second else (shorter, room - shorter)
    return (room - half, half) if even or first > second else (half, room - half)


def tokens_of(tokenizer: Tokenizer, text: str, *, most: int | None = None) -> Tokens:
    """The tokens of a text; of a long one some more than `most`, not all. Lines are separate sentences."""
    if tokenizer.speller is not None:
        return _spelled(tokenizer, tokenizer.speller, text, most)
    found = Tokens()
    count = 0
    for line in text.split("\n"):
        for word in tokenizer.words(line):
            found.ids.extend(word)
            found.words.extend([count] * len(word))
            count += 1
        if most is not None and len(found.ids) >= most:
            break
    return found


def framed(tokenizer: Tokenizer, first: Tokens, second: Tokens | None = None) -> Encoded:
    """With the special tokens around and between them."""
    special, between = tokenizer.special, separators(tokenizer) if second is not None else 1
    ids, words = [special.cls, *first.ids, *[special.sep] * between], [-1, *first.words, *[-1] * between]
    rows: list[bytes] = []
    if tokenizer.speller is not None:
        cls, sep = tokenizer.speller.special("cls"), tokenizer.speller.special("sep")
        rows = [cls, *first.rows, *[sep] * between]
    segments = None
    if second is not None:
        offset, here = max(first.words, default=-1) + 1, len(ids)
        ids += [*second.ids, special.sep]
        words += [*(number + offset for number in second.words), -1]
        if tokenizer.speller is not None:
            rows += [*second.rows, tokenizer.speller.special("sep")]
        segments = (np.arange(len(ids)) >= here).astype(np.int64)
    return Encoded(ids=np.asarray(ids, np.int64), words=np.asarray(words, np.int32), rows=tuple(rows), segments=segments)


def _spelled(tokenizer: Tokenizer, speller: Speller, text: str, most: int | None) -> Tokens:
    words: list[str] = []
    for line in text.split("\n"):
        words.extend(tokenizer.surfaces(line))
        if most is not None and len(words) >= most:
            del words[most:]
            break
    labels: Sequence[int] = [tokenizer.label(word) for word in words]
    return Tokens(ids=list(labels), words=list(range(len(words))), rows=[speller[word] for word in words])
