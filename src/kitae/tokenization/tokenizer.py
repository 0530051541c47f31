"""Text to ids and back: the same ids as Hugging Face's tokenizer of the same folder, several times faster, with offsets."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kitae.tokenization import folder as folders
from kitae.tokenization import resources
from kitae.tokenization.definition import Definition
from kitae.tokenization.normalize import nfkc_with_map
from kitae.tokenization.segmenter import SURFACES, LibrarySegmenter, SegmenterSpec, WordSegmenter, build, words_of, words_of_each
from kitae.tokenization.special import SpecialIds
from kitae.tokenization.wordpiece import PREFIX, WordCache

SURROGATES = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Tokens of a text, no special tokens; int32 arrays of one length."""

    ids: np.ndarray
    """Token ids."""
    word_ids: np.ndarray
    """Number of the word, counted over the text."""
    starts: np.ndarray
    """First character in the original text."""
    ends: np.ndarray
    """One behind the last character in the original text."""


class Tokenizer:
    """A tokenizer: words by its segmenter, WordPieces by its vocabulary.

    Its ids equal `AutoTokenizer`'s of the saved folder, with one exception: text never becomes [CLS], [SEP], [MASK] or [PAD]. Where
    the text holds such a name literally, ids equal those of `AutoTokenizer(..., split_special_tokens=True)`, and a white-space
    word "[SEP]" is split or unknown even there. A NUL counts as white space, an unpaired surrogate as U+FFFD. MeCab gets lines of
    more than 16,383 characters in parts, Sudachi of more than 49,149 bytes, Juman++ of more than 4,096.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.tokens: tuple[str, ...] = definition.tokens
        self.special: SpecialIds = definition.special
        self.fingerprint: str = definition.fingerprint
        self._cache = WordCache(
            definition.tokens, reserved=frozenset(definition.names), unk=self.special.unk, max_chars=definition.max_chars
        )
        self._lookup = self._cache.__getitem__
        self._segmenter: WordSegmenter
        self._surfaces = definition.spec.kind in SURFACES
        if self._surfaces:
            self._segmenter = build(definition.spec)
        else:
            self._library = folders.runtime_library(definition)
            self._segmenter = LibrarySegmenter(self._library.normalizer, self._library.pre_tokenizer)
        self._segment: Callable[[str], list[str]] = words_of(definition.spec, self._segmenter)
        self._segment_each = words_of_each(definition.spec, self._segmenter)

    @classmethod
    def new(cls, tokens: Sequence[str], spec: SegmenterSpec) -> "Tokenizer":
        """A tokenizer from a trained vocabulary; the dictionary or program of this machine becomes part of it."""
        return cls(Definition(tokens=tuple(tokens), spec=spec, dictionary_fingerprint=resources.find(spec).fingerprint))

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read a folder of ours or of Hugging Face (WordPiece), or a vocab.txt.

        Raises KitaeError for another kind of tokenizer, and for a dictionary or program other than the tokenizer was made with.
        """
        return cls(folders.read(folder))

    def save(self, folder: Path, *, max_length: int | None = None) -> None:
        """Write a Hugging Face folder and kitae_tokenizer.json; `max_length` becomes transformers' model_max_length."""
        folders.write(self.definition, folder, max_length=max_length)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    @property
    def all_special_ids(self) -> tuple[int, ...]:
        """The ids of the five special tokens, ascending."""
        special = self.special
        return tuple(sorted({special.cls, special.sep, special.mask, special.pad, special.unk}))

    def words(self, sentence: str) -> list[tuple[int, ...]]:
        """Per word its ids, no special tokens: the fast path, for one sentence."""
        try:
            return list(map(self._lookup, self._segment(sentence)))
        except UnicodeEncodeError:
            return list(map(self._lookup, self._segment(_whole(sentence))))

    def words_of_each(self, sentences: Sequence[str]) -> list[list[tuple[int, ...]]]:
        """`words` of many sentences: much faster with Juman++, which gets them together."""
        if self.definition.spec.kind != "jumanpp":
            return list(map(self.words, sentences))
        return [list(map(self._lookup, words)) for words in self._segment_each(map(_whole, sentences))]

    def encode(self, text: str) -> Encoding:
        """Ids with word numbers and offsets into `text`; line breaks count as white space."""
        text = _whole(text)
        if not self._surfaces:
            found = self._library.encode(text, add_special_tokens=False)
            starts, ends = [a for a, _ in found.offsets], [b for _, b in found.offsets]
            return _arrays(found.ids, [word for word in found.word_ids if word is not None], starts, ends)
        return self._encode_surfaces(text)

    def _encode_surfaces(self, text: str) -> Encoding:
        spec = self.definition.spec
        normal, begins, finishes = nfkc_with_map(text) if spec.nfkc else (text, range(len(text)), range(1, len(text) + 1))
        ids: list[int] = []
        word_ids: list[int] = []
        starts: list[int] = []
        ends: list[int] = []
        position, unknown = 0, self.special.unk
        for number, word in enumerate(self._segmenter.segment(normal)):
            position = normal.index(word, position)  # only white space is skipped
            stop = position + len(word)
            lowered = word.lower() if spec.lower_case else word
            pieces = self._lookup(lowered)
            at = position
            for piece in pieces:
                token = self.tokens[piece]
                whole = piece == unknown or len(lowered) != len(word)
                first, last = (position, stop) if whole else (at, at + len(token) - (len(PREFIX) if at > position else 0))
                starts.append(begins[first])
                ends.append(finishes[last - 1])
                at = last
            ids.extend(pieces)
            word_ids.extend([number] * len(pieces))
            position = stop
        return _arrays(ids, word_ids, starts, ends)

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens joined by blanks, pieces joined to their word, as Hugging Face's WordPiece decoders do it."""
        return " ".join(self.tokens[int(number)] for number in ids).replace(f" {PREFIX}", "").strip()


def _whole(text: str) -> str:
    return text if text.isascii() else SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def _arrays(ids: Sequence[int], word_ids: Sequence[int], starts: Sequence[int], ends: Sequence[int]) -> Encoding:
    ids_, words_, starts_, ends_ = (np.asarray(values, dtype=np.int32) for values in (ids, word_ids, starts, ends))
    return Encoding(ids=ids_, word_ids=words_, starts=starts_, ends=ends_)
