"""Rule-based sentence splitting for Japanese and English. Every line end is a boundary; what follows works inside a line.

Japanese: a sentence ends after a run of terminators outside of brackets and quotes. An unclosed bracket counts as none.
A quote that ends with a terminator goes on (the particle "to" often follows), unless the next quote opens.
English: a terminator, closing quotes and a blank before a capital or a digit, outside of parentheses, and not after an
abbreviation, an initial or a number; before a small letter only behind a common word, as in letters and posts.
"""

import re
from collections.abc import Callable

OPENING = "\u300c\u300e\uff08(\u3010\u300a\u3008\u3014\uff3b[\u201c"
CLOSING = "\u300d\u300f\uff09)\u3011\u300b\u3009\u3015\uff3d]\u201d"
QUOTE_OPENING = "\u300c\u300e"
QUOTE_CLOSING = "\u300d\u300f"
JAPANESE = re.compile("[\u3041-\u30ff\u4e00-\u9fff]")
TERMINATORS = "\u3002\uff61\uff01\uff1f!?"
BRACKETS = re.escape(OPENING + CLOSING)
FLAT = "|".join(f"{re.escape(opening)}[^{BRACKETS}]*{re.escape(closing)}" for opening, closing in zip(OPENING, CLOSING))
# A pair of brackets without others inside, a run of terminators, a Western full stop behind Japanese script, a lone bracket.
TOKENS = re.compile(f"{FLAT}|[{TERMINATORS}]+|(?<=[\u3041-\u30ff\u4e00-\u9fff])[.\uff0e](?![A-Za-z0-9])|[{BRACKETS}]")
# What may follow a terminator inside a sentence: particles and punctuation go on with it.
GOES_ON = re.compile(
    "[\u3001,\uff0c\u30fb\u306e\u3092]|\u3068(?!\u3053\u308d|\u3066\u3082|\u306f\u3044\u3048|\u306b\u304b\u304f|\u304d|\u308a\u308f\u3051)|\u3063\u3066|\u306a\u3069|\u3068\u3044\u3046"
)
CONTINUED_MARK = re.compile("[A-Za-z0-9\u30fb\u3068\u306e\u3092\u304c\u306b\u3067\u3082\u3084\u3001,\uff0c]|\u306f(?!\u3044)")
NAME_MARK = re.compile("(?<=[A-Za-z][!?])[\u30a1-\u30fe]")  # behind the mark of a name such as Yahoo!


def split_japanese(text: str) -> list[str]:
    """Sentences of Japanese text, without outer blanks, none empty. Lines without any kana or kanji are split as English."""
    sentences: list[str] = []
    for line in text.split("\n"):
        if not JAPANESE.search(line):
            sentences += split_english(line) if ". " in line else [line]
        else:
            sentences += _cut(line, _japanese_ends(line))
    return [stripped for sentence in sentences if (stripped := sentence.strip())]


def _cut(line: str, ends: list[int]) -> list[str]:
    starts = [0, *ends]
    return [line[start:end] for start, end in zip(starts, [*ends, len(line)])]


def _japanese_ends(line: str) -> list[int]:
    """Positions after each sentence of a line. Frames hold the ends found inside each bracket that is still open."""
    frames: list[tuple[str, list[int]]] = [("", [])]
    for match in TOKENS.finditer(line):
        token, end = match[0], match.end()
        if token[0] in OPENING:
            start = end - len(token)
            if token[0] in QUOTE_OPENING and start and line[start - 1] in QUOTE_CLOSING and line[start - 2] in TERMINATORS:
                frames[-1][1].append(start)
            if len(token) == 1:
                frames.append((CLOSING[OPENING.index(token)], []))
        elif token in CLOSING:
            _close(frames, token, end)
        elif not _goes_on(line, token, end):
            frames[-1][1].append(end)
    return frames[0][1] if len(frames) == 1 else sorted({end for _, ends in frames for end in ends})


def _close(frames: list[tuple[str, list[int]]], token: str, end: int) -> None:
    """Close the innermost fitting bracket and forget the ends within; a stray one belongs to the sentence that just ended."""
    for depth in range(len(frames) - 1, 0, -1):
        if frames[depth][0] == token:
            del frames[depth:]
            return
    if frames[-1][1] and frames[-1][1][-1] == end - 1:
        frames[-1][1][-1] = end


