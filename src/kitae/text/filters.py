"""Quality filters: documents whose numbers look like no running text are dropped, under the name of the limit they miss.

All limits are off unless they are set, or a preset sets them. They look at the cleaned document, in which every line is
a sentence (or a line that was one before). Where the preset's numbers come from: Gopher is Rae et al. 2021, table A1 and
section A.1.1; Swallow is Okazaki et al. 2024 with its published code (it applies Gopher's rules to Japanese characters);
C4 is Raffel et al. 2020; FineWeb is Penedo et al. 2024; HojiChar and BigScience are these projects' filters' defaults.
"""

import functools
import re
from collections.abc import Callable
from typing import Literal

import numpy as np
from datatrove.data import Document
from numpy.typing import NDArray
from pydantic import Field, model_validator

from kitae.core.config import Config
from kitae.text.steps import DocumentStep

Preset = Literal["none", "web"]
NGRAM = {"ja": 5, "en": 10}  # characters, as HojiChar and BigScience count them
PRIME = np.uint64(0x9E3779B97F4A7C15)
SYMBOL, BLANK, LETTER, HIRAGANA, KATAKANA, KANJI, STOP = range(7)  # LETTER: of any other script, and digits
ENDS = tuple("\u3002\uff0e.!?\uff01\uff1f\u2026\"'\u300d\u300f\u201d\u2019)\uff09")
BULLETS = tuple("-*+\u2022\u30fb\u25cf\u25a0\u25c6\u25cb\u25ce\u203b\u2013\u2014\uff0d\uff65\u25aa\u25b6\u25ba")
ELLIPSES = ("...", "\u2026", "\u30fb\u30fb")
LATIN_WORD = re.compile(r"(?<!\S)[^\sA-Za-z\u00c0-\u024f]*+[A-Za-z\u00c0-\u024f]")
ADDRESS = re.compile(r"(?:https?://|www\.)[!-~]++|(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)++", re.ASCII)


class Filters(Config):
    """Limits of a document; one that is not set is as the preset says, and without a preset off."""

    preset: Preset = "none"
    """"web": limits for Japanese or English web text, by the corpus's language (`filters = "web"` says the same). "none": no limit."""
    min_characters: int | None = Field(default=None, ge=0)
    """Characters at least. web: ja 400 (Swallow), en 250 (Gopher's 50 words)."""
    max_characters: int | None = Field(default=None, ge=1)
    """Characters at most. web: ja 200000, en 500000 (Gopher's 100,000 words)."""
    min_sentences: int | None = Field(default=None, ge=0)
    """Lines at least. web: en 5 (C4)."""
    max_repeated_lines: float | None = Field(default=None, ge=0, le=1)
    """Share of lines that occurred before. web: 0.3 (Gopher, Swallow)."""
    max_repeated_line_characters: float | None = Field(default=None, ge=0, le=1)
    """Share of characters in lines that occurred before. web: 0.2 (Gopher, Swallow)."""
    max_repeated_ngrams: float | None = Field(default=None, ge=0, le=1)
    """Share of the most frequent n-grams of characters (n: ja 5, en 10; as many as their square root). web: ja 0.33 (HojiChar)."""
    max_run: int | None = Field(default=None, ge=1)
    """Times that one character follows itself. web: 199 (HojiChar)."""
    min_script: float | None = Field(default=None, ge=0, le=1)
    """ja: share of kana, kanji and stops in the characters; en: of words with a Latin letter. web: 0.5 (Swallow), 0.8 (Gopher)."""
    min_hiragana: float | None = Field(default=None, ge=0, le=1)
    """Share of hiragana in the Japanese characters: Chinese and lists of names have little. web: ja 0.2 (Swallow)."""
    max_katakana: float | None = Field(default=None, ge=0, le=1)
    """Share of katakana in the Japanese characters. web: ja 0.5 (Swallow)."""
    max_symbols: float | None = Field(default=None, ge=0, le=1)
    """Share of characters that are no letter and no digit. web: 0.4 (HojiChar, BigScience)."""
    max_bullets: float | None = Field(default=None, ge=0, le=1)
    """Share of lines that begin with a bullet. web: 0.9 (Gopher)."""
    max_ellipses: float | None = Field(default=None, ge=0, le=1)
    """Share of lines that end in an ellipsis. web: ja 0.2 (Swallow), en 0.3 (Gopher)."""
    max_addresses: float | None = Field(default=None, ge=0, le=1)
    """Share of characters in URLs and e-mail addresses. web: 0.2 (ours; no published number is known to us)."""
    min_ended_lines: float | None = Field(default=None, ge=0, le=1)
    """Share of lines that end in a full stop, a closing bracket or the like. web: 0.12 (FineWeb)."""
    min_mean_sentence: float | None = Field(default=None, ge=0)
    """Mean characters of a line. web: ja 20 (Swallow)."""
    max_mean_sentence: float | None = Field(default=None, ge=0)
    """Mean characters of a line. web: ja 90 (Swallow)."""
    min_mean_word: float | None = Field(default=None, ge=0)
    """Mean characters of a word between blanks. web: en 3 (Gopher)."""
    max_mean_word: float | None = Field(default=None, ge=0)
    """Mean characters of a word between blanks. web: en 10 (Gopher)."""

    @model_validator(mode="after")
    def _some_text_passes(self) -> "Filters":
        for name in type(self).model_fields:
            most = name.replace("min_", "max_", 1)
            low, high = getattr(self, name), getattr(self, most, None)
            if name != most and low is not None and high is not None and low > high:
                raise ValueError(f"{name} = {low:g} is more than {most} = {high:g}: no document could pass")
        return self

    def limits(self, language: str) -> dict[str, float]:
        """The limits that hold, by name, in the order in which they are checked."""
        preset = WEB[language] if self.preset == "web" else {}
        found = {name: getattr(self, name) for name in type(self).model_fields if name != "preset"}
        resolved = {name: preset.get(name) if value is None else value for name, value in found.items()}
        return {name: value for name, value in resolved.items() if value is not None}


