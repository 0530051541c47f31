"""Damaged datasets: whatever is cut off, emptied or lost is one error that names the file and the cure; so are ids that cannot be."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from planted import describe, in_sentences, write

from kitae.core.errors import KitaeError
from kitae.data.sampler import Sampler
from kitae.data.shards import ShardWriter

FILES = (
    *("dataset.json", "train/index.json", "train/plan/plan.json"),
    *(f"train/{part}-00000.bin" for part in ("tokens", "documents", "sentences", "sources", "words")),
    *(f"train/plan/{part}.bin" for part in ("starts", "lengths", "rows", "splits")),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "train", in_sentences([[9, 7, 8]] * 30), max_length=32, packing="pairs")
    return describe(tmp_path, max_length=32, packing="pairs", pairs={})


def first_batch(folder: Path) -> None:
    Sampler(folder, rows_per_step=4, rows_per_micro_batch=4, seed=1).micro(0, 0)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]), "is damaged"),
        (lambda file: file.write_bytes(file.read_bytes() + b"\0" * 8), "is damaged"),
        (lambda file: file.write_bytes(b""), "is damaged"),
        (lambda file: file.unlink(), "is missing"),
    ],
    ids=["cut", "longer", "emptied", "lost"],
)
def test_a_damaged_file_is_named(folder: Path, name: str, damage: Callable[[Path], object], what: str) -> None:
    first_batch(folder)
    damage(folder / name)
    with pytest.raises(KitaeError, match=what) as caught:
        first_batch(folder)
    assert Path(name).name in str(caught.value)
    assert caught.value.cure


@pytest.mark.parametrize(
    ("name", "key"), [("dataset.json", "vocab_size"), ("train/index.json", "shards"), ("train/plan/plan.json", "rows")]
)
def test_an_index_that_lacks_something_is_damaged(folder: Path, name: str, key: str) -> None:
    said = json.loads((folder / name).read_text())
    del said[key]
    (folder / name).write_text(json.dumps(said))
    with pytest.raises(KitaeError, match="is damaged: Field required"):
        first_batch(folder)


def test_an_id_that_the_vocabulary_does_not_have_never_reaches_a_model(folder: Path) -> None:
    tokens = np.memmap(folder / "train/tokens-00000.bin", dtype="<u2", mode="r+")
    tokens[:] = 1000
    tokens.flush()
    with pytest.raises(KitaeError, match="id 1000 is not in the vocabulary of 1000") as caught:
        first_batch(folder)
    assert "kitae verify" in caught.value.cure


@pytest.mark.parametrize(("vocab_size", "odd"), [(100, 100), (100, -1), (60_000, 65_536), (100_000, 1 << 33)])
def test_an_id_that_the_vocabulary_does_not_have_is_never_written(tmp_path: Path, vocab_size: int, odd: int) -> None:
    def writing() -> None:
        with ShardWriter(tmp_path, vocab_size=vocab_size) as writer:
            writer.add([[(1, 2), (odd,)]])

    with pytest.raises(KitaeError, match=f"token id {odd} is not"):
        writing()
    assert not (tmp_path / "index.json").exists()
