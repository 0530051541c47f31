"""Comparisons under several numbers of labelled examples -> learning curves, as JSON, Markdown, CSV and a figure."""

from kitae.core.artifact import Inputs, Out
from kitae.core.config import Config
from kitae.procedures.curve import Curves, curves, figure, tables
from kitae.procedures.overview import read_result
from kitae.report.files import write
from kitae.report.names import addresses
from kitae.report.tables import escaped, markdown

VERSION = 2


class CurveConfig(Config):
    """Which task."""

    task: str
    """Its name."""


def sources(config: CurveConfig) -> tuple[str, ...]:
    """None: what is shown comes from the comparisons."""
    return ()


def run(config: CurveConfig, inputs: Inputs, out: Out) -> None:
    """Write results.json, results.md, curve.svg and two tables; the parents are the comparisons, one for each number of examples."""
    found = curves([read_result(folder) for folder in inputs.parents.values()])
    (out.path / "results.json").write_text(found.model_dump_json(indent=1), encoding="utf-8")
    (out.path / "results.md").write_text(page(found), encoding="utf-8")
    if found.curves:  # none where the labels of all test examples are hidden
        (out.path / "curve.svg").write_text(figure(found), encoding="utf-8")
    for name, table in tables(found).items():
        write(out.path, name, table)
    out.counts.update({"metric": found.metric, "curves": {c.encoder: [[p.examples, p.value] for p in c.points] for c in found.curves}})


def page(found: Curves) -> str:
    """The curves as Markdown."""
    note = (
        "Every seed draws examples of its own, the same for every encoder; a smaller draw is part of a larger one. The epoch is chosen on "
        f"all {found.validation} validation examples, however few are learnt from; scored on {found.test} test examples."
    )
    folders = addresses(found.names)
    told = f" Folders: {escaped(folders)}." if folders else ""
    return f"{markdown(tables(found)['curve'])}\n{note}{told}\n"
