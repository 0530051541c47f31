"""The table of file formats that examples are read from, and those that installed packages add.

To add a format: a function, a `TaskFormat` with it, one row here, or an entry point `kitae.task_formats` of an installed package.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitae.core.config import Config
from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.extensions import extension, names
from kitae.core.recipe import validate
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.readers.chabsa import ChabsaConfig, chabsa_rows
from kitae.tasks.readers.conllu import ConlluConfig, read_conllu
from kitae.tasks.readers.livedoor import livedoor_rows, read_index
from kitae.tasks.readers.medquad import medquad_rows
from kitae.tasks.readers.mrqa import MrqaConfig, read_mrqa
from kitae.tasks.readers.rows import RowsConfig, examples_from
from kitae.tasks.readers.spans import SpansConfig, read_spans
from kitae.tasks.readers.squad import SquadConfig, read_squad
from kitae.tasks.readers.tables import (
    DocumentConfig,
    JsonConfig,
    LinesConfig,
    TableConfig,
    json_document,
    json_lines,
    labelled_lines,
    table_rows,
)
from kitae.tasks.readers.words import ConllConfig, read_conll

GROUP = "kitae.task_formats"
"""Entry points of installed packages: a name and a `TaskFormat`. They cannot replace a row of FORMATS."""


@dataclass(frozen=True, kw_only=True)
class TaskFormat:
    """How a file or folder becomes examples."""

    line: str
    """What it is."""
    read: Callable[[Path, TaskConfig, Any], Iterator[Example]]
    """(path, task, settings of the format) -> examples; raises KitaeError naming file and line for whatever is wrong in the file."""
    config: type[Config]
    """The settings that files of this format have of their own: [task.NAME.format_config]."""
    endings: tuple[str, ...] = ()
    """Of file names that announce it, for example ".csv"; before them may stand what a compressed file adds."""


FORMATS: Mapping[str, TaskFormat] = {
    "csv": TaskFormat(line="a table, commas", read=examples_from(table_rows("csv")), config=TableConfig, endings=(".csv",)),
    "tsv": TaskFormat(line="a table, tabs", read=examples_from(table_rows("tsv")), config=TableConfig, endings=(".tsv",)),
    "jsonl": TaskFormat(
        line="one JSON object a line", read=examples_from(json_lines), config=JsonConfig, endings=(".jsonl", ".json", ".ndjson")
    ),
    "conll": TaskFormat(line="a word and its tag a line", read=read_conll, config=ConllConfig, endings=(".conll", ".bio", ".iob")),
    "conllu": TaskFormat(line="Universal Dependencies", read=read_conllu, config=ConlluConfig, endings=(".conllu",)),
    "spans": TaskFormat(line="JSON with entities as characters from and to", read=read_spans, config=SpansConfig),
    "json": TaskFormat(
        line="one JSON document with a list or object of examples", read=examples_from(json_document), config=DocumentConfig
    ),
    "fasttext": TaskFormat(line="lines of __label__NAME and a text", read=examples_from(labelled_lines), config=LinesConfig),
    "livedoor": TaskFormat(line="the folder, or archive, of livedoor's articles", read=examples_from(livedoor_rows), config=RowsConfig),
    "livedoor-index": TaskFormat(line="a list of livedoor's articles: filename, category", read=read_index, config=RowsConfig),
    "chabsa": TaskFormat(line="chABSA's eNNNNN_ann.json, in a folder or archive", read=examples_from(chabsa_rows), config=ChabsaConfig),
    "medquad": TaskFormat(line="MedQuAD's XML files, in a folder or archive", read=examples_from(medquad_rows), config=RowsConfig),
    "squad": TaskFormat(line="questions in the JSON of SQuAD, JSQuAD, JaQuAD, COVID-QA", read=read_squad, config=SquadConfig),
    "mrqa": TaskFormat(line="questions in the JSON Lines of the MRQA 2019 shared task", read=read_mrqa, config=MrqaConfig),
}


def read_examples(path: Path, task: TaskConfig) -> Iterator[Example]:
    """The examples of one file or folder of a task. Raises KitaeError for an unknown format and whatever is wrong in the file."""
    yield from format_of(path, task).read(path, task, check_format(path, task))


def check_format(path: Path, task: TaskConfig) -> Config:
    """The settings of the format of a task's file, which need not exist. Raises KitaeError for an unknown format, and settings it lacks."""
    return validate(format_of(path, task).config, task.format_config, f"task {task.name}", "format_config")


def format_of(path: Path, task: TaskConfig) -> TaskFormat:
    """The task's format, or the one that the file's name announces. Raises KitaeError when there is none."""
    if task.format is not None:
        found = FORMATS.get(task.format) or extension(GROUP, task.format, TaskFormat, key="format")
        if found is None:
            known = [*FORMATS, *names(GROUP)]
            raise KitaeError(f'format = "{task.format}" is unknown', cure=did_you_mean(task.format, known), where=f"task {task.name}")
        return found
    for ending in reversed(path.suffixes):
        for row in FORMATS.values():
            if ending.lower() in row.endings:
                return row
    raise KitaeError(f"the name {path.name} does not say what it is", cure=f"say format = one of {', '.join(FORMATS)}", where=str(path))
