"""Where predictions go: CSV, TSV or JSON Lines, compressed or not, in a file that appears when it is complete, or on standard output."""

import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TextIO

import zstandard

from kitae.core.errors import KitaeError
from kitae.procedures.answers import Answer
from kitae.procedures.inputs import STANDARD, Item
from kitae.report.tables import neutral
from kitae.text.streams import COMPRESSIONS, claimed_compression
from kitae.text.tables import FORMATS

Write = Callable[[Item, Answer], None]


def check_target(target: Path, source: Path) -> str:
    """The format of a target's table. Raises KitaeError for one that has none, that has no folder, or that is the source."""
    if str(target) == STANDARD:
        return "jsonl"
    kind = Path(target.stem if claimed_compression(target.name) else target.name).suffix[1:].lower()
    if kind not in FORMATS:
        cure = f"name it .csv, .tsv or .jsonl, with {', '.join(COMPRESSIONS)} behind it to pack it, or write - for standard output"
        raise KitaeError(f"the target {target.name} has no known format", cure=cure, where=str(target))
    if not target.parent.is_dir():
        raise KitaeError(f"the folder {target.parent} does not exist", cure="make it, or write elsewhere", where=str(target))
    if target.resolve() == source.resolve():
        raise KitaeError("the target is the source", cure="give the predictions a file of their own", where=str(target))
    return kind


@contextlib.contextmanager
def opened(target: Path, kind: str, header: Sequence[str]) -> Iterator[tuple[Write, Callable[[], None]]]:
    """What writes an answer, and what hands on all that was written. A file takes the target's place at the end, if there was no error."""
    if str(target) == STANDARD:
        with open(1, "wb", closefd=False) as standard, _text(standard) as text:
            yield writer(text, kind, header), text.flush
        return
    temporary = target.with_name(f".{target.name}.part")
    try:
        with temporary.open("wb") as file, _packing(file, claimed_compression(target.name)) as packed, _text(packed) as text:
            yield writer(text, kind, header), lambda: None
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _text(file: IO[bytes]) -> Iterator[TextIO]:
    """UTF-8 into open bytes, which stay open; half characters, which JSON may hold, are written as JSON writes them."""
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")  # type: ignore[arg-type]
    try:
        yield text
        text.flush()
    finally:
        with contextlib.suppress(OSError):  # a closed pipe refuses what is left over; whoever closed it knows
            text.detach()


def writer(file: TextIO, kind: str, header: Sequence[str]) -> Write:
    """What writes an answer into an open file of this kind (csv, tsv, jsonl); the header of a table is written at once."""
    if kind == "jsonl":

        def write_json(item: Item, found: Answer) -> None:
            known = {"line": item.line} | ({} if item.id is None else {"id": item.id})
            file.write(json.dumps({**known, **found.json()}, ensure_ascii=False) + "\n")

        return write_json
    table = csv.writer(file, delimiter="," if kind == "csv" else "\t", lineterminator="\n")
    table.writerow(["line", "id", *header])

    def write_rows(item: Item, found: Answer) -> None:
        table.writerows([item.line, neutral(item.id or ""), *row] for row in found.rows())

    return write_rows


@contextlib.contextmanager
def _packing(file: IO[bytes], compression: str | None) -> Iterator[IO[bytes]]:
    """The same bytes for the same content: no name and no time in them."""
    if compression is None:
        yield file
    elif compression == ".gz":
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
            yield packed  # type: ignore[misc]
    elif compression == ".zst":
        with zstandard.ZstdCompressor().stream_writer(file, closefd=False) as packed:
            yield packed
    else:
        with {".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile}[compression](file, "wb") as packed:  # type: ignore[operator]
            yield packed
