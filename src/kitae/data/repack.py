"""Rows of another length from the same token shards: packing plans beside those of the dataset, which stays as it is."""

import json
from pathlib import Path

from kitae.core.artifact import MANIFEST, content_hash, write_folder
from kitae.data.plan import build
from kitae.data.sampler import DATASET, DatasetFacts, heldout_sources
from kitae.data.sentences import SHORT
from kitae.data.shards import Shards
from kitae.tensor.random import key

RECORD = "repacked.json"


def identity(dataset: Path, max_length: int, seed: int) -> dict[str, object]:
    """What decides the plans: a folder with another record is of another dataset."""
    made = dataset / MANIFEST
    return {"dataset": content_hash(made if made.is_file() else dataset / DATASET), "max_length": max_length, "seed": seed}


def is_repacked(folder: Path, wanted: dict[str, object]) -> bool:
    """Whether the folder holds complete plans with this identity."""
    path = folder / RECORD
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")) == wanted


def repack(dataset: Path, max_length: int, folder: Path, *, seed: int) -> None:
    """Write SPLIT/plan for every split of the dataset, packed as that is but in rows of `max_length`; complete or absent.

    `seed` is the recipe's, so that rows equal those of a dataset that was made with this length. Raises KitaeError when the disk is full.
    """
    facts = DatasetFacts.read(dataset)
    short = SHORT if facts.pairs is None else facts.pairs.short
    heldout = [f"heldout/{facts.sources.index(name)}" for name in heldout_sources(dataset)]
    with write_folder(folder) as beside:
        for split in ("train", *heldout):
            shards = Shards(dataset / split)
            made = build(
                shards, max_length=max_length, folder=beside / split / "plan", packing=facts.packing, short=short, seed=key(seed, "packing")
            )
            assert made.num_tokens == shards.num_tokens, f"packing lost tokens of {split}"
        (beside / RECORD).write_text(json.dumps(identity(dataset, max_length, seed)), encoding="utf-8")
