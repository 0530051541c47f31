"""Rows of CSV, TSV and JSON Lines files with their line numbers, compressed or not; errors name file and line."""

import csv
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kitae.core.errors import KitaeError, did_you_mean
from kitae.text.streams import TextStream, open_text

log = logging.getLogger(__name__)

FORMATS = ("csv", "tsv", "jsonl")
LONGEST_FIELD = 1 << 26  # a document of more than LONGEST_LINE is dropped; this is a quote that never ends
MOST_COLUMNS = 10_000
SHOWN_COLUMNS = 20
"""An error lists so many columns, not a million."""
Quoting = Literal["auto", "none", "double"]


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a CSV or TSV file is written."""

    header: bool = True
    """Whether the first line names the columns. Without one they are called "0", "1", ..."""
    quoting: Quoting = "auto"
    """"double": fields may stand in quotes; "none": a quote is a character like any other. "auto" is "double" for CSV and for TSV
    files whose header is quoted (EDINET's), "none" for other TSV files (GLUE's have stray quotes)."""
    skip_broken: bool = False
    """Leave out rows that have not as many columns as the others, and say how many; otherwise the first is an error."""


def read_rows(
    path: Path, *, format: str | None = None, encoding: str | None = None, manner: Manner | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a table (CSV, TSV) or of one JSON object a line; `format` follows from the name.

    JSON numbers become their text, true and false "true" and "false", null "", lists and objects JSON.
    Raises KitaeError for an unknown format, no rows, broken JSON, or a row whose columns are not the header's (the first row's).
    """
    kind = format or format_of(path)
    yield from rows_of(open_text(path, encoding=encoding), kind, manner)


def format_of(path: Path) -> str:
    """The format that a file's name announces. Raises KitaeError when it announces none."""
    for ending in reversed(path.suffixes):
        kind = {"json": "jsonl", "ndjson": "jsonl"}.get(ending[1:].lower(), ending[1:].lower())
        if kind in FORMATS:
            return kind
    raise KitaeError(f"the name {path.name} does not say what it is", cure='say format = "csv", "tsv" or "jsonl"', where=str(path))


def rows_of(stream: TextStream, kind: str, manner: Manner | None = None) -> Iterator[tuple[int, dict[str, str]]]:
    """As `read_rows`, for an open stream."""
    if kind not in FORMATS:
        raise KitaeError(f'"{kind}" is not a format of tables', cure=did_you_mean(kind, FORMATS), where=stream.where)
    found = False
    for number, row in _objects(stream) if kind == "jsonl" else _records(stream, kind, manner or Manner()):
        found = True
        yield number, row
    if not found:
        raise KitaeError("the table has no rows", cure="bring a complete copy of the file", where=stream.where)


class Json(str):
    """A value of JSON that is no text (a number, true, false, a list or an object), as it is written."""

    @property
    def kind(self) -> str:
        """What it is called."""
        return {"{": "an object", "[": "a list", "t": "true", "f": "false"}.get(self[0], "a number")


def need_column(row: dict[str, str], column: str, where: str) -> str:
    """A row's value; "a.b" is key b of the JSON object a.

    Raises KitaeError, naming the columns that there are, when it is absent, and when it is a list or an object.
    """
    value = find_column(row, column, where)
    if value is None:
        raise KitaeError(f'there is no column "{column}"', cure=f"the columns are {listed(row)}", where=where)
    if isinstance(value, Json) and value[0] in "[{":
        raise KitaeError(f'the column "{column}" holds {value.kind}', cure='name a value, "a.b" for key b of the object a', where=where)
    return value


def listed(columns: Iterable[str]) -> str:
    """Names of columns as an error shows them: the first few of very many."""
    names = [name if len(name) <= 30 else name[:30] + "..." for name in columns]
    more = f" and {len(names) - SHOWN_COLUMNS:,} more" if len(names) > SHOWN_COLUMNS else ""
    return ", ".join(names[:SHOWN_COLUMNS]) + more


def need_text(row: dict[str, str], column: str, where: str) -> str:
    """As `need_column`, for a column of texts: numbers, true and false are none, null is an empty one."""
    value = need_column(row, column, where)
    if isinstance(value, Json):
        raise KitaeError(f'the column "{column}" holds {value.kind}, not a text', cure="name a column of texts", where=where)
    return value


