"""Wikipedia's `pages-articles` dumps, of any language: expat over the bytes, one page in memory at a time.

A multistream dump is many bz2 streams in one file, each of whole pages; `read_share` unpacks only the streams that begin in
its share of the bytes, and numbers documents by (byte of the stream, place in the stream), which no division changes.
"""

import bz2
import functools
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote
from xml.parsers import expat

from kitae.core.errors import KitaeError
from kitae.text.format import Columns, Found
from kitae.text.streams import CheckedStream
from kitae.text.wikitext import plain
from kitae.text.wikiwords import ALWAYS_HIDDEN

CHUNK_BYTES = 1 << 18
LARGEST_BLOCK_BYTES = 1 << 20  # a bz2 block holds 900,000 bytes and hardly grows
MOST_HEAD_BYTES = 1 << 24  # of a first stream: Wikimedia's holds <siteinfo> alone
MOST_CHARACTERS = 1 << 23  # of a page; MediaWiki itself allows 2 MiB
STREAM = re.compile(rb"BZh[1-9]\x31\x41\x59\x26\x53\x59")  # a bz2 stream and its first block, which begins with the digits of pi
MOST_FIELD_CHARACTERS = 1 << 20  # of a title or another short field
FIELDS = frozenset(("title", "ns", "id", "timestamp", "text", "base", "namespace", "model"))
PAGES_A_STREAM = 1 << 20  # far above what is in a stream (about 100), so that (stream, place) is one number
REDIRECT = re.compile(r"\s*+#(?:redirect|転送|リダイレクト|weiterleitung|redirection|重定向)\s*+:?\s*+\[\[", re.IGNORECASE)  # before 2009


@dataclass
class Site:
    """What a dump says of itself before its first page."""

    language: str = ""
    base: str = ""
    spaces: frozenset[str] = frozenset()
    """Names of all namespaces but the articles', in lower case."""
    hidden: frozenset[str] = ALWAYS_HIDDEN
    """Those of them whose links are not shown."""


@dataclass
class _Page:
    """A page while it is read."""

    title: str = ""
    ns: str = ""
    id: str = ""
    timestamp: str = ""
    model: str = ""
    redirect: bool = False
    giant: bool = False
    text: list[str] = field(default_factory=list)
    characters: int = 0


