"""Two cores against one: wall time of the corpus stage and of the dataset stage, by turns, each in a fresh process.

    python -m benchmarks.cores RUN SOURCE ... [--rounds 5] [--workers 2]

A SOURCE is [FORMAT:[MEGABYTES:]]PATH, what the corpus stage reads: `wikipedia:dump.xml.bz2`; of a plain text, `text:50:a.txt` takes the
first 50 MB. RUN is the output folder of a recipe with `corpus` and `tokenizer`, which the dataset stage tokenizes. The start of the
workers is counted, that of the first process (imports) is not.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def corpus_seconds(source: str, workers: int) -> float:
    """Wall seconds of the corpus stage in this process and its workers."""
    from kitae.core.artifact import Inputs, Out  # here, as what stands at the top is imported by every worker again
    from kitae.stages import corpus
    from kitae.text.executors import Engine

    *kind, name = source.split(":")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(name)
        if kind[1:]:
            path = Path(folder) / "cut.txt"
            with open(name, "rb") as file:
                path.write_bytes(file.read(int(float(kind[1]) * 1e6)).rpartition(b"\n\n")[0])
        out = Out(path=Path(folder) / "corpus")
        out.path.mkdir()
        config = corpus.CorpusConfig(
            source=(corpus.SourceConfig(path=str(path), format=kind[0] if kind else "text"),),
            holdout=0.01,
            engine=Engine(tasks=2, workers=workers),
        )
        begun = time.perf_counter()
        corpus.run(config, Inputs(parents={}, seed=1), out)
        return time.perf_counter() - begun


def dataset_seconds(run: Path, workers: int) -> float:
    """The same of the dataset stage."""
    from kitae.core.artifact import Inputs, Out
    from kitae.stages import dataset

    with tempfile.TemporaryDirectory() as folder:
        inputs = Inputs(parents={name: run / name for name in ("corpus", "tokenizer")}, seed=1)
        begun = time.perf_counter()
        dataset.run(dataset.DatasetConfig(max_length=128, workers=workers), inputs, Out(path=Path(folder)))
        return time.perf_counter() - begun


def main() -> None:
    """One worker and several by turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("source", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--name", default="cores")
    parser.add_argument("--once", action="store_true", help="one measurement with --workers in this process")
    arguments = parser.parse_args()
    if arguments.once:
        seconds = corpus_seconds(arguments.source[0], arguments.workers) if arguments.source else None
        print(json.dumps(seconds or dataset_seconds(Path(arguments.run), arguments.workers)))
        return
    from benchmarks.paired import keep, ratio

    found: dict[str, dict[int, list[float]]] = {
        what: {1: [], arguments.workers: []} for what in [*(f"corpus {source}" for source in arguments.source), "dataset"]
    }
    for number in range(arguments.rounds):
        for what, sides in found.items():
            for workers, seconds in sides.items():
                command = [sys.executable, "-m", "benchmarks.cores", arguments.run, *what.split(" ", 1)[1:]]
                done = subprocess.run([*command, "--once", "--workers", str(workers)], stdout=subprocess.PIPE, text=True, check=True)
                seconds.append(float(json.loads(done.stdout.splitlines()[-1])))
            print(f"round {number + 1}: {what} " + " / ".join(f"{sides[w][-1]:.2f} s" for w in sides), flush=True)
    speedups = {what: ratio(sides[1], sides[arguments.workers]) for what, sides in found.items()}
    keep(arguments.name, {"workers": arguments.workers, "seconds by workers": found, f"1 / {arguments.workers} workers": speedups})


if __name__ == "__main__":
    main()
