"""Tokenizing in several processes: a process that dies is an error with the name of its shard."""

import json
import multiprocessing
import threading
import time
from pathlib import Path

import pytest

from kitae.core.errors import KitaeError
from kitae.data.shards import INDEX
from kitae.data.tokenize import tokenize
from kitae.text.corpus import ShardWriter
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer


def test_a_killed_process_names_its_shard(tmp_path: Path) -> None:
    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a")
    Tokenizer(Definition(tokens=tokens, spec=SegmenterSpec(kind="whitespace"))).save(tmp_path / "tokenizer")
    with ShardWriter(tmp_path / "train") as writer:
        writer.write(json.dumps({"id": "1", "source": "news", "text": "a a"}).encode())
        writer.close()
        writer.write(json.dumps({"id": "2", "source": "news", "text": "a " * 8_000_000}).encode())  # seconds of work
    shards = sorted((tmp_path / "train").iterdir())
    made = tmp_path / "dataset" / "train"

    def kill() -> None:
        for _ in range(1200):
            if (made / "part-00001").exists() and (made / "part-00000" / INDEX).exists():
                time.sleep(0.2)
                break
            time.sleep(0.05)
        for process in multiprocessing.active_children():
            process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(KitaeError, match=r"were in work: train/00001\.jsonl\.zst: if it was"):
            tokenize(
                {"train": shards, "heldout": []},
                tokenizer=tmp_path / "tokenizer",
                sources=("news",),
                folder=tmp_path / "dataset",
                workers=2,
            )
    finally:
        killer.join()
    assert not multiprocessing.active_children()
