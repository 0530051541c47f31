"""Rule-based sentence splitting for Japanese and English. Every line end is a boundary; what follows works inside a line.

Japanese: a sentence ends after a run of terminators outside of brackets and quotes. An unclosed bracket counts as none.
A quote that ends with a terminator goes on (the particle "to" often follows), unless the next quote opens.
English: a terminator, closing quotes and a blank before a capital or a digit, outside of parentheses, and not after an
abbreviation, an initial or a number; before a small letter only behind a common word, as in letters and posts.
"""

import collections
import re
from collections.abc import Callable

OPENING = "\u300c\u300e\uff08(\u3010\u300a\u3008\u3014\uff3b[\u201c"
CLOSING = "\u300d\u300f\uff09)\u3011\u300b\u3009\u3015\uff3d]\u201d"
QUOTE = '"'  # opens and closes
QUOTE_OPENING = "\u300c\u300e"
QUOTE_CLOSING = "\u300d\u300f"
JAPANESE = re.compile("[\u3041-\u30ff\u4e00-\u9fff]")
TERMINATORS = "\u3002\uff61\uff01\uff1f!?"
BRACKETS = re.escape(OPENING + CLOSING) + QUOTE
FLAT = "|".join(f"{re.escape(opening)}[^{BRACKETS}]*+{re.escape(closing)}" for opening, closing in zip(OPENING, CLOSING))
# A pair of brackets without others inside, a run of terminators, a Western full stop (none of an ellipsis) behind Japanese
# script, a lone bracket.
TOKENS = re.compile(f"{FLAT}|[{TERMINATORS}]+|(?<=[\u3041-\u30ff\u4e00-\u9fff])[.\uff0e](?![A-Za-z0-9.\uff0e])|[{BRACKETS}]")
# What may follow a terminator inside a sentence: particles and punctuation go on with it, as in "Yahoo!no", unless they
# are the beginning of a word that begins sentences, as "no" of nochi, nonbiri, nominarazu (in books that is most of them).
NO = "\u306e(?![\u3061\u3093\u308c\u3073\u3069\u308d\u307c\u308a\u305e\u305d\u3063]|\u307f\u306a\u3089)"
GOES_ON = re.compile(
    f"[\u3001,\uff0c\u30fb\u3092]|{NO}|\u3063\u3066|\u306a\u3069"
    # A noun or a verb of saying follows "to"; but "to douji ni", "to iu no wa" and any other word in kana begin a sentence.
    "|\u3068(?!\u540c\u6642|[\u8a00\u4e91](?:\u3046[\u306e\u3088\u3053\u308f]|\u3063\u3066)|\u601d\u3046\u3068|[\u3041-\u3096\u3001,\uff0c])"
    "|\u3068(?:\u3044\u3046(?![\u306e\u3088\u3053\u308f])|\u3044\u3063\u305f|\u306f(?![\u3044\u8a00\u4e91])|\u3057\u3066(?!\u3082)|\u3057\u305f|\u3068\u3082|\u304b(?!\u304f)"
    "|\u3082(?![\u3042\u304b\u306b\u3059\u3046]))"
)
CONTINUED_MARK = re.compile(
    f"[A-Za-z\u30fb\u3092\u3001,\uff0c]|(?<=[A-Za-z0-9][!?\uff01\uff1f])[0-9]|{NO}"
    "|\u3068(?!\u3066\u3082|\u3053\u308d|\u306b\u304b\u304f|\u308a\u3042\u3048|\u3042\u308b|\u3082\u304b\u304f"
    "|\u3082\u3042\u308c|\u3046\u3068\u3046|\u304d\u3069|\u306f\u3044\u3048|\u308a\u308f\u3051|\u3093\u3067\u3082|\u304f\u306b"
    "|\u306a\u308a\u306e)|\u304c(?!\u3093\u3070|\u3063\u304b|\u3093\u304c)|\u306b(?!\u3063\u3053|\u3053\u306b|\u3084\u306b|\u3084\u308a)"
    "|\u3082(?!\u3046|\u3057|\u3063\u3068|\u3061\u308d|\u306f\u3084|\u3068\u3082)|\u3084(?![\u3063\u306f\u3070\u3081\u304c\u308b\u308c])|\u306f(?![\u3044\u3058\u3084\u3063\u306f\u3042])"
    # "dewa" and "demo" begin sentences, but not behind a name.
    "|\u3067(?!\u304d|\u3059\u304b|\u3059\u304c\u3001|\u3059\u3051|[\u306f\u3082])|(?<=[A-Za-z\u30a1-\u30fe][!\uff01])\u3067[\u306f\u3082]"
)
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
    opened: collections.Counter[str] = collections.Counter()  # how many of each are open: a stray one looks no further
    for match in TOKENS.finditer(line):
        token, end = match[0], match.end()
        if token in CLOSING or (token == QUOTE and opened[QUOTE]):
            _close(frames, opened, token, end)
        elif token[0] in OPENING or token[0] == QUOTE:
            start = end - len(token)
            if token[0] in QUOTE_OPENING and start and line[start - 1] in QUOTE_CLOSING and line[start - 2] in TERMINATORS:
                frames[-1][1].append(start)
            if len(token) == 1:
                closing = QUOTE if token == QUOTE else CLOSING[OPENING.index(token)]
                frames.append((closing, []))
                opened[closing] += 1
        elif not _goes_on(line, token, end):
            frames[-1][1].append(end)
    return frames[0][1] if len(frames) == 1 else sorted({end for _, ends in frames for end in ends})


