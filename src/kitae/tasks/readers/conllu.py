"""Examples from CoNLL-U, the format of Universal Dependencies (https://universaldependencies.org/format.html)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import field_validator

from kitae.core.config import Config
from kitae.core.errors import KitaeError, did_you_mean
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.readers.words import joined, refuse_slices, tags_or_hidden
from kitae.text.streams import open_text

COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
ABSENT = "_"
TEXT = "# text = "


class ConlluConfig(Config):
    """What of a word is its tag."""

    tag: str = "upos"
    """A column ("upos", "xpos", "lemma", "feats", "deprel"), or "misc.NE" for the key NE of the last one, "O" where it is absent."""

    @field_validator("tag")
    @classmethod
    def _known(cls, tag: str) -> str:
        if tag not in COLUMNS[2:9] and not tag.startswith("misc."):
            raise ValueError(f'tag = "{tag}": {did_you_mean(tag, [*COLUMNS[2:9], "misc.NE"])}')
        return tag


@dataclass(kw_only=True)
class _Sentence:
    """What is read of a sentence so far."""

    forms: list[str] = field(default_factory=list)
    """Surface tokens: words, or what several words are written as."""
    gaps: list[str] = field(default_factory=list)
    """What follows each."""
    words: list[tuple[str, int]] = field(default_factory=list)
    """Each syntactic word with the number of its surface token."""
    tags: list[str] = field(default_factory=list)
    until: int = 0
    """Words up to this number belong to the last surface token."""
    text: str | None = None
    line: int = 0


def read_conllu(path: Path, task: TaskConfig, config: ConlluConfig) -> Iterator[Example]:
    """Sentences with the text as it was: words follow each other without a blank where SpaceAfter=No says so.

    A multi-word token stands in the text, its words get the tags; where they are not its parts letter by letter (zum = zu dem), each
    has the place of the whole. Empty nodes are passed over. Raises KitaeError for a line that does not have ten columns, for words that are
    not those of "# text", no sentence at all.
    """
    refuse_slices(task, path)
    found = False
    now = _Sentence()
    for number, line in enumerate(open_text(path), start=1):
        shown, where = line.rstrip("\n"), f"{path}, line {number}"
        if shown.startswith("#") and not now.forms:
            now.text = shown.removeprefix(TEXT) if shown.startswith(TEXT) else now.text
        elif shown:
            now.line = now.line or number
            _word(now, shown.split("\t"), config.tag, where)
        elif now.forms:
            found = True
            yield _example(now, path, task)
            now = _Sentence()
    if now.forms:
        found = True
        yield _example(now, path, task)
    if not found:
        raise KitaeError("there is no sentence in the file", cure="bring a complete copy of the file", where=str(path))


def _word(now: _Sentence, cells: Sequence[str], wanted: str, where: str) -> None:
    if len(cells) != len(COLUMNS):
        raise KitaeError(f"this line has {len(cells)} columns, CoNLL-U has 10, with tabs between", cure="correct the line", where=where)
    row = dict(zip(COLUMNS, cells, strict=True))
    first, dash, last = row["id"].partition("-")
    if "." in first and not dash:
        return  # an empty node: no word of the text
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise KitaeError(f'"{row["id"]}" numbers no word', cure="correct the line", where=where)
    if not row["form"]:
        raise KitaeError("the word is empty", cure="correct the line", where=where)
    if dash or int(first) > now.until:
        now.forms.append(row["form"])
        now.gaps.append("" if "SpaceAfter=No" in row["misc"].split("|") else " ")
    if dash:
        now.until = int(last)
        return
    now.words.append((row["form"], len(now.forms) - 1))
    now.tags.append(_tag(row, wanted))
    if not now.tags[-1]:
        raise KitaeError(f"the tag ({wanted}) is empty", cure="correct the line", where=where)


def _tag(row: dict[str, str], wanted: str) -> str:
    if not wanted.startswith("misc."):
        return row[wanted]
    key = wanted.removeprefix("misc.") + "="
    return next((part.removeprefix(key) for part in row["misc"].split("|") if part.startswith(key)), "O")


def _example(now: _Sentence, path: Path, task: TaskConfig) -> Example:
    where = f"{path}, line {now.line}"
    text, surfaces = _placed(now, where)
    places: list[tuple[int, int]] = []
    for number, (start, end) in enumerate(surfaces):
        parts = [word for word, of in now.words if of == number]
        if "".join(parts) == text[start:end]:
            for part in parts:
                places.append((start, start + len(part)))
                start += len(part)
        else:
            places += [(start, end)] * len(parts)
    gold = tags_or_hidden(now.tags, task.hidden, where)
    return Example(id=f"{path.name}:{now.line}", text=text, words=tuple(places), gold=gold, where=where)


def _placed(now: _Sentence, where: str) -> tuple[str, Sequence[tuple[int, int]]]:
    """The text, "# text" where it is given, and the places of the surface tokens in it."""
    if now.text is None:
        return joined(now.forms, now.gaps)
    places, position = [], 0
    for form in now.forms:
        start = now.text.find(form, position)
        if start < 0 or now.text[position:start].strip():
            what = f'the word "{form}" is not where "# text" has it'
            raise KitaeError(what, cure="correct the word or the text", where=where)
        position = start + len(form)
        places.append((start, position))
    if now.text[position:].strip():
        raise KitaeError(f'"# text" goes on behind the last word: "{now.text[position:].strip()}"', cure="correct it", where=where)
    return now.text, places
