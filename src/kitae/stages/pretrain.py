"""Dataset -> Checkpoints. Pre-train an encoder from random weights, or continue one: the node `adapt` gives a start."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from kitae.core.artifact import Inputs, Out, content_hash, newest
from kitae.core.config import OPERATIONAL, Config
from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.paths import locate
from kitae.core.recipe import validate
from kitae.data.frequencies import log_frequencies
from kitae.data.plan import Plan
from kitae.data.sampler import DATASET, DatasetFacts, Sampler
from kitae.models.cost import flops_per_token
from kitae.models.encoder import EncoderConfig
from kitae.models.families import FAMILIES
from kitae.models.folder import Part, read_parts
from kitae.models.informed import check_informed, inform
from kitae.models.presets import PRESETS, Architecture, generator_for, resolve_preset
from kitae.models.towers import TwoTowerEncoder
from kitae.objectives import table
from kitae.objectives.mlm import MaskingConfig, MlmConfig
from kitae.objectives.protocol import Objective
from kitae.objectives.rtd import RtdConfig
from kitae.objectives.sentence_order import SentenceOrder, check_order
from kitae.procedures import regrow as regrowing
from kitae.procedures.heldout import HeldoutMeter
from kitae.procedures.regrow import Ground, RegrowConfig, regrow
from kitae.procedures.words import check_reading, with_words_of
from kitae.tensor.random import key, torch_generator
from kitae.tensor.world import World, session
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.checkpoint import claim
from kitae.train.config import TrainConfig, step_rows
from kitae.train.freezing import check_depths
from kitae.train.loop import Fitted, fit

log = logging.getLogger(__name__)
VERSION = 3
"""2: [UNK] is not predicted, and whole words are chosen without preferring short ones. 3: words, spans and n-grams are chosen equally
often whatever their length; held-out masks depend on no seed and no batch size."""


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
    neighbours: small models then learn from the first steps on. With a start only for a regrown generator, whose discriminator should have
    begun informed as well: it has learnt these positions."""
    start: Annotated[str | None, OPERATIONAL] = None
    """A Hugging Face folder or kitae checkpoint to continue from; its content, not its place, enters the fingerprint. For "rtd": of
    both halves (generator/ and discriminator/), or of the discriminator, whose generator is then regrown (see `regrow`)."""
    start_generator: Annotated[str | None, OPERATIONAL] = None
    """A folder of the generator to continue with, where `start` holds the discriminator; its content enters the fingerprint."""
    regrow: RegrowConfig = RegrowConfig()
    """How a discriminator that comes without its generator gets one, before both train on."""
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
                raise ValueError(error.args[0]) from error
        return overrides

    @field_validator("objective_config")
    @classmethod
    def _fitting_objective(cls, overrides: dict[str, object], info: ValidationInfo) -> dict[str, object]:
        if "objective" in info.data:
            try:
                validate(table.row(info.data["objective"]).config, overrides, "")
            except KitaeError as error:
                raise ValueError(error.args[0]) from error
        return overrides

    @field_validator("start_generator")
    @classmethod
    def _has_a_use(cls, folder: str | None, info: ValidationInfo) -> str | None:
        if folder is not None and info.data.get("objective") == "mlm":
            raise ValueError('objective = "mlm" has no use for it: remove it, or set objective = "rtd"')
        return folder

    @field_validator("train")
    @classmethod
    def _keeps_a_model(cls, train: TrainConfig) -> TrainConfig:
        if train.keep_last < 1:
            raise ValueError("keep_last = 0 would leave no model: keep at least 1 checkpoint")
        return train

    @property
    def learnt(self) -> Config:
        """The objective's settings: its defaults with `objective_config` on top."""
        return table.row(self.objective).config.model_validate(self.objective_config)


