"""Our wikitext scanner against mwparserfromhell, page by page, on every article of some dumps.

    python -m benchmarks.wikitext DUMP.xml.bz2 [DUMP ...] [--show 0.9]

`reference` is written apart from kitae's scanner, on the library's parse tree, and shares only the tables of names
(`kitae.text.wikiwords`): which templates are spoken, which final sections go, which namespaces are hidden. Similarity is
2 M / (a + b): a and b the characters of both texts after white space is folded, M the characters of a common subsequence
(lines first, then words and characters inside the lines that differ). It is found greedily, so the true value is not lower.

`words_kept` shares nothing with kitae's rules for templates: of the words in the paragraphs that the library's own `strip_code`
gives (lines of 80 characters and more before the first final section), the share that our text has too.
"""

import argparse
import contextlib
import difflib
import itertools
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.wikicode import Wikicode

from kitae.text.format import Columns
from kitae.text.readers import read
from kitae.text.wikitemplates import is_spoken, name_of, said
from kitae.text.wikitext import plain
from kitae.text.wikiwords import ALWAYS_HIDDEN, LANGUAGES, TAIL

NOT_PROSE = {
    "ref", "math", "chem", "ce", "gallery", "timeline", "syntaxhighlight", "source", "pre", "score", "imagemap", "hiero", "graph",
    "mapframe", "maplink", "inputbox", "templatedata", "templatestyles", "categorytree", "indicator", "includeonly", "style", "script",
    "table", "rt", "rtc", "rp",
}  # fmt: skip
OWN_LINE = {
    "br", "hr", "p", "li", "ol", "ul", "dl", "dd", "dt", "div", "center", "blockquote", "poem", "h1", "h2", "h3", "h4", "h5", "h6", "td",
    "th", "tr", "caption",
}  # fmt: skip
WORDS = re.compile(r"[A-Za-z0-9]+|.", re.DOTALL)
INTERWIKI = re.compile(rf"(?:{'|'.join(sorted(LANGUAGES, reverse=True))}):")
LETTERS = re.compile(r"[A-Za-z0-9\u00c0-\u024f]+|[^\W\d_]")
BETWEEN = re.compile(r"<br\s*/?>|\{\{\.\.\.\}\}")
"""What `strip_code` leaves nothing of, and makes one word of two."""
PARAGRAPH = 80  # characters
SMALLEST_DIFFERENCE = 4_000_000  # products of lengths up to which characters are matched; words beyond it


def reference(text: str, hidden: frozenset[str] = ALWAYS_HIDDEN) -> str:
    """What kitae keeps of a page, by mwparserfromhell's parse tree."""
    kept, skipped = [], 0
    for node in mwparserfromhell.parse(text, skip_style_tags=True).nodes:  # an unclosed '' would take headings and tables with it
        if isinstance(node, nodes.Heading):
            if not skipped or node.level <= skipped:
                skipped = node.level if shown(node.title, hidden).strip().lower() in TAIL else 0
            kept.append("\n")
        elif not skipped:
            kept.append(one(node, hidden))
    text = re.sub(r"__[A-Z]+__|'{5}|'{2,3}", "", "".join(kept))
    return folded("\n".join(re.sub(r"^[\s*#:;]+|^-{4,}", "", line) for line in text.split("\n")))


def shown(code: Wikicode | None, hidden: frozenset[str]) -> str:
    """The text of a part of a page."""
    return "" if code is None else "".join(one(node, hidden) for node in code.nodes)


def one(node: nodes.Node, hidden: frozenset[str]) -> str:
    """The text of one node."""
    if isinstance(node, nodes.Text):
        return str(node)
    if isinstance(node, nodes.HTMLEntity):
        return node.normalize()
    if isinstance(node, nodes.Wikilink):
        return link(node, hidden)
    if isinstance(node, nodes.ExternalLink):
        return shown(node.title, hidden) if node.brackets else str(node)
    if isinstance(node, nodes.Template):
        return spoken(node, hidden)
    if isinstance(node, nodes.Tag):
        name = str(node.tag).strip().lower()
        inside = "" if name in NOT_PROSE else shown(node.contents, hidden)
        return f"\n{inside}\n" if name in OWN_LINE and not node.wiki_markup else inside
    return "\n" + shown(node.title, hidden) + "\n" if isinstance(node, nodes.Heading) else ""


def link(node: nodes.Wikilink, hidden: frozenset[str]) -> str:
    """A link's label, or its target."""
    target = str(node.title)
    if target.partition(":")[0].strip().lower().replace("_", " ") in hidden and ":" in target:
        return ""
    if node.text is not None:
        return shown(node.text, hidden)
    if INTERWIKI.match(target.strip()):
        return ""
    return re.sub(rf"^:\s*(?:{INTERWIKI.pattern})?", "", shown(node.title, hidden))


