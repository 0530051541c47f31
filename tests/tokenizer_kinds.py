"""Tokenizers of every algorithm, trained on the spot."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kitae.tokenization.counting import Unit, count_words
from kitae.tokenization.definition import Algorithm
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer
from kitae.tokenization.training import define
from kitae.tokenization.vocabulary import VocabularyOptions

KINDS: dict[str, tuple[Algorithm, str, Unit]] = {
    "unigram-raw": ("unigram", "none", "sentences"),
    "bpe-raw": ("bpe", "none", "sentences"),
    "unigram-words": ("unigram", "mecab", "parts-of-words"),
    "bpe-words": ("bpe", "mecab", "parts-of-words"),
    "character-words": ("character", "mecab", "characters"),
    "character-blanks": ("character", "whitespace", "characters"),
    "byte-bpe": ("byte-bpe", "none", "byte-words"),
}
WORDPIECE: dict[str, tuple[Algorithm, str, Unit]] = {
    "wordpiece-words": ("wordpiece", "mecab", "words"),
    "wordpiece-blanks": ("wordpiece", "whitespace", "words"),
}


def train(
    name: str, files: Sequence[Path], lines_of: Callable[[Path], Iterator[str]], options: VocabularyOptions, *, sample: int = 10_000_000
) -> Tokenizer:
    """A tokenizer of KINDS or WORDPIECE; `sample`: bytes of text for those that learn from raw text."""
    algorithm, segmenter, unit = (KINDS | WORDPIECE)[name]
    spec = SegmenterSpec(kind=segmenter)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as scratch, count_words(files, lines_of, spec, unit=unit, sample=sample) as counts:
        return Tokenizer(define(algorithm, counts, spec, options, scratch=Path(scratch)))
