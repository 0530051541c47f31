"""Plans of a million documents under a hard limit of memory that does not hang on their number."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kitae.data import plan
from kitae.data.shards import INDEX, Shards

SHARD_DOCUMENTS = 250_000
HEAP = 96 << 20
CHILD = """
import resource, sys
from pathlib import Path
from kitae.data import plan
from kitae.data.shards import Shards

def heap():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmData"))

limit = heap() + int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
plan.build(Shards(Path(sys.argv[1])), max_length=128, folder=Path(sys.argv[1]) / "plan", packing=sys.argv[2])
"""


def write_shards(folder: Path, documents: int) -> None:
    """Boundaries of documents with sentences, written at once; the tokens themselves are holes, because no plan reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    index = []
    for shard, first in enumerate(range(0, documents, SHARD_DOCUMENTS)):
        random = np.random.default_rng(shard)
        count = min(SHARD_DOCUMENTS, documents - first)
        per_document = random.integers(1, 8, count)
        sentences = random.lognormal(3.0, 0.6, per_document.sum()).astype(np.int64).clip(1).cumsum()
        tokens = int(sentences[-1])
        (folder / f"sentences-{shard:05d}.bin").write_bytes(sentences.astype("<u8").tobytes())
        (folder / f"documents-{shard:05d}.bin").write_bytes(sentences[per_document.cumsum() - 1].astype("<u8").tobytes())
        sources = (np.arange(first, first + count) >= documents // 3).astype("<u2")
        (folder / f"sources-{shard:05d}.bin").write_bytes(sources.tobytes())
        for part, size in (("tokens", 2 * tokens), ("words", -(-tokens // 8))):
            with (folder / f"{part}-{shard:05d}.bin").open("wb") as file:
                file.truncate(size)
        index.append({"tokens": tokens, "documents": count, "sentences": len(sentences)})
    (folder / INDEX).write_text(json.dumps({"format": 1, "dtype": "<u2", "shards": index, "empty_documents": 0}))


def build_limited(folder: Path, packing: str, heap: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CHILD, str(folder), packing, str(heap)], capture_output=True, text=True, check=False)


def check(folder: Path, least_fill: float) -> None:
    shards, built = Shards(folder), plan.Plan(folder / "plan")
    assert sum(source.tokens for source in built.sources) == shards.num_tokens == int(built.lengths.sum(dtype=np.int64))
    assert built.fill >= least_fill
    assert len(built.sources) == 2
    assert not [item.name for item in (folder / "plan").iterdir() if item.suffix not in (".bin", ".json")], "no scratch file stays"


def test_a_million_documents(tmp_path: Path) -> None:
    write_shards(tmp_path, 1_000_000)
    done = build_limited(tmp_path, "documents", HEAP)
    assert done.returncode == 0, done.stderr[-2000:]
    check(tmp_path, 0.99)


def test_the_limit_is_one(tmp_path: Path) -> None:
    write_shards(tmp_path, 300_000)
    done = build_limited(tmp_path, "documents", 1 << 20)
    assert done.returncode != 0
    assert "MemoryError" in done.stderr or "allocate" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["sentences", "pairs"])
def test_a_million_documents_in_whole_sentences(tmp_path: Path, packing: str) -> None:
    write_shards(tmp_path, 1_000_000)
    done = build_limited(tmp_path, packing, HEAP)
    assert done.returncode == 0, done.stderr[-2000:]
    check(tmp_path, 0.97)


def test_fewer_documents_in_pairs(tmp_path: Path) -> None:
    write_shards(tmp_path, 40_000)
    done = build_limited(tmp_path, "pairs", HEAP)
    assert done.returncode == 0, done.stderr[-2000:]
    check(tmp_path, 0.97)
