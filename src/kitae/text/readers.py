"""The formats that documents are read from. Adding one is a function (see `format.py`) and one row in READERS.

Installed packages add formats of their own by an entry point in the group "kitae.readers" whose object is a `Format`;
they cannot replace a row of READERS.
"""

import logging
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.extensions import extension, names
from kitae.text.aozora import read_aozora
from kitae.text.archives import members
from kitae.text.columnar import read_hf, read_parquet
from kitae.text.crawls import read_cirrussearch, read_oscar
from kitae.text.filings import read_edinet, read_ixbrl, read_xbrl
from kitae.text.format import Columns, Format, Found, bounded, oversized, whole
from kitae.text.kyoto import read_kyoto
from kitae.text.mending import MARK, REPLACEMENT
from kitae.text.streams import LONGEST_LINE, Errors, TextStream
from kitae.text.tables import find_column, json_object, need_column, need_text, rows_of
from kitae.text.wikidump import read_dump, read_share

GROUP = "kitae.readers"
log = logging.getLogger(__name__)


def read_text(stream: TextStream, columns: Columns) -> Iterator[Found]:
    """Blank lines between documents; one sentence or one paragraph a line, as in CC-100. One without an end in sight is "oversized"."""
    lines: list[str] = []
    size = 0
    for line in iter(partial(stream.readline, LONGEST_LINE), ""):
        if not line.isspace():
            size += len(line)
            if size <= LONGEST_LINE:
                lines.append(line)
        elif size:
            yield _document(lines, size)
            lines, size = [], 0
    if size:
        yield _document(lines, size)


def _document(lines: list[str], size: int) -> Found:
    return Found("".join(lines)) if size <= LONGEST_LINE else oversized("".join(lines[:1]))


def read_paragraphs(stream: TextStream, columns: Columns) -> Iterator[Found]:
    """Every line that is not blank is a document."""
    for line in iter(partial(stream.readline, LONGEST_LINE), ""):
        if len(line) == LONGEST_LINE and not line.endswith("\n"):
            while (rest := stream.readline(LONGEST_LINE)) and not rest.endswith("\n"):
                pass
            yield oversized(line)
        elif not line.isspace():
            yield Found(line)


def read_file(stream: TextStream, columns: Columns) -> Iterator[Found]:
    """One document a file."""
    yield bounded(whole(stream))


def read_table(kind: str) -> Callable[[TextStream, Columns], Iterator[Found]]:
    """A reader of one column of CSV, TSV or JSON Lines. The other columns are the document's metadata: the row itself, no copy."""

    def read(stream: TextStream, columns: Columns) -> Iterator[Found]:
        inner = [name for name in columns.filters if "." in name]
        for number, row in rows_of(stream, kind):
            where = f"{stream.where}, line {number}"
            key = need_column(row, columns.id, where) if columns.id else None
            text = need_text(row, columns.text, where)
            row.update({name: value for name in inner if (value := find_column(row, name, where)) is not None})
            yield bounded(text, key, row)

    return read


OPENING = re.compile(r"<doc\b[^>]*>\s*$")
NEXT = re.compile(r'<doc id="[^>]*>\s*$')
ATTRIBUTE = re.compile(r'\b(id|title)="([^"]*)"')


def read_wikiextractor(stream: TextStream, columns: Columns) -> Iterator[Found]:
    """WikiExtractor's output, `<doc ...>` blocks or --json lines; an article whose body is only its title is a "stub"."""
    body: list[str] | None = None
    size = 0
    attributes: dict[str, str] = {}
    for number, line in enumerate(stream, start=1):
        where = f"{stream.where}, line {number}"
        if body is not None:
            if line.rstrip() == "</doc>":
                yield _article("".join(body), attributes.get("title")) if size <= LONGEST_LINE else oversized("".join(body[:1]))
                body = None
            elif NEXT.match(line):
                what = "a <doc ...> block begins before the last one was closed"
                raise KitaeError(what, cure="bring a complete copy, or put the missing </doc> in", where=where)
            else:
                size += len(line)
                if size <= LONGEST_LINE:
                    body.append(line)
        elif OPENING.match(line):
            attributes, body, size = dict(ATTRIBUTE.findall(line)), [], 0
        elif line.startswith("{"):
            row = json_object(line, where)
            text, title = row.get("text"), row.get("title")
            if not isinstance(text, str):
                raise KitaeError('there is no key "text"', cure=f"the keys are {', '.join(row)}", where=where)
            yield _article(text, title if isinstance(title, str) else None)
        elif not line.isspace():
            raise KitaeError("this line is neither a <doc ...> block nor JSON", cure='use format = "text" for plain text', where=where)
    if body is not None:
        raise KitaeError("the last <doc ...> block is not closed: the file is truncated", cure="bring a complete copy", where=stream.where)


def _article(text: str, title: str | None) -> Found:
    lines = [line for line in text.split("\n") if not line.isspace() and line]
    stub = not lines or (len(lines) == 1 and (title is None or lines[0].strip() == title.strip()))
    return Found(text, None, "stub") if stub else bounded(text)


