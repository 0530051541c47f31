"""Tokenizing in several processes: equal bytes for any number, and after a process died, which is an error that names its shard."""

import hashlib
import json
import logging
import multiprocessing
import os
import resource
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from kitae.core.errors import KitaeError
from kitae.data.shards import Shards
from kitae.data.tokenize import tokenize
from kitae.text.corpus import ShardWriter
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

SHARDS = 12


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, list[Path]]:
    """Shards of one short document each but for the sixth, which is seconds of work, and a tokenizer."""
    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b")
    Tokenizer(Definition(tokens=tokens, spec=SegmenterSpec(kind="whitespace"))).save(tmp_path / "tokenizer")
    for split, source in (("train", "news"), ("heldout", "books")):
        with ShardWriter(tmp_path / split) as writer:
            for number in range(SHARDS):
                text = "a " * (300_000 if (split, number) == ("train", 5) else number + 1) + "b"
                writer.write(json.dumps({"id": str(number), "source": source, "text": text}).encode())
                writer.close()
    return {split: sorted((tmp_path / split).iterdir()) for split in ("train", "heldout")}


def make(corpus: dict[str, list[Path]], place: Path, folder: Path, workers: int) -> dict[str, str]:
    """The hashes of all files that the dataset stage keeps."""
    tokenize(
        corpus, tokenizer=place / "tokenizer", sources=("news", "books"), folder=folder / "made", work=folder / "work", workers=workers
    )
    files = sorted(item for item in (folder / "made").rglob("*") if item.is_file())
    return {str(item.relative_to(folder)): hashlib.sha256(item.read_bytes()).hexdigest() for item in files}


def kill_during(shard: Path, after: Path) -> threading.Thread:
    """Kill all workers when one shard is in work and another is done."""

    def kill() -> None:
        for _ in range(2400):
            if shard.with_suffix(".making").exists() and after.exists():
                break
            time.sleep(0.02)
        for process in multiprocessing.active_children():
            process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_the_bytes_do_not_depend_on_workers_and_deaths(
    tmp_path: Path, corpus: dict[str, list[Path]], caplog: pytest.LogCaptureFixture
) -> None:
    one, two = (make(corpus, tmp_path, tmp_path / f"by-{workers}", workers) for workers in (1, 2))
    (key,) = (tmp_path / "by-1" / "work" / "parts").iterdir()
    parts = tmp_path / "cut" / "work" / "parts" / key.name / "train"
    killer = kill_during(parts / "00005", parts / "00004")
    try:
        with pytest.raises(KitaeError, match=r"were in work: .*train/00005\.jsonl\.zst.*finished shards are kept"):
            make(corpus, tmp_path, tmp_path / "cut", 2)
    finally:
        killer.join()
    assert not multiprocessing.active_children()
    assert not (tmp_path / "cut" / "made").exists()
    kept = {item: item.stat().st_mtime_ns for item in parts.parent.glob("*/*") if item.suffix != ".making"}
    assert len(kept) >= 3
    with caplog.at_level(logging.INFO):
        cut = make(corpus, tmp_path, tmp_path / "cut", 2)
    assert {item: item.stat().st_mtime_ns for item in kept} == kept
    assert f"going on: {len(kept)} of {2 * SHARDS} shards" in caplog.text
    assert one == two == cut
    assert {Path(name).parts[1] for name in one} == {"train", "heldout"}


def test_more_heldout_sources_than_a_process_may_open_files(tmp_path: Path, corpus: dict[str, list[Path]]) -> None:
    names = tuple(f"source-{number}" for number in range(60))
    with ShardWriter(tmp_path / "many") as writer:
        for number in range(180):
            writer.write(json.dumps({"id": str(number), "source": names[number * 7 % 60], "text": "a " * (number // 60) + "b"}).encode())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
    try:
        shards = {"train": [], "heldout": sorted((tmp_path / "many").iterdir())}
        _, heldout, _ = tokenize(
            shards, tokenizer=tmp_path / "tokenizer", sources=names, folder=tmp_path / "made", work=tmp_path / "work", workers=1
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert list(heldout) == list(range(60))
    for folder in heldout.values():
        assert np.diff(Shards(folder).documents(0), prepend=0).tolist() == [1, 2, 3], "in the corpus's order"


def test_another_tokenizer_takes_nothing_over(tmp_path: Path, corpus: dict[str, list[Path]]) -> None:
    small = {"train": corpus["train"][:4], "heldout": []}
    first = make(small, tmp_path, tmp_path / "x", 1)
    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "b", "a")
    Tokenizer(Definition(tokens=tokens, spec=SegmenterSpec(kind="whitespace"))).save(tmp_path / "tokenizer")
    again = make(small, tmp_path, tmp_path / "x", 1)
    assert first.keys() == again.keys()
    assert first["made/train/tokens-00000.bin"] != again["made/train/tokens-00000.bin"]
    assert (tmp_path / "x/made/train/tokens-00000.bin").stat().st_size == 2 * sum(number + 2 for number in range(4)), "nothing is appended"
