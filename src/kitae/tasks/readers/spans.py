"""Examples from JSON with entities as stretches of characters: the Japanese Wikipedia NER data set, and the user's own."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example, Span
from kitae.text.streams import open_text

GAPS = " \t\n\r"


class SpansConfig(Config):
    """Under which names a text's entities stand. "a.0" is the first item of the list a."""

    entities: str = "entities"
    """The list of entities."""
    start: str = "span.0"
    """Of an entity its first character, counted from 0."""
    end: str = "span.1"
    """Of an entity the character behind its last."""
    type: str = "type"
    """Of an entity its class."""
    name: str = "name"
    """Of an entity its letters, which must be those of the text; "" when they are not to be compared."""


def read_spans(path: Path, task: TaskConfig, config: SpansConfig) -> Iterator[Example]:
    """One example per JSON object: of a list of them, or one after the other (JSON Lines).

    Raises KitaeError for broken JSON, a missing text or entity, places that are no numbers, and letters that differ from the text's.
    """
    for line, item in _objects(path):
        where = f"{path}, line {line}"
        text = "\n".join(str(_need(item, column, str, where)) for column in task.text)
        listed = _need(item, config.entities, list, where) if not task.hidden or _find(item, config.entities) is not None else None
        assert listed is None or isinstance(listed, list)
        yield Example(
            id=str(_need(item, task.id, (str, int), where)) if task.id else f"{path.name}:{line}",
            text=text,
            gold=None if listed is None else tuple(_span(entity, text, config, where) for entity in listed),
            slices={column: str(_need(item, column, (str, int), where)) for column in task.slices},
            where=where,
        )


def _span(entity: object, text: str, config: SpansConfig, where: str) -> Span:
    start, end = _need(entity, config.start, int, where), _need(entity, config.end, int, where)
    assert isinstance(start, int)
    assert isinstance(end, int)
    name = _find(entity, config.name) if config.name else None
    if name is not None and 0 <= start <= end and name != text[start:end]:
        what = f'the entity "{name}" is not at {start} to {end}, where the text has "{text[start:end]}"'
        raise KitaeError(what, cure='correct it, or set format_config = { name = "" }', where=where)
    return Span(start=start, end=end, label=str(_need(entity, config.type, str, where)))


def _find(item: object, key: str) -> object:
    for part in key.split("."):
        if isinstance(item, Mapping):
            item = item.get(part)
        elif isinstance(item, list) and part.isdecimal() and int(part) < len(item):
            item = item[int(part)]
        else:
            return None
    return item


def _need(item: object, key: str, kind: type | tuple[type, ...], where: str) -> object:
    found = _find(item, key)
    if not isinstance(found, kind) or isinstance(found, bool):
        wanted = (
            {str: "a text", int: "a number", list: "a list"}.get(kind, "a text or number") if isinstance(kind, type) else "a text or number"
        )
        what = f'there is no "{key}"' if found is None else f'"{key}" is {json.dumps(found, ensure_ascii=False)[:60]}, not {wanted}'
        known = ", ".join(item) if isinstance(item, Mapping) else ""
        raise KitaeError(what, cure=f"the keys are {known}" if known else "correct it", where=where)
    return found


def _objects(path: Path) -> Iterator[tuple[int, object]]:
    """Each object with the line where it begins."""
    text = "".join(open_text(path))
    decoder, position, line, listed = json.JSONDecoder(), 0, 1, False
    while True:
        step = _gap(text, position, listed)
        line += text.count("\n", position, step)
        position = step
        if not listed and text.startswith("[", position):
            listed, position = True, position + 1
            continue
        if position == len(text) or (listed and text[position] == "]"):
            break
        try:
            item, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            at = line + text.count("\n", position, error.pos) if isinstance(error, json.JSONDecodeError) else line
            said = error.msg if isinstance(error, json.JSONDecodeError) else "too deeply nested"
            raise KitaeError(f"this is not JSON: {said}", cure="correct the file", where=f"{path}, line {at}") from error
        yield line, item
        line += text.count("\n", position, end)
        position = end
    if listed and (position == len(text) or text[position + 1 :].strip()):
        raise KitaeError("the list does not end with the file", cure="bring a complete copy of the file", where=f"{path}, line {line}")


def _gap(text: str, position: int, listed: bool) -> int:
    """Behind blanks, and the comma between items of a list."""
    commas = 1 if listed else 0
    while position < len(text) and (text[position] in GAPS or (commas and text[position] == ",")):
        commas -= text[position] == ","
        position += 1
    return position
