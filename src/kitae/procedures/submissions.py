"""Predictions as leaderboards and official scripts take them: a table `index, prediction` for each of a task's `submissions`, and JSON."""

import json
from collections.abc import Mapping
from pathlib import Path

from kitae.procedures.finetuned import Finetuned
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Gold, to_json
from kitae.tasks.unlabelled import read_submission

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


def cell(value: Gold, bounds: tuple[float, float] | None) -> str:
    """A prediction as a table's cell: a label as it is (on one line), a number within the bounds, several labels or spans as JSON."""
    if isinstance(value, float):
        low, high = bounds or (value, value)
        return repr(round(min(max(value, low), high), 6))
    return " ".join(value.split()) if isinstance(value, str) else json.dumps(to_json(value), ensure_ascii=False)