def spoken(node: nodes.Template, hidden: frozenset[str]) -> str:
    """The words of a template that is part of a sentence."""
    name = name_of(str(node))[0]
    if not is_spoken(name):
        return ""
    parser_function = name == "formatnum"
    values = {str(value.name).strip().lower(): shown(value.value, hidden).strip() for value in node.params}
    return said(name, {"1": str(node.name).partition(":")[2]} if parser_function else values)


def folded(text: str) -> str:
    """Lines without outer or repeated white space, none of them empty."""
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def similarity(one: str, other: str) -> float:
    """See the module. 1 for equal texts, 0 for texts without a common character."""
    first, second = one.split("\n"), other.split("\n")
    whole = sum(map(len, first)) + sum(map(len, second))
    if not whole:
        return 1.0
    common = 0
    for tag, a, b, c, d in difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if tag == "equal":
            common += sum(map(len, first[a:b]))
        elif tag == "replace":
            common += common_characters("\n".join(first[a:b]), "\n".join(second[c:d]))
    return 2 * common / whole


def common_characters(one: str, other: str) -> int:
    """How many characters, line ends not counted, a common subsequence of two texts has."""
    small = len(one) * len(other) <= SMALLEST_DIFFERENCE
    first, second = (list(one), list(other)) if small else (WORDS.findall(one), WORDS.findall(other))
    blocks = difflib.SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    return sum(len(word) for block in blocks for word in first[block.a : block.a + block.size] if word != "\n")


def words_kept(text: str, ours: str, hidden: frozenset[str]) -> float:
    """See the module. `strip_code` keeps tables, captions and notes, which are taken out first."""
    code = mwparserfromhell.parse(BETWEEN.sub(" ", text), skip_style_tags=True)
    unwanted = [tag for tag in code.filter_tags() if str(tag.tag).strip().lower() in NOT_PROSE | {"div"}]
    unwanted += [link for link in code.filter_wikilinks() if str(link.title).partition(":")[0].strip().lower() in hidden]
    for node in unwanted:
        with contextlib.suppress(ValueError):  # it was inside another one
            code.remove(node)
    lines = itertools.takewhile(lambda line: line.strip().lower() not in TAIL, code.strip_code().split("\n"))
    theirs = Counter(LETTERS.findall("\n".join(line for line in lines if len(line) >= PARAGRAPH and "|" not in line)))
    return 1 - (theirs - Counter(LETTERS.findall(ours))).total() / max(1, theirs.total())


def articles(path: Path) -> Iterator[tuple[str, str, frozenset[str]]]:
    """(title, wikitext, hidden namespaces) of the articles of a dump."""
    for found in read(path, "wikipedia", columns=Columns()):
        if not found.drop:
            title, text, hidden, _ = found.text.args  # type: ignore[union-attr]
            yield title, text, hidden


def main() -> None:
    """Compare all pages, print the worst, and keep the figures."""
    from benchmarks.paired import keep

    parser = argparse.ArgumentParser()
    parser.add_argument("dump", type=Path, nargs="+")
    parser.add_argument("--show", type=float, default=0.0, help="print the difference of pages below this similarity")
    arguments = parser.parse_args()
    result = {}
    for path in arguments.dump:
        rows, kept = [], []
        for title, text, hidden in articles(path):
            ours, theirs = folded(plain(text, hidden=hidden)), reference(text, hidden)
            rows.append((similarity(ours, theirs), title, len(theirs)))
            kept.append((words_kept(text, ours, hidden), title))
            if rows[-1][0] < arguments.show:
                print(f"\n=== {title}: {rows[-1][0]:.4f}")
                print("\n".join(list(difflib.unified_diff(theirs.split("\n"), ours.split("\n"), "theirs", "ours", lineterm="", n=0))[:40]))
        found = sorted(rows)
        values = [value for value, _, _ in found]
        result[path.name] = {
            "pages": len(values),
            "median": statistics.median(values),
            "mean": statistics.fmean(values),
            "mean by characters": sum(value * size for value, _, size in found) / max(1, sum(size for _, _, size in found)),
            "percentiles": {str(share): values[min(len(values) - 1, len(values) * share // 100)] for share in (1, 5, 10, 25)},
            "words of strip_code kept": {"median": statistics.median(share for share, _ in kept), "least": min(kept)},
            "share of pages >= 0.97": sum(value >= 0.97 for value in values) / len(values),
            "worst pages": [{"title": title, "similarity": value, "characters": size} for value, title, size in found[:10]],
        }
    keep("wikitext-parity", {"similarity": result})


if __name__ == "__main__":
    main()
