"""All tasks of a recipe in one table: rows are encoders, columns tasks."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from kitae.core.config import Config, complaint
from kitae.core.errors import KitaeError
from kitae.core.score import Score
from kitae.procedures.comparison import Quoted, TaskResult
from kitae.procedures.result_tables import QUOTED, source
from kitae.report.names import addresses, short_names
from kitae.report.tables import Cell, Table, escaped


class TaskColumn(Config):
    """One task of the table."""

    task: str
    """Its name."""
    metric: str
    """What its scores are."""
    examples: int
    """Test examples that were scored."""


class EncoderRow(Config):
    """One encoder over the tasks."""

    encoder: str
    """Its name in the recipe."""
    scores: dict[str, Score]
    """By task: the metric's mean over the seeds with its 95 % interval over test examples and seeds."""
    seeds: dict[str, int]
    """By task: how many trials."""
    mean: float | None
    """The plain mean of its scores; None where it lacks a task. Metrics differ between tasks, so it says little."""


class Overview(Config):
    """The content of an overview's results.json."""

    tasks: list[TaskColumn]
    """In the order of the recipe; without those whose labels are all hidden."""
    encoders: list[EncoderRow]
    """In the order of the recipe's `compare`."""
    quoted: dict[str, list[Quoted]]
    """By task: scores that others published."""

    @property
    def names(self) -> dict[str, str]:
        """How every encoder is called where people read."""
        return short_names([row.encoder for row in self.encoders], [one.name for of in self.quoted.values() for one in of])


def read_result(folder: Path) -> TaskResult:
    """The comparison in an evaluation's folder. Raises KitaeError when it is absent or damaged."""
    try:
        return TaskResult.model_validate_json((folder / "results.json").read_bytes())
    except (OSError, ValidationError) as error:
        what = complaint(error) if isinstance(error, ValidationError) else str(error)
        raise KitaeError(f"the comparison cannot be read: {what}", cure="remove its folder and run again", where=str(folder)) from error


def overview(results: Sequence[TaskResult]) -> Overview:
    """The comparisons side by side."""
    scored = [result for result in results if result.encoders]
    names = list(dict.fromkeys(one.encoder for result in scored for one in result.encoders))
    rows = []
    for name in names:
        found = {result.task: one for result in scored for one in result.encoders if one.encoder == name}
        values = [one.score.value for one in found.values()]
        rows.append(
            EncoderRow(
                encoder=name,
                scores={task: one.score for task, one in found.items()},
                seeds={task: len(one.seeds) for task, one in found.items()},
                mean=sum(values) / len(values) if len(values) == len(scored) else None,
            )
        )
    columns = [TaskColumn(task=one.task, metric=one.metric, examples=one.examples["scored"]) for one in scored]
    return Overview(tasks=columns, encoders=rows, quoted={result.task: result.quoted for result in scored if result.quoted})


def overview_tables(found: Overview) -> dict[str, Table]:
    """The table for people, and every score on a line of its own for programs."""
    tasks, names = [column.task for column in found.tasks], found.names
    quoted = {one.name: source(one) for of in found.quoted.values() for one in of}
    columns = ["encoder", *(f"{column.task} ({column.metric.replace('_', ' ')})" for column in found.tasks), "mean"]
    rows: list[list[Cell]] = [[names[row.encoder], *(_cell(row.scores.get(task)) for task in tasks), row.mean] for row in found.encoders]
    if quoted:
        columns.append("source")
        rows = [[*row, None] for row in rows]
        rows += [[name, *(_quoted(found, task, name) for task in tasks), None, said] for name, said in quoted.items()]
    lines: list[tuple[Cell, ...]] = [
        (column.task, column.metric, names[row.encoder], row.seeds[column.task], score.value, score.low, score.high, None)
        for column in found.tasks
        for row in found.encoders
        for score in (row.scores.get(column.task),)
        if score is not None
    ]
    metrics = {column.task: column.metric for column in found.tasks}
    lines += [(task, metrics[task], one.name, None, one.score, None, None, source(one)) for task, of in found.quoted.items() for one in of]
    return {
        "overview": Table(title="All tasks, with 95 % intervals", columns=columns, rows=rows),
        "scores": Table(
            title="Every score",
            columns=("task", "metric", "encoder", "seeds", "mean", "95 % low", "95 % high", "source"),
            rows=lines,
        ),
    }


def note(found: Overview) -> str:
    """What a reader must know of the table."""
    text = "Intervals cover the choice of test examples and of seeds. Comparisons in pairs stand with each task (evaluate/TASK)."
    if found.quoted:
        text = f"{text} Rows with a source are {QUOTED}."
    folders = addresses(found.names)
    return f"{text} Folders: {escaped(folders)}." if folders else text


def _cell(score: Score | None) -> str | None:
    return None if score is None else f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})"


def _quoted(found: Overview, task: str, name: str) -> str | None:
    return next((f"{one.score:.3f}" for one in found.quoted.get(task, ()) if one.name == name), None)
