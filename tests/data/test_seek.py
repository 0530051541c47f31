"""Any step at once, however large the data: what a batch costs does not depend on where it lies."""

import json
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from planted import SPECIAL

from kitae.data.order import order
from kitae.data.plan import Plan
from kitae.data.sampler import DATASET, DatasetFacts, Sampler

ROWS, LENGTH, BATCH, SEED = 10**9, 16, 8, 3
EACH = LENGTH - 2
SHARD = 10**9


def sparse(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


@pytest.fixture(scope="module")
def billion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A billion rows in sparse files: 50 GB by their size, some kB on the disk. The rows of two steps are there."""
    folder = tmp_path_factory.mktemp("billion")
    counts = {"rows": ROWS, "pieces": ROWS, "tokens": ROWS * EACH, "pairs": 0}
    plan = {"format": 1, "packing": "documents", "max_length": LENGTH, **counts, "squares": ROWS * LENGTH**2, "sources": [counts]}
    for name, size in (("starts", 8 * ROWS), ("lengths", 4 * ROWS), ("rows", 8 * (ROWS + 1))):
        sparse(folder / "train" / "plan" / f"{name}.bin", size)
    (folder / "train" / "plan" / "plan.json").write_text(json.dumps(plan))
    shards = [{"tokens": SHARD, "documents": 1, "sentences": 1}] * EACH
    for number in range(len(shards)):
        for name, size in (("tokens", 2 * SHARD), ("documents", 8), ("sentences", 8), ("sources", 2), ("words", SHARD // 8)):
            sparse(folder / "train" / f"{name}-{number:05d}.bin", size)
    index = {"format": 1, "dtype": "<u2", "shards": shards, "empty_documents": 0}
    (folder / "train" / "index.json").write_text(json.dumps(index))
    facts = DatasetFacts(
        max_length=LENGTH, packing="documents", vocab_size=100, dtype="<u2", special=SPECIAL, tokenizer="made up", sources=("made-up",)
    )
    (folder / DATASET).write_text(facts.model_dump_json())
    write_rows(folder, np.concatenate([np.arange(step * BATCH, (step + 1) * BATCH) for step in (0, 1_000_000)]))
    return folder


def write_rows(folder: Path, numbers: np.ndarray) -> None:
    """One piece each, whose tokens are the last digits of the row's number."""
    plan = folder / "train" / "plan"
    rows, _ = order(Plan(plan), ("made-up",), repeats={}, weights={}, seed=SEED)(numbers)
    for row in rows.tolist():
        shard, within = divmod(row * EACH, SHARD)
        tokens = np.full(min(EACH, SHARD - within), 5 + row % 90, dtype="<u2")
        put(plan / "rows.bin", 8 * row, np.array([row, row + 1], dtype="<i8"))
        put(plan / "starts.bin", 8 * row, np.array([row * EACH], dtype="<i8"))
        put(plan / "lengths.bin", 4 * row, np.array([EACH], dtype="<u4"))
        put(folder / "train" / f"tokens-{shard:05d}.bin", 2 * within, tokens)


def put(path: Path, place: int, values: np.ndarray) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(values.tobytes())


def cost(folder: Path, step: int) -> tuple[int, int]:
    """(calls of functions, bytes of memory) from the folder to a step's first batch."""
    calls = 0

    def count(*seen: object) -> None:
        nonlocal calls
        calls += 1

    tracemalloc.start()
    sys.setprofile(count)
    batch = Sampler(folder, rows_per_step=BATCH, rows_per_micro_batch=BATCH, seed=SEED).micro(step, 0)
    sys.setprofile(None)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert batch.num_tokens == BATCH * LENGTH
    expected = [5 + row % 90 for row in batch.rows.tolist()]
    assert (batch.ids_BL[:, 1].tolist(), len(set(batch.rows.tolist()))) == (expected, BATCH)
    return calls, most


def test_the_millionth_step_of_a_billion_rows_costs_what_the_first_does(billion: Path) -> None:
    on_disk = sum(file.stat().st_blocks * 512 for file in billion.rglob("*.bin"))
    if on_disk > 100e6:
        pytest.skip("this file system has no sparse files")
    cost(billion, 0)  # what is imported or remembered at the first time
    (first, _), (later, most) = cost(billion, 0), cost(billion, 1_000_000)
    assert later < 1.2 * first < 60_000
    assert most < 4e6, "bytes: nothing is read or made as long as the data"
