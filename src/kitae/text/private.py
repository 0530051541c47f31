"""Private data replaced by fixed marks: e-mail addresses, telephone numbers and card numbers.

Patterns, not a guarantee: names and postal addresses stay. They were chosen so that dates, postal codes, product numbers,
amounts and numbers in tables stay as they are: a telephone number's groups have the lengths of one and the same mark between
them; what could be another number (no marks and not mobile or free, blanks, neither a country nor a zero in front) has to
stand behind a word such as TEL, or behind a number that does. A card number has to have a network's beginning and length
and a right check digit (Luhn).
"""

import re
from collections.abc import Callable, Iterator
from typing import Literal

from datatrove.data import Document

from kitae.text.clean import normalize
from kitae.text.steps import DocumentStep, count_change

Private = Literal["email", "phone", "card"]
KINDS: tuple[Private, ...] = ("email", "card", "phone")  # in this order: a card number without its mark may look like a telephone number
SHOWN = 4096  # characters of a dropped document that are looked at: the report shows 80 of its beginning
MARKS: dict[Private, str] = {"email": "<EMAIL>", "phone": "<PHONE>", "card": "<CARD>"}

# Full-width letters, digits and signs, and the dashes that people type between digits; one character for one.
DASHES = (0x2010, 0x2011, 0x2013, 0x2014, 0x2015, 0x2212)
WIDE = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {0x3000: " "} | dict.fromkeys(DASHES, "-")
LONG_MARK = re.compile(r"(?<=\d)\u30fc(?=\d)")
ANY_WIDE = re.compile("[\uff01-\uff5e\u3000\u2010\u2011\u2013\u2014\u2015\u2212]|(?<=[0-9\uff10-\uff19])\u30fc")
BEFORE = r"(?<![0-9A-Za-z.+_-])"
AFTER = r"(?![0-9A-Za-z_]|[-.]\d)"
NO_AMOUNT = r"(?! ?(?:[\u5186%\u500b\u679a]|\u30c9\u30eb|\u4eba(?!\u4e8b)|\u4ef6(?!\u540d)))"
PICTURE = r"(?i:png|jpe?g|gif|webp|svg|bmp|pdf)"  # "icon@2x.png"
LOCAL = r"[A-Za-z0-9._%+-]"
EMAIL = re.compile(
    rf"(?<!{LOCAL})(?:[.-]{{2,}})?+([._]?[A-Za-z0-9]{LOCAL}{{0,63}}@(?:[A-Za-z0-9-]{{1,63}}\.){{1,8}}"
    rf"(?!{PICTURE}(?![A-Za-z0-9-]))[A-Za-z]{{2,24}})(?![A-Za-z0-9-])"
)
CARD = re.compile(rf"{BEFORE}(?:\d{{4}}([ -]?)\d{{4}}\1\d{{4}}\1\d{{4}}|3\d{{3}}([ -]?)\d{{6}}\2\d{{4,5}}){AFTER}")


def _domestic(mark: str) -> str:
    """Japanese numbers by the length of their area code: 03-1234-5678, 045-123-4567, 0123-45-6789, 01234-5-6789, 090-1234-5678."""
    area = rf"[346]{mark}\d{{4}}|[1-9]\d{mark}\d{{3}}|[1-9]\d\d{mark}\d\d|[1-9]\d{{3}}{mark}\d|[2-9]0{mark}\d{{4}}"
    return rf"0(?:(?:{area}){mark}\d{{4}}|(?:120|570|800|990){mark}\d{{2,4}}{mark}\d{{3,4}})"


