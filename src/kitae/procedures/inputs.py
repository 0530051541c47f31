"""What is to be predicted: rows of a table, lines of a text, standard input, strings and mappings, as examples; and these in chunks."""

import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from kitae.core.errors import KitaeError
from kitae.tasks.examples import Example
from kitae.tasks.readers.rows import texts_at
from kitae.tasks.readers.word_lists import words_at
from kitae.tasks.readers.words import joined
from kitae.text.streams import TextStream, open_bytes, open_pipe
from kitae.text.tables import Json, Manner, format_of, row_of, rows_of

STANDARD = "-"
"""As a source, standard input; as a target, standard output."""
TEXT = "text"
"""The format of a text a line."""
JSONL = "jsonl"
"""The format whose lines name their texts themselves."""
CHUNK = 8192
"""Examples that are held at a time ..."""
CHARACTERS = 1 << 20
"""... or fewer, with about so many characters."""


T = TypeVar("T")


class Raw(Protocol):
    """An open file, or a pipe without a buffer."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes."""


@dataclass(frozen=True, kw_only=True)
class Reads:
    """Which columns of a table, or keys of a mapping, hold what a model reads."""

    text: tuple[str, ...] = ("text",)
    """The text; of several columns, the texts are joined by a new line."""
    second: tuple[str, ...] = ()
    """The second text of a pair, or the context of a question; () for models that read one text."""
    choices: tuple[str, ...] = ()
    """The answers to choose from; "a[]" are the texts of the list a."""
    id: str = "id"
    """The name of a row, which is copied."""
    exact: bool = False
    """Whether blanks around texts are kept, because places in them are predicted."""
    join: str | None = None
    """Of models that tag words: what stands between the words of a JSON list, which may then be in the text's place."""

    named: bool = True
    """Whether somebody named these columns for this source. Else they are a task's, and a source without them may call its texts "text",
    "second" and "choices"; where the task's columns are numbers, a table may have no line of names, as the task's files had none."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """All columns."""
        return (*self.text, *self.second, *self.choices)

    @property
    def plain(self) -> "Reads":
        """The same under the names that everybody may use."""
        own = ("second",) if self.second else (), ("choices[]",) if self.choices else ()
        return replace(self, text=("text",), second=own[0], choices=own[1], named=True)

    def found_in(self, row: Iterable[str]) -> bool:
        """Whether a row with these names has every column."""
        known = set(row)
        return all(column.partition("[]")[0].partition(".")[0] in known for column in self.wanted)

    @property
    def single(self) -> bool:
        """Whether a text alone is all that is read."""
        return not self.second and not self.choices


@dataclass(frozen=True, kw_only=True)
class Item:
    """One example of a source; None where it has nothing to read."""

    line: int
    """Where it stands, from 1."""
    id: str | None
    example: Example | None


def read_source(
    source: Path, reads: Reads, *, format: str | None = None, encoding: str | None = None, standard: Raw | None = None
) -> Iterator[Item]:
    """The examples of a file as it is read, compressed or not, or of standard input (`standard`, for the source "-").

    `format` is csv, tsv, jsonl or text (a text a line); by default what the name says, and text where it says nothing. Raises KitaeError
    naming file and line for missing columns, cells that hold no text, wrong encodings, and files without lines.
    """
    kind = format or _announced(source)
    if kind == TEXT and not reads.single:
        wanted = ", ".join((reads if reads.named else reads.plain).wanted)
        cure = f"give a table (csv, tsv, jsonl) with the columns {wanted}, and say its format where the name does not"
        where = str(source) if standard is None else "standard input"
        raise KitaeError("the model reads more than one text, and a line of plain text is one", cure=cure, where=where)
    stream = TextStream(open_bytes(source) if standard is None else open_pipe(standard, where="standard input"), encoding=encoding)
    if kind == TEXT:
        for number, line in enumerate(stream, start=1):
            text = line.removesuffix("\n")
            where = f"{stream.where}, line {number}"
            made = Example(id=where, text=text if reads.exact else text.strip(), gold=None, where=where) if text.strip() else None
            yield Item(line=number, id=None, example=made)
        return
    for number, row in _rows(stream, kind, reads):
        where = f"{stream.where}, line {number}"
        name = row.get(reads.id)
        yield Item(line=number, id=name, example=example_of(row, reads, where=where))


def example_of(row: Mapping[str, str], reads: Reads, *, where: str) -> Example | None:
    """The example of a row; None when one of its texts is empty. Raises KitaeError for a missing column, and a cell that holds no text."""
    columns = dict(row)
    if not reads.named and reads.plain.found_in(columns) and not (set(reads.wanted) - set(reads.plain.wanted)) & set(columns):
        reads = reads.plain
    text, words = _text(columns, reads, where)
    second = _joined(columns, reads.second, where, exact=reads.exact) if reads.second else None
    choices = _choices(columns, reads.choices, where)
    texts = [text, *([] if second is None else [second]), *choices]
    if not all(one.strip() for one in texts):
        return None
    return Example(id=where, text=text, second=second, choices=choices, words=words, gold=None, where=where)


def example_from(given: str | Mapping[str, object] | Example, reads: Reads, *, number: int) -> Example:
    """The example of a string, a mapping (with the keys of `reads`, or "text", "second" and "choices") or an Example, which is taken as it
    is. Raises KitaeError for keys that are missing, values that are no text, and a string where more than one text is read.
    """
    where = f"text {number}"
    if isinstance(given, Example):
        return given
    if isinstance(given, str):
        if not reads.single:
            wanted = ", ".join((reads if reads.named else reads.plain).wanted)
            raise KitaeError("the model reads more than one text, and this is a string", cure=f"give mappings with {wanted}", where=where)
        return Example(id=where, text=given, gold=None, where=where)
    row = row_of(given)
    known = replace(reads.plain if reads.plain.found_in(row) else reads, exact=True)
    text, words = _text(row, known, where)
    return Example(
        id=where,
        text=text,
        words=words,
        second=_joined(row, known.second, where, exact=True) if known.second else None,
        choices=_choices(row, known.choices, where),
        gold=None,
        where=where,
    )


def in_chunks(items: Iterable[T], size: Callable[[T], int], *, most: int = CHUNK, live: bool = False) -> Iterator[list[T]]:
    """Runs of at most `most` items, or of about CHARACTERS by `size`. What came before an error is given before it is raised.

    `live`: a run ends, too, where nothing more has come in so far, so that whoever writes into a pipe need not wait for an answer.
    """
    chunk: list[T] = []
    held = 0
    stream = _ahead(items, most) if live else iter(items)
    try:
        for item in stream:
            if item is not None:
                chunk.append(item)
                held += size(item)
            if chunk and (item is None or len(chunk) >= most or held >= CHARACTERS):
                yield chunk
                chunk, held = [], 0
    except KitaeError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _ahead(items: Iterable[T], most: int) -> Iterator[T | None]:
    """The items as a thread of its own reads them, at most `most` ahead; None where one has to wait for the next."""
    waiting: queue.Queue[tuple[T | None, Exception | None]] = queue.Queue(most)

    def fill() -> None:
        try:
            for item in items:
                waiting.put((item, None))
            waiting.put((None, None))
        except Exception as error:  # raised again where the items are used
            waiting.put((None, error))

    threading.Thread(target=fill, daemon=True).start()
    while True:
        if waiting.empty():
            yield None
        item, error = waiting.get()
        if error is not None:
            raise error
        if item is None:
            return
        yield item


def _text(row: dict[str, str], reads: Reads, where: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The text, and the places of its words where they are given."""
    words = None if reads.join is None else words_at(row, reads.text, where)
    if words is None or reads.join is None:
        return _joined(row, reads.text, where, exact=reads.exact), ()
    return joined(words, [reads.join] * len(words))


