"""Corpus -> Tokenizer: count words, train a vocabulary, or take one that exists."""

import itertools
import logging
import os
import unicodedata
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kitae.core.artifact import Inputs, Out
from kitae.core.config import OPERATIONAL, Config
from kitae.core.errors import KitaeError
from kitae.text.corpus import Corpus, read_shard
from kitae.tokenization import exported, library, resources, sudachi
from kitae.tokenization.characters import FEWEST
from kitae.tokenization.counting import Unit, count_words
from kitae.tokenization.definition import Algorithm
from kitae.tokenization.dictionary import NAMES, find
from kitae.tokenization.fit import measure
from kitae.tokenization.lexicon import Lexicon
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.sudachi import SplitMode
from kitae.tokenization.taken import take
from kitae.tokenization.tokenizer import Tokenizer
from kitae.tokenization.training import GIVEN, define
from kitae.tokenization.vocabulary import VocabularyOptions

VERSION = 2
SLICE = 5000
"""Sentences on which the vocabulary's fit is measured."""
LOOKED_AT = 1_000_000
"""Characters of them at most."""
CUT = 1000
"""Characters of one of them: what follows is left out."""
FOREIGN = 0.002
"""Share of sentences in which the tokenizer.json of a vocabulary that was taken may differ: SentencePiece adds scores up in 32 bits."""
log = logging.getLogger(__name__)
_BLANKS = " \t\r\n"
SETTINGS: dict[Algorithm, set[str]] = {
    "wordpiece": {"min_frequency", "limit_alphabet", "alphabet", "user_tokens"},
    "unigram": {"character_coverage", "alphabet", "split_by_whitespace", "user_tokens", "candidates"},
    "bpe": {"character_coverage", "alphabet", "split_by_whitespace"},
    "byte-bpe": {"min_frequency", "user_tokens"},
    "character": {"min_frequency", "alphabet"},
    "characters-of-words": {"min_frequency", "word_bytes"},
}
"""Which settings mean something for which algorithm."""
WORDS = {"segmenter": "kind", **{name: name for name in ("dictionary", "split_mode", "program", "lower_case", "strip_accents")}}
"""Settings that say how words are found, and SegmenterSpec's names of them."""


