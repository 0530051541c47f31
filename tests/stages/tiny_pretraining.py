"""A tiny dataset and short pre-trainings; run as a script, in a process of its own: `tiny_pretraining.py FOLDER DATASET CHANGES`."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import torch

from kitae.core.artifact import Inputs, Out, seal
from kitae.data import plan
from kitae.data.sampler import DATASET, DatasetFacts
from kitae.data.shards import Shards, ShardWriter, token_dtype
from kitae.stages.pretrain import PretrainConfig, run
from kitae.tensor.random import numpy_generator
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.monitor import read_metrics

WORDS = tuple(f"w{i}" for i in range(60))
TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)


def write_shards(folder: Path, *, documents: int, seed: int) -> None:
    """Documents in which a word decides the next: w(i), w(i+1), ..."""
    generator = numpy_generator(seed, "documents")
    with ShardWriter(folder, vocab_size=len(TOKENS)) as writer:
        for _ in range(documents):
            first, length = generator.integers(60), generator.integers(4, 40)
            writer.add([[(5 + int(first + i) % 60,) for i in range(length)]])


def write_dataset(folder: Path, *, documents: int = 120, tokens: tuple[str, ...] = TOKENS, max_length: int = 32) -> Path:
    tokenizer = Tokenizer(Definition(tokens=tokens, spec=SegmenterSpec(kind="whitespace")))
    tokenizer.save(folder / "tokenizer")
    for split, count in (("train", documents), ("heldout/0", 30), ("heldout/1", 9)):
        write_shards(folder / split, documents=count, seed=len(split) + count)
        plan.build(Shards(folder / split), max_length=max_length, folder=folder / split / "plan")
    facts = DatasetFacts(
        max_length=max_length,
        packing="documents",
        vocab_size=len(tokens),
        dtype=token_dtype(len(tokens)).str,
        special=dataclasses.asdict(tokenizer.special),
        tokenizer=tokenizer.fingerprint,
        sources=("news", "books"),
    )
    (folder / DATASET).write_text(facts.model_dump_json())
    seal(folder, kind="dataset", facts={"licences": [{"name": "toy", "licence": "CC0", "source": "made up"}]})
    return folder


def write_pairs(folder: Path, dataset: Path, **pairs: object) -> Path:
    """The dataset again, packed as pairs: the first sentence of a document has the first 15 words, the next the next 15."""
    shutil.copytree(dataset, folder)
    for split in ("train", "heldout/0", "heldout/1"):
        with ShardWriter(folder / split, vocab_size=len(TOKENS)) as writer:
            for first in range(20):
                writer.add([[(5 + 15 * sentence + (first + i) % 15,) for i in range(6)] for sentence in range(4)])
        plan.build(Shards(folder / split), max_length=32, folder=folder / split / "plan", packing="pairs")
    said = json.loads((folder / DATASET).read_text())
    (folder / DATASET).write_text(json.dumps(said | {"packing": "pairs", "pairs": pairs}))
    return folder


def config(**changes: object) -> PretrainConfig:
    train = {
        "length": "12 steps", "batch": "16 rows", "micro_batch": "8 rows", "learning_rate": 3e-3, "log_every": "1 step",
        "save_every": "4 steps", "evaluate_every": "6 steps", "deterministic": True, "device": "cpu",
    } | changes.pop("train", {})  # type: ignore[operator]  # fmt: skip
    return PretrainConfig.model_validate({"model": "electra-tiny", "objective": "rtd", "train": train} | changes)


def pretrain(folder: Path, dataset: Path, *, start: Path | None = None, seed: int = 1, **changes: object) -> Out:
    out = Out(path=folder)
    parents = {"dataset": dataset} | ({"start": start} if start else {})
    run(config(**changes), Inputs(parents=parents, seed=seed), out)
    return out


def losses(folder: Path) -> list[object]:
    return [record["loss"] for record in read_metrics(folder) if record["kind"] == "train"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    pretrain(Path(sys.argv[1]), Path(sys.argv[2]), **json.loads(sys.argv[3]))
