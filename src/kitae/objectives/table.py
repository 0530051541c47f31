"""The table of objectives: how one is built with new weights, and how it starts from weights that exist."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from kitae.core.config import Config
from kitae.core.errors import KitaeError, did_you_mean
from kitae.models.bert import BertConfig
from kitae.models.compose import Discriminator, MaskedLm
from kitae.models.encoder import EncoderConfig
from kitae.models.families import FAMILIES, build_discriminator, build_masked_lm, build_pretraining_lm
from kitae.models.folder import Part
from kitae.models.folder import load as load_model
from kitae.models.presets import Architecture
from kitae.models.sharing import TABLES, copy_embeddings
from kitae.models.starts import with_order_head, with_vocabulary_head, without_order_head
from kitae.models.towers import TwoTowerConfig
from kitae.objectives.electric import ElectricConfig, ElectricObjective
from kitae.objectives.mlm import MlmConfig, MlmObjective
from kitae.objectives.pair import PairConfig
from kitae.objectives.protocol import Objective
from kitae.objectives.rtd import RtdConfig, RtdObjective
from kitae.tensor.random import torch_generator
from kitae.tokenization.special import SpecialIds

log = logging.getLogger(__name__)
Build = Callable[[Architecture, Config, SpecialIds, int, int], Objective]
Load = Callable[[Mapping[str, Part], Config, SpecialIds, int], Objective]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One objective of the table."""

    line: str
    """What it learns."""
    config: type[Config]
    """Its settings."""
    build: Build
    """(architecture, config, special, vocab_size, seed) -> the objective with new weights."""
    load: Load
    """(parts, config, special, vocab_size) -> the objective with the weights of these parts."""


def build(architecture: Architecture, config: Config, special: SpecialIds, vocab_size: int, seed: int) -> Objective:
    """The objective of these settings with new weights, drawn from the seed. Raises KitaeError as `check_new` does."""
    check_new(architecture, config)
    generator = architecture.generator and architecture.generator.padded(special.pad)
    architecture = replace(architecture, encoder=architecture.encoder.padded(special.pad), generator=generator)
    return _row_of(config).build(architecture, config, special, vocab_size, seed)


def load(parts: Mapping[str, Part], config: Config, special: SpecialIds, vocab_size: int) -> Objective:
    """The objective of these settings with existing weights (`kitae.models.folder.read_parts`).

    Raises KitaeError when the vocabulary is another, and as `check_parts` does.
    """
    check_parts(parts, config)
    for name, part in parts.items():
        if part.config.vocab_size < vocab_size:
            raise KitaeError(
                f"the {name} knows {part.config.vocab_size} tokens, the data set's tokenizer has {vocab_size}",
                cure="make the data set with the tokenizer that the model was trained with",
            )
    parts = {name: replace(part, config=part.config.padded(special.pad)) for name, part in parts.items()}
    objective = _row_of(config).load(parts, config, special, vocab_size)
    for name, model in objective.models().items():
        if isinstance(model, MaskedLm) and model.config.vocab_size > vocab_size:
            log.info("the %s has %d rows for %d tokens: the others stay unused", name, model.config.vocab_size, vocab_size)
            model.known = vocab_size
    return objective


def check_new(architecture: Architecture, config: Config) -> None:
    """Raise KitaeError when an objective of these settings cannot train models of these numbers. `build` asks it; a recipe is asked
    before hours of work."""
    encoder, generator = architecture.encoder, architecture.generator
    family = FAMILIES[encoder.model_type]
    if isinstance(config, MlmConfig):
        _check_order_head(encoder, config)
    elif isinstance(config, ElectricConfig):
        if not isinstance(generator, BertConfig):
            raise KitaeError(f'objective "electric" has no generator for the family "{family.title}"', cure="take an ELECTRA preset")
    elif isinstance(config, RtdConfig):
        if "rtd" not in family.heads:
            what = f'objective "rtd" needs a generator and a discriminator, and the family "{family.title}" has none'
            raise KitaeError(what, cure='take an ELECTRA or DeBERTa-v3 preset, or objective = "mlm"')
        if generator is None and not config.uniform_generator:
            raise KitaeError(
                f'objective "rtd" needs a generator, and this preset of the family "{family.title}" has none',
                cure='take an ELECTRA or DeBERTa-v3 preset, objective = "mlm", or uniform_generator = true',
            )


