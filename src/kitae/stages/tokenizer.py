"""Corpus -> Tokenizer: count words, train a vocabulary, or take one that exists."""

import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kitae.core.artifact import Inputs, Out
from kitae.core.config import OPERATIONAL, Config
from kitae.core.errors import KitaeError
from kitae.text.corpus import Corpus, read_shard
from kitae.tokenization import resources, sudachi
from kitae.tokenization.dictionary import NAMES
from kitae.tokenization.fit import measure
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.sudachi import SplitMode
from kitae.tokenization.tokenizer import Tokenizer
from kitae.tokenization.vocabulary import VocabularyOptions, count_words, train

VERSION = 1
SLICE = 5000
"""Sentences on which the vocabulary's fit is measured."""
log = logging.getLogger(__name__)


class TokenizerConfig(Config):
    """Settings of the tokenizer stage."""

    from_: str | None = Field(default=None, alias="from")
    """Take the tokenizer of this folder (ours, or a WordPiece folder of Hugging Face), or this vocab.txt, instead of training one."""
    segmenter: Literal["mecab", "sudachi", "jumanpp", "basic", "whitespace", "none"] = "mecab"
    """Text to words. mecab, sudachi, jumanpp: Japanese words. basic: BERT's rules for languages with spaces. whitespace (for text whose
    words are separated by blanks already) or none: white space only."""
    dictionary: str = ""
    """mecab: "ipadic" (when nothing is said), "unidic-lite", "unidic", "jumandic", or the folder of a compiled one.
    sudachi: "core" (when nothing is said), "small", "full", or a compiled file."""
    split_mode: SplitMode = "A"
    """sudachi: short (A), middle (B) or long (C) words."""
    program: str = ""
    """jumanpp: its program; "jumanpp" on the search path (or what KITAE_JUMANPP names) when nothing is said."""
    algorithm: Literal["wordpiece"] = "wordpiece"
    """Words to pieces."""
    vocab_size: Annotated[int, Field(ge=16)] = 32768
    """Tokens of the vocabulary, special and unused ones included."""
    min_frequency: Annotated[int, Field(ge=1)] = 2
    """A pair of pieces that occurs more rarely is not merged."""
    limit_alphabet: Annotated[int, Field(ge=1)] = 6129
    """Most characters in the vocabulary, the most frequent first; a word with any other is unknown."""
    num_unused: Annotated[int, Field(ge=0)] = 10
    """Tokens <unused0>, <unused1>, ... kept free for words added later."""
    lower_case: bool = False
    """Lower-case the words."""
    strip_accents: bool = False
    """Segmenter basic only: remove accents. It turns Japanese ba into ha: for European text only."""
    workers: Annotated[int, Field(ge=0), OPERATIONAL] = 0
    """Processes that count words; 0 = one per core."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        others = sorted(self.model_fields_set - {"from_", "workers"})
        if self.from_ is not None and others:
            raise ValueError(f"`from` takes a finished tokenizer: remove {', '.join(others)}, or remove `from`")
        if self.strip_accents and self.segmenter != "basic":
            raise ValueError('strip_accents works with segmenter = "basic" only: remove it')
        for name, kinds in (("dictionary", ("mecab", "sudachi")), ("split_mode", ("sudachi",)), ("program", ("jumanpp",))):
            if name in self.model_fields_set and self.segmenter not in kinds:
                raise ValueError(f'{name} means nothing to segmenter = "{self.segmenter}", only to {" and ".join(kinds)}: remove it')
        return self

    @property
    def spec(self) -> SegmenterSpec:
        """Text to words, as the tokenizer keeps it."""
        return SegmenterSpec(
            kind=self.segmenter,
            dictionary=self.dictionary,
            program=self.program,
            split_mode=self.split_mode,
            lower_case=self.lower_case,
            strip_accents=self.strip_accents,
        )

    @property
    def options(self) -> VocabularyOptions:
        """How to train."""
        return VocabularyOptions(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            limit_alphabet=self.limit_alphabet,
            num_unused=self.num_unused,
        )


def sources(config: TokenizerConfig) -> tuple[str, ...]:
    """What is taken from outside: the finished tokenizer, or a dictionary that has no name. A program is told by its version."""
    if config.from_ is not None:
        return (config.from_,)
    names = {"mecab": NAMES, "sudachi": sudachi.NAMES}.get(config.segmenter)
    named = names is None or config.dictionary.replace("_", "-") in ("", *names)
    return () if named else (config.dictionary,)


def run(config: TokenizerConfig, inputs: Inputs, out: Out) -> None:
    """Write a tokenizer folder; counts say how large the vocabulary became and how it fits held-out text."""
    folder = inputs.get("corpus")
    corpus = None if folder is None else Corpus(folder)
    if config.from_ is not None:
        tokenizer = Tokenizer.load(home(Path(config.from_).expanduser()))
        out.counts["taken_from"] = Path(config.from_).name
    else:
        assert corpus is not None, "the graph gives the tokenizer its corpus"
        tokenizer = _train(config, corpus, out)
    tokenizer.save(out.path)
    out.counts.update({"vocab_size": tokenizer.vocab_size, "fingerprint": tokenizer.fingerprint})
    if corpus is not None:
        out.counts.update(_fit(tokenizer, corpus))
    log.info("vocabulary of %d tokens; %s", tokenizer.vocab_size, ", ".join(f"{key} {value}" for key, value in out.counts.items()))


def home(given: Path) -> Path:
    """Where the tokenizer's files lie: at the place itself, or within a checkpoint or a folder with ELECTRA's two halves."""
    places = (given, *(given / name for name in ("tokenizer", "discriminator", "generator")))
    return next((place for place in places if any((place / name).is_file() for name in ("vocab.txt", "tokenizer.json"))), given)


def _train(config: TokenizerConfig, corpus: Corpus, out: Out) -> Tokenizer:
    resources.find(config.spec)  # its error before the work
    counts = count_words(corpus.shards("train"), _sentences, config.spec, workers=config.workers or len(os.sched_getaffinity(0)))
    if not counts:
        raise KitaeError("the corpus has no words to train a vocabulary on", cure="look into its drops.json: every document was dropped")
    tokens = train(counts, config.options)
    out.counts.update({"vocab_size_asked": config.vocab_size, "words": sum(counts.values()), "distinct_words": len(counts)})
    if len(tokens) < config.vocab_size:
        log.warning(
            "the corpus gives %d of the %d tokens asked for: no further pair occurs %d times",
            len(tokens),
            config.vocab_size,
            config.min_frequency,
        )
    return Tokenizer.new(tokens, config.spec)


def _sentences(shard: Path) -> Iterator[str]:
    return (sentence for document in read_shard(shard) for sentence in document.text.split("\n"))


def _fit(tokenizer: Tokenizer, corpus: Corpus) -> dict[str, object]:
    split: Literal["train", "heldout"] = "heldout" if corpus.shards("heldout") else "train"
    fit = measure(tokenizer, itertools.islice(itertools.chain.from_iterable(map(_sentences, corpus.shards(split))), SLICE))
    return {
        "measured_on": split,
        "unknown_words_share": round(fit.unknown / max(fit.words, 1), 6),
        "tokens_per_word": round(fit.tokens_per_word, 4),
        "tokens_per_character": round(fit.tokens_per_character, 4),
    }
