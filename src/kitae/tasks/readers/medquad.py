"""MedQuAD (Ben Abacha and Demner-Fushman, 2019; CC BY 4.0): XML files of questions on diseases, each with its type and answer."""

from collections.abc import Iterator
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.tasks.readers.rows import Row, RowsConfig
from kitae.text.archives import members
from kitae.text.markup import XmlReader
from kitae.text.streams import CheckedStream


def medquad_rows(path: Path, config: RowsConfig) -> Iterator[Row]:
    """Columns source, focus, qtype, question, answer ("" where it was taken out). Raises KitaeError for a file of another layout."""
    del config
    for member in members(path, (".xml",)):
        where = f"{path}, {member.name}"
        document = _Document(member.stream, where)
        document.run()
        if not document.rows:
            raise KitaeError("there is no question in it", cure="bring a complete copy of MedQuAD's file", where=where)
        yield from document.rows


class _Document(XmlReader):
    """<Document source> holds <Focus> and <QAPair>s of <Question qid qtype> and <Answer>."""

    def __init__(self, stream: CheckedStream, where: str) -> None:
        super().__init__(stream)
        self.where = where
        self.rows: list[Row] = []
        self._source = self._focus = ""
        self._cells: dict[str, str] = {}

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "Document":
            self._source = attributes.get("source", "")
        elif tag == "Question":
            self._cells = {"qid": attributes.get("qid", ""), "qtype": attributes.get("qtype", "").strip()}
        if tag in ("Focus", "Question", "Answer"):
            self.gather()

    def end(self, tag: str) -> None:
        if tag == "Focus":
            self._focus = self.gathered().strip()
        elif tag in ("Question", "Answer"):
            self._cells[tag.lower()] = self.gathered().strip()
        elif tag == "QAPair" and "question" in self._cells:
            cells = {"source": self._source, "focus": self._focus, "answer": "", **self._cells}
            number = len(self.rows) + 1
            self.rows.append(Row(cells=cells, where=f"{self.where}, question {number}", id=f"{self._source}-{cells['qid']}-{number}"))
            self._cells = {}
