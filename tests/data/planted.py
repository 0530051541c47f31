"""A dataset artifact from given documents, without a corpus or a tokenizer."""

import json
from collections.abc import Sequence
from pathlib import Path

from kitae.data import plan, sampler
from kitae.data.shards import Shards, ShardWriter

SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
Document = list[list[tuple[int, ...]]]


def write(
    folder: Path,
    documents: Sequence[Document],
    *,
    max_length: int,
    vocab_size: int = 1000,
    shard_tokens: int = 1 << 27,
    packing: plan.Packing = "documents",
    sources: Sequence[int] = (),
    short: float = 0.1,
) -> None:
    """Write shards and plan of one split; `sources` has the source number of each document."""
    with ShardWriter(folder, vocab_size=vocab_size, shard_tokens=shard_tokens) as writer:
        for number, document in enumerate(documents):
            writer.add(document, source=sources[number] if sources else 0)
    plan.build(Shards(folder), max_length=max_length, folder=folder / "plan", packing=packing, short=short)


def dataset(folder: Path, documents: Sequence[Document], *, max_length: int, heldout: Sequence[Document] = ()) -> Path:
    """Write a whole dataset with one source "a"."""
    write(folder / "train", documents, max_length=max_length)
    if heldout:
        write(folder / "heldout" / "0", heldout, max_length=max_length)
    return describe(folder, max_length=max_length)


def describe(folder: Path, *, max_length: int, sources: Sequence[str] = ("a",), vocab_size: int = 1000, **facts: object) -> Path:
    """Write dataset.json."""
    said = {"max_length": max_length, "packing": "documents", "vocab_size": vocab_size, "dtype": "<u2", "special": SPECIAL}
    made = sampler.DatasetFacts.model_validate({**said, "tokenizer": "none", "sources": sources, **facts})
    (folder / sampler.DATASET).write_text(json.dumps(made.model_dump(mode="json")))
    return folder


def in_sentences(lengths: Sequence[Sequence[int]], *, first: int = 10) -> list[Document]:
    """Documents of sentences of these many tokens, one word each; every token has an id of its own, counted on from `first`."""
    documents: list[Document] = []
    for sentences in lengths:
        document: Document = []
        for length in sentences:
            document.append([tuple(range(first, first + length))])
            first += length
        documents.append(document)
    return documents


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
