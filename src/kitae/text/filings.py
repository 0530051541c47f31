"""Companies' reports: EDINET's tables (CSV export), XBRL instances, and Inline XBRL pages of EDINET and TDnet.

Of all three the text blocks are read: elements whose name ends in "TextBlock". A document is one file. Blocks that stand
word for word inside another block of the file are left out: the taxonomy tags notes both as a whole and in parts.
"""

import re
from collections.abc import Iterator, Sequence

from kitae.core.errors import KitaeError
from kitae.text.format import Columns, Found, oversized, whole
from kitae.text.markup import PageText, XmlReader, attributes, html_text, plain
from kitae.text.streams import LONGEST_LINE, CheckedStream, TextStream
from kitae.text.tables import need_column, rows_of

ELEMENT, VALUE = "\u8981\u7d20ID", "\u5024"  # headings of EDINET's table: element, value
FACTS = {  # what else is told of a report, by the element's name without its prefix
    "FilerNameInJapaneseDEI": "company",
    "CompanyName": "company",  # TDnet's
    "DocumentTitleCoverPage": "title",
    "DocumentName": "title",  # TDnet's
    "CurrentPeriodEndDateDEI": "date",
    "FilingDate": "date",  # TDnet's
}
DAY = re.compile(r"\d{4}-\d\d-\d\d")
TAG = re.compile(r"</?[A-Za-z][^<>]*>")
DEEPEST = 16  # elements in elements whose text is kept: each keeps a copy
NO_BLOCK = "no text block"


def read_edinet(stream: TextStream, columns: Columns) -> Iterator[Found]:
    """A tab-separated table of EDINET: the values of its text blocks, in order."""
    blocks: list[str] = []
    size = 0
    metadata: dict[str, str] = {}
    for number, row in rows_of(stream, "tsv"):
        where = f"{stream.where}, line {number}"
        if ELEMENT not in row:
            cure = 'use format = "tsv" for other tables; say encoding = "utf-8" (or what it is) if the table was converted'
            raise KitaeError(f'this is not a table of EDINET: it has no column "{ELEMENT}"', cure=cure, where=stream.where)
        name, value = _local(row[ELEMENT]), need_column(row, VALUE, where)
        if name.endswith("TextBlock"):
            size += len(value)
            if size <= LONGEST_LINE or not blocks:
                blocks.append(html_text(value) if TAG.search(value) else value.strip())
        elif name in FACTS:
            _tell(metadata, name, value)
    yield _report(blocks, metadata) if size <= LONGEST_LINE else oversized(blocks[0])


def read_xbrl(stream: CheckedStream, columns: Columns) -> Iterator[Found]:
    """An XBRL instance: its text blocks, whose values are escaped HTML."""
    instance = _Instance(stream)
    instance.run()
    blocks, metadata = instance.blocks, instance.metadata
    if not blocks:
        yield _report(blocks, metadata)
        return
    yield Found(lambda: _joined([html_text(block) for block in blocks]), metadata=metadata)


def read_ixbrl(stream: TextStream, columns: Columns) -> Iterator[Found]:
    """A page with Inline XBRL: its text blocks, continued ones put together. A page without any (TDnet's qualitative.htm): all of it."""
    text = whole(stream)
    if len(text) > LONGEST_LINE:
        yield oversized(text)
        return
    page = _InlinePage()
    page.read(text)
    if not page.ended:
        raise KitaeError("the page does not end: there is no </html>", cure="bring a complete copy of the file", where=stream.where)
    if not page.tagged:
        yield Found(plain(page.pieces), metadata=page.metadata)
    else:
        yield _report(page.blocks(stream.where), page.metadata)


class _Instance(XmlReader):
    """Text blocks as they stand in an XBRL instance, and a few facts."""

    def __init__(self, stream: CheckedStream) -> None:
        super().__init__(stream)
        self.blocks: list[str] = []
        self.metadata: dict[str, str] = {}

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = _local(tag)
        if name.endswith("TextBlock") or name in FACTS:
            self.gather()

    def end(self, tag: str) -> None:
        name = _local(tag)
        if name.endswith("TextBlock"):
            self.blocks.append(self.gathered())
        elif name in FACTS:
            _tell(self.metadata, name, self.gathered())


