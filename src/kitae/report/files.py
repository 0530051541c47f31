"""A table's files: CSV for programs and spreadsheets, LaTeX for papers."""

from pathlib import Path

from kitae.report.latex import latex
from kitae.report.tables import Table, comma_separated


def write(folder: Path, name: str, table: Table) -> None:
    """Write `name`.csv and `name`.tex into a folder."""
    (folder / f"{name}.csv").write_text(comma_separated(table), encoding="utf-8")
    (folder / f"{name}.tex").write_text(latex(table), encoding="utf-8")
