"""Pages whose markup does not match, taken apart by mwparserfromhell: a second opinion, where it costs no more than a few readings.

The library reads the rest of a page again for every opening that has no end where it must stand, and works by recursion.
"""

import re

import mwparserfromhell
from mwparserfromhell.nodes import Argument, Comment, Tag, Template, Wikilink
from mwparserfromhell.parser import ParserError
from mwparserfromhell.wikicode import Wikicode

from kitae.text.wikitemplates import is_spoken, name_of
from kitae.text.wikiwords import DROPPED

LONGEST_REPAIRED = 200_000  # characters
MOST_REPAIRED = 20  # openings without end
DEEPEST_REPAIRED = 20  # openings in openings; the library stops at 40
MARK = re.compile(
    r"(?P<brace>\{\{+)|(?P<ends>\}\}+)|(?P<link>\[\[)|(?P<bar>\]\])|(?P<address>\[(?:[a-z]{3,6}:|//))|(?P<stop>\])"
    r"|(?P<table>\n[ \t:]*+\{\|)"
    r"|(?P<end>\n[ \t:]*+\|\})|<(?P<close>/?)(?P<tag>[a-z][^\s<>/]*+)(?P<rest>[^<>]*+>?)",
    re.IGNORECASE,
)
ENDS = {"ends": "{", "bar": "[[", "stop": "[", "end": "{|"}
OPENINGS = {"brace": "{", "link": "[[", "address": "[", "table": "{|"}
ALONE = frozenset(("<br", "<hr", "<wbr", "<li", "<dt", "<dd", "<td", "<th", "<tr", "<img"))  # elements that need no end


def repaired(text: str, hidden: frozenset[str], *, hole: str) -> str | None:
    """The page without what the library takes for templates, tables and so on; what matches nothing is text.

    `hole` stands for a dropped template. None where the library would take long, or cannot do it.
    """
    if len(text) > LONGEST_REPAIRED or "\0" in text or not _is_cheap(text):  # NUL is the text's end to the library
        return None
    try:
        return _kept(mwparserfromhell.parse(text, skip_style_tags=True), hidden, hole)
    except (RecursionError, ParserError):
        return None


def _is_cheap(text: str) -> bool:
    """Whether few openings stand without their end, all kinds counted on one stack, and none stands deep in others."""
    stack: list[str] = []
    unmatched = 0
    for match in MARK.finditer(text):
        kind = match.lastgroup or ""
        times = len(match[0]) // 2 if kind in ("brace", "ends") else 1
        end = ENDS.get(kind)
        if kind == "rest":
            name, rest = "<" + match["tag"].lower(), match["rest"]
            if match["close"]:
                end = name
            else:
                unmatched += not rest.endswith(">") or rest.count('"') % 2 + rest.count("'") % 2 > 0
                stack += [name] * (not rest.endswith("/>") and name not in ALONE)
        elif not end:
            stack += [OPENINGS[kind]] * times
        if end:
            for _ in range(times):
                if end in stack[-MOST_REPAIRED:]:
                    while stack.pop() != end:
                        unmatched += 1
        if unmatched > MOST_REPAIRED or len(stack) > MOST_REPAIRED + DEEPEST_REPAIRED:
            return False
    return unmatched + len(stack) <= MOST_REPAIRED


def _kept(code: Wikicode, hidden: frozenset[str], hole: str) -> str:
    pieces = []
    for node in code.nodes:
        if isinstance(node, Template):
            pieces.append(str(node) if is_spoken(name_of(str(node))[0]) else hole)
        elif isinstance(node, Wikilink):
            space, colon, _ = str(node.title).partition(":")
            if not colon or space.strip().lower() not in hidden:
                label = "" if node.text is None else "|" + _kept(node.text, hidden, hole)
                pieces.append(f"[[{node.title}{label}]]")
        elif isinstance(node, Tag):
            name = str(node.tag).strip().lower()
            if node.contents is None or (node.wiki_markup and name != "table"):
                pieces.append(str(node))
            elif name not in DROPPED and name != "table":
                pieces.append(_kept(node.contents, hidden, hole))
        elif not isinstance(node, (Comment, Argument)):
            pieces.append(str(node))
    return "".join(pieces)