READERS: dict[str, Format] = {
    "text": Format(text=read_text),
    "paragraphs": Format(text=read_paragraphs),
    "files": Format(text=read_file),
    "wikiextractor": Format(text=read_wikiextractor),
    "wikipedia": Format(binary=read_dump, share=read_share),
    "cirrussearch": Format(text=read_cirrussearch),
    "oscar": Format(text=read_oscar),
    "aozora": Format(text=read_aozora, encoding="cp932", endings=(".txt",)),
    "edinet": Format(text=read_edinet, encoding="utf-16", endings=(".csv", ".tsv")),
    "xbrl": Format(binary=read_xbrl, endings=(".xbrl",)),
    "ixbrl": Format(text=read_ixbrl, endings=(".htm", ".html", ".xhtml")),
    "kyoto": Format(binary=read_kyoto, endings=(".xml",)),
    "jsonl": Format(text=read_table("jsonl")),
    "csv": Format(text=read_table("csv")),
    "tsv": Format(text=read_table("tsv")),
    "parquet": Format(path=read_parquet),
    "hf": Format(path=read_hf),
}


def known() -> tuple[str, ...]:
    """The names of all formats: those of READERS, then those of installed packages. Nothing is imported."""
    return (*READERS, *sorted(set(names(GROUP)) - set(READERS)))


def find_format(name: str) -> Format:
    """The format of a name. Raises KitaeError for an unknown name, and for a package's that cannot be used."""
    found = READERS.get(name) or extension(GROUP, name, Format, key="format")
    if found is None:
        raise KitaeError(f'format = "{name}" is unknown', cure=did_you_mean(name, known()))
    return found


def read(
    path: Path,
    format: str,
    *,
    columns: Columns = Columns(),  # noqa: B008 - immutable
    encoding: str | None = None,
    errors: Errors = "fail",
    report: bool = True,
) -> Iterator[Found]:
    """All documents of a file, folder or archive in a fixed order. Raises KitaeError for a path without any document.

    `report` logs every file with bytes that are no text, unless `errors` lets them stop the run.
    """
    chosen, empty = _checked(path, format, encoding, errors), True
    for found in _documents(path, chosen, columns, encoding, errors, report):
        empty = False
        yield found
    if empty:
        raise KitaeError(f'no document found as format = "{format}"', cure="check the format and the file", where=str(path))


def _checked(path: Path, format: str, encoding: str | None, errors: Errors) -> Format:
    """The format of a name. Raises KitaeError for settings that do not go with it."""
    chosen = find_format(format)
    if encoding is not None and chosen.text is None:
        cure = "take `encoding` away"
        raise KitaeError(f'encoding = "{encoding}": files of format = "{format}" say their encoding themselves', cure=cure, where=str(path))
    if errors != "fail" and chosen.text is None:
        what = f'errors = "{errors}" does not go with format = "{format}"'
        raise KitaeError(what, cure="leave it out: the format knows its own encoding", where=str(path))
    return chosen


def share(
    path: Path,
    format: str,
    part: int,
    parts: int,
    *,
    columns: Columns,
    encoding: str | None = None,
    errors: Errors = "fail",
) -> Iterator[tuple[int, Found]] | None:
    """(number, document) of one part of a path that is read without the others; None where format or path cannot be divided.

    Raises KitaeError as `read` does for settings that do not go with the format.
    """
    divide = _checked(path, format, encoding, errors).share
    return divide(path, columns, part, parts) if divide else None


def _documents(path: Path, format: Format, columns: Columns, encoding: str | None, errors: Errors, report: bool) -> Iterator[Found]:
    if format.path is not None:
        yield from format.path(path, columns)
        return
    for member in members(path, format.endings):
        if member.empty:
            yield Found("", None, "empty")
            continue
        if format.binary is not None:
            yield from format.binary(member.stream, columns)
            continue
        assert format.text is not None
        stream = TextStream(member.stream, encoding=encoding or format.encoding, errors=errors)
        if stream.mended is None:
            yield from format.text(stream, columns)
        else:
            for found in format.text(stream, columns):
                yield _without_marks(found, stream, drop=errors == "skip")
            if report and stream.mended.bad:
                fate = "their documents are dropped" if errors == "skip" else "they are replaced"
                bad, first = stream.mended.bad, stream.mended.first
                log.warning("%s: %s bad places, the first at byte %s: %s", stream.where, f"{bad:,}", f"{first:,}", fate)


def _without_marks(found: Found, stream: TextStream, *, drop: bool) -> Found:
    """U+FFFD for what could not be decoded; such a document says how often and where it began, or is dropped for it."""
    text = found.content
    number = text.count(MARK)
    if not number:
        return found
    text, key = text.replace(MARK, REPLACEMENT), found.key and found.key.replace(MARK, REPLACEMENT)
    first = "" if stream.mended is None or stream.mended.first is None else f"{stream.where}, byte {stream.mended.first:,}"
    return found._replace(text=text, key=key, replaced=number, bad=first, drop=found.drop or ("encoding" if drop else None))
