"""Dataset -> Checkpoints. Pre-train an encoder from random weights, or continue one: the node `adapt` gives a start."""

import logging
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from kitae.core.artifact import Inputs, Out, content_hash, newest
from kitae.core.config import LATER, OPERATIONAL, Config
from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.paths import locate
from kitae.core.recipe import validate
from kitae.data.frequencies import log_frequencies
from kitae.data.sampler import DATASET, DatasetFacts
from kitae.models.encoder import EncoderConfig
from kitae.models.families import FAMILIES
from kitae.models.folder import Part, read_parts
from kitae.models.informed import check_informed, inform
from kitae.models.presets import PRESETS, Architecture, generator_for, resolve_preset
from kitae.models.towers import TwoTowerEncoder
from kitae.objectives import table
from kitae.objectives.mlm import MlmConfig
from kitae.objectives.protocol import Objective
from kitae.objectives.rtd import RtdConfig
from kitae.objectives.sentence_order import SentenceOrder
from kitae.procedures import regrow as regrowing
from kitae.procedures.account import account
from kitae.procedures.phase_rows import PhasedHeldout, deal, pack, unpack
from kitae.procedures.probe import DownstreamProbe, ProbeConfig
from kitae.procedures.promised import outcome, promise
from kitae.procedures.regrow import Ground, RegrowConfig, regrow
from kitae.procedures.starts import check_pairs, check_positions, check_segments, fitting, generator_of, lacks_generator
from kitae.procedures.words import check_reading
from kitae.tensor.random import key
from kitae.tensor.usage import peak_memory, restart_peak
from kitae.tensor.world import ranks, session
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.checkpoint import claim
from kitae.train.config import TrainConfig
from kitae.train.freezing import check_depths
from kitae.train.loop import Evaluate, fit
from kitae.train.phases import longest, phases_of
from kitae.train.probing import Measuring

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
    probe: Annotated[ProbeConfig | None, LATER] = None
    """Fine-tune a copy of the weights on a small task now and then, and record its validation score: { task = "sample-topics" }. With
    `patience` it ends the training when it gets no better, and only then it decides the result."""
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

    def semantic(self) -> dict[str, object]:
        """As of every `Config`; a probe that cannot end the training decides nothing."""
        settings = super().semantic()
        if self.probe is None or self.probe.patience is None:
            settings.pop("probe", None)
            return settings
        return settings | {"probe_every": str(self.train.probe_every)}

    @property
    def learnt(self) -> Config:
        """The objective's settings: its defaults with `objective_config` on top."""
        return table.row(self.objective).config.model_validate(self.objective_config)


def sources(config: PretrainConfig) -> tuple[str, ...]:
    """The folders to start from, when they lie outside the recipe."""
    probed = () if config.probe is None or config.probe.patience is None else config.probe.chosen.files
    return (*(path for path in (config.start, config.start_generator, config.train.decay_from) if path is not None), *probed)


def run(config: PretrainConfig, inputs: Inputs, out: Out) -> None:
    """Train in `out.path`, going on from its newest checkpoint. Every rank of the world calls it; the first fills `out`.

    Raises KitaeError when model, start and data set do not fit together, and what `kitae.train.loop.fit` raises.
    """
    dataset = inputs.path("dataset")
    facts = DatasetFacts.read(dataset)
    tokenizer = Tokenizer.load(dataset / "tokenizer")
    start = locate(config.start) if config.start is not None else inputs.get("start")
    seed = key(inputs.seed, "adapt" if start is not None else "pretrain")
    phases = phases_of(config.train, facts.max_length)
    plans = pack(phases, dataset, out.path, seed=inputs.seed)
    with session(config.train.device, hang_limit=config.train.hang_limit.amount) as world:
        dealt = deal(phases, dataset, plans, seed=seed)
        ground = Ground(
            dataset=dataset, tokenizer=tokenizer, world=world, seed=seed, informed=config.initialization == "informed", rows=dealt[0]
        )
        base = restart_peak(world.device)
        objective = _objective(config, ground, facts, start, out)
        check_pairs(objective, config.objective, learnt_order(config), facts)
        meter = PhasedHeldout(objective, dataset, dealt, world=world, rows=config.heldout_rows)
        evaluate = _measuring(meter, config, objective, ground, out.path)
        if world.main:
            for rows, batches in ((one.phase.rows, one.batches) for one in dealt):
                if rows > batches.rows_per_epoch:
                    log.warning("a batch has %d rows, but the dataset only %d: every step repeats some", rows, batches.rows_per_epoch)
            tokens = [one.batches.tokens_per_epoch for one in dealt]
            data: dict[str, object] = {"dataset": content_hash(dataset / DATASET), "tokens": tokens if config.train.phases else tokens[0]}
            decides: dict[str, object] = {} if config.train.until_flat is None else {"heldout_rows": config.heldout_rows}
            if config.probe is not None and config.probe.patience is not None:
                decides |= {"probe": config.semantic()["probe"], "probe_every": str(config.train.probe_every)}
            claim(out.path, "data", data | decides)
            told = promise(config.objective, config.learnt, objective, dealt, world, run=out.path)
        attach = {"tokenizer": dataset / "tokenizer"}
        given = tuple(one.batches for one in dealt) if config.train.phases else dealt[0].batches
        fitted = fit(objective, given, config.train, out.path, world=world, seed=seed, attach=attach, evaluate=evaluate)
        out.counts.update(account(objective, dealt, fitted, world))
        if world.main:
            out.counts.update(outcome(told, fitted, peak_memory(world.device, base)))
        del meter, evaluate, objective
    if ranks()[0] == 0:
        unpack(out.path)
    other = None if config.start_generator is None else locate(config.start_generator)
    for folder in filter(None, (dataset, start, other)):
        out.inherit_licences(folder)


