"""Trials of one task -> comparison of its encoders, as JSON, Markdown and CSV."""

from typing import Annotated

from pydantic import Field

from kitae.core.artifact import Inputs, Out
from kitae.core.config import Config
from kitae.procedures.comparison import TaskResult, compare, tables
from kitae.report.tables import markdown, write
from kitae.tasks.config import TaskConfig

VERSION = 2


class EvaluateConfig(Config):
    """How to compare."""

    task: TaskConfig
    """The labelled examples."""
    metric: str = ""
    """What the encoders are compared by; the others are shown beside it. Absent: the task's, or the first one of its kind."""
    samples: Annotated[int, Field(ge=100)] = 10_000
    """Draws of the bootstrap."""


def sources(config: EvaluateConfig) -> tuple[str, ...]:
    """None: what is compared comes from the trials."""
    return ()


def run(config: EvaluateConfig, inputs: Inputs, out: Out) -> None:
    """Write results.json, results.md and one CSV per table; the parents are all trials of the task, in the order to show."""
    folders = list(inputs.parents.values())
    result = compare(folders, task=config.task, metric=config.metric, samples=config.samples, seed=inputs.seed)
    (out.path / "results.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
    (out.path / "results.md").write_text(page(result), encoding="utf-8")
    for name, table in tables(result).items():
        write(out.path, name, table)
    scores = {encoder.encoder: encoder.score.model_dump() for encoder in result.encoders}
    out.counts.update({"metric": result.metric, "scores": scores, "verdicts": result.verdicts})
    task = config.task
    out.licences.append({"name": task.name, "licence": task.licence or "not stated", "source": task.citation or ", ".join(task.files)})


def page(result: TaskResult) -> str:
    """The whole comparison as Markdown: table, verdicts, pairs, seeds, confusion."""
    made = tables(result)
    counts = result.examples
    head = (
        f"Trained on {counts['train']} texts, the epoch chosen on {counts['validation']}, scored once on {counts['test']}. "
        f"Intervals cover the choice of test texts and of seeds ({len(result.labels)} labels); each is for one comparison alone."
    )
    parts = [markdown(made.pop("summary")), head, "\n".join(f"- {verdict}" for verdict in result.verdicts)]
    if counts.get("leaked"):
        parts.append(f"Warning: {counts['leaked']} test texts also stand in the training or validation texts.")
    parts += [f"Warning, {encoder.encoder}: {warning}" for encoder in result.encoders for warning in encoder.warnings]
    return "\n\n".join(part.strip() for part in [*parts, *(markdown(table) for table in made.values())] if part) + "\n"
