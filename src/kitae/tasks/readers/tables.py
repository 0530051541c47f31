"""Examples from tables: CSV, TSV and JSON Lines with named columns."""

from collections.abc import Callable, Iterator
from pathlib import Path

from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.kinds import kind_of, options_of
from kitae.text.tables import find_column, need_column, need_text, read_rows


class TableConfig(Config):
    """Tables need no settings of their own: the task names the columns."""


def read_table(kind: str) -> Callable[[Path, TaskConfig, TableConfig], Iterator[Example]]:
    """A reader of tables written as `kind`: csv, tsv or jsonl."""

    def read(path: Path, task: TaskConfig, config: TableConfig) -> Iterator[Example]:
        known, options = kind_of(task), options_of(task)
        for number, row in read_rows(path, format=kind):
            where = f"{path}, line {number}"
            text = joined(row, task.text, where)
            cell = _label(row, task.label, where, lists=known.lists).strip()
            if not text:
                raise KitaeError("the text is empty", cure="fill it in or remove the line", where=where)
            yield Example(
                id=need_column(row, task.id, where) if task.id else f"{path.name}:{number}",
                text=text,
                second=joined(row, task.second, where) if task.second else None,
                choices=tuple(need_text(row, column, where).strip() for column in task.choices),
                gold=None if cell in task.hidden else known.gold(cell, where, options),
                slices={column: need_column(row, column, where) for column in task.slices},
                where=where,
            )

    return read


def joined(row: dict[str, str], columns: tuple[str, ...], where: str) -> str:
    """The texts of several columns, one a line."""
    parts = [need_text(row, column, where).strip() for column in columns]
    return "\n".join(part for part in parts if part)


def _label(row: dict[str, str], column: str, where: str, *, lists: bool) -> str:
    """The label's cell; a list, where it may be one, as JSON."""
    found = find_column(row, column, where) if lists else None
    return found if found is not None and found.startswith("[") else need_column(row, column, where)
