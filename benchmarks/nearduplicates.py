"""Near-duplicates: text per processor second against datatrove's own MinHash signatures, and recall by similarity.

    python -m benchmarks.nearduplicates TEXT [--slice 2e6] [--rounds 5]

TEXT holds documents with blank lines between them. Both sides make the signatures of the same documents, by turns in
processes of their own; datatrove takes word n-grams, from MeCab here (its own Japanese splitter, spaCy's, is slower).
Joining the sketches is measured apart: all documents and as many near-copies of them.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import fugashi
import ipadic
import numpy as np
from datatrove.data import Document
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.utils.word_tokenizers import WordTokenizer

from benchmarks.paired import by_turns, keep, ratio, serve
from kitae.text.nearduplicates import grams, near_duplicates, sketch, sketch_file
from kitae.text.readers import read

SIMILARITIES = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9)


def documents(path: Path, limit: float) -> list[str]:
    """The first documents, about `limit` bytes."""
    texts, size = [], 0
    for found in read(path, "text"):
        texts.append(str(found.text))
        size += len(texts[-1].encode())
        if size >= limit:
            break
    return texts


class MecabWords(WordTokenizer):
    """What datatrove needs of MeCab."""

    def __init__(self) -> None:
        self._tagger = fugashi.GenericTagger(f"{ipadic.MECAB_ARGS} -Owakati")

    def word_tokenize(self, text: str) -> list[str]:
        """Words."""
        return self._tagger.parse(text).split()

    def sent_tokenize(self, text: str) -> list[str]:
        """The whole text: not used."""
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """The whole text: not used."""
        return [(0, len(text))]


def ours(texts: list[str]) -> None:
    """Sketches of all documents."""
    for text in texts:
        sketch(text)


def theirs(texts: list[str]) -> None:
    """datatrove's signature files, sorting included as it belongs to the step."""
    with tempfile.TemporaryDirectory() as folder:
        step = MinhashDedupSignature(output_folder=folder, language=MecabWords())
        step.run(iter([Document(text=text, id=str(number)) for number, text in enumerate(texts)]))


def prepare(side: str, path: Path, limit: float) -> Callable[[], Callable[[], float]]:
    """A worker that measures MB a processor second."""

    def ready() -> Callable[[], float]:
        texts = documents(path, limit)
        size = sum(len(text.encode()) for text in texts)
        work = {"kitae": ours, "datatrove": theirs}[side]

        def measure() -> float:
            begun = time.process_time()
            work(texts)
            return size / 1e6 / (time.process_time() - begun)

        return measure

    return ready


def copy(text: str, similarity: float, chance: random.Random) -> tuple[str, float]:
    """The text with characters replaced down to the similarity, and what it is exactly."""
    letters, whole = list(text), set(grams(text).tolist())
    while True:
        other = set(grams("".join(letters)).tolist())
        exact = len(whole & other) / len(whole | other)
        if exact <= similarity + 0.01:
            return "".join(letters), exact
        for _ in range(max(1, int((exact - similarity) * len(letters) / 20))):
            letters[chance.randrange(len(letters))] = chance.choice("abcdefghijklmnopqrstuvwxyz")


def joined(texts: list[str], wanted: float) -> dict[str, float]:
    """Share of copies at each similarity that are found at the setting `wanted`, and the seconds of joining."""
    chance, found = random.Random(1), {}
    originals = [sketch(text) for text in texts]
    for similarity in SIMILARITIES:
        rows = np.stack([*originals, *(sketch(copy(text, similarity, chance)[0]) for text in texts)])
        with tempfile.TemporaryDirectory() as folder:
            sketch_file(Path(folder), 0).write_bytes(rows.tobytes())
            begun = time.process_time()
            result = near_duplicates(Path(folder), [(np.zeros(len(rows), np.uint16), np.ones(len(rows), bool))], wanted)
            found[f"found at {similarity}"] = float(result(len(texts), len(rows)).mean())
            found[f"seconds at {similarity}"] = time.process_time() - begun
    return found


def main() -> None:
    """Measure both by turns, then what is found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("text", type=Path)
    parser.add_argument("--slice", type=float, default=2e6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="nearduplicates")
    parser.add_argument("--worker", choices=("kitae", "datatrove"))
    arguments = parser.parse_args()
    if arguments.worker:
        serve(prepare(arguments.worker, arguments.text, arguments.slice))
        return
    command = [sys.executable, "-m", "benchmarks.nearduplicates", str(arguments.text), "--slice", str(arguments.slice), "--worker"]
    speeds = by_turns({side: [*command, side] for side in ("kitae", "datatrove")}, arguments.rounds)
    texts = [text for text in documents(arguments.text, arguments.slice) if len(text) >= 500]
    keep(
        arguments.name,
        {
            "MB per processor second": speeds,
            "kitae / datatrove": ratio(speeds["kitae"], speeds["datatrove"]),
            "documents of 500 characters and more, and as many copies": len(texts),
            "at the setting 0.8": joined(texts, 0.8),
        },
    )


if __name__ == "__main__":
    main()
