"""From nothing to the first batch of step 1,000,000, over an index of a billion rows; and of step 0, for comparison.

    python -m benchmarks.seek [--rows 1000000000] [--step 1000000] [--batch 128] [--rounds 7]

The index is made up: a plan with one piece of 126 tokens a row and 940 token shards, 320 GB by their size, in sparse files (a few MB
of disk). The rows that the batches need are written, everything else is never read. Each measurement is a process of its own; imports do
not count.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.made import VOCAB, facts
from benchmarks.paired import by_turns, keep, serve
from kitae.data.order import order
from kitae.data.plan import Plan
from kitae.data.sampler import DATASET, Sampler
from kitae.data.shards import SHARD_TOKENS

LENGTH, EACH, SEED = 128, 126, 1


def sparse(path: Path, size: int) -> None:
    """A file of so many bytes, all of them zero, that takes no room."""
    with path.open("wb") as file:
        file.truncate(size)


def make_index(folder: Path, rows: int) -> None:
    """A dataset of so many rows, with nothing in it."""
    train, plan = folder / "train", folder / "train" / "plan"
    plan.mkdir(parents=True)
    tokens = rows * EACH
    counts = {"rows": rows, "pieces": rows, "tokens": tokens, "pairs": 0}
    index = {"format": 1, "packing": "documents", "max_length": LENGTH, **counts, "squares": rows * LENGTH**2, "sources": [counts]}
    (plan / "plan.json").write_text(json.dumps(index))
    for name, width, count in (("starts", 8, rows), ("lengths", 4, rows), ("rows", 8, rows + 1)):
        sparse(plan / f"{name}.bin", width * count)
    shards = []
    for first in range(0, tokens, SHARD_TOKENS):
        own = {"tokens": min(SHARD_TOKENS, tokens - first), "documents": 250_000, "sentences": 4_000_000}
        sizes = {"tokens": 2 * own["tokens"], "documents": 8 * own["documents"], "sentences": 8 * own["sentences"]}
        sizes |= {"sources": 2 * own["documents"], "words": -(-own["tokens"] // 8)}
        for name, size in sizes.items():
            sparse(train / f"{name}-{len(shards):05d}.bin", size)
        shards.append(own)
    (train / "index.json").write_text(json.dumps({"format": 1, "dtype": "<u2", "shards": shards, "empty_documents": 0}))
    (folder / DATASET).write_text(json.dumps(facts(VOCAB, LENGTH).model_dump(mode="json")))


def write_rows(folder: Path, numbers: np.ndarray) -> None:
    """Give the rows at these places of the endless sequence their piece."""
    plan = Plan(folder / "train" / "plan")
    chosen, _ = order(plan, ("made-up",), repeats={}, weights={}, seed=SEED)(numbers)
    for name, dtype, places, values in (
        ("rows", "<i8", chosen, chosen),
        ("rows", "<i8", chosen + 1, chosen + 1),
        ("starts", "<i8", chosen, chosen * EACH),
        ("lengths", "<u4", chosen, EACH),
    ):
        file = np.memmap(folder / "train" / "plan" / f"{name}.bin", dtype=dtype, mode="r+")
        file[places] = values
        file.flush()


def first_batch(folder: Path, batch: int, step: int) -> float:
    """Seconds until it is there."""
    begun = time.perf_counter()
    sampler = Sampler(folder, rows_per_step=batch, rows_per_micro_batch=batch // 4, seed=SEED)
    found = sampler.micro(step, 0)
    seconds = time.perf_counter() - begun
    assert found.num_tokens == LENGTH * batch // 4, "the rows that were written"
    return seconds


def main() -> None:
    """Measure both steps by turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000_000)
    parser.add_argument("--step", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--worker", nargs=2)
    arguments = parser.parse_args()
    if arguments.worker:
        place, step = Path(arguments.worker[0]), int(arguments.worker[1])
        serve(lambda: lambda: first_batch(place, arguments.batch, step))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_index(folder, arguments.rows)
        steps = {"step 0": 0, f"step {arguments.step}": arguments.step}
        write_rows(folder, np.concatenate([np.arange(step * arguments.batch, (step + 1) * arguments.batch) for step in steps.values()]))
        apparent = sum(file.stat().st_size for file in folder.rglob("*.bin"))
        common = [sys.executable, "-m", "benchmarks.seek", "--batch", str(arguments.batch), "--worker", str(folder)]
        found: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(arguments.rounds):  # a new process each time: what is remembered in one would count
            for name, values in by_turns({name: [*common, str(step)] for name, step in steps.items()}, 1).items():
                found[name] += values
    medians = {name: statistics.median(values) for name, values in found.items()}
    keep("seek", {"rows": arguments.rows, "bytes": apparent, "batch": arguments.batch, "seconds": found, "median_seconds": medians})


if __name__ == "__main__":
    main()
