"""Everything that makes a tokenizer, as one record: what is saved, loaded and fingerprinted."""

from dataclasses import dataclass

from kitae.core.artifact import digest_json
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.special import SpecialIds

ROLES = ("cls", "sep", "mask", "pad", "unk")


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
    """The text of a foreign tokenizer.json, kept as it is; it then replaces `spec`'s normalizer and pre-tokenizer."""

    @property
    def special(self) -> SpecialIds:
        """The ids of the special tokens."""
        numbers = {token: number for number, token in enumerate(self.tokens)}
        return SpecialIds(**{role: numbers[name] for role, name in zip(ROLES, self.names, strict=True)})

    @property
    def fingerprint(self) -> str:
        """sha256 over all that decides the ids; a dictionary counts by its content, not by its path."""
        return digest_json(
            [list(self.tokens), self.spec.identity, list(self.names), self.max_chars, self.dictionary_fingerprint, self.library],
        )