def _measuring(meter: Evaluate, config: PretrainConfig, objective: Objective, ground: Ground, folder: Path) -> Evaluate:
    if config.probe is None:
        return meter
    exact, tokenizer, world = config.train.deterministic, ground.tokenizer, ground.world
    made = DownstreamProbe(objective, config.probe, tokenizer=tokenizer, world=world, run=folder, seed=ground.seed, deterministic=exact)
    return Measuring(evaluate=meter, probe=made)


def _objective(config: PretrainConfig, ground: Ground, facts: DatasetFacts, start: Path | None, out: Out) -> Objective:
    tokenizer = ground.tokenizer
    if start is None:
        if config.start_generator is not None:
            raise KitaeError("start_generator without a start", cure="name the discriminator's folder as start")
        return new_objective(config, ground.dataset, longest(config.train, facts.max_length), tokenizer, seed=ground.seed)
    settings = config.learnt
    place, positions = newest(start), longest(config.train, facts.max_length)
    parts = fitting(place, read_parts(place), tokenizer, positions, seed=ground.seed)
    log.info("continuing %s", place)
    if config.start_generator is not None:
        other, part = generator_of(config.start_generator)
        parts |= fitting(other, {"generator": part}, tokenizer, positions, seed=0)
    if lacks_generator(settings, parts):
        assert isinstance(settings, RtdConfig), "no other objective has its generator regrown"
        half, folder = parts["discriminator"], out.path / regrowing.NAME
        numbers = regrown_numbers(config, half.config)
        check_segments("discriminator", half.config, "none", paired=facts.pairs is not None)  # before hours of regrowing
        found = {"discriminator": half.config, "generator": numbers}
        check_depths(config.train.freeze, {name: model.num_hidden_layers for name, model in found.items()})
        regrown = regrow(half, numbers, folder, config=config.regrow, masking=settings, ground=ground)
        out.counts[regrowing.NAME] = regrown.counts
        parts = {**parts, "generator": regrown.part}
    return table.load(parts, settings, tokenizer.special, tokenizer.vocab_size)


def regrown_numbers(config: PretrainConfig, discriminator: EncoderConfig) -> EncoderConfig:
    """Those of the generator that a discriminator which comes alone will get. Raises KitaeError when the settings do not fit."""
    given = config.config.get("generator", {})
    return generator_for(discriminator, config.model, {**(given if isinstance(given, dict) else {}), **config.regrow.generator})


def started(config: PretrainConfig, start: Path) -> dict[str, Part]:
    """The models to go on with: those of the start, with the generator of `start_generator` in the place of its own."""
    parts = read_parts(newest(start))
    return parts if config.start_generator is None else {**parts, "generator": generator_of(config.start_generator)[1]}


def check_started(config: PretrainConfig, start: Path, max_length: int) -> None:
    """Raise KitaeError when the models of a start cannot learn what the settings say, from rows of `max_length` tokens.

    The run finds it out itself; this is for asking before hours of work.
    """
    parts, settings = started(config, start), config.learnt
    for name, part in parts.items():
        check_positions(name, part, max_length, where=str(start))
    depths = {name: part.config.num_hidden_layers for name, part in parts.items()}
    if lacks_generator(settings, parts):
        depths["generator"] = regrown_numbers(config, parts["discriminator"].config).num_hidden_layers
    else:
        table.check_parts(parts, settings)
    check_depths(config.train.freeze, depths)


def check_new(config: PretrainConfig, architecture: Architecture, *, paired: bool) -> None:
    """Raise KitaeError when a new model of these numbers cannot learn what the settings say; `paired`: from pairs of segments.

    The run finds it out itself; this is for asking before hours of work.
    """
    table.check_new(architecture, config.learnt)
    part = "encoder" if config.objective == "mlm" else "discriminator"
    check_segments(part, architecture.encoder, learnt_order(config), paired=paired)
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


def learnt_order(config: PretrainConfig) -> SentenceOrder:
    """What these settings learn of pairs of segments."""
    settings = config.learnt
    return settings.sentence_order if isinstance(settings, MlmConfig) else "none"
