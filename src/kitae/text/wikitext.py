"""Wikitext -> plain text by whole-page regular expressions: every step takes time linear in the page, whatever its markup.

Kept: prose, the labels of links, list items, what stands in the few templates that are part of a sentence (SPOKEN).
Dropped: other templates, tables, references, comments, files, categories, mathematics, galleries, code, the sections of
links and notes that end an article (TAIL). A page whose brackets do not match is taken apart by mwparserfromhell first.
"""

import functools
import html
import re

from kitae.text.wikirepair import repaired
from kitae.text.wikitemplates import is_spoken, name_of, said, values_of
from kitae.text.wikiwords import ALWAYS_HIDDEN, DROPPED, LANGUAGES, SPACING, TAIL

HOLE = "\x01"  # left where something was dropped inside a line; XML text cannot hold this character
GONE = "\x02"  # left for a moment where brackets lost all they held
DEEPEST = 8  # links in captions in captions: beyond this depth brackets are text

TAGS = (
    "abbr|b|bdi|bdo|big|blockquote|br|caption|center|cite|code|dd|del|dfn|div|dl|dt|em|font|h[1-6]|hr|i|ins|kbd|li|mark|noinclude|"
    "nowiki|ol|onlyinclude|p|poem|q|rb|references|rp|rt|rtc|ruby|s|samp|section|small|span|strike|strong|sub|sup|t[dhr]|tbody|time|tt|u|ul|var|wbr"
)
ELEMENT = re.compile(rf"<(?:!--|({'|'.join(DROPPED)}|nowiki)(?=[\s/>])([^<>]*+)>)", re.IGNORECASE)
NEXT_REFERENCE = re.compile(r"<ref(?=[\s>])[^<>]*+(?<!/)>", re.IGNORECASE)
BRACES = re.compile(r"\{\{+|\}\}+")
TABLES = re.compile(r"\n[ \t:*#;]*+(?:(\{\|)|\|\}(?!\}))|<(table)\b[^<>]*+>|</table\s*+>", re.IGNORECASE)
TABLE_LINE = re.compile(r"\n[ \t:]*+(?:\{\||\||!)[^\n]*+")
PLAIN_LINK = re.compile(r"\[\[(?:[^\[\]|:\n]*+\|([^\[\]\n]++)|([^\[\]|:\n]*+))\]\]")
ANY_LINK = re.compile(r"\[\[((?:[^\[\]]++|\[(?!\[)|\](?!\]))*+)\]\]")
FOREIGN = re.compile(rf"\A\s*+:\s*+(?:(?:{'|'.join(sorted(LANGUAGES, reverse=True))})\s*+:)?")
WRITING = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,})*\s*+:")
ADDRESS = re.compile(r"\[(?:(?:https?|ftps?|ircs?|news|mailto|gopher|git|svn):|//)[^\s\[\]<>\"]*+(?:\s++([^\[\]\n]*+))?\]")
BREAK = re.compile(r"</?(?:br|hr|p|li|ol|ul|d[dlt]|div|center|blockquote|poem|h[1-6]|t[dhr]|caption)\b[^<>]*+>", re.IGNORECASE)
TAGGED_HEADING = re.compile(r"\n=[^\n<]*+<[^\n]*+")
READING = re.compile(r"<(rt|rtc|rp)(?=[\s>])[^<>]*+>[^<>\n]*+(?:</\1\s*+>)?", re.IGNORECASE)  # their ends may be left out
TAG = re.compile(rf"</?(?:{TAGS})(?=[\s/>])[^<>]*+>", re.IGNORECASE)
VARIANT = re.compile(r"-\{([^{}]*+)\}-")
SWITCH = re.compile(r"__(?:[A-Z]++|[^\W\d_a-zA-Z]++)__")
POSSESSIVE = re.compile(r"(?<!')''(?!')([^'\n]++)'''(?=s\b)")  # ''Iliad'''s is an italic word with an apostrophe
HEADING = re.compile(r"\n=[^\n]*+")
LINE_START = re.compile(r"\n(?:[\s*#:;\x01]++|-{4,}+)*+")
EMPTIED = re.compile(r"([(（])(?=[ ,;:、，；：/]*+\x01)[ ,;:、，；：/\x01]*+([)）]?)")
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]\w{1,30});")
LITERAL = str.maketrans({mark: f"&#{ord(mark)};" for mark in "&<>[]{}|'=*#:;_-"})


