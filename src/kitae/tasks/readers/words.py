"""Examples from files with a word a line: CoNLL's columns in all their layouts."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example, Gold
from kitae.text.streams import open_text

BLANKS = re.compile("[ \t]+")  # no others: an ideographic space can be a word
DOCUMENT = "-DOCSTART-"


def _blank(join: str) -> str:
    if join.strip() or "\n" in join:
        raise ValueError(f"{join!r}: between words there can only be blanks, or nothing")
    return join


Gap = Annotated[str, AfterValidator(_blank)]


class ConllConfig(Config):
    """Which columns hold what, and how words make a sentence."""

    word: int = 0
    """Number of the column with the words, from 0; negative ones count from the end."""
    tag: int = -1
    """Number of the column with the tags."""
    columns: int | None = None
    """How many columns every line has. Absent: as many as the first one."""
    separator: str = ""
    """What stands between columns: "\\t" or " " exactly one of these, "" any blanks and tabs."""
    comment: str = ""
    """How lines begin that are no words, before the first word of a sentence ("#"); "" where there are none."""
    join: Gap = " "
    """What stands between the words of a sentence: " ", or "" for Japanese."""


def read_conll(path: Path, task: TaskConfig, config: ConllConfig) -> Iterator[Example]:
    """Sentences that blank lines part; lines of -DOCSTART- only part them too. A sentence's `where` is the line of its first word.

    Raises KitaeError for another number of columns, an empty word or tag, no sentence at all.
    """
    refuse_slices(task, path)
    width, found = config.columns, False
    for lines in _sentences(path, config):
        rows = []
        for number, line in lines:
            cells = line.split(config.separator) if config.separator else BLANKS.split(line.strip(" \t"))
            width = len(cells) if width is None else width
            rows.append(_row(cells, width, config, f"{path}, line {number}"))
        if rows[0][0] == DOCUMENT:
            rows, lines = rows[1:], lines[1:]
        if rows:
            found = True
            yield _sentence(rows, path, lines[0][0], task, config.join)
    if not found:
        raise KitaeError("there is no sentence in the file", cure="bring a complete copy of the file", where=str(path))


def refuse_slices(task: TaskConfig, path: Path) -> None:
    """Raise KitaeError when the task wants columns that such files do not have."""
    if task.slices:
        raise KitaeError("files of words have no columns to slice by", cure="remove `slices`", where=f"task {task.name}, {path}")


def tags_or_hidden(tags: Sequence[str], hidden: Sequence[str], where: str) -> Gold | None:
    """The tags, or None when all of them stand for hidden ones. Raises KitaeError when only some do."""
    count = sum(tag in hidden for tag in tags)
    if count not in (0, len(tags)):
        raise KitaeError(f"{count} of the sentence's {len(tags)} tags are hidden", cure="give all of them or none", where=where)
    return None if count else tuple(tags)


def joined(words: Sequence[str], between: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The text of words with what follows each, the last one's left out, and their places in it."""
    text, places = "", []
    for word, gap in zip(words, between, strict=True):
        places.append((len(text), len(text) + len(word)))
        text += word + gap
    return text[: places[-1][1]] if places else "", tuple(places)


def _sentences(path: Path, config: ConllConfig) -> Iterator[list[tuple[int, str]]]:
    """Lines with their numbers between empty ones."""
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(open_text(path), start=1):
        shown = line.rstrip("\n")
        if not shown.strip(" \t"):
            if lines:
                yield lines
            lines = []
        elif lines or not config.comment or not shown.startswith(config.comment):
            lines.append((number, shown))
    if lines:
        yield lines


def _row(cells: Sequence[str], width: int, config: ConllConfig, where: str) -> tuple[str, str]:
    """(word, tag) of a line."""
    if len(cells) != width:
        cure = "correct the line, or say `separator`, `columns` or `comment` in format_config"
        raise KitaeError(f"this line has {len(cells)} columns, not {width}", cure=cure, where=where)
    for name, place in (("word", config.word), ("tag", config.tag)):
        if not -width <= place < width:
            raise KitaeError(f"{name} = {place}, but there are {width} columns", cure="they are counted from 0", where=where)
    word, tag = cells[config.word], cells[config.tag]
    if not word or not tag:
        raise KitaeError(f"the {'tag' if word else 'word'} is empty", cure="fill it in or remove the line", where=where)
    return word, tag


def _sentence(rows: Sequence[tuple[str, str]], path: Path, line: int, task: TaskConfig, join: str) -> Example:
    where = f"{path}, line {line}"
    text, places = joined([word for word, _ in rows], [join] * len(rows))
    gold = tags_or_hidden([tag for _, tag in rows], task.hidden, where)
    return Example(id=f"{path.name}:{line}", text=text, words=places, gold=gold, where=where)
