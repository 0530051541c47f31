"""Clean Japanese text to token shards: megabytes a second and core, against transformers' tokenizer of the same folder; peak memory.

    python -m benchmarks.text RUN [--slice 2e6] [--rounds 5] [--vocabulary unidic-lite]

RUN is the output folder of a recipe with `corpus` and `tokenizer` (MeCab). Ours is the whole dataset stage on one process
(reading the corpus, words, ids, shards, packing plan); theirs is the tokenizer alone, on a slice of the same documents: for MeCab
BertJapaneseTokenizer, sentence by sentence; for unigram on raw text the library `tokenizers`, a document's sentences at once.
A vocabulary other than RUN's own is trained first, on RUN's corpus. Times are processor seconds, so that a busy machine matters
little; by turns.
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
from kitae.stages.tokenizer import TokenizerConfig
from kitae.stages.tokenizer import run as train
from kitae.text.corpus import Corpus

VOCABULARIES = {
    "unidic-lite": TokenizerConfig(dictionary="unidic-lite"),
    "unigram": TokenizerConfig(segmenter="none", algorithm="unigram"),
}


def ours(run: Path, tokenizer: Path, workers: int) -> dict[str, float]:
    """The dataset stage in a fresh process: MB, processor and wall seconds, peak MB of its largest process."""
    started = processor_seconds()  # imports are not the stage's work
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        inputs = Inputs(parents={"corpus": run / "corpus", "tokenizer": tokenizer}, seed=1)
        dataset.run(dataset.DatasetConfig(max_length=128, workers=workers), inputs, Out(path=Path(folder)))
        wall = time.perf_counter() - begun
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    return {"seconds": processor_seconds() - started, "wall": wall, "peak": peak}


def processor_seconds() -> float:
    """Of this process and its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def theirs(run: Path, folder: Path, limit: float) -> dict[str, float]:
    """transformers' tokenizer over documents of the corpus, about `limit` bytes."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    size, seconds = 0, 0.0
    for document in Corpus(run / "corpus").documents("train"):
        sentences = document.text.split("\n")
        begun = time.process_time()
        if tokenizer.is_fast:
            tokenizer(sentences)
        else:
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
    parser.add_argument("--vocabulary", choices=VOCABULARIES)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--worker", choices=("kitae", "transformers", "train"))
    arguments = parser.parse_args()
    tokenizer = arguments.tokenizer or arguments.run / "tokenizer"
    if arguments.worker == "kitae":
        print(json.dumps(ours(arguments.run, tokenizer, arguments.workers)))
    elif arguments.worker == "transformers":
        print(json.dumps(theirs(arguments.run, tokenizer, arguments.slice)))
    elif arguments.worker == "train":
        train(VOCABULARIES[arguments.vocabulary], Inputs(parents={"corpus": arguments.run / "corpus"}, seed=1), Out(path=tokenizer))
    else:
        with tempfile.TemporaryDirectory() as folder:
            if arguments.vocabulary:
                tokenizer = Path(folder)
                # a process of its own: the system counts a parent's memory as its children's
                subprocess.run(
                    [sys.executable, "-m", "benchmarks.text", *sys.argv[1:], "--worker", "train", "--tokenizer", folder], check=True
                )
            compare(arguments, tokenizer)


def compare(arguments: argparse.Namespace, tokenizer: Path) -> None:
    """Both sides by turns; keep the result."""
    size = corpus_bytes(arguments.run)
    options = [str(arguments.run), "--slice", str(arguments.slice), "--workers", str(arguments.workers), "--tokenizer", str(tokenizer)]
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
        arguments.name or "-".join(filter(None, ("text", arguments.vocabulary))),
        {
            "corpus MB": size / 1e6,
            "workers": arguments.workers,
            "MB per processor second": speeds,
            "wall seconds of ours": walls,
            "peak MB of our largest process": max(peaks),
            "kitae / transformers": ratio(speeds["kitae"], speeds["transformers"]),
        },
    )


if __name__ == "__main__":
    main()
