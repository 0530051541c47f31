"""Aozora Bunko's original files: Shift_JIS, a header with title and author, ruby, editors' notes, and a footer.

The layout is described by Aozora Bunko itself (https://www.aozora.gr.jp/annotation/). Its marks, by code point: ruby stands in
U+300A U+300B, the text it belongs to may begin at U+FF5C, a note is U+FF3B U+FF03 ... U+FF3D, and U+203B before a note
stands for a character that Shift_JIS lacks.
"""

import re
from collections.abc import Iterator

from kitae.core.errors import KitaeError
from kitae.text.format import Columns, Found, oversized, whole
from kitae.text.streams import LONGEST_LINE, TextStream

RULE = re.compile(r"-{20,}")
FOOTER = ("\u5e95\u672c\uff1a", "\u5e95\u672c:")  # "source edition:"
TYPED = ("\u5165\u529b\uff1a", "\u5165\u529b:")  # "typed by:"
TRANSLATORS = ("\u8a33", "\u7de8", "\u6821\u8a02", "\u8a33\u6ce8")  # ends of the lines that name who translated or edited
LONGEST_HEADER = 12
MISSING = re.compile("\u203b\uff3b\uff03([^\uff3b\uff3d]*)\uff3d")
ROMAN = re.compile("(.{1,5}?)\uff3b\uff03\u300c\\1\u300d\u306f([^\uff3b\uff3d]*\u3001[12]-[0-9]+-[0-9]+)\uff3d")
NOTE = re.compile("\uff3b\uff03[^\uff3b\uff3d]*(?:\uff3b[^\uff3b\uff3d]*\uff3d[^\uff3b\uff3d]*)*\uff3d")
RUBY = re.compile("\u300a[^\u300a\u300b]*\u300b")
UNDER_RUBY = re.compile("\uff5c([^\u300a\u300b\uff5c]*)(?=\u300a)")
UNICODE = re.compile(r"U\+([0-9A-Fa-f]{4,6})")
JIS = re.compile(r"(?<![0-9-])([12])-([0-9]{1,2})-([0-9]{1,2})(?![0-9-])")
UNKNOWN = "\u3013"  # the printers' mark for a missing character
MARKS = "\u300a\u300b\uff5c\uff3b\uff3d\u203b"  # as characters of the text they must outlive the taking away of marks
KEPT = str.maketrans({mark: chr(0xFDD0 + number) for number, mark in enumerate(MARKS)})
RESTORED = str.maketrans({0xFDD0 + number: mark for number, mark in enumerate(MARKS)})


def read_aozora(stream: TextStream, columns: Columns) -> Iterator[Found]:
    """One work a file, a paragraph a line, without marks; title and author are metadata."""
    text = whole(stream)
    if len(text) > LONGEST_LINE:
        yield oversized(text)
        return
    lines = [line.strip() for line in text.split("\n")]
    title, author, start = _header(lines, stream.where)
    end = next((i for i in range(len(lines) - 1, start, -1) if lines[i].startswith(FOOTER) and _ends(lines, i)), len(lines))
    body = (unmarked(line) for line in lines[start:end])
    metadata = {"title": unmarked(title), "author": unmarked(author)}
    yield Found("".join(f"{line}\n" for line in body if line), metadata={key: value for key, value in metadata.items() if value})


def _ends(lines: list[str], at: int) -> bool:
    """Whether the footer begins at a line: a blank one stands before it, or who typed the text is told behind it."""
    return not lines[at - 1] or any(line.startswith(TYPED) for line in lines[at:])


def unmarked(line: str) -> str:
    """A line without ruby and notes; characters that Shift_JIS lacks are put in where a note gives their code."""
    if "\uff03" in line:
        line = ROMAN.sub(lambda match: _character(match[2]), line)
        line = MISSING.sub(lambda match: _character(match[1]), line)
        line = NOTE.sub("", line)
    if "\u300a" in line:
        line = RUBY.sub("", UNDER_RUBY.sub(r"\1", line))
    return line.translate(RESTORED).strip()


def _character(note: str) -> str:
    """The character that a note describes by its place in JIS X 0213 (plane-row-cell) or its Unicode number."""
    jis, code = JIS.search(note), UNICODE.search(note)
    if code and (number := int(code[1], 16)) < 0x110000 and not 0xD800 <= number < 0xE000:
        return chr(number).translate(KEPT)
    if jis:
        plane, row, cell = (int(part) for part in jis.groups())
        packed = (b"" if plane == 1 else b"\x8f") + bytes((row + 0xA0, cell + 0xA0)) if row <= 94 and cell <= 94 else b"\xff"
        try:
            return packed.decode("euc_jis_2004").translate(KEPT)
        except UnicodeDecodeError:
            return UNKNOWN
    return UNKNOWN


def _header(lines: list[str], where: str) -> tuple[str, str, int]:
    """Title, author, and the line where the text begins."""
    first = next((i for i, line in enumerate(lines) if line), len(lines))
    blank = next((i for i in range(first, min(first + LONGEST_HEADER, len(lines))) if not lines[i]), None)
    if blank is None:
        what = "this does not begin as Aozora Bunko's files do: title, author, a blank line"
        raise KitaeError(what, cure='bring the original file, or use format = "files" for plain text', where=where)
    names = lines[first:blank]
    authors = [name for name in names[1:] if not name.endswith(TRANSLATORS)]
    start = blank
    while start < len(lines) and not lines[start]:
        start += 1
    if start < len(lines) and RULE.fullmatch(lines[start]):  # the list of marks stands between two rules
        close = next((i for i in range(start + 1, len(lines)) if RULE.fullmatch(lines[i])), None)
        if close is None:
            raise KitaeError("the list of marks does not end: the file is truncated", cure="bring a complete copy", where=where)
        start = close + 1
    return names[0], authors[-1] if authors else "", start
