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
from kitae.text.streams import CheckedStream, check_ratio
from kitae.text.wikitext import plain
from kitae.text.wikiwords import ALWAYS_HIDDEN

CHUNK_BYTES = 1 << 18
LARGEST_BLOCK_BYTES = 1 << 20  # a bz2 block holds 900,000 bytes and hardly grows
MOST_UNPACKED_BYTES = 1 << 20  # at a time: a few hundred bytes can unpack to gigabytes
MOST_HEAD_BYTES = 1 << 24  # unpacked, of a first stream: Wikimedia's holds <siteinfo> alone
MOST_CHARACTERS = 1 << 23  # of a page; MediaWiki itself allows 2 MiB
STREAM = re.compile(rb"BZh[1-9]\x31\x41\x59\x26\x53\x59")  # a bz2 stream and its first block, which begins with the digits of pi
MOST_FIELD_CHARACTERS = 1 << 20  # of a title or another short field
FIELDS = {  # and what they stand in; a revision's other slots (<content>, since version 0.11) have a <text> of their own
    "title": "page", "ns": "page", "id": "page", "timestamp": "revision", "text": "revision", "model": "revision",
    "base": "siteinfo", "namespace": "namespaces",
}  # fmt: skip
BEGINNING = re.compile(rb"\s*+<(?:page[\s>]|/mediawiki)")
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
        except (LookupError, ValueError) as error:
            what = f"the encoding that the dump's first line names cannot be read: {error}"
            raise KitaeError(what, cure="bring the dump as Wikimedia publishes it, in UTF-8", where=self.where) from error

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        if not self.path and name != "mediawiki":
            what = f"the file is an {'HTML page' if name.lower() == 'html' else f'XML file of <{name}>'}, not a Wikipedia dump"
            cure = "download the file again" if name.lower() == "html" else 'format = "wikipedia" reads pages-articles.xml files'
            raise KitaeError(what, cure=cure, where=self.where)
        parent = self.path[-1] if self.path else ""
        if not self.path:
            self.site.language = attributes.get("xml:lang", self.site.language)
        self.path.append(name)
        if name == "page":
            if self.page or parent != "mediawiki":
                place = f"{self.where}, line {self.parser.CurrentLineNumber:,}"
                raise KitaeError(f"<page> stands in <{parent}>", cure="bring a complete copy of the file", where=place)
            self.page = _Page()
        elif name == "redirect" and self.page:
            self.page.redirect = True
        elif FIELDS.get(name) == parent:
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
        if name == "page":
            assert page is not None
            self.ready.append(page)
            self.page = None
        elif not self.path or FIELDS.get(name) != self.path[-1]:
            return
        elif page is None:
            self._about(name, "".join(self.words))
        elif name != "text":
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


class _Stream:
    """One bz2 stream of a dump, unpacked in pieces. Raises KitaeError for damage, and for one that bursts (as CheckedStream does)."""

    def __init__(self, data: mmap.mmap, start: int, path: Path, *, unpacked: int = 0) -> None:
        self._data, self._start, self._path = data, start, path
        self.end, self.unpacked = start, unpacked  # where it ends; bytes of the file unpacked so far

    def __iter__(self) -> Iterator[bytes]:
        stream, position = bz2.BZ2Decompressor(), self._start
        while not stream.eof:
            packed = b""
            if stream.needs_input:
                packed = self._data[position : position + CHUNK_BYTES]
                position += len(packed)
            piece = _unpack(stream, packed, MOST_UNPACKED_BYTES) if packed or not stream.needs_input else None
            if piece is None:
                raise _damaged(self._path, self._start)
            self.unpacked += len(piece)
            check_ratio(self.unpacked, len(self._data), str(self._path))
            yield piece
        self.end = position - len(stream.unused_data)


def _site(path: Path) -> Site | None:
    """What a multistream dump says of itself: None unless a second bz2 stream follows the first, without pages, and begins with one."""
    if not path.is_file() or not path.name.lower().endswith(".bz2") or not path.stat().st_size:
        return None
    pages = _Pages(str(path))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if not STREAM.match(data):
            return None
        first = _Stream(data, 0, path)
        for piece in first:
            pages.feed(piece)
            if pages.page or pages.ready or first.unpacked > MOST_HEAD_BYTES:
                return None
        beginning = _beginning(data, first.end)
        return pages.site if beginning and not beginning.endswith(b"/mediawiki") else None  # without pages, `read` says so


def _first(data: mmap.mmap, start: int) -> int:
    """Where the first stream at or behind a byte begins that begins with a page; the end of the data if there is none."""
    return next(
        (match.start() for match in STREAM.finditer(data, start) if not match.start() or _beginning(data, match.start())), len(data)
    )


def _damaged(path: Path, start: int) -> KitaeError:
    what = f"the archive is truncated or damaged in the bz2 stream that begins at byte {start:,}"
    return KitaeError(what, cure="bring a complete copy of the file", where=str(path))


def _beginning(data: mmap.mmap, start: int) -> bytes:
    """The beginning of a page, or of the dump's end, that a bz2 stream at this byte unpacks to; nothing if there is none."""
    unpacked = _unpack(bz2.BZ2Decompressor(), data[start : start + LARGEST_BLOCK_BYTES], 1 << 10) if STREAM.match(data, start) else None
    match = BEGINNING.match(unpacked) if unpacked else None
    return match[0] if match else b""


def _unpack(stream: bz2.BZ2Decompressor, packed: bytes, most: int) -> bytes | None:
    try:
        return stream.decompress(packed, most)
    except OSError:
        return None


def _truncated(where: str, page: _Page | None) -> KitaeError:
    inside = f" inside page {page.title!r}" if page and page.title else ""
    return KitaeError(f"the dump is truncated: it ends{inside} before </mediawiki>", cure="bring a complete copy of the file", where=where)


def _share(path: Path, columns: Columns, site: Site, low: int, high: int) -> Iterator[tuple[int, Found]]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start, end = _first(data, low), _first(data, high)  # a stream that begins with no page belongs to the share before it
        pages = _Pages(str(path), site)
        if start:
            pages.feed(b"<mediawiki>")
        last, unpacked = start < end == len(data), 0
        while start < end:
            stream, place = _Stream(data, start, path, unpacked=unpacked), 0
            pages.where = f"{path}, bz2 stream at byte {start:,}"
            for piece in stream:
                pages.feed(piece)
                for found in pages.found(columns.headings):
                    yield start * PAGES_A_STREAM + place, found
                    place += 1
            if pages.page is not None:
                what = "a bz2 stream ends inside a page, although the second stream of the file begins with one"
                raise KitaeError(what, cure="unpack the file, or bring the dump as Wikimedia packed it", where=pages.where)
            start, unpacked = stream.end, stream.unpacked
            if start > end or (start < len(data) and data[start : start + 3] != b"BZh"):  # what is no stream may have been one
                raise _damaged(path, start)
        if last:
            pages.feed(b"", last=True)
