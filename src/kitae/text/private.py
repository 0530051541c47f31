"""Private data replaced by fixed marks: e-mail addresses, telephone numbers and card numbers.

Patterns, not a guarantee: names and postal addresses stay. They were chosen so that dates, postal codes, product numbers
and numbers in tables stay as they are: a Japanese number without separators has to be a mobile or a free one, or to
stand behind a word such as TEL; a card number has to have a network's beginning and length and a right check digit (Luhn).
"""

import re
from collections.abc import Callable
from typing import Literal

from datatrove.data import Document

from kitae.text.steps import DocumentStep, count_change

Private = Literal["email", "phone", "card"]
MARKS: dict[Private, str] = {"email": "<EMAIL>", "phone": "<PHONE>", "card": "<CARD>"}

# Full-width letters, digits and signs, and the dashes that people type between digits; one character for one.
DASHES = (0x2010, 0x2011, 0x2013, 0x2212)
WIDE = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {0x3000: " "} | dict.fromkeys(DASHES, "-")
LONG_MARK = re.compile(r"(?<=\d)\u30fc(?=\d)")
ANY_WIDE = re.compile("[\uff01-\uff5e\u3000\u2010\u2011\u2013\u2212]|(?<=[0-9\uff10-\uff19])\u30fc")
BEFORE = r"(?<![0-9A-Za-z.+_-])"
AFTER = r"(?![0-9A-Za-z_]|[-.]\d)"
CUE = r"(?:(?i:tel|fax|phone|mobile|call)|\u96fb\u8a71|\u643a\u5e2f|\u30c6\u30eb|\u756a\u53f7|\u260e|\u260f)[:.\uff1a \u306f]{0,3}"
EMAIL = re.compile(r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])")
CARD = re.compile(rf"{BEFORE}(?:\d{{4}}([ -]?)\d{{4}}\1\d{{4}}\1\d{{4}}|3\d{{3}}([ -]?)\d{{6}}\2\d{{4,5}}){AFTER}")
PHONES = (
    rf"{BEFORE}0[1-9]\d{{0,3}}-\d{{1,4}}-\d{{4}}{AFTER}",  # 03-1234-5678
    rf"{BEFORE}\(0[1-9]\d{{0,3}}\) ?\d{{1,4}}[- ]?\d{{4}}{AFTER}",  # (03) 1234-5678
    rf"{BEFORE}0[1-9]\d{{0,3}}\(\d{{1,4}}\)\d{{4}}{AFTER}",  # 03(1234)5678
    rf"{BEFORE}0(?:120|570|800|990)-\d{{2,3}}-\d{{3,4}}{AFTER}",  # 0120-123-456
    rf"{BEFORE}(?:0[5789]0\d{{8}}|0120\d{{6}}|0800\d{{7}}){AFTER}",  # 09012345678
    rf"(?<![0-9A-Za-z])\+[1-9]\d{{0,2}}(?:[- .]?\(?\d{{1,4}}\)?){{2,5}}{AFTER}(?![\u5186%\u4eba\u500b])",  # +81 3 1234 5678
    rf"{BEFORE}\([2-9]\d\d\) ?[2-9]\d\d-\d{{4}}{AFTER}",  # (212) 555-0123
    rf"{BEFORE}(?:1-)?[2-9]\d\d([-.])[2-9]\d\d\1\d{{4}}{AFTER}",  # 212-555-0123
)
PHONE = re.compile("|".join(f"(?:{one})" for one in PHONES))
CUED = re.compile(rf"{CUE}(\+?\(?0?\d{{1,4}}\)?[-. ]?\d{{1,4}}[-. ]?\d{{3,4}}){AFTER}")
NINE_DIGITS = re.compile(r"\d(?:[-() .]{0,2}\d){8}")  # what every number has; a quick look before the many patterns
PHONE_DIGITS = {True: range(9, 16), False: range(10, 12)}  # international (E.164), domestic
CARDS = re.compile(
    r"4\d{15}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}"
    r"|6(?:011|5\d\d)\d{12}"
)


class MaskPrivate(DocumentStep):
    """Puts marks in the place of private data; how many of each kind, the document's `changes` say."""

    type = "formatter"
    name = "mask private data"

    def __init__(self, kinds: tuple[Private, ...]) -> None:
        super().__init__()
        self.kinds = kinds

    def change(self, document: Document) -> str | None:
        """Never drops."""
        for kind in ("email", "card", "phone"):  # a card number without its mark may look like a telephone number
            if kind in self.kinds:
                document.text, count = mask(document.text, kind)
                count_change(document, kind, count)
        return None


def mask(text: str, kind: Private) -> tuple[str, int]:
    """The text with the marks of one kind, and how many there are."""
    narrow = LONG_MARK.sub("-", text.translate(WIDE)) if ANY_WIDE.search(text) else text
    spans = FINDERS[kind](narrow)
    pieces, end = [], 0
    for start, stop in spans:
        pieces += [text[end:start], MARKS[kind]]
        end = stop
    return "".join([*pieces, text[end:]]), len(spans)


def _emails(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in EMAIL.finditer(text)] if "@" in text else []


def _cards(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in CARD.finditer(text) if is_card(_digits(match[0]))]


def _phones(text: str) -> list[tuple[int, int]]:
    if not NINE_DIGITS.search(text):
        return []
    found = [match.span() for match in PHONE.finditer(text) if len(_digits(match[0])) in PHONE_DIGITS["+" in match[0]]]
    for match in CUED.finditer(text):
        start, stop = match.span(1)
        if len(_digits(match[1])) in PHONE_DIGITS["+" in match[1]] and all(stop <= left or right <= start for left, right in found):
            found.append((start, stop))
    return sorted(found)


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def is_card(digits: str) -> bool:
    """Whether a network gives out such numbers and the check digit is right (ISO/IEC 7812-1, Luhn)."""
    if not CARDS.fullmatch(digits):
        return False
    total = sum(int(digit) if place % 2 == 0 else sum(divmod(2 * int(digit), 10)) for place, digit in enumerate(reversed(digits)))
    return total % 10 == 0


FINDERS: dict[Private, Callable[[str], list[tuple[int, int]]]] = {"email": _emails, "phone": _phones, "card": _cards}
