"""Text to words: MeCab, Sudachi, Juman++, BERT's rules or white space. The specification travels between processes, segmenters do not."""

import itertools
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, Protocol

from tokenizers import Tokenizer as Library
from tokenizers import models, normalizers, pre_tokenizers

from kitae.core.config import Config
from kitae.tokenization import dictionary as dictionaries
from kitae.tokenization import jumanpp, sudachi
from kitae.tokenization.cuts import encodable, parts
from kitae.tokenization.jumanpp import JumanppSegmenter
from kitae.tokenization.sudachi import SplitMode, SudachiSegmenter

LONGEST = 2**14 - 1
"""Characters that MeCab 0.996 takes at once without fail. At most 65,532 bytes: its lengths have 16 bits (a longer white space
swallows the text behind it). Costs of so many words, each at most two signed 16-bit ones, fit 31 bits: if not, the process dies."""
SURFACES = ("mecab", "sudachi", "jumanpp")
"""Kinds whose words are the (normalized) text itself, cut by a dictionary; a tokenizer.json can hold the others."""


class SegmenterSpec(Config):
    """Which segmenter, with all that decides its words; picklable."""

    kind: Literal["mecab", "sudachi", "jumanpp", "basic", "whitespace", "none"]
    """mecab, sudachi, jumanpp: Japanese words. basic: BERT's rules (white space, punctuation, single CJK characters).
    whitespace, none: white space."""
    dictionary: str = ""
    """mecab: a name such as "ipadic" (the usual one), or the folder of a compiled dictionary. sudachi: "small", "core" (the usual
    one), "full", or a compiled file."""
    program: str = ""
    """jumanpp: its executable; "jumanpp" on the search path when nothing is said."""
    flags: str = ""
    """mecab: further options of MeCab."""
    split_mode: SplitMode = "A"
    """sudachi: short (A), middle (B) or long (C) words."""
    nfkc: bool = True
    """Normalize to NFKC first."""
    lower_case: bool = False
    """Lower-case the words."""
    strip_accents: bool = False
    """Basic only: remove accents. It also turns ba into ha in Japanese: leave it alone there."""

    @property
    def identity(self) -> dict[str, object]:
        """What decides the words besides the content of a dictionary or a model: the settings that its kind heeds."""
        left_out = {"dictionary", "program"} | (set() if self.kind == "sudachi" else {"split_mode"})
        return self.model_dump(mode="json", exclude=left_out)


class WordSegmenter(Protocol):
    """What every segmenter does."""

    @property
    def failures(self) -> int:
        """Sentences so far that it failed at, so that what stands between their blanks became their words."""
        ...

    def segment(self, text: str) -> list[str]:
        """The words in order. Joined, they are the (normalized) text without its white space."""
        ...

    def segment_all(self, texts: Sequence[str]) -> list[list[str]]:
        """The words of several texts."""
        ...


class MecabSegmenter:
    """Words of MeCab through fugashi: the choice for Japanese.

    Needs a compiled dictionary; a different dictionary gives different words. Next to the basic segmenter it keeps words of more than
    one kanji whole. The fast path is one `-Owakati` string split at white space: the same words as MeCab's nodes, because white
    space never survives inside a word of a vocabulary. `whole` takes the nodes: words with white space in them, and those that MeCab makes
    of other white space than its own, which are unknown characters to BertJapaneseTokenizer. One tagger per process; not thread-safe.
    Example: `MecabSegmenter(find("ipadic")).segment("...")`. Kudo et al. 2004, "Applying Conditional Random Fields to Japanese
    Morphological Analysis".
    """

    failures = 0

    def __init__(self, dictionary: dictionaries.Dictionary, flags: str = "", *, whole: bool = False) -> None:
        tagger = dictionary.tagger(flags)
        parse = tagger.parse
        self._words: Callable[[str], list[str]] = (
            (lambda text: [node.surface for node in tagger(text)]) if whole else (lambda text: parse(text).split())
        )

    def segment(self, text: str) -> list[str]:
        """The words of one sentence. A NUL character would end the text for MeCab; it counts as white space here."""
        text = text.replace("\0", " ") if "\0" in text else text
        if len(text) <= LONGEST:
            return self._words(text)
        cut = parts(text, characters=LONGEST, size=LONGEST * 4)
        return [word for part in cut for word in self._words(part)]

    def segment_all(self, texts: Sequence[str]) -> list[list[str]]:
        """Text by text: several in one call would be one sentence to MeCab, with other words where they meet."""
        return [self.segment(text) for text in texts]


