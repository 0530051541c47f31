"""Clean Japanese text to token shards: megabytes a second and core, against transformers' BertJapaneseTokenizer; peak memory.

    python -m benchmarks.text RUN [--slice 2e6] [--rounds 5]

RUN is the output folder of a recipe with `corpus` and `tokenizer` (MeCab). Ours is the whole dataset stage on one process
(reading the corpus, words, ids, shards, packing plan); theirs is the tokenizer alone, on a slice of the same sentences.
Times are processor seconds, so that a busy machine matters little; by turns.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from transformers import AutoTokenizer

from benchmarks.paired import keep, ratio
from kitae.core.artifact import Inputs, Out
from kitae.stages import dataset
from kitae.text.corpus import Corpus


def ours(run: Path, workers: int) -> dict[str, float]:
    """The dataset stage in a fresh process: MB, processor and wall seconds, peak MB of its largest process."""
    started = processor_seconds()  # imports are not the stage's work
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        inputs = Inputs(parents={"corpus": run / "corpus", "tokenizer": run / "tokenizer"}, seed=1)
        dataset.run(dataset.DatasetConfig(max_length=128, workers=workers), inputs, Out(path=Path(folder)))
        wall = time.perf_counter() - begun
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    return {"seconds": processor_seconds() - started, "wall": wall, "peak": peak}


def processor_seconds() -> float:
    """Of this process and its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def theirs(run: Path, limit: float) -> dict[str, float]:
    """BertJapaneseTokenizer over sentences of the corpus, about `limit` bytes."""
    tokenizer = AutoTokenizer.from_pretrained(run / "tokenizer")
    size, seconds = 0, 0.0
    for document in Corpus(run / "corpus").documents("train"):
        sentences = document.text.split("\n")
        begun = time.process_time()
        for sentence in sentences:
            tokenizer(sentence)
        seconds += time.process_time() - begun
        size += len(document.text.encode())
        if size >= limit:
            break
    return {"seconds": seconds, "bytes": size}


def corpus_bytes(run: Path) -> int:
    """UTF-8 bytes of the training and held-out text."""
    corpus = Corpus(run / "corpus")
    return sum(len(document.text.encode()) for split in ("train", "heldout") for document in corpus.documents(split))


def main() -> None:
    """Measure both by turns, each in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slice", type=float, default=2e6)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--name", default="text")
    parser.add_argument("--worker", choices=("kitae", "transformers"))
    arguments = parser.parse_args()
    if arguments.worker:
        measured = ours(arguments.run, arguments.workers) if arguments.worker == "kitae" else theirs(arguments.run, arguments.slice)
        print(json.dumps(measured))
        return
    size = corpus_bytes(arguments.run)
    options = [str(arguments.run), "--slice", str(arguments.slice), "--workers", str(arguments.workers)]
    speeds: dict[str, list[float]] = {"kitae": [], "transformers": []}
    peaks, walls = [], []
    for number in range(arguments.rounds):
        for side, found in speeds.items():
            command = [sys.executable, "-m", "benchmarks.text", *options, "--worker", side]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            measured = json.loads(done.stdout.splitlines()[-1])
            found.append(measured.get("bytes", size) / 1e6 / measured["seconds"])
            if side == "kitae":
                peaks.append(measured["peak"])
                walls.append(measured["wall"])
        print(f"round {number + 1}: " + ", ".join(f"{side} {found[-1]:.2f} MB/s" for side, found in speeds.items()), flush=True)
    keep(
        arguments.name,
        {
            "corpus MB": size / 1e6,
            "workers": arguments.workers,
            "MB per processor second": speeds,
            "wall seconds of ours": walls,
            "peak MB of our largest process": max(peaks),
            "kitae / BertJapaneseTokenizer": ratio(speeds["kitae"], speeds["transformers"]),
        },
    )


if __name__ == "__main__":
    main()
