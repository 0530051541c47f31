"""Dataset -> Checkpoints. Pre-train an encoder from random weights, or continue one: the node `adapt` gives a start."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from kitae.core.artifact import Inputs, Out, content_hash, newest
from kitae.core.config import OPERATIONAL, Config
from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.paths import locate
from kitae.core.recipe import validate
from kitae.data.plan import Plan
from kitae.data.sampler import DATASET, DatasetFacts, Sampler
from kitae.data.shards import Shards
from kitae.models.cost import flops_per_token
from kitae.models.folder import Part, read_parts
from kitae.models.informed import inform
from kitae.models.presets import PRESETS, Architecture, resolve_preset
from kitae.objectives import table
from kitae.objectives.mlm import MaskingConfig, MlmConfig
from kitae.objectives.protocol import Objective
from kitae.objectives.sentence_order import SentenceOrder, check_order
from kitae.procedures.heldout import HeldoutMeter
from kitae.tensor.random import key
from kitae.tensor.world import World, session
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.checkpoint import claim
from kitae.train.config import TrainConfig, step_rows
from kitae.train.loop import Fitted, fit

log = logging.getLogger(__name__)
VERSION = 2
"""2: [UNK] is not predicted, and whole words are chosen without preferring short ones."""
COUNTED = 50_000_000
"""Tokens from the beginning of the training text that the frequencies are taken from."""
COUNTED_AT_ONCE = 1_000_000


class PretrainConfig(Config):
    """Which model learns what, for how long. With a start, the architecture is the start's."""

    model: str | None = None
    """A preset: electra-small, bert-base, ...; needed without a start, which brings its own architecture."""
    config: dict[str, object] = Field(default_factory=dict)
    """Overrides of the preset's fields, and `generator = { ... }` of ELECTRA's generator."""
    objective: Literal["mlm", "rtd", "electric"]
    """What is learnt: "mlm", "rtd" or "electric"."""
    objective_config: dict[str, object] = Field(default_factory=dict)
    """Overrides of the objective's fields: rate, unit, replacement, ..."""
    train: TrainConfig
    """How long, how fast, how exactly."""
    initialization: Literal["normal", "informed"] = "normal"
    """New weights: "normal" is BERT's rule. "informed" starts at the frequencies of the tokens and with heads that look at the
    neighbours: small models then learn from the first steps on. No matter with a start."""
    start: Annotated[str | None, OPERATIONAL] = None
    """A Hugging Face folder or kitae checkpoint to continue from; its content, not its place, enters the fingerprint."""
    heldout_rows: Annotated[int, OPERATIONAL, Field(ge=1)] = 1024
    """At most this many rows of each source's held-out text are measured."""

    @field_validator("model")
    @classmethod
    def _known_model(cls, name: str | None) -> str | None:
        if name is not None and name not in PRESETS:
            raise ValueError(f'there is no preset "{name}": {did_you_mean(name, PRESETS)}')
        return name

    @field_validator("config")
    @classmethod
    def _fitting_config(cls, overrides: dict[str, object], info: ValidationInfo) -> dict[str, object]:
        if info.data.get("model") is not None:
            try:
                resolve_preset(info.data["model"], overrides, 1000, 512)
            except KitaeError as error:
                raise ValueError(f"{error.what}: {error.cure}") from error
        return overrides

    @field_validator("objective_config")
    @classmethod
    def _fitting_objective(cls, overrides: dict[str, object], info: ValidationInfo) -> dict[str, object]:
        if "objective" in info.data:
            try:
                validate(table.row(info.data["objective"]).config, overrides, "")
            except KitaeError as error:
                raise ValueError(f"{error.what}: {error.cure}") from error
        return overrides

    @field_validator("train")
    @classmethod
    def _keeps_a_model(cls, train: TrainConfig) -> TrainConfig:
        if train.keep_last < 1:
            raise ValueError("keep_last = 0 would leave no model: keep at least 1 checkpoint")
        return train


