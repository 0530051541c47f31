"""Questions from the JSON Lines of the MRQA 2019 shared task: NewsQA, Natural Questions, TriviaQA, SearchQA, SQuAD, HotpotQA and others.

A header, then one context a line with its questions. `answers` are what counts as right; `detected_answers` say where in the context some
of them were found, with inclusive places. Contexts keep their marks [PAR], [TLE] and [DOC], as the places count them.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.tasks.answer_scores import english
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Answer, Example
from kitae.tasks.readers.json_values import need_id, need_list, need_object, need_place, need_text, slices_of
from kitae.tasks.readers.places import AnswerConfig, Placer
from kitae.text.streams import open_text
from kitae.text.tables import json_object

log = logging.getLogger(__name__)


class MrqaConfig(AnswerConfig):
    """How files of the MRQA shared task are read."""


def read_mrqa(path: Path, task: TaskConfig, config: MrqaConfig) -> Iterator[Example]:
    """The questions of a file; those without any detected answer are scored, but nothing is learnt from them.

    A detected answer that the official script would not count as right (it equals none of `answers`) is left out and counted. Raises
    KitaeError naming file, line and question for broken JSON, missing keys, empty questions and places that do not hold the answer.
    """
    placer = Placer(config, str(path))
    header: dict[str, object] = {}
    found, wrong = False, 0
    for number, line in enumerate(open_text(path), start=1):
        if line.isspace():
            continue
        place = f"{path}, line {number}"
        values = json_object(line, place)
        if "header" in values and "qas" not in values:
            header = need_object(values["header"], place)
            continue
        context = need_text(values, "context", place)
        for value in need_list(values, "qas", place):
            question = need_object(value, place)
            id_ = need_id(question, "qid", place)
            where = f"{place}, question {id_}"
            accepted = _accepted(question, where)
            detected = _detected(question, context, where, placer)
            kept = [one for one in detected if english(one.text) in {english(text) for text in accepted}]
            wrong += len(detected) - len(kept)
            known = {one.text for one in kept}
            found = True
            yield Example(
                id=id_,
                text=need_text(question, "question", where).strip(),
                second=context,
                gold=(*kept, *(Answer(start=-1, text=text) for text in accepted if text not in known)) or None,
                slices=slices_of(task.slices, (question, header, values), where),
                group=context,
                where=where,
            )
    if not found:
        raise KitaeError("there is no question in it", cure="bring a complete copy", where=str(path))
    placer.tell()
    if wrong:
        log.warning("%s: %d detected answers left out that equal none of the answers which count as right", path, wrong)


def _accepted(question: dict[str, object], where: str) -> list[str]:
    """What counts as right; nothing where the answers are hidden."""
    if "answers" not in question:
        return []
    listed = need_list(question, "answers", where)
    texts = [text for text in listed if isinstance(text, str) and text.strip()]
    if not texts or len(texts) != len(listed):
        raise KitaeError('"answers" is not a list of texts', cure="give every question its answers", where=where)
    return list(dict.fromkeys(texts))


def _detected(question: dict[str, object], context: str, where: str, placer: Placer) -> list[Answer]:
    """The detected answers, each at its first place."""
    found = []
    for value in need_list(question, "detected_answers", where) if "detected_answers" in question else []:
        answer = need_object(value, where)
        spans = need_list(answer, "char_spans", where)
        if not spans or not isinstance(spans[0], list) or len(spans[0]) != 2:
            raise KitaeError('"char_spans" does not begin with [start, end]', cure="correct it", where=where)
        placed = placer.place(
            need_text(answer, "text", where), need_place({"char_spans": spans[0][0]}, "char_spans", where), context, where
        )
        if placed is not None:
            found.append(placed)
    return found