def find_column(row: dict[str, str], column: str, where: str) -> str | None:
    """A row's value, "a.b" as in `need_column`; None if there is none."""
    if column in row:
        return row[column]
    head, _, rest = column.partition(".")
    if rest and row.get(head, "").startswith("{"):
        return find_column(row_of(json_object(row[head], where)), rest, where)
    return None


def json_object(line: str, where: str) -> dict[str, object]:
    """One line's JSON object. Raises KitaeError when it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else "a number has too many digits"
        what = f"this line is not JSON: {error.msg if isinstance(error, json.JSONDecodeError) else reason}"
        raise KitaeError(what, cure="write one JSON object a line", where=where) from error
    if not isinstance(value, dict):
        raise KitaeError(f"this line is a JSON {type(value).__name__}, not an object", cure="write one JSON object a line", where=where)
    return value


def _objects(stream: TextStream) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in enumerate(stream, start=1):
        if not line.isspace():
            yield number, row_of(json_object(line, f"{stream.where}, line {number}"))


def row_of(values: Mapping[str, object]) -> dict[str, str]:
    """A JSON object as a row of text: see `read_rows`."""
    return {key: value if isinstance(value, str) else _text_of(value) for key, value in values.items()}


def _text_of(value: object) -> str:
    return "" if value is None else Json(json.dumps(value, ensure_ascii=False))


def _records(stream: TextStream, kind: str, manner: Manner) -> Iterator[tuple[int, dict[str, str]]]:
    csv.field_size_limit(LONGEST_FIELD)  # of the whole process; the default of 131,072 characters is less than an article
    first_line = next(stream, "")
    quoted = manner.quoting == "double" or (manner.quoting == "auto" and (kind == "csv" or first_line.startswith('"')))
    dialect = PlainTsv if kind == "tsv" and not quoted else QuotedTsv if kind == "tsv" else Csv if quoted else PlainCsv
    lines = _Counted(stream, [] if manner.header else [first_line])
    if manner.header:  # before a million names are made of it
        _check_count(first_line.count(dialect.delimiter) + 1, f"{stream.where}, line 1")
    broken = 0
    try:
        names = next(csv.reader([first_line], dialect), []) if manner.header else []
        _check_names(names, f"{stream.where}, line 1")
        number = lines.next_number
        for fields in csv.reader(lines, dialect):
            if fields:
                where = f"{stream.where}, line {number}"
                if not names:
                    names = [str(i) for i in range(len(fields))]
                    _check_names(names, where)
                if len(fields) == len(names):
                    yield number, dict(zip(names, fields))
                elif manner.skip_broken:
                    broken += 1
                else:
                    what = f"this row has {len(fields)} columns, the {'header' if manner.header else 'first row'} has {len(names)}"
                    raise KitaeError(what, cure="correct the row, or the quoting of its text", where=where)
            number = lines.next_number
    except csv.Error as error:
        raise KitaeError(
            f"this is not a {kind} file: {error}", cure="correct the quoting", where=f"{stream.where}, line {lines.next_number - 1}"
        ) from error
    if broken:
        log.warning("%s: %d rows with other columns than the rest are left out", stream.where, broken)


class Csv(csv.excel):
    """Commas, fields quoted where needed, quotes doubled inside."""

    strict = True


class QuotedTsv(csv.excel_tab):
    """As Csv, with tabs."""

    strict = True


class PlainCsv(csv.excel):
    """Commas; a quote is a character like any other."""

    quoting = csv.QUOTE_NONE


class PlainTsv(csv.excel_tab):
    """Tabs; a quote is a character like any other."""

    quoting = csv.QUOTE_NONE


class _Counted:
    """Lines, those that were read ahead first, and the number of the next one: the csv module's own count starts behind the header."""

    def __init__(self, stream: TextStream, ahead: list[str]) -> None:
        self._stream, self._ahead = stream, ahead
        self.next_number = 2 - len(ahead)

    def __iter__(self) -> "_Counted":
        return self

    def __next__(self) -> str:
        line = self._ahead.pop() if self._ahead else next(self._stream)
        self.next_number += 1
        return line


def _check_names(names: list[str], where: str) -> None:
    _check_count(len(names), where)
    double = sorted(name for name, count in Counter(names).items() if count > 1)
    if double:
        raise KitaeError(f'the header names "{double[0]}" twice', cure="give every column a name of its own", where=where)


def _check_count(count: int, where: str) -> None:
    if count > MOST_COLUMNS:
        what = f"there are {count:,} columns, more than {MOST_COLUMNS:,}"
        raise KitaeError(what, cure="check which character separates the columns, and the line ends", where=where)