class TokenizerConfig(Config):
    """Settings of the tokenizer stage."""

    from_: str | None = Field(default=None, alias="from")
    """Take the tokenizer of this folder (ours or Hugging Face's), this vocab.txt or SentencePiece model, instead of training one.
    Beside it, a vocab.txt alone takes lower_case and strip_accents (both for an English uncased BERT) or a segmenter; a SentencePiece
    model of text that was segmented before takes that segmenter, "mecab", "sudachi" or "jumanpp"."""
    segmenter: Literal["mecab", "sudachi", "jumanpp", "basic", "whitespace", "none"] = "mecab"
    """Text to words. mecab, sudachi, jumanpp: Japanese words. basic: BERT's rules for languages with spaces. whitespace: words stand
    between blanks (also text that was segmented already). none: raw text; unigram and bpe then learn from sentences, the others take
    it as whitespace."""
    dictionary: str = ""
    """mecab: "ipadic" (when nothing is said), "unidic-lite", "unidic", "jumandic", or the folder of a compiled one.
    sudachi: "core" (when nothing is said), "small", "full", or a compiled file."""
    split_mode: SplitMode = "A"
    """sudachi: short (A), middle (B) or long (C) words."""
    program: str = ""
    """jumanpp: its program; "jumanpp" on the search path (or what KITAE_JUMANPP names) when nothing is said."""
    algorithm: Algorithm = "wordpiece"
    """Words to pieces. wordpiece: as BERT. unigram, bpe: SentencePiece, of words or (segmenter "none") of raw text. byte-bpe: as
    RoBERTa, segmenter "none" only. character: each character. characters-of-words: CharacterBERT's bytes, with a vocabulary of words
    to predict."""
    vocab_size: Annotated[int, Field(ge=16)] = 32768
    """Tokens of the vocabulary, special and unused ones included."""
    min_frequency: Annotated[int, Field(ge=1)] = 2
    """A pair of pieces (wordpiece, byte-bpe), a character or a word that occurs more rarely is left out."""
    limit_alphabet: Annotated[int, Field(ge=1)] = 6129
    """wordpiece: most characters in the vocabulary, the most frequent first; a word with any other is unknown."""
    alphabet: str | None = None
    """A text file whose characters, normalized as the text is, are all in the vocabulary."""
    character_coverage: Annotated[float, Field(ge=0.98, le=1)] = 0.9995
    """unigram, bpe: share of the text's characters that the vocabulary has; the rarest are unknown."""
    split_by_whitespace: bool = True
    """unigram, bpe on raw text: no piece has a blank inside."""
    candidates: str | None = None
    """unigram: "dictionary" makes the words of MeCab's dictionary candidates as a whole, and parts only of words that it lacks; or a
    text file with one such word a line."""
    user_tokens: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Tokens in the vocabulary in any case, written as normalized text writes them. unigram, byte-bpe: one token wherever the text has
    them, with a segmenter within one of its words; wordpiece: at the beginning of a word."""
    word_bytes: Annotated[int, Field(ge=FEWEST)] = 50
    """characters-of-words: length of a word's row; two are its ends, and a Japanese character takes three: 50 are 16 of these."""
    num_unused: Annotated[int, Field(ge=0)] = 10
    """Tokens <unused0>, <unused1>, ... kept free for words added later."""
    unused: Annotated[str, Field(pattern=r"^([^{}\s]+\{\}[^{}\s]*|\{\}[^{}\s]+)$")] = "<unused{}>"
    """How they are written: {} stands for the number, and there must be something else."""
    lower_case: bool = False
    """Lower-case the words."""
    strip_accents: bool = False
    """Segmenter basic only: remove accents. It turns Japanese ba into ha: for European text only."""
    workers: Annotated[int, Field(ge=0), OPERATIONAL] = 0
    """Processes that count words; 0 = one per core."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        others = sorted(self.model_fields_set - {"from_", "workers", *WORDS})
        if self.from_ is not None:
            if others:
                raise ValueError(f"`from` takes a finished tokenizer: remove {', '.join(others)}, or remove `from`")
            if self.model_fields_set & {"dictionary", "split_mode", "program"} and "segmenter" not in self.model_fields_set:
                raise ValueError("say the segmenter too, whose words the taken vocabulary gets")
        basic = self.segmenter == "basic" or (self.from_ is not None and "segmenter" not in self.model_fields_set)
        if self.strip_accents and not basic:
            raise ValueError('strip_accents works with segmenter = "basic" only: remove it')
        for name, kinds in (("dictionary", ("mecab", "sudachi")), ("split_mode", ("sudachi",)), ("program", ("jumanpp",))):
            if name in self.model_fields_set and self.segmenter not in kinds:
                raise ValueError(f'{name} means nothing to segmenter = "{self.segmenter}", only to {" and ".join(kinds)}: remove it')
        known = set().union(*SETTINGS.values())
        for name in sorted((self.model_fields_set & known) - SETTINGS[self.algorithm]):
            raise ValueError(f"{name} means nothing for {self.algorithm}: remove it")
        if self.algorithm in ("unigram", "bpe") and self.segmenter == "basic":
            raise ValueError(f'{self.algorithm} takes segmenter = "mecab", "sudachi", "jumanpp", "whitespace" or "none"')
        if self.algorithm == "byte-bpe" and self.segmenter != "none":
            raise ValueError('byte-bpe finds its words itself: set segmenter = "none"')
        if not self.split_by_whitespace and self.segmenter != "none":
            raise ValueError('split_by_whitespace = false needs raw text: set segmenter = "none"')
        if self.candidates is not None and self.segmenter == "none":
            raise ValueError("candidates are words: choose a segmenter")
        if self.candidates == "dictionary" and self.segmenter != "mecab":
            raise ValueError('candidates = "dictionary" reads the dictionary of MeCab: give a file of words')
        for token in self.user_tokens:
            if token != self.seen(token) or any(map(str.isspace, token)):
                what = f"the text has {self.seen(token)!r} in its place" if token != self.seen(token) else "it has white space inside"
                raise ValueError(f"the user token {token!r} is never met: {what}")
        return self

    def seen(self, text: str) -> str:
        """The text as a vocabulary sees it: normalized, and in lower case or without accents where that is asked for."""
        text = unicodedata.normalize("NFKC", text)
        if self.strip_accents:
            text = "".join(char for char in unicodedata.normalize("NFD", text) if unicodedata.category(char) != "Mn")
        return text.lower() if self.lower_case else text

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
            alphabet="".join(sorted(set(self.seen(_text(self.alphabet))) - set(_BLANKS))) if self.alphabet else "",
            num_unused=self.num_unused,
            unused=self.unused,
            user_tokens=self.user_tokens,
            character_coverage=self.character_coverage,
            split_by_whitespace=self.split_by_whitespace,
        )

    @property
    def own_word_bytes(self) -> int:
        """The length of a word's row of bytes; 0 where there is none."""
        return self.word_bytes if self.algorithm == "characters-of-words" else 0

    @property
    def unit(self) -> Unit:
        """What is counted."""
        if self.algorithm in ("unigram", "bpe"):
            return "sentences" if self.segmenter == "none" else "parts-of-words"
        units: dict[Algorithm, Unit] = {"byte-bpe": "byte-words", "character": "characters", "characters-of-words": "parts-of-words"}
        return units.get(self.algorithm, "words")


def sources(config: TokenizerConfig) -> tuple[str, ...]:
    """What is taken from outside: the finished tokenizer, or a dictionary that has no name. A program is told by its version."""
    names = {"mecab": NAMES, "sudachi": sudachi.NAMES}.get(config.segmenter)
    named = names is None or config.dictionary.replace("_", "-") in ("", *names)
    files = [config.from_, None if named else config.dictionary, config.alphabet]
    files.append(None if config.candidates == "dictionary" else config.candidates)
    return tuple(file for file in files if file is not None)


