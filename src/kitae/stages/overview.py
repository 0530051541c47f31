"""Comparisons of several tasks -> one table over all of them, as JSON, Markdown, CSV and LaTeX."""

from kitae.core.artifact import Inputs, Out
from kitae.core.config import Config
from kitae.procedures.overview import note, overview, overview_tables, read_result
from kitae.report.files import write
from kitae.report.tables import markdown

VERSION = 2


class OverviewConfig(Config):
    """Which tasks."""

    tasks: tuple[str, ...]
    """Their names, in the order of the columns."""


def sources(config: OverviewConfig) -> tuple[str, ...]:
    """None: what is shown comes from the comparisons."""
    return ()


def run(config: OverviewConfig, inputs: Inputs, out: Out) -> None:
    """Write results.json, results.md, and the tables as CSV and LaTeX; the parents are the tasks' comparisons, by their names."""
    found = overview([read_result(inputs.path(name)) for name in config.tasks])
    (out.path / "results.json").write_text(found.model_dump_json(indent=1), encoding="utf-8")
    made = overview_tables(found)
    (out.path / "results.md").write_text(f"{markdown(made['overview'])}\n{note(found)}\n", encoding="utf-8")
    for name, table in made.items():
        write(out.path, name, table)
    out.counts.update({"encoders": len(found.encoders), "tasks": [column.task for column in found.tasks]})