def _goes_on(line: str, token: str, end: int) -> bool:
    if token[-1] in "\u3002\uff61.\uff0e":
        return bool(GOES_ON.match(line, end))
    return bool(CONTINUED_MARK.match(line, end) or NAME_MARK.match(line, end))


CANDIDATE = re.compile(r"""([.!?]+)(["'\u201d\u2019)\]]*)\s+(?=\S)""")
BEGINS = re.compile(r"""["'\u201c\u2018(\[]*[A-Z0-9]""")
BEGINS_SMALL = re.compile(r"[a-z]")
LAST_WORD = re.compile(r"(\S+)$")
NEVER = re.compile(
    r"mr|mrs|ms|dr|drs|prof|st|sen|rep|gen|gov|lt|col|capt|sgt|rev|hon|mt|ft|vs|no|nos|fig|figs|eq|vol|ed|eds|pp|p|cf|al|approx|messrs"
    r"|e\.g|i\.e|viz|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec|mon|tue|wed|thu|fri|pvt|p\.?s"
)
PERHAPS = re.compile(r"inc|ltd|co|corp|jr|sr|etc|(\w\.)+\w|ph\.d|bros|dept")
STARTERS = re.compile(
    r"""["'\u201c\u2018(\[]*(The|A|An|It|He|She|They|We|I|You|This|That|These|Those|In|On|At|But|And|If|As|For|His|Her|When|There|However)\b"""
)
# Before a small letter only a common word ends a sentence: no unit, no Latin, no part of a name, nothing capital.
COMMON_WORD = re.compile(r"[a-z'\u2019-]*[aeiouy][a-z'\u2019]+")
EXCLAMATION = re.compile(r"alas|lo|oh?|ah|ha|eh|aye|hey|yes|no|say", re.IGNORECASE)
SHORTENED = re.compile(
    r"etc|incl|excl|esp|dept|est|ca|op|cit|var|cv|spp?|subsp|ssp|max|min|temp|tel|ext|avg|resp|misc|orig|abbr|lit|alt|ref|refs|ver|sec"
    r"|mins?|secs?|hrs?|yrs?|mos?|lbs?|oz|in|cm|mm|km|kg|ml|av|rd|blvd|univ|assn|intl|natl|feat|trans|illus|repr|rev|aka|esq|ind|mil|adj|adv"
)


def split_english(text: str) -> list[str]:
    """Sentences of English text, without outer blanks, none empty."""
    sentences: list[str] = []
    for line in text.split("\n"):
        ends: list[int] = []
        start = 0
        for match in CANDIDATE.finditer(line):
            if _ends_english(line, start, match):
                ends.append(match.end())
                start = match.end()
        sentences += _cut(line, ends)
    return [stripped for sentence in sentences if (stripped := sentence.strip())]


def _ends_english(line: str, start: int, match: re.Match[str]) -> bool:
    before = line[start : match.start()]
    if before.count("(") > before.count(")") + match[2].count(")"):
        return False
    last = LAST_WORD.search(before)
    if not BEGINS.match(line, match.end()):
        return (
            bool(BEGINS_SMALL.match(line, match.end())) and not match[2] and _ends_before_small(before, last[1] if last else "", match[1])
        )
    if match[1] != ".":
        return True
    word = last[1].lstrip("\"'\u201c\u2018([").lower() if last else ""
    if NEVER.fullmatch(word) or (len(word) == 1 and word.isalpha() and word != "i"):
        return False
    if PERHAPS.fullmatch(word):
        return bool(STARTERS.match(line, match.end()))
    return not (word.isdigit() and not before[: -len(word)].strip())  # "1. First item": the number belongs to it


def _ends_before_small(before: str, word: str, mark: str) -> bool:
    """People who do not write capitals: ends such as "is it? i think so" and "a nice place. we liked it"."""
    if mark[0] == ".":
        return mark == "." and bool(COMMON_WORD.fullmatch(word)) and not (SHORTENED.fullmatch(word) or NEVER.fullmatch(word))
    alone = before.strip() == word  # "Oh! what a day"
    return not alone and not (mark == "!" and (word[:1].isupper() or EXCLAMATION.fullmatch(word)))  # "Yahoo! is", "but, alas! it"


SPLITTERS: dict[str, Callable[[str], list[str]]] = {"ja": split_japanese, "en": split_english}
