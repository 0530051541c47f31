"""Predictions as leaderboards and official scripts take them: a table `index, prediction` for each of a task's `submissions`, and JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.core.paths import locate
from kitae.procedures.finetuned import Finetuned
from kitae.tasks.config import Submission, TaskConfig
from kitae.tasks.examples import Example, Gold, to_json
from kitae.tasks.formats import read_examples

FOLDER = "submissions"


def write_submissions(model: Finetuned, task: TaskConfig, folder: Path) -> None:
    """Predict the examples of every submission of the task; writes folder/submissions/NAME, tab separated, in the files' order."""
    for name, submission in task.submissions.items():
        examples = read_submission(task, submission)
        (folder / FOLDER).mkdir(exist_ok=True)
        with (folder / FOLDER / name).open("w", encoding="utf-8", newline="") as file:
            file.write("\t".join(submission.columns) + "\n")
            for i, found in enumerate(model.predict(examples)):
                file.write(f"{examples[i].id if submission.id else i}\t{cell(found.value, submission.bounds)}\n")


def write_official(files: Mapping[str, object], folder: Path) -> None:
    """Write what a kind's official scripts read (`Kind.files`) as folder/submissions/NAME."""
    for name, content in files.items():
        (folder / FOLDER).mkdir(exist_ok=True)
        (folder / FOLDER / name).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def read_submission(task: TaskConfig, submission: Submission) -> list[Example]:
    """Its examples, without gold. Raises KitaeError as readers do, and when an id occurs twice."""
    own = {"text": submission.text or task.text, "second": submission.second or task.second, "choices": submission.choices or task.choices}
    settings = task.format_config if submission.format_config is None else submission.format_config
    settings = {key: value for key, value in settings.items() if not key.startswith("skip_")}  # every row is to be predicted
    unlabelled = {"label": "", "id": submission.id, "format": submission.format or task.format, "format_config": settings}
    plain = {"slices": (), "group": "", "parts": None}
    examples = list(read_examples(locate(submission.path), task.model_copy(update={**own, **unlabelled, **plain})))
    _check_ids(examples)
    return examples


def cell(value: Gold, bounds: tuple[float, float] | None) -> str:
    """A prediction as a table's cell: a label as it is (on one line), a number within the bounds, several labels or spans as JSON."""
    if isinstance(value, float):
        low, high = bounds or (value, value)
        return repr(round(min(max(value, low), high), 6))
    return " ".join(value.split()) if isinstance(value, str) else json.dumps(to_json(value), ensure_ascii=False)


def _check_ids(examples: Sequence[Example]) -> None:
    seen: dict[str, str] = {}
    for example in examples:
        if example.id in seen:
            what = f'the id "{example.id}" occurs twice, first in {seen[example.id]}'
            raise KitaeError(what, cure="name a column of unique ids", where=example.where)
        seen[example.id] = example.where
