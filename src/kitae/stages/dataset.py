"""Corpus + tokenizer -> Dataset: token shards with boundaries, and the plan that packs documents into rows."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, field_validator

from kitae.core.artifact import Inputs, Out
from kitae.core.config import OPERATIONAL, Config
from kitae.core.errors import KitaeError
from kitae.data import plan, sampler
from kitae.data.shards import Shards, token_dtype
from kitae.data.tokenize import tokenize
from kitae.text.corpus import Corpus
from kitae.tokenization.tokenizer import Tokenizer

VERSION = 1
PACKINGS = ("documents",)


class DatasetConfig(Config):
    """Token shards and packed rows."""

    max_length: int = Field(128, ge=8)
    """Positions of a row, special tokens included; a model needs at least as many position embeddings."""
    packing: str = "documents"
    """How text lies in rows. "documents": pieces of documents, each [CLS] ... [SEP], several in a row, none sees another."""
    workers: Annotated[int, OPERATIONAL] = Field(0, ge=0)
    """Processes that tokenize; 0 = one per core."""

    @field_validator("packing")
    @classmethod
    def _known(cls, packing: str) -> str:
        if packing not in PACKINGS:
            raise ValueError(f'packing = "{packing}" does not exist here: known is "documents"')
        return packing


def sources(config: DatasetConfig) -> tuple[str, ...]:
    """Everything that a dataset reads comes from its parents."""
    return ()


def run(config: DatasetConfig, inputs: Inputs, out: Out) -> None:
    """Fill the dataset artifact. Raises KitaeError when the corpus has no training text."""
    corpus = Corpus(inputs.path("corpus"))
    tokenizer = Tokenizer.load(inputs.path("tokenizer"))
    if tokenizer.definition.algorithm == "characters-of-words":  # shards of labels would lose every word outside the vocabulary
        raise KitaeError("a dataset cannot keep the characters of words yet", cure="choose another algorithm", where="[tokenizer]")
    names = corpus.sources
    workers = config.workers or len(os.sched_getaffinity(0))
    shards = {split: corpus.shards(split) for split in ("train", "heldout")}
    train, heldout = tokenize(shards, tokenizer=inputs.path("tokenizer"), sources=names, folder=out.path, workers=workers)
    packed = {"train": _pack(train, config.max_length)}
    if not packed["train"]["tokens"]:
        raise KitaeError("the corpus has no text to train on", cure="give it more text, or hold less of it out", where=str(corpus.folder))
    for number, folder in heldout.items():
        if Shards(folder).num_tokens:
            packed[f"heldout/{names[number]}"] = _pack(folder, config.max_length)
        else:
            shutil.rmtree(folder)
    facts = sampler.DatasetFacts(
        max_length=config.max_length,
        packing=config.packing,
        vocab_size=tokenizer.vocab_size,
        dtype=token_dtype(tokenizer.vocab_size).str,
        special=dataclasses.asdict(tokenizer.special),
        tokenizer=tokenizer.fingerprint,
        sources=names,
    )
    (out.path / sampler.DATASET).write_text(json.dumps(facts.model_dump(mode="json"), indent=1, ensure_ascii=False), encoding="utf-8")
    shutil.copytree(inputs.path("tokenizer"), out.path / "tokenizer", ignore=shutil.ignore_patterns("manifest.json"))
    _count(out, packed, train, names)
    for role in ("corpus", "tokenizer"):
        out.inherit_licences(inputs.path(role))


def _pack(folder: Path, max_length: int) -> dict[str, float]:
    """Pack one split; the tokens lost are counted, not assumed."""
    shards = Shards(folder)
    built = plan.build(shards, max_length=max_length, folder=folder / "plan")
    return {
        "documents": shards.num_documents,
        "empty_documents": shards.empty_documents,
        "tokens": shards.num_tokens,
        "tokens_lost": shards.num_tokens - int(built.lengths.sum(dtype=np.int64)),
        "pieces": built.num_pieces,
        "rows": built.num_rows,
        "fill": round(built.fill, 5),
    }


def _count(out: Out, packed: dict[str, dict[str, float]], train: Path, names: tuple[str, ...]) -> None:
    shards = Shards(train)
    tokens = np.zeros(len(names), dtype=np.int64)
    for shard in range(len(shards)):
        lengths = np.diff(shards.documents(shard), prepend=shards.starts[shard])
        np.add.at(tokens, shards.sources(shard), lengths)
    out.counts.update(packed["train"])
    out.counts["tokens_by_source"] = dict(zip(names, tokens.tolist(), strict=True))
    out.counts["heldout"] = {name.removeprefix("heldout/"): counts for name, counts in packed.items() if name != "train"}
