"""A dataset of made-up text for benchmarks of the training: real shards and a real packing plan, ids by Zipf's law."""

import json
from pathlib import Path

import numpy as np

from kitae.data import plan
from kitae.data.sampler import DATASET, DatasetFacts
from kitae.data.shards import Shards, ShardWriter, token_dtype
from kitae.tensor.random import numpy_generator
from kitae.tokenization.special import SpecialIds

VOCAB = 16_000
SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)


def facts(vocab_size: int, max_length: int) -> DatasetFacts:
    """What dataset.json says of one source of made-up text."""
    return DatasetFacts(
        max_length=max_length,
        packing="documents",
        vocab_size=vocab_size,
        dtype=token_dtype(vocab_size).str,
        special={"cls": SPECIAL.cls, "sep": SPECIAL.sep, "pad": SPECIAL.pad, "unk": SPECIAL.unk, "mask": SPECIAL.mask},
        tokenizer="made up",
        sources=("made-up",),
    )


def make_dataset(folder: Path, *, max_length: int, tokens: int = 400_000, vocab_size: int = VOCAB) -> Path:
    """Documents of log-normal length (median 300 tokens) in words of one to three tokens, until there are so many tokens."""
    generator = numpy_generator(1, "made-up documents")
    train = folder / "train"
    with ShardWriter(train, vocab_size=vocab_size) as writer:
        while tokens > 0:
            length = int(np.exp(generator.normal(np.log(300), 1.0)).clip(8, 5000))
            ids = 5 + ((vocab_size - 5) ** generator.random(length)).astype(np.int64) - 1
            cuts = np.cumsum(generator.integers(1, 4, size=length))
            words = np.split(ids, cuts[cuts < length])
            writer.add([[tuple(word.tolist()) for word in words]])
            tokens -= length
    plan.build(Shards(train), max_length=max_length, folder=train / "plan")
    (folder / DATASET).write_text(json.dumps(facts(vocab_size, max_length).model_dump(mode="json")), encoding="utf-8")
    return folder
