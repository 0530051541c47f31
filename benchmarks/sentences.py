"""Sentence splitting against the sentences of Universal Dependencies: precision and recall of boundaries inside paragraphs.

    python -m benchmarks.sentences [--data ../shared/data]

Paragraphs and documents that the treebank marks are line ends for us too, as they are in real text. GSD is single sentences:
ten each are joined there. What a treebank does not show, the line ends of letters and lists, no splitter can find.
"""

import argparse
import lzma
from collections.abc import Iterator
from pathlib import Path

from benchmarks.paired import keep
from kitae.text.sentences import SPLITTERS

TREEBANKS = (
    ("ja", "ud_japanese_gsd/ja_gsd-ud-dev.conllu.xz"),
    ("ja", "ud_japanese_gsd/ja_gsd-ud-train.from-docbin.conllu.xz"),
    ("en", "ud_english_ewt/en_ewt-ud-dev.conllu.xz"),
    ("en", "ud_english_ewt/en_ewt-ud-train.conllu.xz"),
)
GLUE = {"ja": "", "en": " "}
JOINED = {"ja": 10, "en": 0}


def measure(path: Path, language: str) -> dict[str, float]:
    """Precision, recall and F1 of the boundaries, and how many there are."""
    both = found = expected = 0
    for sentences in paragraphs(path, JOINED[language]):
        wanted = boundaries(sentences)
        ours = boundaries(SPLITTERS[language](GLUE[language].join(sentences)))
        both, found, expected = both + len(wanted & ours), found + len(ours), expected + len(wanted)
    return {"precision": both / found, "recall": both / expected, "f1": 2 * both / (found + expected), "boundaries": expected}


def paragraphs(path: Path, joined: int) -> Iterator[list[str]]:
    """The treebank's sentences by paragraph; or so many together, whatever it marks."""
    group: list[str] = []
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            ends = len(group) == joined if joined else line.startswith(("# newdoc", "# newpar"))
            if group and ends:
                yield group
                group = []
            if line.startswith("# text = "):
                group.append(line.removeprefix("# text = ").rstrip("\n"))
    if group:
        yield group


def boundaries(sentences: list[str]) -> set[int]:
    """Letters before each boundary, blanks not counted; the end of the paragraph is none."""
    ends, length = set(), 0
    for sentence in sentences:
        length += len("".join(sentence.split()))
        ends.add(length)
    return ends - {length}


def main() -> None:
    """Measure all four and keep the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    data = parser.parse_args().data
    keep("sentences", {Path(name).name: measure(data / name, language) for language, name in TREEBANKS})


if __name__ == "__main__":
    main()
