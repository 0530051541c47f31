"""What a reader of documents is: the contract between a format and everything behind it.

A reader turns one text file, one stream of bytes, or a whole path into documents, in order, holding one document at a time.
Files, folders and archives are opened by `archives.members` for all readers but those of whole paths.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kitae.text.streams import LONGEST_LINE, CheckedStream, TextStream

SHOWN_CHARACTERS = 1000
Metadata = Mapping[str, str | float | tuple[str, ...]]
NOTHING: Metadata = {}


class Columns(NamedTuple):
    """Which columns of a table hold the text and (optionally) the documents' ids; what else a source tells its reader."""

    text: str = "text"
    id: str | None = None
    headings: bool = False
    """Keep headings as lines (Wikipedia dumps)."""
    filters: tuple[str, ...] = ()
    """The columns that the source's filters go by."""


class Found(NamedTuple):
    """A document as its format gives it."""

    text: str | Callable[[], str]
    """The raw text, or what makes it: a costly conversion happens only in the process that keeps the document.

    A text made late that comes out empty is a "stub". Only a `functools.partial` of a module's function travels to another process;
    any other function is called where the source is read.
    """
    key: str | None = None
    """Its own id, if it has one."""
    drop: str | None = None
    """Why it is to be dropped at once; "" and None keep it."""
    metadata: Metadata = NOTHING
    """What else the format knows (title, date, language, url, ...); sources can be filtered by it."""
    replaced: int = 0
    """How many U+FFFD stand in it for bytes that are no text."""
    bad: str = ""
    """Where the first such bytes of its file stand."""

    @property
    def content(self) -> str:
        """The raw text, made now if need be."""
        return self.text if isinstance(self.text, str) else self.text()


def bounded(text: str, key: str | None = None, metadata: Metadata = NOTHING) -> Found:
    """A document; one that would take too much memory further on is "oversized"."""
    return Found(text, key, None, metadata) if len(text) <= LONGEST_LINE else oversized(text, key)


def oversized(text: str, key: str | None = None) -> Found:
    """A document that is dropped for its length; its beginning is kept for the report."""
    return Found(text[:SHOWN_CHARACTERS], key, "oversized")


def whole(stream: TextStream) -> str:
    """All that a stream holds, as far as `bounded` looks: of one that is longer, LONGEST_LINE + 1 characters."""
    text = stream.read(LONGEST_LINE + 1)
    if len(text) > LONGEST_LINE:
        while stream.read(LONGEST_LINE):  # damage further on is still an error
            pass
    return text


@dataclass(frozen=True, kw_only=True)
class Format:
    """One row of the table of formats: exactly one of the three readers."""

    text: Callable[[TextStream, Columns], Iterator[Found]] | None = None
    """Reads decoded lines; the source's `encoding` decides how."""
    binary: Callable[[CheckedStream, Columns], Iterator[Found]] | None = None
    """Reads unpacked bytes, for formats that know their own encoding."""
    path: Callable[[Path, Columns], Iterator[Found]] | None = None
    """Reads the source's path itself, for formats that are not streams."""
    encoding: str = "utf-8"
    """What its files are encoded in when the source does not say it."""
    endings: tuple[str, ...] = ()
    """How its files are called: others in a folder or an archive are passed over. () reads every file."""
    share: Callable[[Path, Columns, int, int], Iterator[tuple[int, Found]] | None] | None = None
    """For formats that can be divided: (number, document) of share i of n of a path, without reading the other shares.

    Numbers grow in the order of the path's documents and do not depend on n. None where this path cannot be divided.
    """

    def __post_init__(self) -> None:
        if sum(reader is not None for reader in (self.text, self.binary, self.path)) != 1:
            raise ValueError("a format has exactly one reader")
