"""The livedoor news corpus as RONDHUIT distributes it (ldcc): a folder a category, a file an article, of url, date, title and body.

Its texts are CC BY-ND 2.1 JP. Lists of its files, as Laboro-BERT's train, dev and test have them, are read, too.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.paths import locate
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.readers.rows import Row, RowsConfig, examples_from
from kitae.text.archives import Member, members
from kitae.text.streams import TextStream
from kitae.text.tables import need_column, read_rows

CATEGORIES = (
    "dokujo-tsushin", "it-life-hack", "kaden-channel", "livedoor-homme", "movie-enter", "peachy", "smax", "sports-watch", "topic-news",
)  # fmt: skip
"""The nine; 870, 870, 864, 511, 870, 842, 870, 900 and 770 articles."""
NO_ARTICLES = ("license.txt", "readme.txt", "changes.txt")


def livedoor_rows(path: Path, config: RowsConfig) -> Iterator[Row]:
    """Columns url, date, title, body, category. `path` is the folder above the categories' folders, or an archive of it."""
    del config
    for member in _articles(path):
        yield _row(member, path)


def read_index(path: Path, task: TaskConfig, config: RowsConfig) -> Iterator[Example]:
    """The articles of a table (tab separated: filename, category), in its order; the task's `beside` is the folder or archive of all.

    Their ids are the lines of the list: Laboro-BERT's training list names four articles twice, and has two in common with its dev list.

    Raises KitaeError for a listed article that is not there, or lies in another category.
    """
    if len(task.beside) != 1:
        raise KitaeError("the articles' folder is not named", cure='say beside = "FOLDER"', where=f"task {task.name}")
    yield from examples_from(partial(_listed, articles=locate(task.beside[0])))(path, task, config)


def _listed(path: Path, config: RowsConfig, *, articles: Path) -> Iterator[Row]:
    del config
    listed: list[tuple[int, str, str]] = []
    for number, cells in read_rows(path, format="tsv"):
        where = f"{path}, line {number}"
        listed.append((number, need_column(cells, "filename", where), need_column(cells, "category", where)))
    wanted = {name for _, name, _ in listed}
    found = {}
    for member in _articles(articles):
        name = PurePosixPath(member.name).name
        if name in wanted:
            found[name] = _row(member, articles)
    for number, name, category in listed:
        where = f"{path}, line {number}"
        if name not in found:
            raise KitaeError(f'there is no article "{name}"', cure=f"complete the articles in {articles}", where=where)
        lies = found[name].cells["category"]
        if lies != category:
            raise KitaeError(f'"{name}" is listed as {category}, but lies in {lies}', cure="correct one of the two", where=where)
        yield replace(found[name], id=f"{path.name}:{number}")


def _articles(path: Path) -> Iterator[Member]:
    any_article = False
    for member in members(path, (".txt",)):
        if PurePosixPath(member.name).name.lower() not in NO_ARTICLES:
            any_article = True
            yield member
    if not any_article:
        raise KitaeError("there is no article", cure="name the folder that holds the nine categories' folders", where=str(path))


def _row(member: Member, path: Path) -> Row:
    name = PurePosixPath(member.name)
    where = f"{path}, {member.name}"
    category = name.parent.name or path.name
    if category not in CATEGORIES:
        raise KitaeError(f'"{category}" is no category of livedoor', cure=did_you_mean(category, CATEGORIES), where=where)
    lines = [] if member.empty else [line.rstrip("\n") for line in TextStream(member.stream)]
    if len(lines) < 3 or "://" not in lines[0]:
        raise KitaeError("this is no article: its lines are not url, date, title, body", cure="bring a complete copy of it", where=where)
    cells = {"url": lines[0], "date": lines[1], "title": lines[2], "body": "\n".join(lines[3:]).strip(), "category": category}
    return Row(cells=cells, where=f"{where}, line 3", id=name.stem)
