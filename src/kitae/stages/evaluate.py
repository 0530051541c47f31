"""Trials of one task -> comparison of its encoders and their errors, as JSON, Markdown, CSV, LaTeX and SVG."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from kitae.core.artifact import Inputs, Out
from kitae.core.config import LATER, Config
from kitae.procedures.comparison import Quoted, compare
from kitae.procedures.errors import error_tables, errors
from kitae.procedures.outcome import RESULTS
from kitae.procedures.result_tables import page, tables, times
from kitae.procedures.trial_set import read_trials
from kitae.report.files import write
from kitae.tasks.config import TaskConfig
from kitae.tasks.records import load

VERSION = 4


class EvaluateSettings(Config):
    """How to compare; what all tasks of a recipe share."""

    samples: Annotated[int, Field(ge=100)] = 10_000
    """Draws of the bootstrap."""
    worst: Annotated[int, LATER, Field(ge=0)] = 50
    """How many of each encoder's worst examples are named."""
    worst_texts: Annotated[bool, LATER] = True
    """Whether the worst examples are shown with their texts; false leaves texts, answers and entities' letters out, and keeps ids, places
    and labels."""
    quoted: Annotated[tuple[Quoted, ...], LATER] = ()
    """Published scores of other systems, shown as rows of their own with their source."""


class EvaluateConfig(EvaluateSettings):
    """How to compare the trials of a task."""

    task: TaskConfig
    """The labelled examples."""
    metric: str = ""
    """What the encoders are compared by; the others are shown beside it. Absent: the task's, or the first one of its kind."""


def sources(config: EvaluateConfig) -> tuple[str, ...]:
    """The task's files, whose examples are shown where encoders err."""
    return config.task.files


def run(config: EvaluateConfig, inputs: Inputs, out: Out) -> None:
    """Write results.json, results.md, errors.json, times.svg, and every table as CSV and LaTeX.

    The parents are all trials of the task, in the order to show, and those of several tasks with this one among them.
    """
    task = config.task
    trials = read_trials([_of_task(folder, task.name) for folder in inputs.parents.values()], task, load(task).test, metric=config.metric)
    result = compare(trials, samples=config.samples, seed=inputs.seed, quoted=config.quoted)
    (out.path / "results.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
    made = tables(result)
    wrong = {}
    if result.encoders:
        found = errors(trials, worst=config.worst, texts=config.worst_texts, seed=inputs.seed)
        (out.path / "errors.json").write_text(found.model_dump_json(indent=1), encoding="utf-8")
        (out.path / "times.svg").write_text(times(result), encoding="utf-8")
        wrong = error_tables(found, result.names)
    for name, table in {**made, **wrong}.items():
        write(out.path, name, table)
    shown = [wrong[name] for name in ("classes", "slices") if name in wrong]
    (out.path / "results.md").write_text(page(result, shown), encoding="utf-8")
    scores = {encoder.encoder: encoder.score.model_dump() for encoder in result.encoders}
    out.counts.update({"metric": result.metric, "scores": scores, "verdicts": result.verdicts})
    out.licences.append({"name": task.name, "licence": task.licence or "not stated", "source": task.citation or ", ".join(task.files)})


def _of_task(folder: Path, name: str) -> Path:
    """Where a trial keeps a task's results: its own folder, or of several tasks the task's."""
    return folder / name if (folder / name / RESULTS).is_file() else folder