CALLING = r"(?:20|27|3[0-469]|4[013-9]|5[1-8]|6[0-6]|7|8[1246]|9[0-58]|(?:2[1-69]|3[578]|42|5[09]|6[7-9]|8[058]|9[679])\d)"  # ITU E.164
AREA = r"[2-9]\d\d"  # and exchange, in North America
PLUS = r"(?<![0-9A-Za-z=+])(?<!= )\+"
LOCAL_SURE = "|".join(
    (
        _domestic("-"),
        r"\(0[1-9]\d{0,3}\) ?\d{1,4}[- ]?\d{4}",  # (03) 1234-5678
        r"0[1-9]\d{0,3}\(\d{1,4}\)\d{4}",  # 03(1234)5678
        r"0[5789]0(?:\d{8}| \d{4} \d{4})|0120\d{6}|0800\d{7}",  # 09012345678
        rf"\({AREA}\) ?{AREA}-\d{{4}}",  # (212) 555-0123
    )
)
SURE = (
    rf"{BEFORE}(?:{LOCAL_SURE})",
    rf"{PLUS}81[- .]?(?:\(0\)[- .]?)?[1-9]\d{{0,3}}(?P<japan>[- .])\d{{1,4}}(?P=japan)\d{{4}}",  # +81 3-1234-5678
    rf"{PLUS}1[- .]?(?:\({AREA}\)[- .]?|{AREA}[- .]){AREA}[- .]\d{{4}}",  # +1 212-555-0123
    rf"(?<!\w){PLUS}(?:81[1-9]\d{{8,9}}|{CALLING}[- .]?(?:\(\d{{1,4}}\)[- .]?)?\d{{1,4}}"
    rf"(?:(?P<world>[- .])\d{{2,4}}(?:(?P=world)\d{{2,4}})*+))",
)
PERHAPS = (
    rf"(?<![0-9_+])(?:{LOCAL_SURE}|{_domestic(' ')}|{_domestic('[.]')}|0[1-9]\d{{8}})",  # also in TEL03-..., TEL.03-...
    rf"(?<![0-9_+])(?:1[- .])?{AREA}(?P<america>[- .]){AREA}(?P=america)\d{{4}}",  # 212-555-0123
    rf"{PLUS}(?:1{AREA}{AREA}\d{{4}}|{CALLING}[- .]?(?:\(\d{{1,4}}\)[- .]?)?\d{{1,4}}+(?:[- .]?\d{{2,4}}+)*+)",
)
PHONE = re.compile(f"(?:{'|'.join(SURE)}|(?P<perhaps>{'|'.join(PERHAPS)})){AFTER}{NO_AMOUNT}")
# What makes a telephone number of what may be one, at the end of what stands before it: a cue, or another number and a joint.
CUE = re.compile(
    r"(?:(?<![A-Za-z])(?i:tel(?:ephone)?|fax|phone|mobile|cell|call|dial|contact|text)(?: (?i:me|us|him|her|them|at|on|is|number|no))*"
    "|\u96fb\u8a71|\u643a\u5e2f|\u30c6\u30eb|\u30c6\u30ec[\u30db\u30d5]\u30a9?\u30f3|\u30d5\u30a1\u30c3?\u30af\u30b9"
    "|\u30c0\u30a4\u30e4\u30eb|\u9023\u7d61\u5148|\u554f\u3044?\u5408\u308f?\u305b\u5148?|\u260e|\u260f)(?:\u756a\u53f7)?"
    "[:. #\u306f)\\]\u3011\u300d-]{0,4}\\Z"
)
CUE_CHARACTERS = 32
JOINT = re.compile(" ?(?:[/,\u3001;\u30fb]|or|and|\u307e\u305f\u306f|\u3068) ?")
NINE_DIGITS = re.compile(r"\d(?:[-() .]{0,2}\d){8}")  # what every number has; a quick look before the many patterns
PHONE_DIGITS = {True: range(9, 14), False: range(10, 12)}  # international (as long as any is), domestic
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

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Of dropped documents too, the beginnings that the report may show are masked, and put into `metadata["shown"]`."""
        for document in super().run(data, rank, world_size):
            if "dropped" in document.metadata:
                document.metadata["shown"] = self.masked(normalize(document.text[:SHOWN], "none"))
            yield document

    def change(self, document: Document) -> str | None:
        """Never drops."""
        for kind in KINDS:
            if kind in self.kinds:
                document.text, count = mask(document.text, kind)
                count_change(document, kind, count)
        return None

    def masked(self, text: str) -> str:
        """The text with the marks of all kinds."""
        for kind in KINDS:
            text = mask(text, kind)[0] if kind in self.kinds else text
        return text


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
    return [match.span(1) for match in EMAIL.finditer(text)] if "@" in text else []


def _cards(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in CARD.finditer(text) if is_card(_digits(match[0]))]


def _phones(text: str) -> list[tuple[int, int]]:
    if not NINE_DIGITS.search(text):
        return []
    found: list[tuple[int, int]] = []
    for match in PHONE.finditer(text):
        start = match.start()
        if len(_digits(match[0])) not in PHONE_DIGITS["+" in match[0]]:
            continue
        joined = bool(found) and JOINT.fullmatch(text, found[-1][1], start)
        if not match["perhaps"] or joined or CUE.search(text[max(0, start - CUE_CHARACTERS) : start]):
            found.append(match.span())
    return found


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def is_card(digits: str) -> bool:
    """Whether a network gives out such numbers and the check digit is right (ISO/IEC 7812-1, Luhn)."""
    if not CARDS.fullmatch(digits):
        return False
    total = sum(int(digit) if place % 2 == 0 else sum(divmod(2 * int(digit), 10)) for place, digit in enumerate(reversed(digits)))
    return total % 10 == 0


FINDERS: dict[Private, Callable[[str], list[tuple[int, int]]]] = {"email": _emails, "phone": _phones, "card": _cards}