def sources(config: PretrainConfig) -> tuple[str, ...]:
    """The folders to start from, when they lie outside the recipe."""
    return tuple(path for path in (config.start, config.start_generator, config.train.decay_from) if path is not None)


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
        ground = Ground(dataset=dataset, tokenizer=tokenizer, world=world, seed=seed, informed=config.initialization == "informed")
        objective = _objective(config, ground, facts, start, out)
        _check_pairs(objective, config, facts)
        meter = HeldoutMeter(objective, dataset, world=world, rows=config.heldout_rows)
        if world.main:
            if rows > batches.rows_per_epoch:
                log.warning("a batch has %d rows, but the dataset only %d: every step repeats some", rows, batches.rows_per_epoch)
            data: dict[str, object] = {"dataset": content_hash(dataset / DATASET), "tokens": batches.tokens_per_epoch}
            decides = {} if config.train.until_flat is None else {"heldout_rows": config.heldout_rows}
            claim(out.path, "data", data | decides)
        attach = {"tokenizer": dataset / "tokenizer"}
        fitted = fit(objective, batches, config.train, out.path, world=world, seed=seed, attach=attach, evaluate=meter)
        out.counts.update(_counts(config, objective, dataset, fitted, world))
        del meter, objective
    other = None if config.start_generator is None else locate(config.start_generator)
    for folder in filter(None, (dataset, start, other)):
        out.inherit_licences(folder)


def _objective(config: PretrainConfig, ground: Ground, facts: DatasetFacts, start: Path | None, out: Out) -> Objective:
    tokenizer = ground.tokenizer
    if start is None:
        if config.start_generator is not None:
            raise KitaeError("start_generator without a start", cure="name the discriminator's folder as start")
        return new_objective(config, ground.dataset, facts.max_length, tokenizer, seed=ground.seed)
    settings = config.learnt
    place = newest(start)
    parts = _fitting(place, read_parts(place), tokenizer, facts, seed=ground.seed)
    log.info("continuing %s", place)
    if config.start_generator is not None:
        other, part = _generator(config.start_generator)
        parts |= _fitting(other, {"generator": part}, tokenizer, facts, seed=0)
    if lacks_generator(settings, parts):
        assert isinstance(settings, RtdConfig), "no other objective has its generator regrown"
        half, folder = parts["discriminator"], out.path / regrowing.NAME
        numbers = regrown_numbers(config, half.config)
        _check_segments("discriminator", half.config, "none", paired=facts.pairs is not None)  # before hours of regrowing
        found = {"discriminator": half.config, "generator": numbers}
        check_depths(config.train.freeze, {name: model.num_hidden_layers for name, model in found.items()})
        regrown = regrow(half, numbers, folder, config=config.regrow, masking=settings, train=config.train, ground=ground)
        out.counts[regrowing.NAME] = regrown.counts
        parts = {**parts, "generator": regrown.part}
    return table.load(parts, settings, tokenizer.special, tokenizer.vocab_size)


def lacks_generator(settings: Config, parts: Mapping[str, Part]) -> bool:
    """Whether these models of a start are a discriminator alone, for an objective that needs its generator."""
    return isinstance(settings, RtdConfig) and not settings.uniform_generator and set(parts) == {"discriminator"}


def regrown_numbers(config: PretrainConfig, discriminator: EncoderConfig) -> EncoderConfig:
    """Those of the generator that a discriminator which comes alone will get. Raises KitaeError when the settings do not fit."""
    given = config.config.get("generator", {})
    return generator_for(discriminator, config.model, {**(given if isinstance(given, dict) else {}), **config.regrow.generator})


def _generator(folder: str) -> tuple[Path, Part]:
    """(checkpoint, model) of the generator of a folder of its own, or of a pair."""
    place = newest(locate(folder))
    parts = read_parts(place)
    part = parts.get("generator") or parts.get("encoder")  # DeBERTa's is a masked language model like any other
    if part is None or part.head != "mlm":
        held = ", ".join(part.title for part in parts.values())
        cure = "name the folder of a generator, such as ElectraForMaskedLM"
        raise KitaeError(f"start_generator holds no generator, but: {held}", cure=cure, where=str(place))
    return place, part


def started(config: PretrainConfig, start: Path) -> dict[str, Part]:
    """The models to go on with: those of the start, with the generator of `start_generator` in the place of its own."""
    parts = read_parts(newest(start))
    return parts if config.start_generator is None else {**parts, "generator": _generator(config.start_generator)[1]}


def check_started(config: PretrainConfig, start: Path, max_length: int) -> None:
    """Raise KitaeError when the models of a start cannot learn what the settings say, from rows of `max_length` tokens.

    The run finds it out itself; this is for asking before hours of work.
    """
    parts, settings = started(config, start), config.learnt
    for name, part in parts.items():
        _check_positions(name, part, max_length, where=str(start))
    if lacks_generator(settings, parts):
        regrown_numbers(config, parts["discriminator"].config)
    else:
        table.check_parts(parts, settings)


