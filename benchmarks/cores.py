"""Two cores against one: wall time of the corpus stage and of the dataset stage, by turns, each in a fresh process.

    python -m benchmarks.cores SOURCE RUN [--format text] [--rounds 5] [--workers 2] [--megabytes 100]

SOURCE is a text in a format that kitae reads, RUN the output folder of a recipe with `corpus` and `tokenizer`. The corpus
stage reads SOURCE up to so many megabytes; the dataset stage tokenizes RUN's corpus. Start-up (imports) is not counted.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.paired import keep, ratio
from kitae.core.artifact import Inputs, Out
from kitae.stages import corpus, dataset
from kitae.text.executors import Engine

STAGES = ("corpus", "dataset")


def measure(stage: str, arguments: argparse.Namespace) -> float:
    """Wall seconds of one stage in this process and its workers."""
    with tempfile.TemporaryDirectory() as folder:
        out = Out(path=Path(folder))
        begun = time.perf_counter()
        if stage == "corpus":
            source = corpus.SourceConfig(path=arguments.source, format=arguments.format, max_characters=int(arguments.megabytes * 1e6 / 3))
            config = corpus.CorpusConfig(source=(source,), holdout=0.01, engine=Engine(workers=arguments.workers))
            corpus.run(config, Inputs(parents={}, seed=1), out)
        else:
            inputs = Inputs(parents={name: arguments.run / name for name in ("corpus", "tokenizer")}, seed=1)
            dataset.run(dataset.DatasetConfig(max_length=128, workers=arguments.workers), inputs, out)
        return time.perf_counter() - begun


def main() -> None:
    """One worker and several by turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("run", type=Path)
    parser.add_argument("--format", default="text")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--name", default="cores")
    parser.add_argument("--stage", choices=STAGES)
    arguments = parser.parse_args()
    if arguments.stage:
        print(json.dumps(measure(arguments.stage, arguments)))
        return
    found: dict[str, dict[int, list[float]]] = {stage: {1: [], arguments.workers: []} for stage in STAGES}
    for number in range(arguments.rounds):
        for stage, sides in found.items():
            for workers, seconds in sides.items():
                command = [sys.executable, "-m", "benchmarks.cores", arguments.source, str(arguments.run), "--format", arguments.format]
                command += ["--stage", stage, "--workers", str(workers), "--megabytes", str(arguments.megabytes)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                seconds.append(float(json.loads(done.stdout.splitlines()[-1])))
        print(f"round {number + 1}: " + ", ".join(f"{stage} {sides[1][-1]:.1f} s" for stage, sides in found.items()), flush=True)
    speedups = {stage: ratio(sides[1], sides[arguments.workers]) for stage, sides in found.items()}
    keep(arguments.name, {"workers": arguments.workers, "seconds by workers": found, f"1 / {arguments.workers} workers": speedups})


if __name__ == "__main__":
    main()
