"""How well a tokenizer fits a text: few tokens, few unknown words, few words spelled out. One pass in bounded memory."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kitae.tokenization.definition import Definition
from kitae.tokenization.lines import WITHOUT_BLANKS, token_bytes
from kitae.tokenization.tokenizer import Tokenizer
from kitae.tokenization.wordpiece import PREFIX

BATCH = 256
DISTINCT = 1_000_000
"""Split or unknown words kept; beyond it those that occurred once so far are dropped, then twice, and so on."""
SLACK = 5 / 4
"""How far a table grows beyond its bound before it is looked through."""
JOINED = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in WITHOUT_BLANKS) + "\U00020000-\U0003ffff]")
Word = tuple[int, ...]


@dataclass(kw_only=True)
class Fit:
    """What was counted. A word is what the segmenter gives; without one, what stands between blanks (see `has_words`)."""

    characters: int = 0
    """Characters without white space."""
    joined: int = 0
    """Characters of scripts that write no blanks, where no segmenter finds the words."""
    words: int = 0
    tokens: int = 0
    unknown: int = 0
    """Words (or parts of one) without tokens of their own: [UNK]."""
    single: int = 0
    """Tokens that are one character, with or without a mark of where a word begins."""
    unread: int = 0
    """Words with an unknown part."""
    whole: int = 0
    """Words that are one token, and known."""
    spelled: int = 0
    """Words of two or more tokens that are one character each."""
    split_words: Counter[Word] = field(default_factory=Counter)
    """How often each word of several tokens occurs."""
    unknown_words: Counter[str] = field(default_factory=Counter)
    """How often each text that became unknown occurs."""

    @property
    def has_words(self) -> bool:
        """Whether what is said of words means something: in text without blanks and without a segmenter every token is a word."""
        return self.joined * 2 <= self.characters

    @property
    def unread_share(self) -> float:
        """Share of the words that are unknown, or have an unknown part."""
        return self.unread / max(self.words, 1)

    @property
    def tokens_per_character(self) -> float:
        """The smaller, the longer a text fits into a row."""
        return self.tokens / max(self.characters, 1)

    @property
    def tokens_per_word(self) -> float:
        """1 when the vocabulary has every word."""
        return self.tokens / max(self.words, 1)

    @property
    def unknown_share(self) -> float:
        """Share of the tokens that are unknown: what the model cannot see."""
        return self.unknown / max(self.tokens, 1)

    @property
    def single_share(self) -> float:
        """Share of the tokens that are one character; particles and marks are among them."""
        return self.single / max(self.tokens, 1)

    @property
    def whole_share(self) -> float:
        """Share of the words that are one known token."""
        return self.whole / max(self.words, 1)

    @property
    def spelled_share(self) -> float:
        """Share of the words that fell into single characters."""
        return self.spelled / max(self.words, 1)

    def worst(self, count: int) -> list[tuple[Word, int]]:
        """The words that cost most: times * (tokens - 1), the greatest first; ties by the ids."""
        ranked = sorted(self.split_words.items(), key=lambda item: (-item[1] * (len(item[0]) - 1), item[0]))
        return ranked[:count]

    def lost(self, count: int) -> list[tuple[str, int]]:
        """The unknown texts that occur most; ties by the text."""
        return sorted(self.unknown_words.items(), key=lambda item: (-item[1], item[0]))[:count]


def measure(tokenizer: Tokenizer, sentences: Iterable[str], *, distinct: int = DISTINCT) -> Fit:
    """Count over all sentences. At most about `distinct` words of each table are held."""
    fit = Fit()
    short = frozenset(number for number in range(tokenizer.vocab_size) if len(_shown(tokenizer.definition, number)) == 1)
    source = iter(sentences)
    while batch := list(itertools.islice(source, BATCH)):
        for sentence, words in zip(batch, tokenizer.words_of_each(batch), strict=True):
            _count(fit, tokenizer, sentence, words, short)
        for table in (fit.split_words, fit.unknown_words):
            if len(table) > distinct * SLACK:
                _trim(table, distinct)
    for table in (fit.split_words, fit.unknown_words):
        _trim(table, distinct)
    return fit


def _shown(definition: Definition, number: int) -> str:
    """What a token says, without marks of where a word begins; nothing for a part of a character."""
    try:
        return token_bytes(definition, number).decode().removeprefix(PREFIX if definition.algorithm == "wordpiece" else "").strip()
    except UnicodeDecodeError:
        return ""


def _count(fit: Fit, tokenizer: Tokenizer, sentence: str, words: Sequence[Word], short: frozenset[int]) -> None:
    unk = tokenizer.special.unk
    fit.characters += len("".join(sentence.split()))
    if tokenizer.definition.whole_lines:
        fit.joined += len(JOINED.findall(sentence))
    fit.words += len(words)
    unknown = 0
    for word in words:
        fit.tokens += len(word)
        single = sum(number in short for number in word)
        fit.single += single
        if unk in word:
            unknown += word.count(unk)
            fit.unread += 1
        elif len(word) == 1:
            fit.whole += 1
        else:
            fit.split_words[word] += 1
            fit.spelled += single == len(word) > 1
    if unknown:
        fit.unknown += unknown
        encoding = tokenizer.encode(sentence)
        places = (encoding.ids == unk).nonzero()[0].tolist()
        fit.unknown_words.update(sentence[encoding.starts[i] : encoding.ends[i]] for i in places)


def _trim(table: Counter, distinct: int) -> None:
    floor = 1
    while len(table) > distinct:
        for rare in [item for item, count in table.items() if count <= floor]:
            del table[rare]
        floor += 1
