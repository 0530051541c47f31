"""Tables compile with the real engines, whatever their cells hold, and stay inside the page."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kitae.report.latex import CUT, latex
from kitae.report.tables import Probability, Table

PACKAGES = r"\usepackage{array,booktabs,graphicx,longtable}"
JAPANESE = "\u91d1\u878d\u306e\u30cb\u30e5\u30fc\u30b9"
NASTY = ("[b] first", "*", "50 % & _#_ $5 {a} ^~ <b> | \\input{x}", "a--b ''c'' ,,d `e`", "", "-", "x" * 90, "two\nlines\x1b[31m\ud800")


def nasty(extra: str = "", *, rows: int = 1) -> Table:
    """Every cell above in the first column, beside numbers, nothing, and a long text."""
    cells = [*NASTY, *([extra] if extra else [])]
    long = f"{extra} {'A text of many words. ' * 20}"
    lines = [(cell, -0.5, None, Probability(0.00001), i, long) for i, cell in enumerate(cells * rows)]
    return Table(title="Scores of <b>all</b> & 5 %", columns=("[x] #", "95 % low", "", "p", "n", "a long text"), rows=lines)


def wide(labels: int) -> Table:
    """A table as a confusion of so many labels."""
    names = [f"label {i}" for i in range(labels)]
    return Table(title="", columns=("", *names), rows=[(name, *range(labels)) for name in names])


def compiled(folder: Path, tables: list[Table], *engine: str, head: str) -> str:
    """The text of the pages. Fails where the engine does, and where anything is wider or higher than its place."""
    missing = [name for name in (*engine, "pdftotext") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    body = "\n\\clearpage\n".join(map(latex, tables))
    (folder / "a.tex").write_text(f"{head}{PACKAGES}\n\\begin{{document}}\n{body}\n\\end{{document}}\n", encoding="utf-8")
    made = subprocess.run([engine[0], "-interaction=nonstopmode", "-halt-on-error", "a.tex"], cwd=folder, capture_output=True, check=False)
    log = (folder / "a.log").read_text(encoding="utf-8", errors="replace")
    lacking = re.search(r"LaTeX Error: File `([^']*)' not found", log)
    if lacking:
        pytest.skip(f"{lacking[1]} is not installed")
    assert made.returncode == 0, log[-2000:]
    assert not re.search(r"Overfull|too large|Missing character", log), log
    for follow in engine[1:]:
        subprocess.run([follow, "-q", "a"], cwd=folder, check=True)
    return subprocess.run(["pdftotext", "-layout", "a.pdf", "-"], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_every_special_character_is_set_as_it_is(tmp_path: Path) -> None:
    text = compiled(tmp_path, [nasty(), nasty(rows=8), wide(9), wide(60)], "pdflatex", head=r"\documentclass{article}")
    for shown in ("[b] first", "# $5 {a}", "<b> |", "\\input{x}", "a--b", ",,d `e`", "x" * 24, "label 59", "Scores of <b>all</b> & 5 %"):
        assert shown in text, shown
    assert text.count("<0.001") == 9 * len(NASTY)
    assert len(re.findall(r"^ *\*", text, re.M)) == 9, "a star behind a line's end is no argument"


@pytest.mark.parametrize(
    ("engine", "head"),
    [
        (("uplatex", "dvipdfmx"), r"\documentclass[uplatex,dvipdfmx]{article}"),
        pytest.param(("lualatex",), r"\documentclass{article}\usepackage{luatexja}", marks=pytest.mark.slow),
    ],
)
def test_japanese_is_set_by_engines_that_know_it(tmp_path: Path, engine: tuple[str, ...], head: str) -> None:
    text = compiled(tmp_path, [nasty(JAPANESE), nasty(JAPANESE * 40, rows=6)], *engine, head=head)
    assert JAPANESE in text


def test_short_tables_float_and_long_ones_go_on_over_the_pages() -> None:
    short, long = latex(wide(9)), latex(nasty(rows=8))
    assert (short.count(r"\begin{table}"), short.count("longtable")) == (1, 0)
    assert (long.count(r"\begin{longtable}"), long.count("{table}")) == (1, 0)
    assert "longtable" not in latex(wide(60)), "a table that no face makes narrow enough is shrunk, which a longtable cannot be"


def test_texts_are_cut_and_empty_columns_left_out() -> None:
    table = Table(
        title="",
        columns=("id", "empty", "text", "where"),
        rows=[("a", None, JAPANESE * 60, "/x/y"), ("b", "", "short", "/x/z")],
        aside=("where",),
    )
    made = latex(table)
    assert "empty" not in made
    assert "/x/" not in made
    (row,) = [line for line in made.splitlines() if line.startswith("a &")]
    assert CUT / 2 - 8 < len(row) < CUT / 2 + 30
    assert " ... " in row
    assert "b & short " in made


def test_signs_of_numbers_are_no_hyphens_and_hyphens_stay() -> None:
    cells = ("0.09 (-0.228 to 0.4)", "-1.5 to -0.3", "bert-base-3", "x-2")
    made = latex(Table(title="", columns=("n", "m", "name", "id"), rows=[cells]))
    assert "0.09 ($-$0.228 to 0.4) & $-$1.5 to $-$0.3 & bert-base-3 & x-2 " in made