class _Pages:
    """expat's handlers: whole pages are put into `ready`."""

    def __init__(self, where: str, site: Site | None = None) -> None:
        self.where, self.site, self.ready = where, site or Site(), list[_Page]()
        self.path: list[str] = []
        self.page: _Page | None = None
        self.inside, self.words = "", list[str]()
        self.parser = parser = expat.ParserCreate()
        parser.buffer_text, parser.buffer_size = True, 1 << 16
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.StartDoctypeDeclHandler = self._doctype

    def feed(self, data: bytes, *, last: bool = False) -> None:
        """More bytes. Raises KitaeError that names line and byte of what is no XML, or no dump."""
        try:
            self.parser.Parse(data, last)
        except expat.ExpatError as error:
            reason = expat.errors.messages[error.code]
            place = f"{self.where}, line {error.lineno:,}, unpacked byte {max(0, self.parser.ErrorByteIndex):,}"
            if last:
                raise _truncated(place, self.page) from error
            raise KitaeError(f"this is not a Wikipedia dump: {reason}", cure="bring a complete copy of the file", where=place) from error

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        if not self.path and name != "mediawiki":
            what = f"the file is an {'HTML page' if name.lower() == 'html' else f'XML file of <{name}>'}, not a Wikipedia dump"
            cure = "download the file again" if name.lower() == "html" else 'format = "wikipedia" reads pages-articles.xml files'
            raise KitaeError(what, cure=cure, where=self.where)
        if not self.path:
            self.site.language = attributes.get("xml:lang", self.site.language)
        self.path.append(name)
        if name == "page":
            self.page = _Page()
        elif name == "redirect" and self.page:
            self.page.redirect = True
        elif name in FIELDS and not (name == "id" and self.path[-2] != "page"):
            self.inside, self.words = attributes.get("key", ""), []
            self.parser.CharacterDataHandler = self._text if name == "text" and self.page else self._word
        elif name == "revision" and self.page:
            self.page.text, self.page.characters, self.page.giant = [], 0, False  # of a page's history, the last one stays

    def _word(self, data: str) -> None:
        self.words.append(data)
        if sum(map(len, self.words)) > MOST_FIELD_CHARACTERS:
            where = f"{self.where}, line {self.parser.CurrentLineNumber}"
            raise KitaeError(f"<{self.path[-1]}> is longer than any title", cure="bring a complete copy of the file", where=where)

    def _text(self, data: str) -> None:
        assert self.page is not None
        self.page.characters += len(data)
        if self.page.characters <= MOST_CHARACTERS:
            self.page.text.append(data)
        else:
            self.page.giant, self.page.text = True, []

    def _end(self, name: str) -> None:
        name = self.path.pop()
        self.parser.CharacterDataHandler = None
        page = self.page
        if name not in FIELDS and name != "page":
            return
        if name == "page":
            assert page is not None
            self.ready.append(page)
            self.page = None
        elif page is None:
            self._about(name, "".join(self.words))
        elif name != "text" and not (name == "id" and self.path[-1] != "page"):
            setattr(page, name, "".join(self.words))

    def _about(self, name: str, words: str) -> None:
        if name == "base":
            self.site.base = words
        elif name == "namespace" and words:
            self.site.spaces |= {words.lower()}
            if self.inside in ("-2", "6", "14"):
                self.site.hidden |= {words.lower()}

    def _doctype(self, name: str, *_: object) -> None:
        page = name.lower() == "html"  # nor are entities, which only a document type can define, ever expanded
        what = "this is an HTML page, not a Wikipedia dump" if page else "a Wikipedia dump has no document type"
        raise KitaeError(what, cure="download the file again", where=f"{self.where}, line {self.parser.CurrentLineNumber}")

    def found(self, headings: bool) -> Iterator[Found]:
        """The pages that are complete, as documents."""
        ready, self.ready = self.ready, []
        return (_found(page, self.site, headings) for page in ready)


def read_dump(stream: CheckedStream, columns: Columns) -> Iterator[Found]:
    """Every page in order; other namespaces' pages, redirects, pages that are no wikitext and giant ones come as dropped.

    A page's text is its title, an empty line and its prose, or empty for a stub. Raises KitaeError for what is no dump or
    ends too early.
    """
    pages = _Pages(stream.where)
    while data := stream.read(CHUNK_BYTES):
        pages.feed(data)
        yield from pages.found(columns.headings)
    pages.feed(b"", last=True)


