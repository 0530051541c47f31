"""Public dumps as JSON Lines: OSCAR (22.01, 23.01) and Wikipedia's CirrusSearch index."""

from collections.abc import Iterator

from kitae.core.errors import KitaeError
from kitae.text.format import Columns, Found, bounded
from kitae.text.streams import TextStream
from kitae.text.tables import json_object

ANNOTATIONS = ("annotation", "annotations", "quality_warnings")  # 22.01; other tools' form of it; 23.01

KINDS = (str, float, int, tuple)


def read_oscar(stream: TextStream, columns: Columns) -> Iterator[Found]:
    """OSCAR's documents; metadata: annotations (header, footer, tiny, ...), categories, language and its probability, url, date.

    The schema's names are those of the oscar-io crate, versions 2 and 3. `harmful_pp` is 23.01's perplexity under a model
    of adult text (low means harmful).
    """
    for number, line in enumerate(stream, start=1):
        if line.isspace():
            continue
        where = f"{stream.where}, line {number}"
        row = json_object(line, where)
        text, told, headers = row.get("content"), _table(row, "metadata"), _table(row, "warc_headers")
        if not isinstance(text, str):
            cure = f'use format = "jsonl" with column = "..."; the keys are {", ".join(row)}'
            raise KitaeError('this is not a document of OSCAR: it has no text "content"', cure=cure, where=where)
        language = _table(told, "identification")
        found = {
            "annotations": tuple(name for key in ANNOTATIONS for name in _names(told.get(key))),
            "categories": _names(told.get("categories")),
            "language": language.get("label"),
            "language_probability": language.get("prob"),
            "harmful_pp": told.get("harmful_pp"),
            "url": headers.get("warc-target-uri"),
            "date": headers.get("warc-date"),
        }
        metadata = {key: float(value) if isinstance(value, int) else value for key, value in found.items() if isinstance(value, KINDS)}
        record = headers.get("warc-record-id")
        yield bounded(text, record.strip("<>") if isinstance(record, str) else None, metadata)


def read_cirrussearch(stream: TextStream, columns: Columns) -> Iterator[Found]:
    """Lines by twos: what is to be indexed (with the page's id), then the page. Only articles, namespace 0, are kept.

    Redirects are no pages of this dump but a list in the page that they lead to. The title is metadata: the text begins
    with the article's first sentence.
    """
    key: str | None = None
    for number, line in enumerate(stream, start=1):
        if line.isspace():
            continue
        where = f"{stream.where}, line {number}"
        row = json_object(line, where)
        if "index" in row and "text" not in row:
            if key is not None:
                what = "the page that the line before this one announces does not follow"
                raise KitaeError(what, cure="bring a complete copy of the file", where=where)
            name = _table(row, "index").get("_id")
            key = str(name) if name is not None else ""
            continue
        text, title = row.get("text"), row.get("title")
        if not isinstance(text, str) or not isinstance(title, str):
            cure = f"the keys are {', '.join(list(row)[:8])}"
            raise KitaeError('this is not a page of CirrusSearch: "text" and "title" are missing', cure=cure, where=where)
        found = {"title": title, "date": row.get("timestamp"), "language": row.get("language")}
        drop = "namespace" if row.get("namespace", 0) != 0 else None if text.strip() else "stub"
        metadata = {name: value for name, value in found.items() if isinstance(value, str)}
        yield Found(text, key or (str(row["page_id"]) if "page_id" in row else None), drop, metadata)
        key = None
    if key is not None:
        raise KitaeError("the last line announces a page that does not follow", cure="bring a complete copy", where=stream.where)


def _table(row: dict[str, object], key: str) -> dict[str, object]:
    value = row.get(key)
    return value if isinstance(value, dict) else {}


def _names(value: object) -> tuple[str, ...]:
    return tuple(name for name in value if isinstance(name, str)) if isinstance(value, list) else ()
