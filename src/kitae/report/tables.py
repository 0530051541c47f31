"""Tables for people: the same rows as Markdown, CSV and plain text (LaTeX: kitae.report.latex). Cells cannot break out of their place."""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

Cell = str | int | float | None


class Probability(float):
    """A p-value: shown as "<0.001" where its digits would say that it is 0, which no p is. Files for programs keep all digits."""


_ENTITY = re.compile(r"&(?=#?\w+;)")
_MARKUP = "\\|`*_[~$"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A title, the columns' names, and rows of cells; numbers are shown with `digits` after the point."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    digits: int = 3
    aside: Sequence[str] = ()
    """Columns for programs: CSV has them, LaTeX does not."""

    def text(self, cell: Cell) -> str:
        """A cell as shown: rounded numbers, nothing for None, no line breaks or control characters."""
        if cell is None:
            return ""
        if isinstance(cell, Probability) and cell < 10**-self.digits:
            return f"<{10**-self.digits:.{self.digits}f}"
        if isinstance(cell, float):
            return f"{cell:z.{self.digits}f}"
        return printable(str(cell))

    def numeric(self, column: int) -> bool:
        """Whether a column has numbers only, and stands to the right."""
        return all(isinstance(row[column], int | float | None) for row in self.rows)


def markdown(table: Table) -> str:
    """A heading and a Markdown table; `|` and markup in cells are escaped, numbers are set to the right."""
    lines = [f"## {escaped(table.text(table.title))}", ""] if table.title else []
    numeric = [table.numeric(i) for i in range(len(table.columns))]
    lines.append(_line([escaped(name) for name in table.columns]))
    lines.append(_line(["---:" if right else "---" for right in numeric]))
    lines += [_line([escaped(table.text(cell)) for cell in row]) for row in table.rows]
    return "\n".join(lines) + "\n"


def comma_separated(table: Table) -> str:
    """CSV with full numbers; a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([neutral(name) for name in table.columns])
    for row in table.rows:
        writer.writerow(["" if cell is None else neutral(cell) if isinstance(cell, str) else cell for cell in row])
    return file.getvalue()


def plain(table: Table) -> str:
    """Aligned columns for a terminal; wide characters count two."""
    cells = [list(table.columns), *([table.text(cell) for cell in row] for row in table.rows)]
    widths = [max(width_of(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = ["  ".join(cell + " " * (width - width_of(cell)) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([*([table.title] if table.title else []), *lines]) + "\n"


def neutral(text: str) -> str:
    """A CSV cell that no spreadsheet runs as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def printable(text: str) -> str:
    """A text on one line, without control characters and what no file can hold."""
    return "".join(" " if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") else character for character in text)


def escaped(text: str) -> str:
    """A text as Markdown that shows it as it is."""
    made = _ENTITY.sub("&amp;", printable(text)).replace("<", "&lt;")
    return "".join(f"\\{character}" if character in _MARKUP else character for character in made)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def width_of(text: str) -> int:
    """Columns of a terminal: wide characters count two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