BOTH: dict[str, float] = {
    "max_repeated_lines": 0.3, "max_repeated_line_characters": 0.2, "max_run": 199, "max_symbols": 0.4, "max_bullets": 0.9,
    "max_addresses": 0.2, "min_ended_lines": 0.12,
}  # fmt: skip
WEB: dict[str, dict[str, float]] = {
    "ja": BOTH | {
        "min_characters": 400, "max_characters": 200_000, "max_repeated_ngrams": 0.33, "min_script": 0.5, "min_hiragana": 0.2,
        "max_katakana": 0.5, "max_ellipses": 0.2, "min_mean_sentence": 20, "max_mean_sentence": 90,
    },
    "en": BOTH | {
        "min_characters": 250, "max_characters": 500_000, "min_sentences": 5, "min_script": 0.8, "max_ellipses": 0.3,
        "min_mean_word": 3, "max_mean_word": 10,
    },
}  # fmt: skip


class Filter(DocumentStep):
    """Drops a document under the name of the first limit that it misses."""

    name = "filter"

    def __init__(self, filters: Filters, *, language: str) -> None:
        super().__init__()
        self.limits, self.language = filters.limits(language), language

    def change(self, document: Document) -> str | None:
        """See the class."""
        numbers = Numbers(document.text, self.language)
        for name, limit in self.limits.items():
            kind, _, measure = name.partition("_")
            value = MEASURES[measure](numbers)
            if value < limit if kind == "min" else value > limit:
                return name
        return None


