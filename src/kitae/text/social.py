"""A cleaner for posts of social networks: marks of the platform, addresses, faces made of signs, and written laughter.

What it removes is no language; every word stays. (ku-nlp/text-cleaning, which this follows in what it cleans, turns each
character outside of a list into a full stop, and drops any word in brackets that has a Latin letter or a digit.)
A face or a laugh in the middle of a line ends a sentence, so a line end takes its place.
"""

import re
from collections.abc import Callable
from typing import Literal

from datatrove.data import Document

from kitae.text.steps import DocumentStep, count_change

Social = Literal["marks", "urls", "kaomoji", "laughter"]
SOCIAL: tuple[Social, ...] = ("urls", "marks", "kaomoji", "laughter")

JAPANESE = "\u3041-\u3096\u30a1-\u30fa\u30fc\u3005\u4e00-\u9fff"
# An address ends in no punctuation, and in a closing bracket only with its opening one; brackets around it go with it.
SIGN, LAST = r"[\w.~:/?#@!$&'*+,;=%|\\^`{}-]", r"[\w~/#@$&*+=%|{}-]"
ADDRESS = rf"(?:https?://|(?<![\w.])(?:www\.|pic\.twitter\.com/|t\.co/))(?:{SIGN}|\({SIGN}*+\))*(?:{LAST}\u2026?|\({SIGN}*+\)|\u2026)"
URL = re.compile(rf"\({ADDRESS}\)|\uff08{ADDRESS}\uff09|{ADDRESS}", re.ASCII)
REPOST = re.compile(r"(?:^|(?<=\s))RT\s*+[@\uff20][A-Za-z0-9_]{1,20}\s*+(?:[:\uff1a]\s*+)?", re.MULTILINE)
MENTION = re.compile(r"(?<![\w.@/])[@\uff20](?=\d{0,20}[A-Za-z_])[A-Za-z0-9_]{1,20}(?:\s*+[:\uff1a](?=\s))?(?![A-Za-z0-9_@.])")
TAG = r"(?<![A-Za-z0-9_&/#\uff03])[#\uff03](?=[^\W\d])\w++"
GAP = r"[ \t\u3000]"
# A line of tags, tags at its beginning, tags that may stand at its end: whether they do is asked of the whole row at once.
TAGS = re.compile(rf"^(?:{GAP}*+{TAG})++{GAP}*+$|^(?:{TAG}{GAP}++){{2,}}+|(?<!{GAP})(?P<row>(?:{GAP}++{TAG})++{GAP}*+)", re.MULTILINE)
TAG_SIGN = re.compile(rf"(?={TAG})[#\uff03]")

# A face: brackets with no two letters or digits in a row, one of STRONG at least, and two signs of a face in all.
STRONG = (
    "^_\u00b4`\uff40\u03c9\u0434\u0414\u2200\u25bd\u2207\u2267\u2266\uff9f\u309c\uffe3\u25a1\uff3e\uff3f\u30ee\u0398\u0437\u03b5"
    "\u76bf\u00b0"
)
SIGNS = STRONG + "*\uff0a;\uff1b'\"~\u30fb\uff65<>\uff1c\uff1e\u3000 -\u2212!?.o\u2229\u3064\u25cf\u25cb\u2022\u2606\u2605\u266a"
LETTERS = "TOoQqXxUu\uff34\uff2f\u30fc\u30ce\uff89\u4eba\u0413"
EYES = re.compile(r"([TOoQqXxu\uff34\uff2f])[_\uff3f]\1|([T\uff34])[-.]\2")
BOWED = re.compile(r"[_\uff3f \u3000]+")  # between two hands; without them a blank to be filled in
OPEN, CLOSE = "(\uff08", ")\uff09"
FACE = re.compile(
    rf"(?:(?P<hand>(?<![A-Za-z0-9])m)|[\u30fd\u30fe\u0669\u03a3\\\uff3c]|(?<![A-Za-z0-9])[od])?[{OPEN}]"
    rf"(?P<face>[{re.escape(SIGNS + LETTERS)}]{{2,12}})[{CLOSE}]"
    rf"(?:(?:[\u30ce\uff89\u309e\u30bb\uff7e\u5f61\u266a\u2606\u2605\uff61;\uff1b]|m(?![A-Za-z0-9])|[ob/\uff0f](?![A-Za-z0-9]))+(?![{JAPANESE}]))?"
)
W, END = "[w\uff57]", r"[\s\u3002!?\uff01\uff1f]"
LAUGH = re.compile(
    rf"[{OPEN}](?:\u7b11+|{W}{{2,}})[{CLOSE}]"  # in brackets
    rf"|(?<=[{JAPANESE}\u3001\u3002!?\uff01\uff1f)\uff09\u300d])(?:{W}{{2,}}(?![A-Za-z0-9.\uff21-\uff5a])|\uff57(?=$|{END}))"
    # Behind a particle it is a variable's name.
    rf"|(?<=[\u3041-\u3096\u30fc\u3002!?\uff01\uff1f])(?<![\u304c\u306f\u3092\u306e\u3068\u3067\u306b\u3082\u3078\u3084\u307f])w(?=$|{END})"
    rf"|(?<=[\u3041-\u3096\u30fc\u3002!?\uff01\uff1f])\u7b11+(?=$|\u3001|{END})"  # behind kana only: never the second half of a word
    rf"|^{W}{{2,}}(?=$|[\s{JAPANESE}])",
    re.MULTILINE,
)
NOTHING_FOLLOWS = re.compile("[ \t\u3000]*(?:$|[\u3002\u3001!?\uff01\uff1f.,\n])")
FULL_WIDTH = {code: chr(code + 0xFEE0) for code in range(0x21, 0x7F)}
PLACEHOLDER = re.compile(r"(<[A-Z]+>)")


