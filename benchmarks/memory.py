"""Peak memory of the corpus, tokenizer and dataset stages on a synthetic corpus of any size, each stage in a process of its own.

    python -m benchmarks.memory --megabytes 2000 [--characters 1000] [--workers 2] [--limit 2000] [--near-duplicates] [--algorithm unigram]

Documents have about so many characters, all different but for a tenth; nearly every word is new, so that counts, caches and
vocabularies meet their worst case. `--limit` makes each process fail beyond so many megabytes of its own data (RLIMIT_DATA), so
that a peak below 2 GB is enforced and not only seen.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.paired import keep
from kitae.core.artifact import Inputs, Out
from kitae.stages import corpus, dataset, tokenizer

STAGES = ("corpus", "tokenizer", "dataset")
LETTERS = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほ"
WORD = 6
"""Letters of a word: 29 ** 6 = 595 million different ones."""


def write_source(path: Path, megabytes: float, characters: int) -> int:
    """A text of documents with a blank line between them; returns their number."""
    documents, size = 0, 0
    spell = str.maketrans(dict(enumerate(LETTERS)))
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 1e6:
            drawn = random.Random(documents * 9 // 10 if documents % 10 == 9 else documents).randbytes(characters)
            letters = "".join(chr(byte % len(LETTERS)) for byte in drawn).translate(spell)
            text = " ".join(letters[i : i + WORD] for i in range(0, len(letters), WORD)) + "。"
            file.write(f"{text}\n\n")
            size += len(text.encode())
            documents += 1
    return documents


def stage(name: str, folder: Path, arguments: argparse.Namespace) -> None:
    """Run one stage here."""
    out = Out(path=folder / name)
    out.path.mkdir()
    inputs = Inputs(parents={other: folder / other for other in STAGES[: STAGES.index(name)]}, seed=1)
    if name == "corpus":
        source = corpus.SourceConfig(path=str(folder / "source.txt"))
        near = {"near_duplicates": 0.8} if arguments.near_duplicates else {}
        engine = corpus.Engine(workers=arguments.workers)
        corpus.run(corpus.CorpusConfig(source=(source,), holdout=0.01, engine=engine, **near), inputs, out)
    elif name == "tokenizer":
        segmenter = "none" if arguments.algorithm == "byte-bpe" else "whitespace"
        config = tokenizer.TokenizerConfig(segmenter=segmenter, algorithm=arguments.algorithm, vocab_size=8192, workers=arguments.workers)
        tokenizer.run(config, inputs, out)
    else:
        dataset.run(dataset.DatasetConfig(max_length=128, workers=arguments.workers), inputs, out)


def main() -> None:
    """Make the source, run both stages, keep the peaks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, default=2000)
    parser.add_argument("--characters", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=2000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--name", default="memory")
    parser.add_argument("--near-duplicates", action="store_true")
    parser.add_argument("--algorithm", default="wordpiece")
    parser.add_argument("--stage", choices=STAGES)
    arguments = parser.parse_args()
    if arguments.stage:
        most = int(arguments.limit * 1e6)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        begun = time.perf_counter()
        stage(arguments.stage, arguments.folder, arguments)
        peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        print(json.dumps({"seconds": time.perf_counter() - begun, "peak MB here": peaks[0], "peak MB of the largest worker": peaks[1]}))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        folder = Path(place)
        documents = write_source(folder / "source.txt", arguments.megabytes, arguments.characters)
        found: dict[str, object] = {
            "MB": arguments.megabytes,
            "documents": documents,
            "near-duplicates": arguments.near_duplicates,
            "algorithm": arguments.algorithm,
            "workers": arguments.workers,
            "limit MB": arguments.limit,
        }
        for name in STAGES:
            command = [sys.executable, "-m", "benchmarks.memory", "--stage", name, "--folder", place]
            command += ["--workers", str(arguments.workers), "--limit", str(arguments.limit)]
            command += ["--algorithm", arguments.algorithm, *["--near-duplicates"] * arguments.near_duplicates]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
            print(name, found[name], flush=True)
    keep(arguments.name, found)


if __name__ == "__main__":
    main()