class _Part:
    """An ix:nonNumeric or ix:continuation element: where its text begins and what it goes on with."""

    def __init__(self, tag: str, attributes: dict[str, str | None], start: int) -> None:
        self.tag, self.start = tag, start
        self.name = _local(attributes.get("name") or "")
        self.key, self.next = attributes.get("id"), attributes.get("continuedat")
        self.pieces: list[str] = []


class _InlinePage(PageText):
    """A page's text, with the parts that Inline XBRL marks. The parser gives names of tags and attributes in small letters."""

    PARTS = ("ix:nonnumeric", "ix:continuation")

    def __init__(self) -> None:
        super().__init__()
        self.tagged = False
        self.metadata: dict[str, str] = {}
        self._open: list[_Part] = []
        self._parts: list[_Part] = []

    def handle_starttag(self, tag: str, rest: str) -> None:
        super().handle_starttag(tag, rest)
        self.tagged = self.tagged or tag.startswith("ix:")
        if tag in self.PARTS:
            part = _Part(tag, attributes(rest), len(self.pieces))
            self._open.append(part)
            if len(self._open) <= DEEPEST:
                self._parts.append(part)

    def _started(self, tag: str, rest: str, html: str, begin: int) -> int:
        begin = super()._started(tag, rest, html, begin)
        if rest.endswith("/") and tag in self.PARTS:  # <ix:continuation id="..."/>: nothing goes on there
            self.handle_starttag(tag, rest)
            self.handle_endtag(tag)
        return begin

    def handle_endtag(self, tag: str) -> None:
        if tag in self.PARTS and self._open and self._open[-1].tag == tag:
            part = self._open.pop()
            if len(self._open) < DEEPEST:
                part.pieces = part.pieces or self.pieces[part.start :]
            if part.name in FACTS:
                _tell(self.metadata, part.name, plain(part.pieces))
        super().handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        super().handle_data(data)
        if self.hidden and self._open and self._open[-1].name in FACTS:  # facts may stand in the hidden header
            self._open[-1].pieces.append(data)

    def blocks(self, where: str) -> list[str]:
        """The text blocks in their order. Raises KitaeError for a continuation that is missing."""
        continued = {part.key: part for part in self._parts if part.tag == "ix:continuation"}
        found = []
        for part in self._parts:
            if not part.name.endswith("TextBlock"):
                continue
            pieces, following, passed = list(part.pieces), part.next, set[str]()
            while following is not None:
                if following not in continued or following in passed:
                    what = f'a text block goes on at "{following}", which is not on this page'
                    raise KitaeError(what, cure="bring a complete copy of the file", where=where)
                passed.add(following)
                pieces += ["\0", *continued[following].pieces]
                following = continued[following].next
            found.append(plain(pieces))
        return found


def _report(blocks: Sequence[str], metadata: dict[str, str]) -> Found:
    text = _joined(blocks)
    return Found(text, drop=None if text else NO_BLOCK, metadata=metadata)


def _joined(blocks: Sequence[str]) -> str:
    """Blocks, each beginning a line, without those that stand inside another one."""
    kept: list[str] = []
    whole = "\0".join(blocks)
    for number, block in enumerate(blocks):
        if block and (whole.count(block) == 1 or _first_whole(blocks, number)):
            kept.append(block)
    return "\n".join(kept)


def _first_whole(blocks: Sequence[str], number: int) -> bool:
    """Whether a block is part of no other, or the first of equal ones."""
    this = blocks[number]
    return not any(this in other and (len(other) > len(this) or place < number) for place, other in enumerate(blocks) if place != number)


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def _tell(metadata: dict[str, str], name: str, value: str) -> None:
    key, value = FACTS[name], " ".join(value.split())
    if value and (key != "date" or DAY.fullmatch(value)):
        metadata.setdefault(key, value)