class CleanSocial(DocumentStep):
    """Takes away what a social network added; how often, the document's `changes` say."""

    type = "formatter"
    name = "clean social text"

    def __init__(self, kinds: tuple[Social, ...]) -> None:
        super().__init__()
        self.kinds = kinds

    def change(self, document: Document) -> str | None:
        """Never drops; a document with nothing left is "empty" later."""
        for kind in SOCIAL:
            if kind in self.kinds:
                document.text, count = CLEANERS[kind](document.text)
                count_change(document, kind, count)
        return None


class FullWidth(DocumentStep):
    """ASCII signs in full width, as models expect whose corpora went through Juman. Blanks and marks such as <EMAIL> stay."""

    type = "formatter"
    name = "full width"

    def change(self, document: Document) -> str | None:
        """Never drops."""
        pieces = PLACEHOLDER.split(document.text)
        document.text = "".join(piece if place % 2 else piece.translate(FULL_WIDTH) for place, piece in enumerate(pieces))
        return None


def remove_urls(text: str) -> tuple[str, int]:
    """Without addresses of pages and pictures."""
    return URL.subn("", text)


def remove_marks(text: str) -> tuple[str, int]:
    """Without "RT @name:", @names and hashtags at a line's edges; a hashtag inside a line loses its sign and stays as a word."""
    total = 0
    for pattern in (REPOST, MENTION):
        text, count = pattern.subn("", text)
        total += count
    edges = [match for match in TAGS.finditer(text) if not match["row"] or text[match.end() : match.end() + 1] in ("", "\n")]
    starts, ends = [0, *(match.end() for match in edges)], [*(match.start() for match in edges), len(text)]
    text, count = TAG_SIGN.subn("", "".join([text[start:end] for start, end in zip(starts, ends)]))
    return text, total + len(edges) + count


def remove_kaomoji(text: str) -> tuple[str, int]:
    """Without faces in brackets and their arms."""
    return _cut(text, [match for match in FACE.finditer(text) if is_face(match["face"], hand=bool(match["hand"]))])


def remove_laughter(text: str) -> tuple[str, int]:
    """Without "www" and the sign for laughing, in brackets or behind a sentence."""
    return _cut(text, list(LAUGH.finditer(text)))


def is_face(inside: str, *, hand: bool = False) -> bool:
    """Whether what stands in brackets is a face; `hand`: a hand on the floor stands before them."""
    if BOWED.fullmatch(inside):
        return hand
    signs = [char for char in inside if char in SIGNS and char not in " \u3000o"]
    if EYES.fullmatch(inside):
        return True
    return len(signs) >= 2 and any(char in STRONG for char in inside) and not re.search(rf"[{LETTERS}]{{2}}", inside)


def _cut(text: str, matches: list[re.Match[str]]) -> tuple[str, int]:
    pieces, end = [], 0
    for match in matches:
        piece = text[end : match.start()]
        pieces += [piece, "" if NOTHING_FOLLOWS.match(text, match.end()) or not piece.strip() else "\n"]
        end = match.end()
    return "".join([*pieces, text[end:]]), len(matches)


CLEANERS: dict[Social, Callable[[str], tuple[str, int]]] = {
    "urls": remove_urls,
    "marks": remove_marks,
    "kaomoji": remove_kaomoji,
    "laughter": remove_laughter,
}
