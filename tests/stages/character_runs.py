"""Texts of words, known and unknown, and short pre-trainings of a CharacterBERT on them; run as a script, in a process of its own:
`character_runs.py FOLDER DATASET CHANGES`."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from kitae.core.artifact import Inputs, Out, seal
from kitae.stages import dataset, pretrain
from kitae.stages.dataset import DatasetConfig
from kitae.stages.pretrain import PretrainConfig
from kitae.text.corpus import ShardWriter
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
KNOWN = tuple(f"w{number}" for number in range(30))
LONG = "internationalisierung" * 4
LENGTH, BYTES = 32, 20


def text(seed: int, sentences: int = 9) -> str:
    """Sentences in which a word decides the next; one word in eight is not of the vocabulary."""
    random = np.random.default_rng(seed)
    lines = []
    for _ in range(sentences):
        first = int(random.integers(30))
        words = [f"w{(first + i) % 30}" for i in range(int(random.integers(4, 12)))]
        lines.append(" ".join(f"名{word}{random.integers(40)}" if random.random() < 0.125 else word for word in words))
    return "\n".join([*lines, f"{LONG}{seed} {LONG} [MASK] [SEP]"])


def write_corpus(folder: Path, *, shards: int = 3, documents: int = 12) -> Path:
    characters = {}
    for split, count in (("train", shards), ("heldout", 1)):
        total = 0
        with ShardWriter(folder / split) as writer:
            for shard in range(count):
                for number in range(documents):
                    made = text(1000 * (split == "heldout") + 100 * shard + number)
                    total += len(made)
                    writer.write(json.dumps({"id": f"{shard}/{number}", "source": ("a", "b")[number % 2], "text": made}).encode())
                writer.close()
        characters[split] = total
    (folder / "corpus.json").write_text(json.dumps({"sources": ["a", "b"], "language": "ja", "characters": characters}))
    return folder


def tokenizer_of(folder: Path, words: tuple[str, ...] = KNOWN, word_bytes: int = BYTES) -> Path:
    spec = SegmenterSpec(kind="whitespace")
    made = Definition(tokens=(*SPECIAL, *words), spec=spec, algorithm="characters-of-words", word_bytes=word_bytes)
    Tokenizer(made).save(folder)
    return folder


def make_dataset(folder: Path, corpus: Path, tokenizer: Path, workers: int = 1, **settings: object) -> Path:
    folder.mkdir()
    config = DatasetConfig.model_validate({"max_length": LENGTH, "workers": workers, **settings})
    dataset.run(config, Inputs(parents={"corpus": corpus, "tokenizer": tokenizer}, seed=1), Out(path=folder))
    seal(folder, kind="dataset", facts={"licences": []})
    return folder


def settings(**changes: object) -> PretrainConfig:
    train = {
        "length": "8 steps", "batch": "8 rows", "micro_batch": "4 rows", "learning_rate": 3e-3, "log_every": "1 step",
        "save_every": "4 steps", "evaluate_every": "8 steps", "deterministic": True, "device": "cpu",
    } | changes.pop("train", {})  # type: ignore[operator]  # fmt: skip
    base = {"model": "character-bert-tiny", "objective": "mlm", "train": train}
    return PretrainConfig.model_validate(base | changes)


def run(folder: Path, data: Path, *, start: Path | None = None, **changes: object) -> Out:
    out = Out(path=folder)
    parents = {"dataset": data} | ({"start": start} if start else {})
    if start is not None:
        changes |= {"model": None, "config": {}}
    pretrain.run(settings(**changes), Inputs(parents=parents, seed=1), out)
    return out


def weights(folder: Path, step: int = 8) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / "weights.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), Path(sys.argv[2]), **json.loads(sys.argv[3]))
