"""Text to ids and back: the same ids as Hugging Face's tokenizer of the same folder, several times faster, with offsets."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from operator import itemgetter
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.tokenization import folder as folders
from kitae.tokenization import resources
from kitae.tokenization.characters import LabelCache
from kitae.tokenization.cuts import encodable
from kitae.tokenization.definition import Definition
from kitae.tokenization.encoding import Encoding, Flat, arrays, flat
from kitae.tokenization.files import SENTENCEPIECE
from kitae.tokenization.library import runtime_library
from kitae.tokenization.lines import Lines, around_masks, lines_of, token_bytes
from kitae.tokenization.normalize import nfkc_with_map
from kitae.tokenization.segmenter import (
    SURFACES,
    LibrarySegmenter,
    SegmenterSpec,
    WordSegmenter,
    build,
    library_parts,
    words_of,
    words_of_each,
)
from kitae.tokenization.sentencepiece import SPACE, Encoder, read
from kitae.tokenization.special import SpecialIds
from kitae.tokenization.wordpiece import PREFIX, Cache, CharacterCache, SentencePieceCache, WordCache


class Tokenizer:
    """A tokenizer: words by its segmenter and pieces of them by its vocabulary, or pieces of whole lines.

    Its ids equal `AutoTokenizer`'s of the saved folder, with one exception: text never becomes [CLS], [SEP], [MASK] or [PAD] (but see
    `masked`). Where
    the text holds such a name, ids equal those of `AutoTokenizer(..., split_special_tokens=True)`, and a white-space
    word "[SEP]" is split or unknown even there. A NUL counts as white space, an unpaired surrogate as U+FFFD; so do U+FDD0 and U+FDD1
    in whole lines of a tokenizer.json. MeCab gets lines of more than 16,383 characters in parts, Sudachi of more than 49,149 bytes,
    Juman++ of more than 4,096.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.tokens: tuple[str, ...] = definition.tokens
        self.special: SpecialIds = definition.special
        self.fingerprint: str = definition.fingerprint
        self._lines: Lines | None = lines_of(definition) if definition.whole_lines else None
        self._surfaces = definition.spec.kind in SURFACES
        if self._lines is not None:
            return
        self._cache = _cache(definition)
        self._lookup = self._cache.__getitem__
        self._filters = bool(definition.model)  # SentencePiece alone makes nothing of some words
        self._segmenter: WordSegmenter
        if self._surfaces:
            self._segmenter = build(definition.spec, whole=definition.algorithm == "character")  # a blank is a character
        else:
            by_word = definition.algorithm in ("character", "characters-of-words")
            self._library = library_parts(definition.spec) if by_word else runtime_library(definition)
            self._segmenter = LibrarySegmenter(self._library.normalizer, self._library.pre_tokenizer)
        self._segment: Callable[[str], list[str]] = words_of(definition.spec, self._segmenter)
        self._segment_each = words_of_each(definition.spec, self._segmenter)

    @classmethod
    def new(cls, tokens: Sequence[str], spec: SegmenterSpec) -> "Tokenizer":
        """A tokenizer from a trained vocabulary; the dictionary or program of this machine becomes part of it."""
        return cls(Definition(tokens=tuple(tokens), spec=spec, dictionary_fingerprint=resources.find(spec).fingerprint))

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read a folder of ours or of Hugging Face, a vocab.txt, or a SentencePiece model.

        Raises KitaeError for what kitae cannot reproduce exactly, and for another dictionary or program than it was made with.
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
    def failures(self) -> int:
        """Sentences so far that the segmenter failed at (only Juman++ does), so that what stands between their blanks became words."""
        return 0 if self._lines is not None else self._segmenter.failures

    def words(self, sentence: str) -> list[tuple[int, ...]]:
        """Per word its ids, no special tokens: for one sentence."""
        return self.words_of_each([sentence])[0]

    def words_of_each(self, sentences: Sequence[str]) -> list[list[tuple[int, ...]]]:
        """`words` of many sentences: faster where pieces are found in whole lines, much faster with Juman++, which gets them together."""
        if self._lines is not None:
            return self._lines.words(list(map(encodable, sentences)))
        rows = [list(map(self._lookup, words)) for words in self._cut(sentences)]
        return [list(filter(None, row)) for row in rows] if self._filters else rows

    def flat(self, sentences: Sequence[str]) -> Flat:
        """`words_of_each` in arrays: the fast path."""
        if self._lines is not None:
            return self._lines.flat(list(map(encodable, sentences)))
        words: list[str] = []
        counts: list[int] = []
        for found in self._cut(sentences):
            words += found
            counts.append(len(found))
        return flat(itemgetter(*words, "")(self._cache)[:-1], counts)

    def masked(self, sentences: Sequence[str]) -> list[list[int]]:
        """Ids of sentences in which the mask's name ("[MASK]", "<mask>") is the mask: those of `AutoTokenizer` without special tokens.

        The name is found before anything else is done to the text; what stands on either side of it is tokenized by itself.
        """
        if self._lines is not None:
            return self._lines.masked(list(map(encodable, sentences)))
        return around_masks(self.definition, self._ids_of_each, sentences)

    def _ids_of_each(self, sentences: Sequence[str]) -> list[list[int]]:
        return [list(chain.from_iterable(words)) for words in self.words_of_each(sentences)]

    def _cut(self, sentences: Sequence[str]) -> Iterator[list[str]]:
        """The words of each sentence."""
        if self.definition.spec.kind == "jumanpp":
            yield from self._segment_each(sentences)
            return
        for sentence in sentences:
            try:
                yield self._segment(sentence)
            except UnicodeEncodeError:
                yield self._segment(encodable(sentence))

    def surfaces(self, sentence: str) -> list[str]:
        """The words themselves, as the vocabulary sees them: what a CharacterBERT reads. Raises KitaeError where there are none."""
        if self._lines is not None:
            raise KitaeError(f"a {self.definition.algorithm} tokenizer on whole lines has no words", cure="take one with a segmenter")
        return self._segment(encodable(sentence))

    def encode(self, text: str) -> Encoding:
        """Ids with word numbers and offsets into `text`; line breaks count as white space."""
        text = encodable(text)
        if self._lines is not None:
            return self._lines.encode(text)
        if self._surfaces:
            return self._encode_surfaces(text)
        if self.definition.algorithm in ("character", "characters-of-words"):
            return self._encode_library_words(text)
        found = self._library.encode(text, add_special_tokens=False)
        starts, ends = [a for a, _ in found.offsets], [b for _, b in found.offsets]
        return arrays(found.ids, [word for word in found.word_ids if word is not None], starts, ends)

    def _encode_library_words(self, text: str) -> Encoding:
        """Words by the library with their places; characters of a word share its place where lower-casing changed its length."""
        normal, begins, finishes = self._normal(text)
        if self._segment(normal) != self._segment(text):  # the library's tables of NFKC are older than Python's
            normal, begins, finishes = text, range(len(text)), range(1, len(text) + 1)
        rows: list[tuple[int, int, int, int]] = []
        found = self._library.encode(normal, add_special_tokens=False).offsets
        for number, (word, (start, end)) in enumerate(zip(self._segment(normal), found, strict=True)):
            for piece, (first, last) in zip(self._lookup(word), self._cache.spans(word), strict=True):
                a, b = (start + first, start + last) if len(word) == end - start else (start, end)
                rows.append((piece, number, begins[a], finishes[b - 1]))
        columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
        return arrays(*columns)

    def _normal(self, text: str) -> tuple[str, Sequence[int], Sequence[int]]:
        if self.definition.spec.nfkc:
            return nfkc_with_map(text)
        return text, range(len(text)), range(1, len(text) + 1)

    def _encode_surfaces(self, text: str) -> Encoding:
        spec = self.definition.spec
        normal, begins, finishes = self._normal(text)
        ids: list[int] = []
        word_ids: list[int] = []
        starts: list[int] = []
        ends: list[int] = []
        position = 0
        for number, word in enumerate(self._segmenter.segment(normal)):
            position = normal.index(word, position)  # only white space is skipped
            stop = position + len(word)
            lowered = word.lower() if spec.lower_case else word
            pieces = self._lookup(lowered)
            for first, last in self._cache.spans(lowered):
                if len(lowered) != len(word):
                    first, last = 0, len(word)
                starts.append(begins[position + first])
                ends.append(finishes[position + last - 1] if last > first else begins[position + first])
            ids.extend(pieces)
            word_ids.extend([number] * len(pieces))
            position = stop
        return arrays(ids, word_ids, starts, ends)

    @cached_property
    def _bytes(self) -> list[bytes]:
        return token_bytes(self.definition)

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens joined as Hugging Face's decoders do it: by blanks, or where SentencePiece and byte-level tokens say."""
        kind = self.definition.algorithm
        if kind == "byte-bpe":
            return b"".join(self._bytes[int(number)] for number in ids).decode("utf-8", errors="replace")
        tokens = [self.tokens[int(number)] for number in ids]
        if kind in ("unigram", "bpe"):
            return "".join(tokens).replace(SPACE, " ").strip()
        return " ".join(tokens).replace(f" {PREFIX}", "").strip()


def _cache(definition: Definition) -> Cache:
    """Words to ids."""
    reserved, unk = frozenset(definition.names), definition.special.unk
    if definition.model:
        encoder = Encoder(definition.model, read(definition.model, Path(SENTENCEPIECE)), definition.around)
        return SentencePieceCache(encoder)
    if definition.algorithm == "character":
        return CharacterCache(definition.tokens, reserved=reserved, unk=unk, nfkc=definition.spec.kind in SURFACES)
    if definition.algorithm == "characters-of-words":
        return LabelCache(definition.tokens, reserved=reserved, unk=unk)
    return WordCache(definition.tokens, reserved=reserved, unk=unk, max_chars=definition.max_chars)
