"""Peak memory of the corpus and dataset stages on a synthetic corpus of any size, each stage in a process of its own.

    python -m benchmarks.memory --megabytes 2000 [--documents 200] [--workers 2] [--limit 2000]

Documents have `--documents` characters, all different but for a tenth. `--limit` makes each process fail beyond so many
megabytes of its own data (RLIMIT_DATA), so that a peak below 2 GB is enforced and not only seen.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.paired import keep
from kitae.core.artifact import Inputs, Out
from kitae.stages import corpus, dataset
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

LETTERS = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほ"


def write_source(path: Path, megabytes: float, characters: int) -> int:
    """A text of documents with a blank line between them; returns their number."""
    documents, size = 0, 0
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 1e6:
            number = documents * 9 // 10 if documents % 10 == 9 else documents
            words = [LETTERS[(number * 31 + i * i) % len(LETTERS)] for i in range(characters - 12)]
            text = f"{number:010d}{''.join(words)}。"
            size += file.write(f"{text}\n\n") * 3
            documents += 1
    return documents


def stage(name: str, folder: Path, workers: int) -> None:
    """Run one stage here."""
    out = Out(path=folder / name)
    out.path.mkdir()
    if name == "corpus":
        source = corpus.SourceConfig(path=str(folder / "source.txt"))
        engine = corpus.Engine(workers=workers)
        corpus.run(corpus.CorpusConfig(source=(source,), holdout=0.01, engine=engine), Inputs(parents={}, seed=1), out)
    else:
        inputs = Inputs(parents={"corpus": folder / "corpus", "tokenizer": folder / "tokenizer"}, seed=1)
        dataset.run(dataset.DatasetConfig(max_length=128, workers=workers), inputs, out)


def main() -> None:
    """Make the source, run both stages, keep the peaks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, default=2000)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=2000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--name", default="memory")
    parser.add_argument("--stage", choices=("corpus", "dataset"))
    arguments = parser.parse_args()
    if arguments.stage:
        most = int(arguments.limit * 1e6)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        begun = time.perf_counter()
        stage(arguments.stage, arguments.folder, arguments.workers)
        peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        print(json.dumps({"seconds": time.perf_counter() - begun, "peak MB here": peaks[0], "peak MB of the largest worker": peaks[1]}))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        folder = Path(place)
        documents = write_source(folder / "source.txt", arguments.megabytes, arguments.documents)
        tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"{prefix}{letter}" for prefix in ("", "##") for letter in LETTERS))
        Tokenizer(Definition(tokens=tokens, spec=SegmenterSpec(kind="basic"))).save(folder / "tokenizer")
        found: dict[str, object] = {
            "MB": arguments.megabytes,
            "documents": documents,
            "workers": arguments.workers,
            "limit MB": arguments.limit,
        }
        for name in ("corpus", "dataset"):
            command = [sys.executable, "-m", "benchmarks.memory", "--stage", name, "--folder", place]
            command += ["--workers", str(arguments.workers), "--limit", str(arguments.limit)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
    keep(arguments.name, found | {"workers": arguments.workers})


if __name__ == "__main__":
    main()