def check_parts(parts: Mapping[str, Part], config: Config) -> None:
    """Raise KitaeError when an objective of these settings cannot go on with these models. `load` asks it; a recipe is asked before
    hours of work."""
    if isinstance(config, MlmConfig):
        _check_mlm_start(parts, config)
    elif isinstance(config, PairConfig):
        _check_pair_start(parts, config)


def row(name: str) -> Row:
    """A row of the table. Raises KitaeError for an unknown name."""
    if name not in OBJECTIVES:
        raise KitaeError(f'there is no objective "{name}"', cure=did_you_mean(name, OBJECTIVES))
    return OBJECTIVES[name]


def _row_of(config: Config) -> Row:
    return next(row for row in OBJECTIVES.values() if row.config is type(config))


def _build_mlm(architecture: Architecture, config: Config, special: SpecialIds, vocab_size: int, seed: int) -> Objective:
    assert isinstance(config, MlmConfig)
    build = build_masked_lm if config.sentence_order == "none" else build_pretraining_lm
    model = build(architecture.encoder, torch_generator(seed, "weights", "encoder"))
    return MlmObjective(model.train(), config, special=special, vocab_size=vocab_size)


def _build_rtd(architecture: Architecture, config: Config, special: SpecialIds, vocab_size: int, seed: int) -> Objective:
    assert isinstance(config, RtdConfig)
    discriminator = build_discriminator(architecture.encoder, torch_generator(seed, "weights", "discriminator"))
    if architecture.generator is None or config.uniform_generator:
        return RtdObjective(None, discriminator.train(), config, special=special, vocab_size=vocab_size)
    generator = build_masked_lm(architecture.generator, torch_generator(seed, "weights", "generator"))
    if config.embedding_sharing == "disentangled":
        copy_embeddings(generator, discriminator)
    return RtdObjective(generator.train(), discriminator.train(), config, special=special, vocab_size=vocab_size)


def _check_mlm_start(parts: Mapping[str, Part], config: MlmConfig) -> None:
    if "discriminator" in parts:
        raise KitaeError('objective = "mlm" does not train a discriminator', cure='set objective = "rtd", or start from a BERT model')
    part = parts.get("encoder") or parts["generator"]
    if part.head not in ("mlm", "pretraining") and not config.new_head:
        raise KitaeError(
            f"the model to start from has no vocabulary head (its head is: {part.head})",
            cure="start from a folder of a masked language model, such as BertForMaskedLM, or set objective_config.new_head = true",
        )
    _check_order_head(part.config, config)


def _load_mlm(parts: Mapping[str, Part], config: Config, special: SpecialIds, vocab_size: int) -> Objective:
    assert isinstance(config, MlmConfig)
    part = with_vocabulary_head(parts.get("encoder") or parts["generator"])
    model = load_model(with_order_head(part) if config.sentence_order != "none" else without_order_head(part))
    assert isinstance(model, MaskedLm)
    return MlmObjective(model.train(), config, special=special, vocab_size=vocab_size)


def _check_order_head(encoder: EncoderConfig, config: MlmConfig) -> None:
    family = FAMILIES[encoder.model_type]
    if config.sentence_order != "none" and "pretraining" not in family.heads:
        raise KitaeError(
            f'sentence_order = "{config.sentence_order}" needs a head for pairs of segments, and {family.title} has none',
            cure='set sentence_order = "none", or take a BERT preset',
        )


def _load_rtd(parts: Mapping[str, Part], config: Config, special: SpecialIds, vocab_size: int) -> Objective:
    assert isinstance(config, RtdConfig)
    if config.uniform_generator:
        parts = {name: part for name, part in parts.items() if name != "generator"}
    generator, discriminator = _load_pair(parts, config)
    return RtdObjective(generator, discriminator, config, special=special, vocab_size=vocab_size)


