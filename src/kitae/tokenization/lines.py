"""Pieces of whole lines, for vocabularies that need no word segmenter: SentencePiece on raw text, or a tokenizer.json.

Words are what stands between blanks. Scripts without blanks (Japanese, Chinese, Thai) tell nothing that way: there every token is a
word of its own, so that whole-word masking never hides a whole sentence. Bytes of one character stay together.
"""

import itertools
import json
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Library

from kitae.tokenization.definition import Definition
from kitae.tokenization.encoding import Encoding, Flat, Word, arrays
from kitae.tokenization.library import BYTES, HIDDEN, runtime_library
from kitae.tokenization.sentencepiece import SPACE, Encoder, read

WITHOUT_BLANKS = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F))
"""Code points of scripts that write no blanks, below U+20000 (from there on all are Han)."""
BEGIN, END = HIDDEN.split("{}")
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
BYTE = re.compile("<0x[0-9A-F]{2}>")


class Lines(Protocol):
    """What both ways do."""

    def words(self, sentences: list[str]) -> list[list[Word]]:
        """Per sentence its words, per word its ids."""
        ...

    def flat(self, sentences: list[str]) -> Flat:
        """The same in arrays."""
        ...

    def masked(self, sentences: list[str]) -> list[list[int]]:
        """Per sentence its ids, the mask's name being the mask."""
        ...

    def encode(self, text: str) -> Encoding:
        """Ids with word numbers and places."""
        ...


class Words:
    """Where words begin among the tokens of a line."""

    def __init__(self, definition: Definition) -> None:
        self._single: list[Word] = [(number,) for number in range(len(definition.tokens))]
        texts = token_bytes(definition)
        unknown = definition.special.unk
        begins = {number for number, token in enumerate(definition.tokens) if token.startswith(SPACE)} | {unknown}
        inner = {number for number, text in enumerate(texts) if text[:1] and 0x80 <= text[0] < 0xC0}
        joins = inner | {number for number, text in enumerate(texts) if _blank_script(text, 0)} - begins
        blanks = {number for number, text in enumerate(texts) if text in (b"", b" ")}  # alone, before letters that have no piece with one
        ends = {number for number, text in enumerate(texts) if _blank_script(text, -1)} | blanks - {unknown}
        self._inner, self._joins, self._open = (_marked(numbers, len(texts)) for numbers in (inner, joins, ends))

    def flat(self, rows: Sequence[Sequence[int]]) -> Flat:
        """Each line's ids, with where words begin."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        ids = np.fromiter(itertools.chain.from_iterable(rows), np.int64, int(lengths.sum()))
        joined = self._joins[ids]
        joined[1:] &= self._inner[ids[1:]] | self._open[ids[:-1]]
        joined[(lengths.cumsum() - lengths)[lengths > 0]] = False
        return Flat(ids=ids, begins=~joined, lengths=lengths)

    def group(self, rows: Sequence[Sequence[int]]) -> list[list[Word]]:
        """The words of each line's ids."""
        found = self.flat(rows)
        ends, single = found.lengths.cumsum(), self._single.__getitem__
        words = [list(map(single, row)) for row in rows]
        for number in np.unique(np.searchsorted(ends, np.flatnonzero(~found.begins), side="right")).tolist():
            row, end = rows[number], int(ends[number])
            bounds = [*np.flatnonzero(found.begins[end - len(row) : end]).tolist(), len(row)]
            words[number] = [tuple(row[begin:end]) for begin, end in itertools.pairwise(bounds)]
        return words

    def numbers(self, ids: Sequence[int]) -> list[int]:
        """The number of the word of each id."""
        return [number for number, word in enumerate(self.group([ids])[0]) for _ in word]


def _marked(numbers: set[int], size: int) -> NDArray[np.bool_]:
    marks = np.zeros(size, np.bool_)
    marks[list(numbers)] = True
    return marks