def check_new(config: PretrainConfig, architecture: Architecture, *, paired: bool) -> None:
    """Raise KitaeError when a new model of these numbers cannot learn what the settings say; `paired`: from pairs of segments.

    The run finds it out itself; this is for asking before hours of work.
    """
    table.check_new(architecture, config.learnt)
    part = "encoder" if config.objective == "mlm" else "discriminator"
    _check_segments(part, architecture.encoder, learnt_order(config), paired=paired)
    if config.initialization == "informed":
        check_informed(TwoTowerEncoder if config.objective == "electric" else FAMILIES[architecture.encoder.model_type].encoder)


def new_objective(config: PretrainConfig, dataset: Path, max_length: int, tokenizer: Tokenizer, *, seed: int) -> Objective:
    """The objective with new weights; pure function of its arguments. Raises KitaeError without a preset."""
    if config.model is None:
        raise KitaeError("pretrain.model is missing", cure="name a preset, or give a start")
    settings, definition = config.learnt, tokenizer.definition
    architecture = resolve_preset(
        config.model, config.config, tokenizer.vocab_size, max_length, pad_token_id=definition.special.pad, word_bytes=definition.word_bytes
    )
    check_reading(architecture.encoder, definition.algorithm, definition.word_bytes, where="[pretrain]")
    objective = table.build(architecture, settings, tokenizer.special, tokenizer.vocab_size, seed)
    if config.initialization == "informed":
        inform(objective.models().values(), log_frequencies(dataset, tokenizer.vocab_size))
    return objective


def _fitting(place: Path, parts: Mapping[str, Part], tokenizer: Tokenizer, facts: DatasetFacts, *, seed: int) -> dict[str, Part]:
    """The parts of a start, with heads for this tokenizer's words where only the head knows words. Raises KitaeError when one does not
    fit otherwise."""
    homes = [place / "tokenizer", place, *(place / name for name in parts)]
    home = next((folder for folder in homes if any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json"))), None)
    for name, part in parts.items():
        _check_start(name, part, tokenizer, facts, where=str(place))
    if tokenizer.speller is None:
        _check_tokens(home, tokenizer, where=str(place))
        return dict(parts)
    return with_words_of(tokenizer, parts, place, home, torch_generator(seed, "weights", "vocabulary"))


def _check_tokens(home: Path | None, tokenizer: Tokenizer, *, where: str) -> None:
    """Refuse a start that counts tokens otherwise."""
    if home is None:
        raise KitaeError("the folder to start from has no tokenizer", cure="bring its vocab.txt or tokenizer.json", where=where)
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


def _check_start(name: str, part: Part, tokenizer: Tokenizer, facts: DatasetFacts, *, where: str) -> None:
    """Refuse a start that reads words otherwise than the tokenizer writes them, or has too few positions."""
    check_reading(part.config, tokenizer.definition.algorithm, tokenizer.definition.word_bytes, where=where)
    _check_positions(name, part, facts.max_length, where=where)


def _check_positions(name: str, part: Part, max_length: int, *, where: str) -> None:
    if part.config.positions < max_length:
        raise KitaeError(
            f"the {name} has {part.config.positions} positions, the data set's rows have {max_length}",
            cure=f"set dataset.max_length = {part.config.positions} or less",
            where=where,
        )


def learnt_order(config: PretrainConfig) -> SentenceOrder:
    """What these settings learn of pairs of segments."""
    settings = config.learnt
    return settings.sentence_order if isinstance(settings, MlmConfig) else "none"


def _check_segments(part: str, model: EncoderConfig, order: SentenceOrder, *, paired: bool) -> None:
    """Refuse a model that cannot tell the segments of a dataset's pairs apart."""
    kinds = model.segment_kinds
    if paired and (kinds == 1 or (kinds == 0 and order != "none")):
        raise KitaeError(
            f"the {part} knows {kinds} kinds of segments (type_vocab_size = {kinds}), but the dataset has pairs of two",
            cure='set type_vocab_size = 2 in pretrain.config, or make the dataset with packing = "sentences"',
        )


def _check_pairs(objective: Objective, config: PretrainConfig, facts: DatasetFacts) -> None:
    """Refuse a dataset and a model that pairs cannot be learnt from, and say it when nothing reads labels that were made."""
    order, pairs = learnt_order(config), facts.pairs
    check_order(order, pairs)
    if pairs is None:
        return
    for part, model in objective.models().items():
        _check_segments(part, model.config, order, paired=True)
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
    architecture = Architecture(encoder=main.config, generator=generator)
    settings = config.learnt
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