def _check_pair_start(parts: Mapping[str, Part], config: PairConfig) -> None:
    """Refuse folders that lack a half, and generators of the other objective."""
    alone = isinstance(config, RtdConfig) and config.uniform_generator
    for name, other in (("generator", "discriminator"), ("discriminator", "generator")):
        if name not in parts and not (alone and name == "generator"):
            has = f"the {other} alone" if other in parts else "neither half"
            raise KitaeError(
                f"the {name} is missing: the folder to start from holds {has}",
                cure=f"give a folder with generator/ and discriminator/ (bring the {name} of the same release), or a kitae checkpoint",
            )
    if alone:
        return
    towers = isinstance(parts["generator"].config, TwoTowerConfig)
    if towers and isinstance(config, RtdConfig):
        raise KitaeError("the generator to start from is Electric's", cure='set objective = "electric"')
    if not towers and isinstance(config, ElectricConfig):
        raise KitaeError(
            "the generator to start from has no two towers", cure='set objective = "rtd", or start from an Electric checkpoint'
        )


def _load_pair(parts: Mapping[str, Part], config: PairConfig) -> tuple[MaskedLm | None, Discriminator]:
    """The halves in training mode, checked for what they shall share."""
    halves = {name: load_model(part).train() for name, part in parts.items()}
    generator, discriminator = halves.get("generator"), halves["discriminator"]
    assert generator is None or isinstance(generator, MaskedLm)
    assert isinstance(discriminator, Discriminator)
    if generator is not None and config.embedding_sharing != "none":
        _check_sharing(parts["generator"], parts["discriminator"], tables_only=config.embedding_sharing == "disentangled")
    return generator, discriminator


def _build_electric(architecture: Architecture, config: Config, special: SpecialIds, vocab_size: int, seed: int) -> Objective:
    assert isinstance(config, ElectricConfig)
    assert architecture.generator is not None, "check_new asks for one"
    discriminator = build_discriminator(architecture.encoder, torch_generator(seed, "weights", "discriminator"))
    generator = build_masked_lm(TwoTowerConfig.of(architecture.generator), torch_generator(seed, "weights", "generator"))
    if config.embedding_sharing == "disentangled":
        copy_embeddings(generator, discriminator)
    return ElectricObjective(generator.train(), discriminator.train(), config, special=special, vocab_size=vocab_size)


def _load_electric(parts: Mapping[str, Part], config: Config, special: SpecialIds, vocab_size: int) -> Objective:
    assert isinstance(config, ElectricConfig)
    generator, discriminator = _load_pair(parts, config)
    assert generator is not None
    return ElectricObjective(generator, discriminator, config, special=special, vocab_size=vocab_size)


def _check_sharing(generator: Part, discriminator: Part, *, tables_only: bool) -> None:
    """Refuse halves whose embeddings cannot be one; say so when they were not one before and will be."""
    root = "encoder.embed."
    for name, tensor in discriminator.state.items():
        if not name.startswith(tuple(f"{root}{table}." for table in TABLES) if tables_only else root):
            continue
        other = generator.state.get(name)
        if other is None or other.shape != tensor.shape:
            raise KitaeError(
                f"generator and discriminator cannot share embeddings: {name.removeprefix(root)} differs in shape",
                cure='set embedding_sharing = "none" in the objective_config',
            )
        if not tables_only and not torch.equal(other, tensor):
            log.warning("generator and discriminator have different %s: both go on with the discriminator's", name.removeprefix(root))


OBJECTIVES: dict[str, Row] = {
    "mlm": Row(line="predict masked tokens (BERT)", config=MlmConfig, build=_build_mlm, load=_load_mlm),
    "electric": Row(
        line="tell tokens from noise by their energies (Electric)", config=ElectricConfig, build=_build_electric, load=_load_electric
    ),
    "rtd": Row(line="find replaced tokens (ELECTRA)", config=RtdConfig, build=_build_rtd, load=_load_rtd),
}
