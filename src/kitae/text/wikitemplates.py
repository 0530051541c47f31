"""What templates say that are part of a sentence: by the tables of `wikiwords`, and the rules here for those that count or join.

Values are wikitext whose own templates are done; the scanner goes on with what comes back.
"""

import re
from collections.abc import Callable, Mapping

from kitae.text.wikiwords import LANGUAGES, SPACING, SPOKEN

NAME = re.compile(r"\{\{\s*+(?:(?:template|テンプレート)\s*+:\s*+)?(formatnum(?=:)|[^|{}\[\]<>\n]*+)\s*+[|:}]", re.IGNORECASE)
NAMED = re.compile(r"\s*+([^=\[\]<>]{1,30}?)\s*+=")
SEPARATOR = re.compile(r"\[\[|\]\]|\|")
LANG_X = re.compile(r"lang-[a-z-]++")
NUMBER = re.compile(r"[-+\u2212]?\d[\d/.,]*+")
MOST_CONVERTED = 20  # values of a {{convert}}
JOINTS = {
    "to": " to ", "-": "–", "–": "–", "to(-)": "–", "and": " and ", "or": " or ", "and(-)": " and ", "or(-)": " or ", "by": " by ",
    "x": " × ", "×": " × ", "xx": " × ", "by(x)": " by ", "x(by)": " × ", "*": " × ", "+/-": " ± ", "±": " ± ", "+": " + ", "/": "/",
    "to about": " to about ", "and(to)": " to ",
}  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip

Values = Mapping[str, str]
"""Of one template: by name in lower case, the unnamed by their place from "1" on."""


def name_of(template: str, start: int = 0) -> tuple[str, int]:
    """The name of a template that begins here, in one way of writing, and where its values begin."""
    match = NAME.match(template, start)
    return (" ".join(match[1].replace("_", " ").split()).lower(), match.end()) if match else ("", start)


def is_spoken(name: str) -> bool:
    """Whether the words of a template are known."""
    return name in SPOKEN or name in SPACING or name in RULES or LANG_X.fullmatch(name) is not None


def values_of(text: str) -> dict[str, str]:
    """The values between a template's name and end; bars in links do not separate them."""
    parts, begin, depth = [], 0, 0
    for match in SEPARATOR.finditer(text):
        if match[0] == "|" and not depth:
            parts.append(text[begin : match.start()])
            begin = match.end()
        elif match[0] != "|":
            depth = max(0, depth + (1 if match[0] == "[[" else -1))
    values: dict[str, str] = {}
    unnamed = 0
    for part in (*parts, text[begin:]):
        name = NAMED.match(part)
        unnamed += not name
        values[name[1].lower() if name else str(unnamed)] = (part[name.end() :] if name else part).strip()
    return values


def said(name: str, values: Values) -> str:
    """What the reader sees of a template that `is_spoken`."""
    if name in SPACING:
        return SPACING[name]
    if label := values.get("label") or values.get("lt"):
        return label
    if name in RULES:
        return RULES[name](values)
    return SPOKEN.get(name, "{1}").format("", *(values.get(str(place), "") for place in (1, 2)))


def _unnamed(values: Values) -> list[str]:
    found: list[str] = []
    while (value := values.get(str(len(found) + 1))) is not None:
        found.append(value)
    return found


def _last(values: Values) -> str:
    """{{transl|ar|text}} and {{transl|ar|ALA|text}}."""
    return next(iter(_unnamed(values)[:0:-1]), "")


def _elsewhere(values: Values) -> str:
    """{{ill|title|de}}, and as it was written before 2016 {{ill|de|title}}."""
    first, second = values.get("1", ""), values.get("2", "")
    return second if first in LANGUAGES and second and second not in LANGUAGES else first


def _quote(values: Values) -> str:
    return values.get("text") or values.get("quote") or values.get("1", "")


def _convert(values: Values) -> str:
    """{{convert|5|km|mi}}: 5 km; {{convert|4|to|7|mm}}: 4 to 7 mm; {{convert|5|ft|10|in|m}}: 5 ft 10 in."""
    rest = _unnamed(values)[:MOST_CONVERTED]
    words = "".join(rest[:1])
    rest = rest[1:]
    while len(rest) > 1 and rest[0] in JOINTS:
        words += JOINTS[rest[0]] + rest[1]
        rest = rest[2:]
    words += " " + "".join(rest[:1])
    while len(rest) > 2 and NUMBER.fullmatch(rest[1]) and rest[2] and not NUMBER.fullmatch(rest[2]):
        words += f" {rest[1]} {rest[2]}"
        rest = rest[2:]
    return words.strip()


def _number(values: Values) -> str:
    value = values.get("1", "")
    whole, point, rest = value.partition(".")
    return f"{int(whole):,}{point}{rest}" if whole.isdecimal() and len(whole) < 100 and values.get("2", "") == "" else value


def _fraction(values: Values) -> str:
    """{{frac|2}}: 1/2; {{frac|3|4}}: 3/4; {{frac|1|2|3}}: 1 2/3."""
    found = _unnamed(values)
    if len(found) < 3:
        return "/".join(("1", *found) if len(found) == 1 else found)
    return f"{found[0]} {found[1]}/{found[2]}"


def _as_of(values: Values) -> str:
    """{{as of|2010|5|1|lc=y}}: as of 1 May 2010."""
    if alt := values.get("alt"):
        return alt
    year, month, day = (values.get(place, "") for place in "123")
    number = int(month) if month.isdecimal() and len(month) < 3 else 0
    date = f"{MONTHS[number - 1] if 0 < number < 13 else month} {year}".strip()
    if day:
        date = f"{date.rpartition(' ')[0]} {day}, {year}" if values.get("df", "").lower() == "us" else f"{day} {date}"
    words = "Since" if values.get("since") else "As of"
    return date if values.get("bare") else f"{words.lower() if values.get('lc') else words} {date}"


def _reading(values: Values) -> str:
    reading = values.get("2", "")
    return values.get("1", "") + (f"（{reading}）" if reading else "")


def _nihongo(values: Values) -> str:
    """{{nihongo|English|kanji|romaji|more}}: English (kanji, romaji, more); without English: kanji (romaji, more)."""
    found = [value for value in (values.get(place, "") for place in "1234") if value]
    return "".join(found[:1]) + (f" ({', '.join(found[1:])})" if found[1:] else "")


RULES: dict[str, Callable[[Values], str]] = {
    **dict.fromkeys(("ill", "interlanguage link"), _elsewhere),
    **dict.fromkeys(("transl", "transliteration", "xlit"), _last),
    **dict.fromkeys(("quote", "blockquote", "cquote", "quotation", "bquote", "quote frame"), _quote),
    **dict.fromkeys(("convert", "cvt"), _convert),
    "formatnum": _number,
    **dict.fromkeys(("frac", "fraction", "sfrac", "分数"), _fraction),
    **dict.fromkeys(("as of", "asof"), _as_of),
    **dict.fromkeys(("読み仮名", "読み仮名 ruby不使用"), _reading),
    **dict.fromkeys(("nihongo", "nihongo3"), _nihongo),
}
