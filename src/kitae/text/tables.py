"""Rows of CSV, TSV and JSON Lines files with their line numbers, compressed or not; errors name file and line."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from kitae.core.errors import KitaeError, did_you_mean
from kitae.text.streams import TextStream, open_text

FORMATS = ("csv", "tsv", "jsonl")
LONGEST_FIELD = 1 << 26  # a document of more than LONGEST_LINE is dropped; this is a quote that never ends


def read_rows(path: Path, *, format: str | None = None, encoding: str | None = None) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a table with a header (CSV, TSV) or of one JSON object a line; `format` follows from the name.

    JSON numbers become their text, true and false "true" and "false", null "", lists and objects JSON.
    A TSV file is read without quoting unless its header is quoted (GLUE's files have stray quotes, EDINET's are quoted).
    Raises KitaeError for an unknown format, no rows, broken JSON, or a row whose columns are not the header's.
    """
    kind = format or format_of(path)
    yield from rows_of(open_text(path, encoding=encoding), kind)


def format_of(path: Path) -> str:
    """The format that a file's name announces. Raises KitaeError when it announces none."""
    for ending in reversed(path.suffixes):
        kind = {"json": "jsonl", "ndjson": "jsonl"}.get(ending[1:].lower(), ending[1:].lower())
        if kind in FORMATS:
            return kind
    raise KitaeError(f"the name {path.name} does not say what it is", cure='say format = "csv", "tsv" or "jsonl"', where=str(path))


def rows_of(stream: TextStream, kind: str) -> Iterator[tuple[int, dict[str, str]]]:
    """As `read_rows`, for an open stream."""
    if kind not in FORMATS:
        raise KitaeError(f'"{kind}" is not a format of tables', cure=did_you_mean(kind, FORMATS), where=stream.where)
    found = False
    for number, row in _objects(stream) if kind == "jsonl" else _records(stream, kind):
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
        raise KitaeError(f'there is no column "{column}"', cure=f"the columns are {', '.join(row)}", where=where)
    if isinstance(value, Json) and value[0] in "[{":
        raise KitaeError(f'the column "{column}" holds {value.kind}', cure='name a value, "a.b" for key b of the object a', where=where)
    return value


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


def _records(stream: TextStream, kind: str) -> Iterator[tuple[int, dict[str, str]]]:
    csv.field_size_limit(LONGEST_FIELD)  # of the whole process; the default of 131,072 characters is less than an article
    header_line = next(stream, "")
    lines = _Counted(stream)
    plain = kind == "tsv" and not header_line.startswith('"')
    dialect = PlainTsv if plain else QuotedTsv if kind == "tsv" else Csv
    try:
        header = next(csv.reader([header_line], dialect), [])
        _check_header(header, stream.where)
        reader = csv.reader(lines, dialect)
        number = 2
        for fields in reader:
            if fields:
                if len(fields) != len(header):
                    what = f"this row has {len(fields)} columns, the header has {len(header)}"
                    raise KitaeError(what, cure="correct the row, or the quoting of its text", where=f"{stream.where}, line {number}")
                yield number, dict(zip(header, fields))
            number = lines.count + 2
    except csv.Error as error:
        raise KitaeError(
            f"this is not a {kind} file: {error}", cure="correct the quoting", where=f"{stream.where}, line {lines.count + 1}"
        ) from error


class Csv(csv.excel):
    """Commas, fields quoted where needed, quotes doubled inside."""

    strict = True


class QuotedTsv(csv.excel_tab):
    """As Csv, with tabs."""

    strict = True


class PlainTsv(csv.excel_tab):
    """Tabs; a quote is a character like any other."""

    quoting = csv.QUOTE_NONE


class _Counted:
    """Lines, counted: the csv module's own count starts behind the header."""

    def __init__(self, stream: TextStream) -> None:
        self._stream, self.count = stream, 0

    def __iter__(self) -> "_Counted":
        return self

    def __next__(self) -> str:
        line = next(self._stream)
        self.count += 1
        return line


def _check_header(header: list[str], where: str) -> None:
    double = sorted({name for name in header if header.count(name) > 1})
    if double:
        raise KitaeError(f'the header names "{double[0]}" twice', cure="give every column a name of its own", where=f"{where}, line 1")
