"""The normalization policy of a corpus, applied to whole documents before sentences are split.

1. Line ends of every kind (CR, U+2028, U+2029, U+0085, form feed, vertical tab) become a line feed.
2. NFKC ("nfkc"), or nothing ("none"). A spacing voiced sound mark after kana (of either width) is first made a combining one, because NFKC
   would tear it off its letter. Accents, dakuten and letter case are never taken away; a decomposed dakuten is composed.
3. Controls, zero-width spaces, directional marks and lone surrogates are removed; the joiner of emoji (U+200D) stays.
4. Blanks of any kind, the ideographic space included, fold to one space; blanks around lines and empty lines go.
"""

import re
import unicodedata
from typing import Literal

Normalization = Literal["nfkc", "none"]

LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
SPACING_MARK = re.compile("(?<=[\u3041-\u30fe\uff66-\uff9d])([\u309b\u309c])")
COMBINING = {"\u309b": "\u3099", "\u309c": "\u309a"}
WIDE = (("\u3000", " "), *((chr(ord(letter) + 0xFEE0), letter) for letter in "()!?:;/%~,.&+-=0123456789"))
UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def normalize(text: str, policy: Normalization = "nfkc") -> str:
    """A document's text in normal form: lines of non-empty text without outer or repeated blanks."""
    if LINE_ENDS.search(text):
        text = LINE_ENDS.sub("\n", text)
    if policy == "nfkc":
        text = _nfkc(text)
    if UNSEEN.search(text):
        text = UNSEEN.sub("", text)
        if policy == "nfkc":  # a removed character may have stood between a letter and its mark
            text = _nfkc(text)
    lines = [" ".join(line.split()) for line in text.split("\n")]
    return "\n".join([line for line in lines if line])


def _nfkc(text: str) -> str:
    """NFKC of the text, ten times faster on Japanese: the common wide characters by `replace`, the rest only in lines that need it."""
    if unicodedata.is_normalized("NFKC", text):
        return text
    if "\u309b" in text or "\u309c" in text:
        text = SPACING_MARK.sub(lambda match: COMBINING[match[1]], text)
    for wide, narrow in WIDE:
        text = text.replace(wide, narrow)
    lines = text.split("\n")
    return "\n".join([line if unicodedata.is_normalized("NFKC", line) else unicodedata.normalize("NFKC", line) for line in lines])
