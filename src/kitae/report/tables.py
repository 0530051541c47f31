"""Tables for people: the same rows as Markdown, CSV, LaTeX and plain text. Cells cannot break out of their place."""

import csv
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

Cell = str | int | float | None
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # behind a line's end it would be an argument
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A title, the columns' names, and rows of cells; numbers are shown with `digits` after the point."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    digits: int = 3

    def text(self, cell: Cell) -> str:
        """A cell as shown: rounded numbers, nothing for None, no line breaks or control characters."""
        if cell is None:
            return ""
        if isinstance(cell, float):
            return f"{cell:.{self.digits}f}"
        return "".join(" " if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") else character for character in str(cell))


def markdown(table: Table) -> str:
    """A heading and a Markdown table; `|` and markup in cells are escaped, numbers are set to the right."""
    lines = [f"## {_escape(table.text(table.title))}", ""] if table.title else []
    numeric = [_numeric(table, i) for i in range(len(table.columns))]
    lines.append(_line([_escape(name) for name in table.columns]))
    lines.append(_line(["---:" if right else "---" for right in numeric]))
    lines += [_line([_escape(table.text(cell)) for cell in row]) for row in table.rows]
    return "\n".join(lines) + "\n"


def comma_separated(table: Table) -> str:
    """CSV with full numbers; a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([neutral(name) for name in table.columns])
    for row in table.rows:
        writer.writerow(["" if cell is None else neutral(cell) if isinstance(cell, str) else cell for cell in row])
    return file.getvalue()


def latex(table: Table) -> str:
    """A table for LaTeX with booktabs: caption, columns with numbers to the right. It needs the package booktabs."""
    right = [_numeric(table, i) for i in range(len(table.columns))]
    caption = [f"\\caption{{{_latex(table.text(table.title))}}}"] if table.title else []
    body = [_latex_line([_latex(table.text(cell), number=isinstance(cell, float)) for cell in row]) for row in table.rows]
    lines = [
        "\\begin{table}",
        "\\centering",
        *caption,
        f"\\begin{{tabular}}{{{''.join('r' if side else 'l' for side in right)}}}",
        "\\toprule",
        _latex_line([_latex(table.text(name)) for name in table.columns]),
        "\\midrule",
        *body,
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def plain(table: Table) -> str:
    """Aligned columns for a terminal; wide characters count two."""
    cells = [list(table.columns), *([table.text(cell) for cell in row] for row in table.rows)]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = ["  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([*([table.title] if table.title else []), *lines]) + "\n"


def neutral(text: str) -> str:
    """A CSV cell that no spreadsheet runs as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def write(folder: Path, name: str, table: Table) -> None:
    """Write `name`.csv and `name`.tex into a folder."""
    (folder / f"{name}.csv").write_text(comma_separated(table), encoding="utf-8")
    (folder / f"{name}.tex").write_text(latex(table), encoding="utf-8")


def _numeric(table: Table, column: int) -> bool:
    return all(isinstance(row[column], int | float | None) for row in table.rows)


def _latex(text: str, *, number: bool = False) -> str:
    made = "".join(_LATEX.get(character, character) for character in text).replace("--", "-{}-")  # no dash of two
    return f"$-${made[1:]}" if number and made.startswith("-") else made


def _latex_line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _escape(text: str) -> str:
    for character in "\\|<`*_[":
        text = text.replace(character, "&lt;" if character == "<" else f"\\{character}")
    return text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
