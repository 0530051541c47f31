"""Everything that makes a tokenizer, as one record: what is saved, loaded and fingerprinted."""

import hashlib
from dataclasses import asdict, dataclass
from typing import Literal

from kitae.core.artifact import digest_json
from kitae.tokenization.segmenter import SURFACES, SegmenterSpec
from kitae.tokenization.special import SpecialIds

ROLES = ("cls", "sep", "mask", "pad", "unk")
Algorithm = Literal["wordpiece", "unigram", "bpe", "byte-bpe", "character", "characters-of-words"]


@dataclass(frozen=True, kw_only=True)
class Around:
    """What a public tokenizer class does around its SentencePiece model."""

    quotes: bool = False
    """Strip and fold white space, and turn `` and '' into a straight quote (ALBERT, BertJapaneseTokenizer)."""
    commas: bool = False
    """Split a comma from the digit before it (ALBERT, BertJapaneseTokenizer)."""
    lower_case: bool = False
    """Lower-case the text."""
    strip_accents: bool = False
    """Remove accents (ALBERT's default; it turns Japanese ba into ha)."""
    fairseq: bool = False
    """Ids as in XLM-R: <s>, <pad>, </s>, <unk>, then the model's pieces behind its first three, then <mask>."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A tokenizer without its machinery."""

    tokens: tuple[str, ...]
    """Id -> token."""
    spec: SegmenterSpec
    """Text to words."""
    names: tuple[str, str, str, str, str] = ("[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]")
    """The special tokens, in the order of ROLES."""
    max_chars: int = 100
    """A longer word is unknown."""
    dictionary_fingerprint: str = ""
    """Of the dictionary or program that gave the words of the vocabulary; "" for segmenters without one."""
    library: str = ""
    """The text of a tokenizer.json, kept as it is; it then replaces `spec`'s normalizer and pre-tokenizer."""
    algorithm: Algorithm = "wordpiece"
    """Words (or, with SentencePiece and byte-level BPE on text that is not segmented, whole lines) to pieces."""
    model: bytes = b""
    """A SentencePiece model file, kept as it is."""
    around: Around = Around()
    """SentencePiece only: what stands between text and model."""
    word_bytes: int = 0
    """Characters of words only: the length of a word's row of bytes."""

    @property
    def special(self) -> SpecialIds:
        """The ids of the special tokens."""
        numbers = {token: number for number, token in enumerate(self.tokens)}
        return SpecialIds(**{role: numbers[name] for role, name in zip(ROLES, self.names, strict=True)})

    @property
    def whole_lines(self) -> bool:
        """Whether pieces are found in whole lines, not in the words of a segmenter."""
        if self.model:
            return self.spec.kind not in SURFACES
        return bool(self.library) and self.algorithm not in ("wordpiece", "character")

    @property
    def fingerprint(self) -> str:
        """sha256 over all that decides the ids; a dictionary counts by its content, not by its path."""
        parts: list[object] = [
            list(self.tokens), self.spec.identity, list(self.names), self.max_chars, self.dictionary_fingerprint, self.library,
        ]  # fmt: skip
        if self.algorithm != "wordpiece":
            parts += [self.algorithm, hashlib.sha256(self.model).hexdigest(), asdict(self.around), self.word_bytes]
        return digest_json(parts)