def sources(config: PretrainConfig) -> tuple[str, ...]:
    """The folder to start from, when it lies outside the recipe."""
    return () if config.start is None else (config.start,)


def run(config: PretrainConfig, inputs: Inputs, out: Out) -> None:
    """Train in `out.path`, going on from its newest checkpoint. Every rank of the world calls it; the first fills `out`.

    Raises KitaeError when model, start and data set do not fit together, and what `kitae.train.loop.fit` raises.
    """
    dataset = inputs.path("dataset")
    facts = DatasetFacts.read(dataset)
    tokenizer = Tokenizer.load(dataset / "tokenizer")
    start = locate(config.start) if config.start is not None else inputs.get("start")
    seed = key(inputs.seed, "adapt" if start is not None else "pretrain")
    rows, micro_rows = step_rows(config.train, facts.max_length)
    with session(config.train.device) as world:
        batches = Sampler(dataset, split="train", rows_per_step=rows, rows_per_micro_batch=micro_rows, seed=seed)
        objective = _objective(config, dataset, facts, tokenizer, start, seed=seed)
        _check_pairs(objective, config, facts)
        meter = HeldoutMeter(objective, dataset, world=world, seed=seed, rows_per_batch=micro_rows, rows=config.heldout_rows)
        if world.main:
            if rows > batches.rows_per_epoch:
                log.warning("a batch has %d rows, but the dataset only %d: every step repeats some", rows, batches.rows_per_epoch)
            claim(out.path, "data", {"dataset": content_hash(dataset / DATASET), "tokens": batches.tokens_per_epoch})
        attach = {"tokenizer": dataset / "tokenizer"}
        fitted = fit(objective, batches, config.train, out.path, world=world, seed=seed, attach=attach, evaluate=meter)
        out.counts.update(_counts(config, objective, dataset, fitted, world))
        del meter, objective
    for folder in filter(None, (dataset, start)):
        out.inherit_licences(folder)


def _objective(
    config: PretrainConfig, dataset: Path, facts: DatasetFacts, tokenizer: Tokenizer, start: Path | None, *, seed: int
) -> Objective:
    if start is None:
        return new_objective(config, dataset, facts.max_length, tokenizer, seed=seed)
    settings = table.row(config.objective).config.model_validate(config.objective_config)
    place = newest(start)
    parts = read_parts(place)
    _check_start(place, parts, tokenizer, facts)
    log.info("continuing %s", place)
    return table.load(parts, settings, tokenizer.special, tokenizer.vocab_size)


def new_objective(config: PretrainConfig, dataset: Path, max_length: int, tokenizer: Tokenizer, *, seed: int) -> Objective:
    """The objective with new weights; pure function of its arguments. Raises KitaeError without a preset."""
    if config.model is None:
        raise KitaeError("pretrain.model is missing", cure="name a preset, or give a start")
    settings = table.row(config.objective).config.model_validate(config.objective_config)
    architecture = resolve_preset(config.model, config.config, tokenizer.vocab_size, max_length, pad_token_id=tokenizer.special.pad)
    objective = table.build(architecture, settings, tokenizer.special, tokenizer.vocab_size, seed)
    if config.initialization == "informed":
        inform(objective.models().values(), _log_frequencies(dataset, tokenizer.vocab_size))
    return objective


def _log_frequencies(dataset: Path, vocab_size: int) -> Tensor:
    """Logarithm of every token's share of the training text; tokens that do not occur count a half."""
    shards = Shards(dataset / "train")
    end, counts = min(shards.num_tokens, COUNTED), np.full(vocab_size, 0.5)
    for start in range(0, end, COUNTED_AT_ONCE):
        counts += np.bincount(shards.tokens(start, min(start + COUNTED_AT_ONCE, end)), minlength=vocab_size)
    return torch.from_numpy(np.log(counts / counts.sum())).float()