class Numbers:
    """What the limits are compared with, each computed when first asked for. Line ends do not count as characters."""

    def __init__(self, text: str, language: str) -> None:
        self.text, self.language = text, language
        self.lines = text.split("\n")
        self.characters = len(text) - len(self.lines) + 1

    @functools.cached_property
    def codes(self) -> NDArray[np.uint32]:
        """Code points, line ends left out."""
        return np.frombuffer("".join(self.lines).encode("utf-32-le", "surrogatepass"), np.uint32)

    @functools.cached_property
    def kinds(self) -> NDArray[np.int64]:
        """How many characters there are of each kind."""
        return np.bincount(kind_table()[np.minimum(self.codes, 0xFFFF + (self.codes >= 0x20000))], minlength=7)

    @functools.cached_property
    def repeated(self) -> tuple[int, int]:
        """Lines that occurred before, and their characters."""
        distinct = dict.fromkeys(self.lines)
        return len(self.lines) - len(distinct), self.characters - sum(map(len, distinct))

    @functools.cached_property
    def words(self) -> int:
        """Pieces between blanks."""
        return len(self.text.split())

    def filled(self) -> int:
        """Characters without the blanks."""
        return self.characters - int(self.kinds[BLANK])

    def japanese(self) -> int:
        """Hiragana, katakana, kanji, and the stops between them."""
        return int(self.kinds[HIRAGANA:].sum())

    def script(self) -> float:
        """Share of characters or words in the language's own script."""
        if self.language == "ja":
            return self.japanese() / max(1, self.filled())
        return len(LATIN_WORD.findall(self.text)) / max(1, self.words)

    def repeated_ngrams(self) -> float:
        """How much of all n-grams the most frequent make up that occur more than once; as many as the root of the distinct ones."""
        n = NGRAM[self.language]
        if len(self.codes) < n:
            return 0.0
        hashes = np.zeros(len(self.codes) - n + 1, np.uint64)
        with np.errstate(over="ignore"):
            for shift in range(n):
                hashes *= PRIME
                hashes += self.codes[shift : shift + len(hashes)]
        hashes.sort()
        begins = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1]))
        counts = np.diff(begins, append=len(hashes))
        several = counts[counts > 1]
        most = min(len(several), int(np.sqrt(len(counts))))
        return float(np.partition(several, len(several) - most)[len(several) - most :].sum() / len(hashes)) if most else 0.0

    def run(self) -> int:
        """The longest run of one character."""
        changes = np.flatnonzero(self.codes[1:] != self.codes[:-1])
        return int(np.diff(changes, prepend=-1, append=len(self.codes) - 1).max()) if len(self.codes) else 0

    def starting(self, marks: tuple[str, ...]) -> float:
        """Share of lines that begin so."""
        return sum(line.startswith(marks) for line in self.lines) / len(self.lines)

    def ending(self, marks: tuple[str, ...]) -> float:
        """Share of lines that end so."""
        return sum(line.endswith(marks) for line in self.lines) / len(self.lines)

    def addresses(self) -> float:
        """Share of characters in URLs and e-mail addresses."""
        if "://" not in self.text and "@" not in self.text and "www." not in self.text:
            return 0.0
        return sum(len(found) for found in ADDRESS.findall(self.text)) / max(1, self.characters)


MEASURES: dict[str, Callable[[Numbers], float]] = {
    "characters": lambda it: it.characters,
    "sentences": lambda it: len(it.lines),
    "repeated_lines": lambda it: it.repeated[0] / len(it.lines),
    "repeated_line_characters": lambda it: it.repeated[1] / max(1, it.characters),
    "repeated_ngrams": Numbers.repeated_ngrams,
    "run": Numbers.run,
    "script": Numbers.script,
    "hiragana": lambda it: float(it.kinds[HIRAGANA] / max(1, it.japanese())),
    "katakana": lambda it: float(it.kinds[KATAKANA] / max(1, it.japanese())),
    "symbols": lambda it: float((it.kinds[SYMBOL] + it.kinds[STOP]) / max(1, it.characters)),
    "bullets": lambda it: it.starting(BULLETS),
    "ellipses": lambda it: it.ending(ELLIPSES),
    "addresses": Numbers.addresses,
    "ended_lines": lambda it: it.ending(ENDS),
    "mean_sentence": lambda it: it.characters / len(it.lines),
    "mean_word": lambda it: it.filled() / max(1, it.words),
}


@functools.cache
def kind_table() -> NDArray[np.uint8]:
    """The kind of every character of the first plane (later planes: symbols, as its last one), and KANJI for those from the third on."""
    return np.array([*(_kind(chr(code)) for code in range(0x10000)), KANJI], np.uint8)


def _kind(char: str) -> int:
    if char in "\u3001\u3002":
        return STOP
    if char.isspace():
        return BLANK
    if "\u3041" <= char <= "\u309f":
        return HIRAGANA
    if char != "\u30fb" and ("\u30a1" <= char <= "\u30fe" or "\u31f0" <= char <= "\u31ff" or "\uff66" <= char <= "\uff9f"):
        return KATAKANA
    if char in "\u3005\u3006\u3007" or "\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff":
        return KANJI
    return LETTER if char.isalnum() else SYMBOL
