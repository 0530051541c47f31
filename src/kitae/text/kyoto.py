"""The Japanese-English corpus of Wikipedia's Kyoto articles (NICT): one XML file an article, sentences in both languages."""

from collections.abc import Iterator

from kitae.core.errors import KitaeError, did_you_mean
from kitae.text.format import Columns, Found
from kitae.text.markup import XmlReader
from kitae.text.streams import CheckedStream

LANGUAGES = {"text": "j", "ja": "j", "en": "e"}  # `column` -> element; "text" is the setting's default


def read_kyoto(stream: CheckedStream, columns: Columns) -> Iterator[Found]:
    """The title, then a line for every heading and paragraph. `column = "en"` reads the checked English translation."""
    if columns.text not in LANGUAGES:
        cure = did_you_mean(columns.text, ("ja", "en"))
        raise KitaeError(f'column = "{columns.text}" is no language of the Kyoto corpus', cure=cure, where=stream.where)
    article = _Article(stream, LANGUAGES[columns.text])
    article.run()
    if not article.whole:
        raise KitaeError("this is no article of the Kyoto corpus: its root is not <art>", cure="correct the format", where=stream.where)
    language = "ja" if article.element == "j" else "en"
    yield Found("".join(f"{line}\n" for line in article.lines), metadata={"title": article.title, "language": language})


class _Article(XmlReader):
    """<art> holds <tit>, <par> and <sec>; <par> holds <sen>; titles and sentences hold <j> and versions of <e>, the last one checked."""

    def __init__(self, stream: CheckedStream, element: str) -> None:
        super().__init__(stream)
        self.element, self.title, self.whole = element, "", False
        self.lines: list[str] = []
        self._sentences: list[str] = []
        self._last = ""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == self.element:
            self.gather()

    def end(self, tag: str) -> None:
        if tag == self.element:
            self._last = " ".join(self.gathered().split())
        elif tag == "sen":
            self._sentences.append(self._last)
            self._last = ""
        elif tag == "par":
            self._line(("" if self.element == "j" else " ").join(sentence for sentence in self._sentences if sentence))
            self._sentences = []
        elif tag == "tit":
            self.title = self.title or self._last
            self._line(self._last)
            self._last = ""
        self.whole = tag == "art"

    def _line(self, line: str) -> None:
        if line:
            self.lines.append(line)
