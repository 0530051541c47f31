"""Text of an HTML page, and XML in pieces, safe from entity bombs.

HTML is scanned here, in time linear in the page: the standard library's parser reads the rest of the page again for every
tag, comment or declaration that has no end (10,000 times `<a ` take it 9 seconds), and stops at some declarations.
"""

import codecs
import re
from collections import Counter
from collections.abc import Callable, Sequence
from html import unescape
from xml.parsers import expat

from kitae.core.errors import KitaeError
from kitae.text.streams import CheckedStream

BLOCKS = frozenset(("address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details", "div", "dl", "dt"))
BLOCKS |= {"fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main"}
BLOCKS |= {"nav", "ol", "p", "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul"}
CELLS = frozenset(("td", "th"))
UNSEEN = frozenset(("head", "ix:exclude", "ix:header", "noscript", "rp", "rt", "script", "style", "svg", "template"))
OTHER = r"/(?P<end>[a-zA-Z][^\s/>]*+)[^>]*+>|[!?/]"
TAG = re.compile(rf"<(?:(?P<start>[a-zA-Z][^\s/>]*+)(?P<rest>(?:[^>=]++|=\s*+(?:\"[^\"]*+\"|'[^']*+')|=)*+)>|{OTHER})")
UNQUOTED = re.compile(rf"<(?:(?P<start>[a-zA-Z][^\s/>]*+)(?P<rest>[^>]*+)>|{OTHER})")
ATTRIBUTE = re.compile(r"([^\s/=>\"'][^\s/=>]*+)(?:\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s>\"'][^\s>]*+)))?")
CODE = {tag: re.compile(rf"</{tag}(?=[\s/>])", re.IGNORECASE) for tag in ("script", "style")}  # their content is no markup
BREAK, CELL = "\0", "\1"  # end a line and a table's cell; taken out of what is read
TAKEN_OUT = {ord(BREAK): None, ord(CELL): None}
WIDE = "\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef"  # Japanese letters and marks: a line break between them is no blank
WRAPPED = re.compile(rf"(?<=[{WIDE}])[ \t\r]*\n\s*(?=[{WIDE}])")
LONGEST_DOCUMENT = 1 << 28
DECLARED = re.compile(rb"(?:\xef\xbb\xbf)?<\?xml\s[^<>]*?\sencoding\s*=\s*[\"']([A-Za-z][\w.:-]*)")
KNOWN_TO_EXPAT = frozenset(("utf-8", "utf-16", "utf-16-le", "utf-16-be", "iso8859-1", "ascii"))


def attributes(rest: str) -> dict[str, str | None]:
    """What stands behind a tag's name: values by name in small letters, None where there is only a name."""
    found: dict[str, str | None] = {}
    for match in ATTRIBUTE.finditer(rest):
        value = next((value for value in match.groups()[1:] if value is not None), None)
        found[match[1].lower()] = None if value is None else unescape(value)
    return found