def plain(text: str, *, hidden: frozenset[str] = ALWAYS_HIDDEN, headings: bool = False) -> str:
    """The prose of a page, a paragraph or list item a line.

    `hidden` are the lower-case names of namespaces whose links are not shown (files, categories). Headings are left out
    unless asked for: they are no sentences, and BERT's own Wikipedia text had none (Devlin et al. 2019, section 3.1).
    """
    text, unmatched = _without_elements(text.replace(HOLE, ""))
    found, more = _inline(text, hidden)
    if unmatched + more and (mended := repaired(text, hidden, hole=HOLE)) is not None:
        found, _ = _inline(mended, hidden)
    return _lines(found, headings)


def _inline(text: str, hidden: frozenset[str]) -> tuple[str, int]:
    """Text without elements -> without markup but for lines' starts and entities, and how many openings had no end."""
    unmatched = 0
    if "{{" in text:
        text, unmatched = _templates(text)
    if "{|" in text or "<t" in text or "<T" in text:
        text, open_tables = _without_tables(text)
        unmatched += open_tables
    text, open_links = _links(text, hidden)
    if "-{" in text:
        text = VARIANT.sub(_variant, text)
    if "<" in text:
        text = READING.sub("", TAGGED_HEADING.sub(lambda match: BREAK.sub(" ", match[0]), text))
        text = TAG.sub("", BREAK.sub("\n", text))
    if "__" in text:
        text = SWITCH.sub("", text)
    if "'''s" in text:
        text = POSSESSIVE.sub(r"\1'", text)
    for mark in ("'''''", "'''", "''", "{{", "}}", "[[", "]]"):
        text = text.replace(mark, "")
    return text, unmatched + open_links


def _without_elements(text: str) -> tuple[str, int]:
    """Without comments and elements whose content is no prose; the content of <nowiki> as entities, so that no step sees markup."""
    pieces, start, unmatched = [], 0, 0
    ends: dict[str, int] = {}  # where an element's next end stands: found once, so that a thousand openings without end stay cheap
    match = ELEMENT.search(text)
    while match:
        name, inside = (match[1] or "").lower(), match.end()
        pieces.append(text[start : match.start()])
        start = inside
        if not (name and match[2].endswith("/")):
            if ends.get(name, -1) < inside:
                ends[name] = _end(text, name, inside)
            end = ends[name]
            if end > len(text) or (name == "ref" and NEXT_REFERENCE.search(text, inside, end)):
                unmatched += 1
            else:
                start = text.index(">", end) + 1
                if name == "nowiki":
                    pieces.append(_literal(text[inside:end]))
                elif name not in ("", "ref"):
                    pieces.append(HOLE)
        match = ELEMENT.search(text, start)
    return ("".join([*pieces, text[start:]]), unmatched) if pieces else (text, 0)


def _end(text: str, name: str, start: int) -> int:
    """Where the next end of an element (or comment, "") stands; beyond the text if there is none."""
    match = _ending(name).search(text, start)
    return match.start() if match else len(text) + 1


@functools.cache
def _ending(name: str) -> re.Pattern[str]:
    return re.compile(rf"</{name}\s*+>" if name else "-->", re.IGNORECASE)


def _literal(text: str) -> str:
    """The content of <nowiki>: every mark as an entity, which the last step turns back."""
    return _entities(text).translate(LITERAL)


def _entities(text: str) -> str:
    return ENTITY.sub(lambda match: html.unescape(match[0]), text) if "&" in text else text


def _templates(text: str, depth: int = 3) -> tuple[str, int]:
    """Without templates, but with the words of those in SPOKEN (in each other up to a depth), and how many braces stay open."""
    spans, unmatched = _braces(text)
    pieces: list[str] = []
    start = 0
    for first, end in spans:
        name, values = name_of(text, first)
        known = depth and is_spoken(name)
        words = said(name, values_of(_templates(text[values : end - 2], depth - 1)[0])) if known else ""
        pieces += (text[start:first], words or ("" if known and name in SPACING else HOLE))
        start = end
    return "".join([*pieces, text[start:]]), unmatched


