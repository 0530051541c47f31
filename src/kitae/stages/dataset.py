"""Corpus + tokenizer -> Dataset: token shards with boundaries, and the plan that packs text into rows."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from kitae.core.artifact import Inputs, Out
from kitae.core.config import OPERATIONAL, Config
from kitae.core.errors import KitaeError
from kitae.data import order, plan
from kitae.data.pairs import PairConfig, Partners
from kitae.data.shards import Shards
from kitae.data.tokenize import facts_of, tokenize
from kitae.tensor.random import key
from kitae.text.corpus import Corpus
from kitae.tokenization.tokenizer import Tokenizer

log = logging.getLogger(__name__)
VERSION = 5
"""2: a row holds text of one source, and there are packings of whole sentences. 3: whole sentences fill long rows. 4: on raw text, a
blank that is a token of its own belongs to the word behind it. 5: bytes of one character that SentencePiece falls back to are one word."""


class DatasetConfig(Config):
    """Token shards and packed rows."""

    max_length: int = Field(128, ge=8)
    """Positions of a row, special tokens included; a model needs at least as many position embeddings."""
    packing: plan.Packing = "documents"
    """How text lies in rows, several pieces in each, of which none sees another. "documents": pieces of documents, each
    [CLS] ... [SEP]. "sentences": runs of whole sentences of a document; only a sentence longer than a row is cut.
    "pairs": such runs as [CLS] A [SEP] B [SEP], for next sentence or sentence order prediction (`sentence_order` of the objective)."""
    pairs: PairConfig = PairConfig()
    """With packing = "pairs": what is to be told of them."""
    workers: Annotated[int, OPERATIONAL] = Field(0, ge=0)
    """Processes that tokenize; 0 = one per core, or one alone for a megabyte of text or less."""

    @model_validator(mode="after")
    def _asked(self) -> Self:
        if self.packing != "pairs" and self.pairs != PairConfig():
            raise ValueError(f'pairs has no effect with packing = "{self.packing}": set packing = "pairs"')
        return self


def sources(config: DatasetConfig) -> tuple[str, ...]:
    """Everything that a dataset reads comes from its parents."""
    return ()


def run(config: DatasetConfig, inputs: Inputs, out: Out) -> None:
    """Fill the dataset artifact. Raises KitaeError when the corpus has no training text."""
    corpus = Corpus(inputs.path("corpus"))
    tokenizer = Tokenizer.load(inputs.path("tokenizer"))
    names = corpus.sources
    order.check(names, repeats=corpus.repeat, weights=corpus.weight)
    shards = {split: corpus.shards(split) for split in ("train", "heldout")}
    with out.workplace() as work:
        train, heldout, failures = tokenize(
            shards, tokenizer=inputs.path("tokenizer"), sources=names, folder=out.path, work=work, workers=config.workers
        )
    packed = {"train": _pack(train, config, inputs.seed)}
    if not packed["train"].num_tokens:
        raise KitaeError("the corpus has no text to train on", cure="give it more text, or hold less of it out", where=str(corpus.folder))
    for number, folder in heldout.items():
        if Shards(folder).num_tokens:
            packed[f"heldout/{names[number]}"] = _pack(folder, config, inputs.seed)
        else:
            shutil.rmtree(folder)
    if config.packing == "pairs":
        _check_pairs(packed["train"], Shards(train), config, str(corpus.folder))
    order.check_plan(packed["train"], names, weights=corpus.weight)
    facts = facts_of(out.path, tokenizer, max_length=config.max_length, packing=config.packing, sources=names)
    pairs = config.pairs if config.packing == "pairs" else None
    facts.model_copy(update={"repeat": corpus.repeat, "weight": corpus.weight, "pairs": pairs}).write(out.path)
    shutil.copytree(inputs.path("tokenizer"), out.path / "tokenizer", ignore=shutil.ignore_patterns("manifest.json"))
    out.counts.update(_split_counts(packed["train"], Shards(train), names))
    if config.packing == "pairs":
        _count_negatives(out.counts, packed["train"], Shards(train), config, names)
    out.counts["heldout"] = {
        name: _split_counts(packed[f"heldout/{name}"], Shards(heldout[number]), names)
        for number, name in enumerate(names)
        if f"heldout/{name}" in packed
    }
    if facts.words is not None:
        out.counts["words_outside_the_vocabulary"] = facts.words - tokenizer.vocab_size
    if tokenizer.definition.spec.kind == "jumanpp":
        out.counts["sentences_by_blanks"] = failures
    for role in ("corpus", "tokenizer"):
        out.inherit_licences(inputs.path(role))


def _pack(folder: Path, config: DatasetConfig, seed: int) -> plan.Plan:
    return plan.build(
        Shards(folder),
        max_length=config.max_length,
        folder=folder / "plan",
        packing=config.packing,
        short=config.pairs.short,
        seed=key(seed, "packing"),
    )


def _check_pairs(packed: plan.Plan, shards: Shards, config: DatasetConfig, where: str) -> None:
    """Refuse pairs that could never be told apart."""
    if not packed.num_pairs:
        raise KitaeError(
            'packing = "pairs" found no document of two sentences', cure='take packing = "sentences", or longer rows', where=where
        )
    if config.pairs.task == "nsp" and config.pairs.negative and shards.num_documents < 2:
        raise KitaeError("a random next segment comes from another document, and there is but one", cure="give more text", where=where)


def _count_negatives(counts: Mapping[str, object], packed: plan.Plan, shards: Shards, config: DatasetConfig, names: Sequence[str]) -> None:
    """Add to the counts of every source the share of its pairs that are random or swapped; warn where they all stay true."""
    by_source = counts["sources"]
    assert isinstance(by_source, dict)
    for name, share in zip(names, Partners(shards, packed, config.pairs, seed=0).shares()):
        if share is not None:
            by_source[name]["negatives"] = round(share, 4)
            if config.pairs.task == "nsp" and config.pairs.negative and by_source[name]["documents"] == 1:
                log.warning('source "%s" is a single document: none of its pairs can have a random next', name)


def _split_counts(packed: plan.Plan, shards: Shards, names: tuple[str, ...]) -> dict[str, object]:
    """Documents, tokens and rows of a split, in all and by source. Raises KitaeError when a token was lost: it is counted, not assumed."""
    documents, tokens = shards.count_sources(len(names))
    by_source = {
        name: _counts(source, packed.max_length, documents[number], tokens[number])
        for number, (name, source) in enumerate(zip(names, packed.sources))
        if documents[number]
    }
    whole = plan.SourceRows(rows=packed.num_rows, pieces=packed.num_pieces, tokens=packed.num_tokens, pairs=packed.num_pairs)
    counts = _counts(whole, packed.max_length, shards.num_documents, shards.num_tokens)
    for name, found in {"all sources": counts, **by_source}.items():
        if found["tokens_lost"]:
            what = f"packing lost tokens: {found['tokens_lost']:,} of {found['tokens']:,} of {name} stand in no row, or in several"
            raise KitaeError(
                what, cure="this is a bug in kitae: please report it with the settings of the dataset", where=str(shards.folder)
            )
    return {**counts, "empty_documents": shards.empty_documents, "sources": by_source}


def _counts(rows: plan.SourceRows, max_length: int, documents: int, tokens: int) -> dict[str, float]:
    positions = max(rows.rows * max_length, 1)
    return {
        "documents": documents,
        "tokens": tokens,
        "tokens_lost": tokens - rows.tokens,
        "pieces": rows.pieces,
        "pairs": rows.pairs,
        "rows": rows.rows,
        "fill": round(rows.real_positions / positions, 5),
    }
