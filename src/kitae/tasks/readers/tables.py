"""Rows of tables: CSV and TSV with or without a header, JSON Lines, whole JSON documents, and lines that begin with their labels."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.tasks.readers.rows import Row, RowsConfig
from kitae.tasks.readers.words import Gap
from kitae.text.streams import open_text
from kitae.text.tables import Manner, Quoting, find_column, read_rows, row_of

LABEL = "__label__"
"""What fastText's files put before each label."""


class LinesConfig(RowsConfig):
    """Settings of files of lines."""

    encoding: str | None = None
    """Absent: UTF-8. Others: "cp932", "euc_jp", "utf-16", ..."""


class TableConfig(LinesConfig):
    """Settings of CSV and TSV files."""

    header: bool = True
    """Whether the first line names the columns. Without one they are called by their places: "0", "1", ..., and "-1" is the last."""
    quoting: Quoting = "auto"
    """"double": fields may stand in quotes; "none": a quote is a character like any other. "auto" is "double" for CSV and for TSV
    files whose header is quoted, "none" for other TSV files."""
    skip_broken: bool = False
    """Leave out rows that have not as many columns as the others, and say how many; otherwise the first is an error."""


class JsonConfig(LinesConfig):
    """Settings of JSON Lines."""

    join: Gap = " "
    """What stands between the words of a text that is a list of words ("tokens"): " ", or "" for Japanese."""


class DocumentConfig(JsonConfig):
    """Settings of files that are one JSON document."""

    records: str = ""
    """Where in it the examples lie: "data" or "a.b" is the list, or object, under these keys; "" is the document itself. Of an object every
    value is an example, and its key the example's id and column "key"."""


def table_rows(kind: str) -> Callable[[Path, TableConfig], Iterator[Row]]:
    """Rows of a table written as `kind`: csv or tsv."""

    def rows(path: Path, config: TableConfig) -> Iterator[Row]:
        manner = Manner(header=config.header, quoting=config.quoting, skip_broken=config.skip_broken)
        for number, cells in read_rows(path, format=kind, encoding=config.encoding, manner=manner):
            yield Row(cells=cells, where=f"{path}, line {number}", id=f"{path.name}:{number}")

    return rows


def json_lines(path: Path, config: JsonConfig) -> Iterator[Row]:
    """One JSON object a line."""
    for number, cells in read_rows(path, format="jsonl", encoding=config.encoding):
        yield Row(cells=cells, where=f"{path}, line {number}", id=f"{path.name}:{number}", join=config.join)


def json_document(path: Path, config: DocumentConfig) -> Iterator[Row]:
    """The records of one JSON document, as SQuAD-like and PubMedQA's files are."""
    stream = open_text(path, encoding=config.encoding)
    try:
        found: object = json.loads(stream.read())
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        cure = 'bring a complete copy of the file; of one object a line, say format = "jsonl"'
        raise KitaeError("the file is not one JSON document", cure=cure, where=f"{path}{line}") from error
    for key in filter(None, config.records.split(".")):
        if not isinstance(found, Mapping) or key not in found:
            known = ", ".join(list(found)[:20]) if isinstance(found, Mapping) else "none"
            raise KitaeError(f'there is no "{config.records}" in it', cure=f"say format_config.records; there are {known}", where=str(path))
        found = found[key]
    if not isinstance(found, Mapping | list) or not found:
        raise KitaeError("there are no records in it", cure="say format_config.records, the keys that lead to them", where=str(path))
    for name, item in found.items() if isinstance(found, Mapping) else enumerate(found):
        where = f'{path}, record "{name}"' if isinstance(found, Mapping) else f"{path}, record {int(name) + 1}"
        if not isinstance(item, dict):
            cure = "say format_config.records, the keys that lead to the list of examples"
            raise KitaeError(f"this record is a JSON {type(item).__name__}, not an object", cure=cure, where=where)
        cells = row_of(item)
        if isinstance(found, Mapping):
            cells.setdefault("key", str(name))
        own = str(name) if isinstance(found, Mapping) else f"{path.name}:{int(name) + 1}"
        yield Row(cells=cells, where=where, id=own, join=config.join)


def labelled_lines(path: Path, config: LinesConfig) -> Iterator[Row]:
    """fastText's lines: `__label__A __label__B the text`. The columns are "text" and "label", several labels are a JSON list."""
    for number, line in enumerate(open_text(path, encoding=config.encoding), start=1):
        where = f"{path}, line {number}"
        labels: list[str] = []
        rest = line.strip()
        if not rest:
            continue
        while rest.startswith(LABEL):
            first, _, rest = rest.partition(" ")
            labels.append(first.removeprefix(LABEL).strip())
            rest = rest.lstrip()
        if not labels or not all(labels):
            raise KitaeError("the line does not begin with a label", cure=f'write "{LABEL}NAME the text"', where=where)
        label = labels[0] if len(labels) == 1 else find_column(row_of({"label": labels}), "label", where)
        yield Row(cells={"text": rest, "label": label or ""}, where=where, id=f"{path.name}:{number}")