def _braces(text: str) -> tuple[list[tuple[int, int]], int]:
    """The outermost spans of matching runs of braces, by counting braces: {{a|{{{b}}}}} is two runs that match."""
    spans: list[tuple[int, int]] = []
    runs: list[tuple[int, int]] = []  # start and number of braces still open
    for match in BRACES.finditer(text):
        start, end = match.span()
        if text[start] == "{":
            runs.append((start, end - start))
            continue
        count = end - start
        while count > 1 and runs:
            first, width = runs.pop()
            used = min(width, count)
            count -= used
            if width - used > 1:
                runs.append((first, width - used))
                first += width - used
            _put(spans, first, end - count if count > 1 else end)
    return spans, len(runs)


def _put(spans: list[tuple[int, int]], first: int, end: int) -> None:
    while spans and spans[-1][0] >= first:
        spans.pop()
    spans.append((first, end))


def _without_tables(text: str) -> tuple[str, int]:
    """Tables begin and end at a line's start; where one has no end, its lines that begin as a table's go."""
    spans: list[tuple[int, int]] = []
    starts = []
    text = "\n" + text
    for match in TABLES.finditer(text):
        if match[1] or match[2]:
            starts.append(match.start() + (text[match.start()] == "\n"))
        elif starts:
            _put(spans, starts.pop(), match.end())
    pieces, start = [], 0
    for first, end in spans:
        pieces.append(text[start:first])
        start = end
    text = "".join([*pieces, text[start:]])
    return TABLE_LINE.sub("", text) if starts else text, len(starts)


def _links(text: str, hidden: frozenset[str]) -> tuple[str, int]:
    """Labels instead of links, innermost first, and how many links have no end."""
    if "[" not in text:
        return text, 0

    def shown(match: re.Match[str]) -> str:
        target, bar, label = match[1].partition("|")
        space, colon, page = target.partition(":")
        space = space.strip()
        if colon and (space.lower().replace("_", " ") in hidden or (not bar and space in LANGUAGES)):
            return ""
        if "\n\n" in match[1]:
            return match[1]  # an opening without end met a stray end some paragraphs later
        if bar and not label:  # the pipe trick
            return (page if colon else target).partition(" (")[0].strip()
        return label or FOREIGN.sub("", target, count=1)

    text = ADDRESS.sub(_group, PLAIN_LINK.sub(_group, text))
    for _ in range(DEEPEST):
        if "[[" not in text:
            return text, 0
        text, count = ANY_LINK.subn(shown, text)
        if not count:
            break
        text = ADDRESS.sub(_group, PLAIN_LINK.sub(_group, text))
    unmatched = text.count("[[")
    if unmatched:
        text = re.sub(rf"\[\[\s*+(?:{'|'.join(map(re.escape, hidden))})\s*+:[^\n]*+", "", text, flags=re.IGNORECASE)
    return text, unmatched


def _group(match: re.Match[str]) -> str:
    """The one group that matched: a function is quicker than r"\\1\\2", which Python 3.11 expands slowly."""
    return match[match.lastindex] if match.lastindex else ""


def _variant(match: re.Match[str]) -> str:
    """-{zh-hans:a; zh-hant:b}-: the first writing; -{a}-: a."""
    first = match[1].partition(";")[0]
    return first.rpartition(":")[2].strip() if WRITING.match(first) else match[1]


def _lines(text: str, headings: bool) -> str:
    """Without the marks of lists and headings, empty lines, holes, and sections that end an article."""
    text = "\n" + text + "\n"
    pieces, start, skipped = [], 0, 0
    for match in HEADING.finditer(text):
        line = match[0].strip("\n \t" + HOLE)
        level = min(len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("=")), 6)
        if not level or len(line) <= 2 * level:
            continue
        if not skipped:
            pieces.append(text[start : match.start()])
        elif level > skipped:
            continue
        title = line[level:-level].strip()
        start, skipped = match.end(), level if title.lower() in TAIL else 0
        if headings and not skipped:
            pieces.append("\n" + title)
    if not skipped:
        pieces.append(text[start:])
    text = "".join(pieces)
    if HOLE in text:
        text = EMPTIED.sub(lambda match: GONE if match[2] else match[1], text)
        text = text.replace(" " + GONE, "").replace(GONE, "")
    return _entities(LINE_START.sub("\n", text).replace(HOLE, "").strip())
