"""Tables keep their shape whatever the cells hold."""

import csv
import io
from pathlib import Path

from kitae.report.files import write
from kitae.report.latex import latex
from kitae.report.tables import Probability, Table, comma_separated, escaped, markdown, neutral, plain

NASTY = Table(
    title="Scores of <b>all</b>",
    columns=("encoder", "mean", "n", "note"),
    rows=[("a|b", 0.91234, 5, None), ("=HYPERLINK(1)", -0.5, 1, "two\nlines\x1b[31m"), ("<script>", 1.0, 12, "x\u2028y")],
    digits=2,
)


def test_markdown_has_one_line_per_row_and_escapes() -> None:
    lines = markdown(NASTY).splitlines()
    assert lines[0] == "## Scores of &lt;b>all&lt;/b>"
    assert lines[3] == "| --- | ---: | ---: | --- |"
    assert lines[4] == "| a\\|b | 0.91 | 5 |  |"
    assert "<script>" not in markdown(NASTY)
    assert "\x1b" not in markdown(NASTY)
    assert len(lines) == 7


def test_csv_reads_back_with_full_numbers_and_without_formulas(tmp_path: Path) -> None:
    rows = list(csv.reader(io.StringIO(comma_separated(NASTY))))
    assert rows[0] == ["encoder", "mean", "n", "note"]
    assert rows[1] == ["a|b", "0.91234", "5", ""]
    assert rows[2][:3] == ["'=HYPERLINK(1)", "-0.5", "1"]
    assert neutral("-cmd") == "'-cmd"
    write(tmp_path, "scores", NASTY)
    assert (tmp_path / "scores.csv").read_text(encoding="utf-8") == comma_separated(NASTY)
    assert (tmp_path / "scores.tex").read_text(encoding="utf-8") == latex(NASTY)


def test_plain_is_aligned_with_wide_characters() -> None:
    table = Table(title="", columns=("label", "n"), rows=[("\u91d1\u878d", 1), ("ab", 22)])
    assert plain(table).splitlines() == ["label  n", "\u91d1\u878d   1", "ab     22"]


def test_latex_escapes_what_would_be_markup() -> None:
    lines = latex(NASTY).splitlines()
    assert lines[2] == r"\caption{Scores of \textless{}b\textgreater{}all\textless{}/b\textgreater{}}"
    assert r"\begin{tabular}{lrrl}" in lines
    assert [line for line in lines if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert r"a\textbar{}b & 0.91 & 5 &  \\" in lines
    assert any(line.startswith(r"=HYPERLINK(1) & $-$0.50 & 1 & two lines") for line in lines)
    specials = Table(title="", columns=("x",), rows=[("50 % & _#_ {a} ^~ [b] a--b",)])
    (row,) = [line for line in latex(specials).splitlines() if line.startswith("50")]
    assert row == r"50 \% \& \_\#\_ \{a\} \textasciicircum{}\textasciitilde{} {[}b] a-{}-b \\"
    assert "\\caption" not in latex(specials)


def test_a_p_value_is_never_shown_as_nothing_and_keeps_its_digits_in_csv() -> None:
    table = Table(title="", columns=("p",), rows=[(Probability(0.00019998),), (Probability(0.001),), (Probability(0.5),)])
    assert [line.strip("| ") for line in markdown(table).splitlines()] == ["p", "---:", "&lt;0.001", "0.001", "0.500"]
    assert comma_separated(table).split() == ["p", "0.00019998", "0.001", "0.5"]
    assert [line for line in latex(table).splitlines() if line.endswith(r"1 \\")] == [r"$<$0.001 \\", r"0.001 \\"]
    assert plain(Table(title="", columns=("x",), rows=[(-0.0001,)])).split() == ["x", "0.000"], "no minus before nothing"


def test_markdown_shows_texts_as_they_are() -> None:
    assert escaped("R & D & co; x&y") == "R & D & co; x&y"
    assert escaped("a_b *c* ~d~ $e$ &lt; <i>\n[x]") == r"a\_b \*c\* \~d\~ \$e\$ &amp;lt; &lt;i> \[x]"