def read_share(path: Path, columns: Columns, share: int, shares: int) -> Iterator[tuple[int, Found]] | None:
    """(number, page) of the streams that begin in one of `shares` equal pieces of a multistream dump; None if it is none.

    The numbers grow through the file and do not depend on the division. Raises KitaeError as `read_dump` does.
    """
    site = _site(path)
    size = path.stat().st_size if site else 0
    return _share(path, columns, site, size * share // shares, size * (share + 1) // shares) if site else None


def _found(page: _Page, site: Site, headings: bool) -> Found:
    metadata = {"title": page.title, "date": page.timestamp, "language": site.language}
    if site.base:
        metadata["url"] = site.base.rpartition("/")[0] + "/" + quote(page.title.replace(" ", "_"), safe="/:,()!*@$;~'")
    text = "".join(page.text)
    drop = None
    if page.ns not in ("", "0") or (not page.ns and page.title.partition(":")[0].lower() in site.spaces):
        drop = "namespace"
    elif page.redirect or REDIRECT.match(text):
        drop = "redirect"
    elif page.model not in ("", "wikitext"):
        drop = "model"
    elif page.giant:
        drop = "giant"
    if drop:
        return Found(page.title, page.id or None, drop, metadata)
    return Found(functools.partial(_document, page.title, text, site.hidden, headings), page.id or None, None, metadata)


def _document(title: str, text: str, hidden: frozenset[str], headings: bool) -> str:
    body = plain(text, hidden=hidden, headings=headings)
    return f"{title}\n\n{body}\n" if body and body != title else ""


def _site(path: Path) -> Site | None:
    """What a multistream dump says of itself: None unless a second bz2 stream follows the first and begins with a page."""
    if not path.is_file() or not path.name.lower().endswith(".bz2") or not path.stat().st_size:
        return None
    pages, stream, position = _Pages(str(path)), bz2.BZ2Decompressor(), 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        while not stream.eof:
            packed = data[position : position + CHUNK_BYTES]
            unpacked = _unpack(stream, packed) if packed else None
            if unpacked is None or position > MOST_HEAD_BYTES:
                return None
            position += len(packed)
            pages.feed(unpacked)
        return pages.site if _begins(data, position - len(stream.unused_data)) else None


def _first(data: mmap.mmap, start: int) -> int:
    """Where the first stream at or behind a byte begins; the end of the data if there is none."""
    return next((match.start() for match in STREAM.finditer(data, start) if not match.start() or _begins(data, match.start())), len(data))


def _damaged(path: Path, start: int) -> KitaeError:
    what = f"the archive is truncated or damaged in the bz2 stream that begins at byte {start:,}"
    return KitaeError(what, cure="bring a complete copy of the file", where=str(path))


def _begins(data: mmap.mmap, start: int) -> bool:
    """Whether a bz2 stream that begins here unpacks to the beginning of a page, or to the dump's end."""
    unpacked = _unpack(bz2.BZ2Decompressor(), data[start : start + LARGEST_BLOCK_BYTES], 1 << 10) if STREAM.match(data, start) else None
    return unpacked is not None and unpacked.lstrip().startswith((b"<page>", b"</mediawiki>"))


def _unpack(stream: bz2.BZ2Decompressor, packed: bytes, most: int = -1) -> bytes | None:
    try:
        return stream.decompress(packed, most)
    except OSError:
        return None


def _truncated(where: str, page: _Page | None) -> KitaeError:
    inside = f" inside page {page.title!r}" if page and page.title else ""
    return KitaeError(f"the dump is truncated: it ends{inside} before </mediawiki>", cure="bring a complete copy of the file", where=where)


def _share(path: Path, columns: Columns, site: Site, low: int, high: int) -> Iterator[tuple[int, Found]]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = first = _first(data, low)
        pages = _Pages(str(path), site)
        if start:
            pages.feed(b"<mediawiki>")
        while start < high:
            stream, place, position = bz2.BZ2Decompressor(), 0, start
            pages.where = f"{path}, bz2 stream at byte {start:,}"
            while not stream.eof:
                packed = data[position : position + CHUNK_BYTES]
                unpacked = _unpack(stream, packed) if packed else None
                if unpacked is None:
                    raise _damaged(path, start)
                position += len(packed)
                pages.feed(unpacked)
                for found in pages.found(columns.headings):
                    yield start * PAGES_A_STREAM + place, found
                    place += 1
            if pages.page is not None:
                what = "a bz2 stream ends inside a page, although the second stream of the file begins with one"
                raise KitaeError(what, cure="unpack the file, or bring the dump as Wikimedia packed it", where=pages.where)
            start = position - len(stream.unused_data)
            if start < len(data) and data[start : start + 3] != b"BZh":  # as text/packed.py: what is no stream may have been one
                raise _damaged(path, start)
        if first < high and start < len(data) and _first(data, high) != start:
            raise _damaged(path, start)  # the share that it belongs to would pass it over
        if first < high and start == len(data):
            pages.feed(b"", last=True)
