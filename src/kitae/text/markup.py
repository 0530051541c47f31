"""HTML and XML with the standard library's parsers: text of a page, and XML in pieces, safe from entity bombs."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from xml.parsers import expat

from kitae.core.errors import KitaeError
from kitae.text.streams import CheckedStream

BLOCKS = frozenset(("address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details", "div", "dl", "dt"))
BLOCKS |= {"fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main"}
BLOCKS |= {"nav", "ol", "p", "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul"}
CELLS = frozenset(("td", "th"))
UNSEEN = frozenset(("head", "ix:exclude", "ix:header", "noscript", "rp", "rt", "script", "style", "svg", "template"))
BREAK, CELL = "\0", "\1"  # end a line and a table's cell; taken out of what is read
TAKEN_OUT = {ord(BREAK): None, ord(CELL): None}
WIDE = "\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef"  # Japanese letters and marks: a line break between them is no blank
WRAPPED = re.compile(rf"(?<=[{WIDE}])[ \t\r]*\n\s*(?=[{WIDE}])")
LONGEST_DOCUMENT = 1 << 28


class PageText(HTMLParser):
    """Gathers the text of a page: a line for every block and every row of a table (its cells joined by blanks), nothing hidden.

    Readings over characters (<rt>), scripts, styles and Inline XBRL's header are left out.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.ended = False
        self._unseen: list[str] = []
        self._tables: list[bool] = []  # for every open table, whether one of its cells is open
        self._cells = 0  # how many of them are

    @property
    def hidden(self) -> bool:
        """Whether what comes now is not shown."""
        return bool(self._unseen)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "body" or (self._unseen and self._unseen[-1] in ("rt", "rp") and tag in ("rt", "rp", "rb")):
            self._unseen.clear()  # </head>, </rt> and </rp> may be left out
        if tag in UNSEEN:
            self._unseen.append(tag)
        elif tag in CELLS:
            self._cell(True)
        elif tag in BLOCKS:
            if tag == "tr":
                self._cell(False)  # </td> may be left out
            self._line()
            if tag == "table":
                self._tables.append(False)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in BLOCKS and tag not in CELLS:
            self._line()

    def handle_endtag(self, tag: str) -> None:
        if tag == "ruby" and self.hidden:
            self._unseen = [name for name in self._unseen if name not in ("rt", "rp")]
        if tag in UNSEEN:
            if tag in self._unseen:
                while self._unseen.pop() != tag:
                    pass
        elif tag in CELLS:
            self._cell(False)
        elif tag in BLOCKS:
            if tag in ("tr", "table"):
                self._cell(False)
            if tag == "table" and self._tables:
                self._tables.pop()
            self._line()
        elif tag == "html":
            self.ended = True

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.pieces.append(data.translate(TAKEN_OUT))

    def _cell(self, opens: bool) -> None:
        if self._tables:
            self._cells += opens - self._tables[-1]
            self._tables[-1] = opens
        self._break(CELL)

    def _line(self) -> None:
        self._break(CELL if self._cells else BREAK)

    def _break(self, mark: str) -> None:
        if not self.hidden:
            self.pieces.append(mark)


def plain(pieces: Sequence[str]) -> str:
    """What PageText gathered as lines: blanks folded, empty lines dropped."""
    text = WRAPPED.sub("", "".join(pieces))
    lines = (" ".join(line.split()) for line in text.replace(CELL, " ").split(BREAK))
    return "\n".join(line for line in lines if line)


def html_text(html: str) -> str:
    """The text of a page or of a part of one."""
    page = PageText()
    page.feed(html)
    page.close()
    return plain(page.pieces)


class XmlReader:
    """Feeds a stream to an XML parser; a subclass says what happens where an element starts and ends.

    `gather` begins to keep characters, `gathered` gives them and stops. Raises KitaeError for what is not whole XML, for entities
    of the file's own (they may burst the memory), and for a document beyond LONGEST_DOCUMENT characters.
    """

    def __init__(self, stream: CheckedStream) -> None:
        self.where = stream.where
        self._stream = stream
        self._pieces: list[str] | None = None
        self._length = 0
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self.start
        self._parser.EndElementHandler = self.end
        self._parser.CharacterDataHandler = self._characters
        self._parser.EntityDeclHandler = self._entity

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins."""

    def end(self, tag: str) -> None:
        """An element ends."""

    def gather(self) -> None:
        """Keep the characters from here on."""
        self._pieces = []

    def gathered(self) -> str:
        """The characters since `gather`."""
        text = "".join(self._pieces or ())
        self._pieces = None
        return text

    def run(self) -> None:
        """Read the stream to its end."""
        try:
            while data := self._stream.read(1 << 16):
                self._parser.Parse(data, False)
            self._parser.Parse(b"", True)
        except expat.ExpatError as error:
            what = f"this is not whole XML: {expat.ErrorString(error.code)}"
            where = f"{self.where}, line {error.lineno}"
            raise KitaeError(what, cure="bring a complete copy of the file, or correct the format", where=where) from error

    def _characters(self, data: str) -> None:
        if self._pieces is not None:
            self._pieces.append(data)
            self._length += len(data)
            if self._length > LONGEST_DOCUMENT:
                what = f"the text is longer than {LONGEST_DOCUMENT:,} characters"
                raise KitaeError(what, cure="split the file", where=self.where)

    def _entity(self, name: str, *declaration: object) -> None:
        what = f'the file declares an entity of its own ("{name[:40]}"): this may be an attack on the memory'
        raise KitaeError(what, cure="do not use this file, or take the declaration out", where=self.where)