def _text(file: str) -> str:
    path = Path(file).expanduser()
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise KitaeError(f"{file} cannot be read as text: {error}", cure="give a UTF-8 file", where="[tokenizer]") from error


def run(config: TokenizerConfig, inputs: Inputs, out: Out) -> None:
    """Write a tokenizer folder; counts say how large the vocabulary became and how it fits held-out text."""
    folder = inputs.get("corpus")
    corpus = None if folder is None else Corpus(folder)
    if config.from_ is not None:
        said = {name: getattr(config, setting) for setting, name in WORDS.items() if setting in config.model_fields_set}
        tokenizer = Tokenizer(take(Path(config.from_).expanduser(), said))
        out.counts["taken_from"] = Path(config.from_).name
    else:
        assert corpus is not None, "the graph gives the tokenizer its corpus"
        tokenizer = _train(config, corpus, out)
    tokenizer.save(out.path)
    _check(tokenizer, corpus, out.path, config)
    out.counts.update({"vocab_size": tokenizer.vocab_size, "fingerprint": tokenizer.fingerprint})
    if corpus is not None:
        out.counts.update(_fit(tokenizer, corpus))
    log.info("vocabulary of %d tokens; %s", tokenizer.vocab_size, ", ".join(f"{key} {value}" for key, value in out.counts.items()))


def _check(tokenizer: Tokenizer, corpus: Corpus | None, folder: Path, config: TokenizerConfig) -> None:
    """Refuse a folder that would give other programs other ids."""
    users = [f"a{token}b {token} {token}{token}" for token in (*config.user_tokens, config.unused.format(0))]
    sentences = [*library.ODD, *users, *(_some(corpus, "train") if corpus is not None else ())]
    ours = [[number for word in words for number in word] for words in tokenizer.words_of_each(sentences)]
    exported.check(tokenizer.definition, folder, ours, sentences, allowed=0.0 if config.from_ is None else FOREIGN)


def _train(config: TokenizerConfig, corpus: Corpus, out: Out) -> Tokenizer:
    resources.find(config.spec)  # its error before the work
    candidates: Container[str] = frozenset()
    if config.candidates == "dictionary":
        candidates = Lexicon(find(config.spec.dictionary).path)
    elif config.candidates is not None:
        candidates = frozenset(config.seen(_text(config.candidates)).split("\n"))
    options, workers = config.options, config.workers or len(os.sched_getaffinity(0))
    sample = GIVEN.get(config.algorithm, 0)
    counting = count_words(
        corpus.shards("train"), _sentences, config.spec, unit=config.unit, sample=sample, workers=workers, scratch=out.path
    )
    with counting as counts:
        if not counts.distinct:
            raise KitaeError(
                "the corpus has no words to train a vocabulary on", cure="look into its drops.json: every document was dropped"
            )
        definition = define(
            config.algorithm, counts, config.spec, options, scratch=out.path, candidates=candidates, word_bytes=config.own_word_bytes
        )
        unit = "words" if config.unit == "parts-of-words" else config.unit
        out.counts.update({"vocab_size_asked": config.vocab_size, unit: counts.total, f"distinct_{unit}": counts.distinct})
    found = len(definition.tokens)
    if found < config.vocab_size:
        why = f"no further pair occurs {config.min_frequency} times" if config.algorithm == "wordpiece" else "it has no more"
        log.warning("the corpus gives %d of the %d tokens asked for: %s", found, config.vocab_size, why)
    return Tokenizer(definition)


def _sentences(shard: Path) -> Iterator[str]:
    return (sentence for document in read_shard(shard) for sentence in document.text.split("\n"))


def _some(corpus: Corpus, split: Literal["train", "heldout"]) -> Iterator[str]:
    """The first sentences, within bounds for any corpus."""
    size = 0
    for sentence in itertools.islice(itertools.chain.from_iterable(map(_sentences, corpus.shards(split))), SLICE):
        size += len(sentence[:CUT])
        if size > LOOKED_AT:
            return
        yield sentence[:CUT]


def _fit(tokenizer: Tokenizer, corpus: Corpus) -> dict[str, object]:
    split: Literal["train", "heldout"] = "heldout" if corpus.shards("heldout") else "train"
    before = tokenizer.failures
    fit = measure(tokenizer, _some(corpus, split))
    return {
        "measured_on": split,
        "unknown_share": round(fit.unknown_share, 6),
        **({"unknown_words_share": round(fit.unread_share, 6), "tokens_per_word": round(fit.tokens_per_word, 4)} if fit.has_words else {}),
        "tokens_per_character": round(fit.tokens_per_character, 4),
        **({"sentences_by_blanks": tokenizer.failures - before} if tokenizer.definition.spec.kind == "jumanpp" else {}),
    }
