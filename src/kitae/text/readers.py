"""The formats that documents are read from. Adding one is a function (see `format.py`) and one row in READERS."""

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from kitae.core.errors import KitaeError, did_you_mean
from kitae.text.archives import members
from kitae.text.format import Columns, Format, Found
from kitae.text.streams import TextStream
from kitae.text.tables import json_object, need_column, rows_of
from kitae.text.wikidump import read_dump, read_share

BLOCK = 64  # documents dealt to a part at a time


def read_text(stream: TextStream, columns: Columns) -> Iterator[Found]:
    """Blank lines between documents; one sentence or one paragraph a line."""
    lines: list[str] = []
    for line in stream:
        if not line.isspace():
            lines.append(line)
        elif lines:
            yield Found("".join(lines))
            lines = []
    if lines:
        yield Found("".join(lines))


def read_paragraphs(stream: TextStream, columns: Columns) -> Iterator[Found]:
    """Every line that is not blank is a document."""
    for line in stream:
        if not line.isspace():
            yield Found(line)


def read_file(stream: TextStream, columns: Columns) -> Iterator[Found]:
    """One document a file."""
    yield Found(stream.read())


def read_table(kind: str) -> Callable[[TextStream, Columns], Iterator[Found]]:
    """A reader of one column of CSV, TSV or JSON Lines."""

    def read(stream: TextStream, columns: Columns) -> Iterator[Found]:
        for number, row in rows_of(stream, kind):
            where = f"{stream.where}, line {number}"
            yield Found(need_column(row, columns.text, where), need_column(row, columns.id, where) if columns.id else None)

    return read


OPENING = re.compile(r"<doc\b[^>]*>\s*$")
ATTRIBUTE = re.compile(r'\b(id|title)="([^"]*)"')


def read_wikiextractor(stream: TextStream, columns: Columns) -> Iterator[Found]:
    """WikiExtractor's output, `<doc ...>` blocks or --json lines; an article whose body is only its title is a "stub"."""
    body: list[str] | None = None
    attributes: dict[str, str] = {}
    for number, line in enumerate(stream, start=1):
        where = f"{stream.where}, line {number}"
        if body is not None:
            if line.rstrip() == "</doc>":
                yield _article("".join(body), attributes.get("title"))
                body = None
            else:
                body.append(line)
        elif OPENING.match(line):
            attributes, body = dict(ATTRIBUTE.findall(line)), []
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
    return Found(text, None, "stub" if stub else None)


READERS: dict[str, Format] = {
    "text": Format(text=read_text),
    "paragraphs": Format(text=read_paragraphs),
    "files": Format(text=read_file),
    "wikiextractor": Format(text=read_wikiextractor),
    "wikipedia": Format(binary=read_dump, share=read_share),
    "jsonl": Format(text=read_table("jsonl")),
    "csv": Format(text=read_table("csv")),
    "tsv": Format(text=read_table("tsv")),
}


def read(path: Path, format: str, *, columns: Columns = Columns(), encoding: str | None = None) -> Iterator[Found]:  # noqa: B008 - immutable
    """All documents of a file, folder or archive in a fixed order. Raises KitaeError for a path without any document."""
    if format not in READERS:
        raise KitaeError(f'format = "{format}" is unknown', cure=did_you_mean(format, READERS), where=str(path))
    empty = True
    for found in _documents(path, READERS[format], columns, encoding):
        empty = False
        yield found
    if empty:
        raise KitaeError(f'no document found as format = "{format}"', cure="check the format and the file", where=str(path))


def read_part(
    path: Path, format: str, part: int, parts: int, *, columns: Columns, encoding: str | None, limit: int | None
) -> Iterator[tuple[int, Found]]:
    """(number, document) of one part of a path; numbers grow in the path's order, and the parts together are the whole.

    A format that can divide the path reads its share alone. Otherwise the whole path is read, its cheap side, and a part is
    every `parts`-th block of documents, beginning with block `part`.
    """
    share = READERS[format].share if format in READERS and parts > 1 and limit is None else None
    found = share(path, columns, part, parts) if share else None
    if found is None:
        whole = enumerate(itertools.islice(read(path, format, columns=columns, encoding=encoding), limit))
        found = ((number, one) for number, one in whole if number // BLOCK % parts == part)
    yield from found


def _documents(path: Path, format: Format, columns: Columns, encoding: str | None) -> Iterator[Found]:
    if format.path is not None:
        yield from format.path(path, columns)
        return
    for member in members(path):
        if format.binary is not None:
            yield from format.binary(member.stream, columns)
        else:
            assert format.text is not None
            yield from format.text(TextStream(member.stream, encoding=encoding), columns)
