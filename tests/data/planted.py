"""A dataset artifact from given documents, without a corpus or a tokenizer."""

import json
from collections.abc import Sequence
from pathlib import Path

from kitae.data import plan, sampler
from kitae.data.shards import Shards, ShardWriter

SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
Document = list[list[tuple[int, ...]]]


def write(folder: Path, documents: Sequence[Document], *, max_length: int, vocab_size: int = 1000, shard_tokens: int = 1 << 27) -> None:
    """Write shards and plan of one split."""
    with ShardWriter(folder, vocab_size=vocab_size, shard_tokens=shard_tokens) as writer:
        for document in documents:
            writer.add(document)
    plan.build(Shards(folder), max_length=max_length, folder=folder / "plan")


def dataset(folder: Path, documents: Sequence[Document], *, max_length: int, heldout: Sequence[Document] = ()) -> Path:
    """Write a whole dataset with one source "a"."""
    write(folder / "train", documents, max_length=max_length)
    if heldout:
        write(folder / "heldout" / "0", heldout, max_length=max_length)
    facts = sampler.DatasetFacts(
        max_length=max_length, packing="documents", vocab_size=1000, dtype="<u2", special=SPECIAL, tokenizer="none", sources=("a",)
    )
    (folder / sampler.DATASET).write_text(json.dumps(facts.model_dump(mode="json")))
    return folder


def of_lengths(lengths: Sequence[int]) -> list[Document]:
    """Documents of these many tokens, as one sentence of words of one to three tokens with telling ids."""
    documents: list[Document] = []
    for number, length in enumerate(lengths):
        ids = [10 + (number * 31 + i * 7) % 900 for i in range(length)]
        words, at, size = [], 0, 1
        while at < length:
            words.append(tuple(ids[at : at + size]))
            at, size = at + size, size % 3 + 1
        documents.append([words])
    return documents
