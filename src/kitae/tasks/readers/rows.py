"""Rows of named cells as examples: what all readers of labelled sentences share.

A reader of such a format is one function from a file to rows; `examples_from` makes it a reader of examples.
"""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.tasks.config import Names, TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.kind import Kind
from kitae.tasks.kinds import kind_of, options_of
from kitae.tasks.readers.word_lists import all_hidden, words_at
from kitae.tasks.readers.words import joined as joined_words
from kitae.text.tables import Json, find_column, need_column, need_text, row_of

log = logging.getLogger(__name__)


class RowsConfig(Config):
    """Settings of every format of rows."""

    only: dict[str, Names] = Field(default_factory=dict)
    """Column -> values: rows that have another value there are no examples of the task."""
    skip_empty: bool = False
    """Leave out rows with an empty text or label, and say how many; otherwise the first is an error."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a file. `id` names it where the task names no column of ids."""

    cells: dict[str, str]
    where: str
    id: str
    join: str = " "
    """What stands between the words of a list."""


Settings = TypeVar("Settings", bound=RowsConfig)


def examples_from(rows: Callable[[Path, Settings], Iterator[Row]]) -> Callable[[Path, TaskConfig, Settings], Iterator[Example]]:
    """A reader of examples (the `read` of a TaskFormat) from a reader of rows."""

    def read(path: Path, task: TaskConfig, config: Settings) -> Iterator[Example]:
        kind, options = kind_of(task), options_of(task)
        empty = 0
        for row in rows(path, config):
            if any(need_column(row.cells, column, row.where) not in values for column, values in config.only.items()):
                continue
            if config.skip_empty and _empty(row, task, kind):
                empty += 1
                continue
            yield _example(row, task, kind, options)
        if empty:
            log.warning("%s: %d rows with an empty text or label are left out", path, empty)

    return read


def _empty(row: Row, task: TaskConfig, kind: Kind[Any]) -> bool:
    """Whether a text or the label has no letter."""
    cells, where = row.cells, row.where
    words = words_at(cells, task.text, where) if kind.words else None
    if not (joined(cells, task.text, where) if words is None else words) or (task.second and not joined(cells, task.second, where)):
        return True
    return bool(task.label) and not _label(cells, column_at(cells, task.label), where, lists=kind.lists).strip()


def _example(row: Row, task: TaskConfig, kind: Kind[Any], options: Any) -> Example:
    cells, where = row.cells, row.where
    words = words_at(cells, task.text, where) if kind.words else None
    text, places = (joined(cells, task.text, where), ()) if words is None else joined_words(words, [row.join] * len(words))
    second = joined(cells, task.second, where) if task.second else None
    choices = tuple(choice.strip() for column in task.choices for choice in texts_at(cells, column, where))
    if task.label:  # a test file without labels is predicted as it is
        for name, one in (("text", text), ("second text", second), *(("choice", choice) for choice in choices)):
            if one == "":
                raise KitaeError(f"the {name} is empty", cure="fill it in or remove the line", where=where)
    cell = _label(cells, column_at(cells, task.label), where, lists=kind.lists).strip() if task.label else None
    hidden = cell is not None and (cell in task.hidden or (kind.words and all_hidden(cell, task.hidden, where)))
    return Example(
        id=need_column(cells, column_at(cells, task.id), where) if task.id else row.id,
        text=text,
        second=second,
        choices=choices,
        words=places,
        gold=None if cell is None or hidden else kind.gold(cell, where, options),
        slices={column: need_column(cells, column_at(cells, column), where) for column in task.slices},
        group=need_column(cells, column_at(cells, task.group), where) if task.group else "",
        part=need_column(cells, column_at(cells, task.parts.column), where) if task.parts else "",
        where=where,
    )


def joined(cells: dict[str, str], columns: tuple[str, ...], where: str) -> str:
    """The texts of several columns, one a line."""
    parts = [text.strip() for column in columns for text in texts_at(cells, column, where)]
    return "\n".join(part for part in parts if part)


def column_at(cells: dict[str, str], column: str) -> str:
    """The column's name: of a table without a header "-1" is the last column's."""
    if column in cells or not column.startswith("-") or not column[1:].isdigit():
        return column
    name = str(len(cells) - int(column[1:]))
    return name if name in cells else column


def texts_at(cells: dict[str, str], column: str, where: str) -> list[str]:
    """The text of a column; "a[]" are the texts of the JSON list a, "a[].b" those of key b of its objects.

    Raises KitaeError when the column is absent or holds something else.
    """
    head, brackets, rest = column.partition("[]")
    if not brackets:
        return [need_text(cells, column_at(cells, column), where)]
    found = find_column(cells, head, where)
    if found is None:
        need_column(cells, head, where)
    if not isinstance(found, Json) or not found.startswith("["):
        raise KitaeError(f'the column "{head}" holds no list', cure=f'name it without brackets: "{head}"', where=where)
    texts = []
    for item in json.loads(found):
        if rest and isinstance(item, dict):
            texts.append(need_text(row_of(item), rest.removeprefix("."), where))
        elif not rest and isinstance(item, str):
            texts.append(item)
        else:
            raise KitaeError(
                f'the list "{head}" holds {str(item)[:40]!r}, not what "{column}" asks for', cure="name its texts", where=where
            )
    return texts


def _label(cells: dict[str, str], column: str, where: str, *, lists: bool) -> str:
    """The label's cell; a list, where it may be one, as JSON."""
    found = find_column(cells, column, where) if lists else None
    return found if found is not None and found.startswith("[") else need_column(cells, column, where)
