"""Questions from the JSON of SQuAD 1.1 and 2.0, which JSQuAD, JaQuAD, COVID-QA and many others are written in."""

import json
from collections.abc import Iterator
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Answer, Example
from kitae.tasks.readers.json_values import need_id, need_list, need_object, need_place, need_text, slices_of
from kitae.tasks.readers.places import AnswerConfig, Placer
from kitae.text.archives import members
from kitae.text.streams import TextStream

ENDINGS = (".json",)


class SquadConfig(AnswerConfig):
    """How files in SQuAD's layout are read."""

    empty_is_hidden: bool = False
    """Whether questions without answers that do not say `is_impossible` are a test set's, with hidden answers; by default they are an
    error."""


def read_squad(path: Path, task: TaskConfig, config: SquadConfig) -> Iterator[Example]:
    """The questions of a file, of the .json files of a folder, or of an archive of them.

    Raises KitaeError naming file and question (or article) for broken JSON, missing keys, empty questions and contexts, answers that do
    not stand in the context where they should, and answers that contradict `is_impossible`.
    """
    placer = Placer(config, str(path))
    found = False
    for member in members(path, ENDINGS):
        where = member.stream.where
        document = _document("" if member.empty else TextStream(member.stream).read(), where)
        for number, value in enumerate(need_list(document, "data", where), start=1):
            place = f"{where}, article {number}"
            article = need_object(value, place)
            for paragraph in need_list(article, "paragraphs", place):
                layers = (need_object(paragraph, place), article)
                for example in _questions(layers, place, task, config, placer):
                    found = True
                    yield example
    if not found:
        raise KitaeError("there is no question in it", cure="bring a complete copy", where=str(path))
    placer.tell()


def _document(text: str, where: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "too deeply nested, or a huge number"
        raise KitaeError(f"this is not JSON: {reason}", cure="bring a complete copy of the file", where=where) from error
    return need_object(value, where)


def _questions(
    layers: tuple[dict[str, object], dict[str, object]], place: str, task: TaskConfig, config: SquadConfig, placer: Placer
) -> Iterator[Example]:
    """The questions of (paragraph, article), which stands at `place`: file and article."""
    paragraph, article = layers
    context = need_text(paragraph, "context", place)
    for value in need_list(paragraph, "qas", place):
        question = need_object(value, place)
        id_ = need_id(question, "id", place)
        where = f"{place.rpartition(', article')[0]}, question {id_}"
        listed = _listed(question, where, config)
        gold = None if listed is None else _placed(listed, context, where, placer)
        if listed and not gold:
            placer.questions += 1
            continue
        yield Example(
            id=id_,
            text=need_text(question, "question", where).strip(),
            second=context,
            gold=gold,
            slices=slices_of(task.slices, (question, paragraph, article), where),
            group=context,
            where=where,
        )


def _listed(question: dict[str, object], where: str, config: SquadConfig) -> list[object] | None:
    """The answers as they are listed, [] of questions that have none; None where they are hidden."""
    impossible = question.get("is_impossible")
    if impossible is not None and not isinstance(impossible, bool):
        raise KitaeError(f'"is_impossible" is {impossible!r}', cure="write true or false", where=where)
    if "answers" not in question:
        return [] if impossible else None
    listed = need_list(question, "answers", where)
    if listed and impossible:
        raise KitaeError("the question is impossible and has answers", cure="correct one of them", where=where)
    if listed or impossible:
        return listed
    if impossible is None and config.empty_is_hidden:
        return None
    cure = "say is_impossible, or format_config.empty_is_hidden = true for a test set"
    raise KitaeError("the question has no answer, and does not say that it is impossible", cure=cure, where=where)


def _placed(listed: list[object], context: str, where: str, placer: Placer) -> tuple[Answer, ...]:
    found = []
    for value in listed:
        answer = need_object(value, where)
        placed = placer.place(need_text(answer, "text", where), need_place(answer, "answer_start", where), context, where)
        if placed is not None:
            found.append(placed)
    return tuple(found)