class LibrarySegmenter:
    """The normalizer and pre-tokenizer of the `tokenizers` library: basic, whitespace, or what a tokenizer.json says."""

    failures = 0

    def __init__(self, normalizer: normalizers.Normalizer | None, pre_tokenizer: pre_tokenizers.PreTokenizer | None) -> None:
        self._normalizer, self._pre_tokenizer = normalizer, pre_tokenizer

    def segment(self, text: str) -> list[str]:
        """The words of the normalized text."""
        if self._normalizer is not None:
            text = self._normalizer.normalize_str(text)
        if self._pre_tokenizer is None:
            return [text] if text else []
        return [word for word, _ in self._pre_tokenizer.pre_tokenize_str(text)]

    def segment_all(self, texts: Sequence[str]) -> list[list[str]]:
        """Text by text."""
        return [self.segment(text) for text in texts]


def library_parts(spec: SegmenterSpec) -> Library:
    """A library tokenizer without a vocabulary that holds the normalizer and the pre-tokenizer of a specification."""
    library = Library(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    steps: list[normalizers.Normalizer] = [normalizers.NFKC()] if spec.nfkc else []
    if spec.kind == "basic":
        steps.append(
            normalizers.BertNormalizer(
                clean_text=True, handle_chinese_chars=True, strip_accents=spec.strip_accents, lowercase=spec.lower_case
            )
        )
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    else:
        if spec.lower_case:
            steps.append(normalizers.Lowercase())
        library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if steps:
        library.normalizer = normalizers.Sequence(steps)
    return library


def build(spec: SegmenterSpec, *, whole: bool = False) -> WordSegmenter:
    """The segmenter of a specification; `whole` leaves the white space that a dictionary has inside of words (SURFACES only).

    Raises KitaeError when its dictionary or program is absent or broken.
    """
    if spec.kind == "mecab":
        return MecabSegmenter(dictionaries.find(spec.dictionary), spec.flags, whole=whole)
    if spec.kind == "sudachi":
        return SudachiSegmenter(sudachi.find(spec.dictionary), spec.split_mode, whole=whole)
    if spec.kind == "jumanpp":
        return JumanppSegmenter(jumanpp.find(spec.program), whole=whole)
    library = library_parts(spec)
    return LibrarySegmenter(library.normalizer, library.pre_tokenizer)


def words_of(spec: SegmenterSpec, segmenter: WordSegmenter | None = None) -> Callable[[str], list[str]]:
    """The function that a vocabulary sees: normalize, segment, lower-case. Build it once in each process.

    It raises UnicodeEncodeError for an unpaired surrogate (see `encodable`).
    """
    segment = (segmenter or build(spec)).segment
    if spec.kind not in SURFACES:
        return segment  # the library's normalizer does the rest
    normalize = unicodedata.normalize
    if spec.nfkc and spec.lower_case:
        return lambda text: [word.lower() for word in segment(normalize("NFKC", text))]
    if spec.nfkc:
        return lambda text: segment(normalize("NFKC", text))
    if spec.lower_case:
        return lambda text: [word.lower() for word in segment(text)]
    return segment


def words_of_each(spec: SegmenterSpec, segmenter: WordSegmenter | None = None) -> Callable[[Iterable[str]], Iterator[list[str]]]:
    """As `words_of`, for a stream of sentences: Juman++ gets them in batches, which is several times faster.

    There an unpaired surrogate counts as U+FFFD, because an error would cost the whole batch.
    """
    segmenter = segmenter or build(spec)
    words = words_of(spec, segmenter)
    if spec.kind != "jumanpp":
        return lambda texts: map(words, texts)
    segment_all = segmenter.segment_all

    def stream(texts: Iterable[str]) -> Iterator[list[str]]:
        normal = (unicodedata.normalize("NFKC", text) if spec.nfkc else text for text in map(encodable, texts))
        while batch := list(itertools.islice(normal, jumanpp.BATCH)):
            for words in segment_all(batch):
                yield [word.lower() for word in words] if spec.lower_case else words

    return stream