def token_bytes(definition: Definition) -> list[bytes]:
    """What each token says in UTF-8, without the blank of SentencePiece; a byte-level token may hold parts of a character, and so do
    the bytes (<0xE3>) that SentencePiece falls back to."""
    if definition.algorithm != "byte-bpe":
        return [bytes.fromhex(token[3:5]) if BYTE.fullmatch(token) else token.removeprefix(SPACE).encode() for token in definition.tokens]
    added = {entry["content"] for entry in json.loads(definition.library)["added_tokens"]}  # they stand in the text as they are
    return [
        token.encode() if token in added or not BYTES.keys() >= set(token) else bytes(map(BYTES.__getitem__, token))
        for token in definition.tokens
    ]


def _blank_script(text: bytes, at: int) -> bool:
    """Whether the first (0) or last (-1) character is a letter or digit of a script that has blanks between words."""
    shown = text.decode("utf-8", errors="ignore")[at:][:1]
    return shown.isalnum() and ord(shown) < 0x20000 and not any(first <= ord(shown) <= last for first, last in WITHOUT_BLANKS)


class SentencePieceLines:
    """A SentencePiece model on raw text, through the library itself: several times faster than a tokenizer.json."""

    def __init__(self, definition: Definition) -> None:
        self._encoder = Encoder(definition.model, read(definition.model, Path("spiece.model")), definition.around)
        self._definition = definition
        self._words = Words(definition)

    def words(self, sentences: list[str]) -> list[list[Word]]:
        """Per sentence its words, per word its ids."""
        return self._words.group(self._encoder.ids(sentences))

    def flat(self, sentences: list[str]) -> Flat:
        """The same in arrays."""
        return self._words.flat(self._encoder.ids(sentences))

    def masked(self, sentences: list[str]) -> list[list[int]]:
        """Per sentence its ids, the mask's name being the mask."""
        return around_masks(self._definition, self._encoder.ids, sentences)

    def encode(self, text: str) -> Encoding:
        """Ids with word numbers and places."""
        ids, places = self._encoder.spans(text)
        return arrays(ids, self._words.numbers(ids), [start for start, _ in places], [end for _, end in places])


class LibraryLines:
    """A tokenizer.json of unigram, BPE or byte-level BPE, as the `tokenizers` library runs it.

    The noncharacters behind which special tokens hide from text count as U+FFFD in it.
    """

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._library = runtime_library(definition)
        self._words = Words(definition)

    def words(self, sentences: list[str]) -> list[list[Word]]:
        """Per sentence its words, per word its ids."""
        return self._words.group(_ids(self._library, sentences))

    def flat(self, sentences: list[str]) -> Flat:
        """The same in arrays."""
        return self._words.flat(_ids(self._library, sentences))

    def masked(self, sentences: list[str]) -> list[list[int]]:
        """Per sentence its ids, the mask's name being the mask; the blanks around it are the file's to judge."""
        return _ids(self._masking, sentences)

    @cached_property
    def _masking(self) -> Library:
        return runtime_library(self._definition, masks=True)

    def encode(self, text: str) -> Encoding:
        """Ids with word numbers and places."""
        found = self._library.encode(_open(text), add_special_tokens=False)
        starts, ends = [], []
        for start, end in found.offsets:
            while start < end and text[start].isspace():  # byte-level tokens keep the blank before them
                start += 1
            starts.append(start)
            ends.append(end)
        return arrays(found.ids, self._words.numbers(found.ids), starts, ends)


def _ids(library: Library, sentences: list[str]) -> list[list[int]]:
    return [row.ids for row in library.encode_batch_fast(list(map(_open, sentences)), add_special_tokens=False)]


def _open(text: str) -> str:
    return text if text.isascii() else text.replace(BEGIN, UNKNOWN).replace(END, UNKNOWN)


def around_masks(
    definition: Definition, ids_of_each: Callable[[list[str]], Sequence[Sequence[int]]], sentences: Sequence[str]
) -> list[list[int]]:
    """Per sentence the ids of what stands between the mask's names, each part by itself, with the mask between them."""
    name, mask = definition.names[2], definition.special.mask
    sides = [sentence.split(name) for sentence in sentences]
    parts = iter(ids_of_each([side for row in sides for side in row]))
    found = []
    for row in sides:
        ids = list(next(parts))
        for _ in row[1:]:
            ids += [mask, *next(parts)]
        found.append(ids)
    return found


def lines_of(definition: Definition) -> Lines:
    """The way that a definition asks for."""
    return SentencePieceLines(definition) if definition.model else LibraryLines(definition)