def _check_start(place: Path, parts: Mapping[str, Part], tokenizer: Tokenizer, facts: DatasetFacts) -> None:
    """Refuse a start that counts tokens otherwise, or has too few positions."""
    homes = [place / "tokenizer", place, *(place / name for name in parts)]
    home = next((folder for folder in homes if any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json"))), None)
    if home is None:
        raise KitaeError("the folder to start from has no tokenizer", cure="bring its vocab.txt or tokenizer.json", where=str(place))
    theirs = Tokenizer.load(home)
    if theirs.tokens != tokenizer.tokens:
        pairs = enumerate(zip(theirs.tokens, tokenizer.tokens, strict=False))
        odd = next((f"token {i} is {a!r} there, {b!r} here" for i, (a, b) in pairs if a != b), "one is longer than the other")
        raise KitaeError(
            f"the vocabulary of the start ({theirs.vocab_size} tokens) is not the data set's ({tokenizer.vocab_size}): {odd}",
            cure="make the tokenizer with `from`, the start's folder",
            where=str(home),
        )
    if theirs.fingerprint != tokenizer.fingerprint:
        log.warning("the start's tokenizer has the same tokens but other settings (segmenter, dictionary or normalization)")
    for name, part in parts.items():
        if part.config.positions < facts.max_length:
            raise KitaeError(
                f"the {name} has {part.config.positions} positions, the data set's rows have {facts.max_length}",
                cure=f"set dataset.max_length = {part.config.positions} or less",
                where=str(place),
            )


def learnt_order(config: PretrainConfig) -> SentenceOrder:
    """What these settings learn of pairs of segments."""
    settings = table.row(config.objective).config.model_validate(config.objective_config)
    return settings.sentence_order if isinstance(settings, MlmConfig) else "none"


def _check_pairs(objective: Objective, config: PretrainConfig, facts: DatasetFacts) -> None:
    """Refuse a dataset and a model that pairs cannot be learnt from, and say it when nothing reads labels that were made."""
    order, pairs = learnt_order(config), facts.pairs
    check_order(order, pairs)
    if pairs is None:
        return
    for part, model in objective.models().items():
        kinds = model.config.segment_kinds
        if kinds == 1 or (kinds == 0 and order != "none"):
            raise KitaeError(
                f"the {part} knows {kinds} kinds of segments (type_vocab_size = {kinds}), but the dataset has pairs of two",
                cure='set type_vocab_size = 2 in pretrain.config, or make the dataset with packing = "sentences"',
            )
    if order == "none" and pairs.negative:
        log.warning(
            'the dataset shows %.0f %% of its pairs otherwise than the text ("%s"), but nothing learns to tell: set pairs.negative = 0%s',
            100 * pairs.negative,
            pairs.task,
            f' or sentence_order = "{pairs.task}"' if config.objective == "mlm" else "",
        )
    if order != "none" and pairs.next_label == 1:
        log.warning("label 1 is the true order in this dataset; in the class that the model is exported as, 0 is")


def _counts(config: PretrainConfig, objective: Objective, dataset: Path, fitted: Fitted, world: World) -> dict[str, object]:
    """What the manifest says of the training: size, length, speed, cost and the last held-out scores."""
    models = objective.models()
    main = models.get("discriminator") or models["encoder"]
    generator = models["generator"].config if "generator" in models else None
    architecture = Architecture(family=main.config.model_type, encoder=main.config, generator=generator)
    settings = table.row(config.objective).config.model_validate(config.objective_config)
    assert isinstance(settings, MaskingConfig), "every objective masks"
    per_token = flops_per_token(architecture, Plan(dataset / "train" / "plan").context, config.objective, settings.mean_rate)
    return {
        "parameters": {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()},
        "distinct_parameters": sum(p.numel() for p in objective.parameters()),
        "steps": fitted.steps,
        "tokens": fitted.tokens,
        "seconds": fitted.seconds,
        "tokens_per_second": fitted.tokens / max(fitted.seconds, 1e-9),
        "seconds_waiting_for_data": fitted.waited,
        "flops_per_token": per_token,
        "flops": per_token * fitted.tokens,
        "processes": world.size,
        "checkpoint": fitted.checkpoint.name,
        "heldout": dict(fitted.evaluation),
    }