def _rows(stream: TextStream, kind: str, reads: Reads) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table. One that a model of numbered columns reads has a line of names only where that names its texts."""
    numbered = not reads.named and all(column.removeprefix("-").isdigit() for column in reads.wanted)
    if kind == JSONL or not numbered:
        yield from rows_of(stream, kind)
        return
    names: list[str] = []
    for place, (number, row) in enumerate(rows_of(stream, kind, Manner(header=False))):
        cells = list(row.values())
        if place == 0 and reads.plain.found_in(cells):
            names = cells
        else:
            yield number, dict(zip(names, cells, strict=True)) if names else row


def _choices(row: dict[str, str], columns: tuple[str, ...], where: str) -> tuple[str, ...]:
    return tuple(text.strip() for column in columns for text in _texts(row, column, where))


def _joined(row: dict[str, str], columns: tuple[str, ...], where: str, *, exact: bool) -> str:
    parts = [text for column in columns for text in _texts(row, column, where)]
    return "\n".join(part if exact else part.strip() for part in parts if len(parts) == 1 or part.strip())


def _texts(row: dict[str, str], column: str, where: str) -> list[str]:
    """As `texts_at`; the cell of a table may hold a list of JSON."""
    head, brackets, _ = column.partition("[]")
    if brackets and row.get(head, "").startswith("["):
        try:
            json.loads(row[head])
        except (ValueError, RecursionError) as error:
            raise KitaeError(f'the column "{head}" holds no list', cure='write ["one", "two"]', where=where) from error
        row = {**row, head: Json(row[head])}
    return texts_at(row, column, where)


def _announced(source: Path) -> str:
    """The format that a name announces; plain text where it announces none."""
    try:
        return format_of(source)
    except KitaeError:
        return TEXT