def _close(frames: list[tuple[str, list[int]]], opened: collections.Counter[str], token: str, end: int) -> None:
    """Close the innermost fitting bracket and forget the ends within; a stray one belongs to the sentence that just ended."""
    if opened[token]:
        closed = ""
        while closed != token:
            closed, _ = frames.pop()
            opened[closed] -= 1
    elif frames[-1][1] and frames[-1][1][-1] == end - 1:
        frames[-1][1][-1] = end


def _goes_on(line: str, token: str, end: int) -> bool:
    if token[-1] in "\u3002\uff61.\uff0e":
        return bool(GOES_ON.match(line, end))
    return bool(CONTINUED_MARK.match(line, end) or NAME_MARK.match(line, end))


CANDIDATE = re.compile(r"""(?<![.!?])([.!?]++)(["'\u201d\u2019)\]]*+)\s++(?=\S)""")
BEGINNING = re.compile(r"""(["'\u201c\u2018(\[]*+)(.)""")
NEVER = re.compile(
    r"mr|mrs|ms|dr|drs|prof|st|sen|rep|gen|gov|lt|col|capt|sgt|rev|hon|mt|ft|vs|nos|fig|figs|eq|vol|ed|eds|pp|p|cf|al|approx|messrs"
    r"|e\.g|i\.e|viz|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec|mon|tue|wed|thu|fri|pvt|p\.?s"
)
PERHAPS = re.compile(r"inc|ltd|co|corp|jr|sr|etc|(\w\.)+\w|ph\.d|bros|dept")
STARTERS = re.compile(
    r"""["'\u201c\u2018(\[]*(The|A|An|It|He|She|They|We|I|You|This|That|These|Those|In|On|At|But|And|If|As|For|His|Her|When|There|However)\b"""
)
# "Plan B. The end" and not "J. A. Smith", "X. He, Y. Li" or "J. In Kim": the word goes on in small letters.
AFTER_LETTER = re.compile(STARTERS.pattern + r"(?=['\u2019 ] ?[a-z])")
PARENTHESIS = re.compile("[()]")
WORD = 100  # characters to look back for the word before an end; no abbreviation is that long
BEFORE_NUMBER = re.compile(r"no|tel|fax|ext|ca|ver|sec|max|min|temp|avg|ch|chap|para|refs?|cit|op")
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
        pairs = _parentheses(line)
        closes = -1
        for match in CANDIDATE.finditer(line):
            while pairs and pairs[-1][0] < match.start():
                closes = max(closes, pairs.pop()[1])
            if closes < match.end(2) and _ends_english(line, ends[-1] if ends else 0, match):
                ends.append(match.end())
        sentences += _cut(line, ends)
    return [stripped for sentence in sentences if (stripped := sentence.strip())]


def _parentheses(line: str) -> list[tuple[int, int]]:
    """Where each pair opens and closes, the last first. One without its partner counts as none."""
    opened: list[int] = []
    pairs = []
    for match in PARENTHESIS.finditer(line):
        if match[0] == "(":
            opened.append(match.start())
        elif opened:
            pairs.append((opened.pop(), match.start()))
    return sorted(pairs, reverse=True)


def _ends_english(line: str, start: int, match: re.Match[str]) -> bool:
    before = line[max(start, match.start() - WORD) : match.start()]
    last = before.split()[-1] if before and not before[-1].isspace() else ""
    beginning = BEGINNING.match(line, match.end())
    first = beginning[2] if beginning else ""
    if not (first.isupper() or first.isdecimal()):
        small = beginning is not None and not beginning[1] and "a" <= first <= "z"
        return small and not match[2] and _ends_before_small(before, last, match[1])
    if match[1] != ".":
        return True
    word = last.lstrip("\"'\u201c\u2018([").lower()
    if NEVER.fullmatch(word) or (first.isdecimal() and BEFORE_NUMBER.fullmatch(word)):
        return False
    if len(word) == 1 and word.isalpha() and word != "i":
        return bool(AFTER_LETTER.match(line, match.end()))
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