class PageText:
    """Gathers the text of a page: a line for every block and every row of a table (its cells joined by blanks), nothing hidden.

    Readings over characters (<rt>), scripts, styles and Inline XBRL's header are left out.
    """

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.ended = False
        self._unseen: list[str] = []
        self._names: Counter[str] = Counter()  # of what is in `_unseen`
        self._tables: list[bool] = []  # for every open table, whether one of its cells is open
        self._cells = 0  # how many of them are

    @property
    def hidden(self) -> bool:
        """Whether what comes now is not shown."""
        return bool(self._unseen)

    def read(self, html: str) -> None:
        """A whole page. A "<" that begins nothing is text, as is all that begins behind the last ">"."""
        last = {mark: html.rfind(mark) for mark in (">", "-->", "]]>")}
        pattern, begin, place = TAG, 0, html.find("<")
        while 0 <= place < last[">"]:
            match = pattern.match(html, place)
            if match is None and pattern is TAG and html[place + 1].isascii() and html[place + 1].isalpha():
                pattern = UNQUOTED  # a quote swallows the page: from here on quotes are letters
            elif match is None:
                place = html.find("<", place + 1)
            else:
                if place > begin:
                    self.handle_data(unescape(html[begin:place]))
                begin = match.end()
                if match["start"]:
                    begin = self._started(match["start"].lower(), match["rest"], html, begin)
                elif match["end"]:
                    self.handle_endtag(match["end"].lower())
                else:
                    mark = "-->" if html.startswith("<!--", place) else "]]>" if html.startswith("<![CDATA[", place) else ">"
                    mark = mark if last[mark] >= place + 2 else ">"
                    begin = html.index(mark, place + 2) + len(mark)
                place = html.find("<", begin)
        if begin < len(html):
            self.handle_data(unescape(html[begin:]))

    def _started(self, tag: str, rest: str, html: str, begin: int) -> int:
        """Where to go on behind a start tag."""
        if rest.endswith("/"):
            if tag in BLOCKS and tag not in CELLS:
                self._line()
            return begin
        self.handle_starttag(tag, rest)
        if tag in CODE:
            end = CODE[tag].search(html, begin)
            return end.start() if end else len(html)
        return begin

    def handle_starttag(self, tag: str, rest: str) -> None:
        """A tag and what stands in it behind the name."""
        if tag == "body" or (self._unseen and self._unseen[-1] in ("rt", "rp") and tag in ("rt", "rp", "rb")):
            self._unseen.clear()  # </head>, </rt> and </rp> may be left out
            self._names.clear()
        if tag in UNSEEN:
            self._unseen.append(tag)
            self._names[tag] += 1
        elif tag in CELLS:
            self._cell(True)
        elif tag in BLOCKS:
            if tag == "tr":
                self._cell(False)  # </td> may be left out
            self._line()
            if tag == "table":
                self._tables.append(False)

    def handle_endtag(self, tag: str) -> None:
        """An end tag, perhaps a stray one."""
        while tag == "ruby" and self._unseen and self._unseen[-1] in ("rt", "rp"):
            self._names[self._unseen.pop()] -= 1
        if tag in UNSEEN:
            while self._names[tag]:
                name = self._unseen.pop()
                self._names[name] -= 1
                if name == tag:
                    break
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
        """Text between tags."""
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
    page.read(html)
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
        data = self._stream.read(1 << 16)
        decode = self._decoder(data)
        parser = expat.ParserCreate("utf-8" if decode else None)
        parser.buffer_text = True
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self._characters
        parser.EntityDeclHandler = self._entity
        try:
            while data:
                parser.Parse(decode(data).encode() if decode else data, False)
                data = self._stream.read(1 << 16)
            parser.Parse(decode(b"", True).encode() if decode else b"", True)
        except expat.ExpatError as error:
            what = f"this is not whole XML: {expat.ErrorString(error.code)}"
            where = f"{self.where}, line {error.lineno}"
            raise KitaeError(what, cure="bring a complete copy of the file, or correct the format", where=where) from error
        except UnicodeError as error:
            what = f"the file is not in the encoding that its first line names: {error}"
            raise KitaeError(what, cure="correct that line, or bring a complete copy of the file", where=self.where) from error

    def _decoder(self, head: bytes) -> Callable[..., str] | None:
        """What decodes the file where expat cannot: Shift_JIS and the like."""
        declared = DECLARED.match(head)
        if not declared:
            return None
        name = declared[1].decode()
        try:
            "a".encode(name)  # "hex" and its kind are found, but give no text
            codec = codecs.lookup(name)
        except (LookupError, UnicodeError) as error:
            cure = 'correct encoding="..." in the first line of the file'
            raise KitaeError(f'the file says that its encoding is "{name[:40]}", which is unknown', cure=cure, where=self.where) from error
        return None if codec.name in KNOWN_TO_EXPAT else codecs.getincrementaldecoder(codec.name)().decode

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
