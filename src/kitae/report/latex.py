"""Tables for LaTeX that stay inside the page, whatever their cells hold.

Packages: booktabs, array, graphicx and longtable, which every installation has. A table of some rows floats and shrinks when it is wider
than the line; one of many rows goes on over the pages, in a smaller face where it must. Long texts are paragraphs, and are cut; columns
without any content are left out. Widths are estimated, in halves of a wide character.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from kitae.report.tables import Cell, Table, width_of

ROWS = 40
"""Lines of a table on one page."""
CUT = 160
"""Width of the longest text; CSV has all of it."""
LONG = 30
"""Width above which a text is set as a paragraph."""
LINE = 345.0
"""Points of a line of the class article, by which faces and paragraphs are chosen."""
_FACES = (("", 5.0, 6), ("\\small", 4.6, 5), ("\\footnotesize", 4.2, 4), ("\\scriptsize", 3.7, 3))  # points of a letter, between columns
_CAPITALS = 1.1  # how much wider letters may be than that, where nothing shrinks the table
_WANTED, _LEAST = 32, 14  # letters of a paragraph
_RUN = 24  # letters without a place to break
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
    "`": r"\textasciigrave{}",
    "[": "{[}",  # behind a line's end it would be an argument
    "*": "{*}",  # and so would this
}
_MINUS = re.compile(r"(?<![\w.}-])-(?=\d)")
_LIGATURES = "-',"
"""Two of them would become one other character."""


@dataclass(frozen=True, kw_only=True)
class _Column:
    """What one column shows, and how wide that is."""

    head: Sequence[str]
    """The lines of its name."""
    cells: Sequence[Cell]
    texts: Sequence[str]
    width: int
    right: bool

    @property
    def long(self) -> bool:
        return self.width > LONG


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """How a table is set."""

    face: str
    between: int
    """Points between columns, on either side of each."""
    paragraphs: Sequence[float]
    """Share of the line that each long column gets."""
    lines: int
    """How many lines it takes."""
    fits: bool
    """Whether it is as narrow as the line."""


def latex(table: Table) -> str:
    """The table with its caption: a float, or where it has too many lines for a page a longtable."""
    shown = [i for i, name in enumerate(table.columns) if name not in table.aside]
    columns = [made for made in (_column(table, i) for i in shown) if any(made.texts) or not table.rows]
    shape = _shape(columns, len(table.rows))
    paged = shape.lines > ROWS
    if paged:
        shape = _shape(columns, len(table.rows), wider=_CAPITALS)
    shares = iter(shape.paragraphs)
    sides = [_paragraph(next(shares)) if column.long else "r" if column.right else "l" for column in columns]
    head = _line([_head(column) for column in columns])
    rows = [_line([_cell(column, i) for column in columns]) for i in range(len(table.rows))]
    if shape.paragraphs:
        rows = [f"{row} \\addlinespace" for row in rows]
    caption = f"\\caption{{{_escaped(table.text(table.title))}}}" if table.title else ""
    face = f"{shape.face}\\setlength{{\\tabcolsep}}{{{shape.between}pt}}"
    if paged and (shape.fits or shape.paragraphs):
        return _over_pages("".join(sides), caption, head, rows, face)
    return _float("".join(sides), caption, head, rows, face)


def _float(sides: str, caption: str, head: str, rows: Sequence[str], face: str) -> str:
    lines = [
        "\\begin{table}",
        "\\centering",
        *([caption, "\\smallskip"] if caption else []),
        face,
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{{sides}}}",
        *("\\toprule", head, "\\midrule", *rows, "\\bottomrule"),
        "\\end{tabular}}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _over_pages(sides: str, caption: str, head: str, rows: Sequence[str], face: str) -> str:
    named = ["\\toprule", head, "\\midrule"]
    lines = [
        f"{{{face}",
        f"\\begin{{longtable}}{{{sides}}}",
        *([f"{caption} \\\\"] if caption else []),
        *(*named, "\\endfirsthead", *named, "\\endhead", "\\bottomrule", "\\endfoot", *rows),
        "\\end{longtable}}",
    ]
    return "\n".join(lines) + "\n"


def _column(table: Table, place: int) -> _Column:
    cells = [row[place] for row in table.rows]
    texts = [_cut(table.text(cell)) for cell in cells]
    words = table.text(table.columns[place]).split()
    inside = max((width_of(text) for text in texts), default=0)
    head = _wrapped(words, max([inside, *map(width_of, words)]))
    width = max([inside, *map(width_of, head)])
    return _Column(head=head, cells=cells, texts=texts, width=width, right=table.numeric(place))


def _shape(columns: Sequence[_Column], rows: int, *, wider: float = 1.0) -> _Shape:
    """The largest face in which all columns fit, and the paragraphs have room."""
    long = [min(column.width, CUT) for column in columns if column.long]
    for face, points, between in _FACES:
        letter = points * wider
        fixed = letter * sum(column.width for column in columns if not column.long) + 2 * between * len(columns)
        room, last = LINE - fixed, face == _FACES[-1][0]
        if room >= len(long) * _WANTED * letter or last:
            break
    least = _LEAST * letter
    rest = max(room - len(long) * least, 0.0)
    shares = [(least + rest * width / sum(long)) / LINE for width in long]
    letters = [share * LINE / letter for share in shares]
    high = [
        max([1, *(ceil(width_of(column.texts[i]) / of) for column, of in zip([c for c in columns if c.long], letters, strict=True))])
        for i in range(rows)
    ]
    return _Shape(face=face, between=between, paragraphs=shares, lines=sum(high), fits=room >= 0)


def _paragraph(share: float) -> str:
    return f">{{\\raggedright\\arraybackslash}}p{{{share:.3f}\\linewidth}}"


def _head(column: _Column) -> str:
    lines = [_escaped(line) for line in column.head]
    if len(lines) < 2:
        return "".join(lines)
    stacked = r" \\ ".join(lines)
    return f"\\begin{{tabular}}[b]{{@{{}}{'r' if column.right else 'l'}@{{}}}}{stacked}\\end{{tabular}}"


def _cell(column: _Column, row: int) -> str:
    text = column.texts[row]
    if column.long:
        return _escaped(text, breaks=True)
    if isinstance(column.cells[row], float) and text[:1] in ("-", "<"):
        return f"${text[0]}${text[1:]}"
    return _MINUS.sub("$-$", _escaped(text))


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _wrapped(words: Sequence[str], room: int) -> list[str]:
    """Words in lines of that width."""
    lines: list[str] = []
    for word in words:
        if lines and width_of(f"{lines[-1]} {word}") <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _cut(text: str) -> str:
    """A text's beginning that is no wider than CUT, with dots behind it where something is missing."""
    if width_of(text) <= CUT:
        return text
    kept, width = "", 0
    for character in text:
        width += width_of(character)
        if width > CUT - 4:
            break
        kept += character
    return f"{kept.rstrip()} ..."


def _escaped(text: str, *, breaks: bool = False) -> str:
    """A text as LaTeX shows it as it is; with `breaks`, long runs of letters have places where a line may end."""
    made: list[str] = []
    run, before = 0, ""
    for character in text:
        if character == before and character in _LIGATURES:
            made.append("{}")
        made.append(_LATEX.get(character, character))
        run = 0 if character.isspace() or width_of(character) > 1 else run + 1
        if breaks and (run >= _RUN or (run >= _RUN / 3 and not character.isalnum())):
            made.append("\\allowbreak{}")
            run = 0
        before = character
    return "".join(made)
