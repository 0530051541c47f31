"""Words and tags as lists of JSON, Hugging Face's layout: {"tokens": ["EU", "rejects"], "ner_tags": ["B-ORG", "O"]}."""

import json
from collections.abc import Sequence

from kitae.core.errors import KitaeError
from kitae.text.tables import Json, find_column


def words_at(cells: dict[str, str], columns: Sequence[str], where: str) -> list[str] | None:
    """The words of the only column, where it holds a list; None where it holds something else, or there are several columns.

    Raises KitaeError for a list with what is no word.
    """
    found = find_column(cells, columns[0], where) if len(columns) == 1 else None
    if not isinstance(found, Json) or not found.startswith("["):
        return None
    words: list[str] = json.loads(found)
    for number, word in enumerate(words, start=1):
        if not isinstance(word, str) or not word:
            what = f'word {number} of "{columns[0]}" is {"empty" if word == "" else json.dumps(word, ensure_ascii=False)[:40]}'
            raise KitaeError(what, cure="correct the line: a list of texts", where=where)
    return words


def all_hidden(cell: str, hidden: Sequence[str], where: str) -> bool:
    """Whether the tags of a cell all stand for hidden ones. Raises KitaeError when only some do."""
    try:
        tags = [str(tag) for tag in json.loads(cell)] if cell.startswith("[") else cell.split()
    except ValueError:  # whoever reads the tags says so
        return False
    count = sum(tag in hidden for tag in tags)
    if count not in (0, len(tags)):
        raise KitaeError(f"{count} of the sentence's {len(tags)} tags are hidden", cure="give all of them or none", where=where)
    return count > 0
