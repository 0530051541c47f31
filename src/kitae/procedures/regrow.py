"""A new generator for a discriminator of replaced tokens that came without one, before both train on.

Released ELECTRAs often bring the discriminator alone. Its generator is grown again: small as usual, on the discriminator's embeddings
(in ELECTRA with the LayerNorm behind them), trained by masked language modeling while all that is the discriminator's stays as it is,
until its held-out loss is flat. A run of its own below the run: it goes on after an interruption, to the same bits and the same end.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, field_validator

from kitae.core.artifact import content_hash
from kitae.core.config import Config
from kitae.core.duration import Duration
from kitae.data.frequencies import log_frequencies
from kitae.data.sampler import DATASET, Sampler, heldout_sources
from kitae.models.cost import flops_per_token
from kitae.models.encoder import EncoderConfig
from kitae.models.families import build_masked_lm
from kitae.models.folder import Part, read_parts
from kitae.models.informed import inform
from kitae.models.presets import Architecture
from kitae.objectives import table
from kitae.objectives.mlm import MaskingConfig, MlmConfig, MlmObjective
from kitae.procedures.heldout import HeldoutMeter
from kitae.procedures.phase_rows import PhaseRows
from kitae.tensor.random import key, torch_generator
from kitae.tensor.world import World
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.checkpoint import claim
from kitae.train.config import FlatConfig, TrainConfig
from kitae.train.curves import CurveConfig
from kitae.train.loop import Fitted, fit
from kitae.train.monitor import read_metrics
from kitae.train.rule_config import FreezeConfig
from kitae.train.schedule import steps_of

log = logging.getLogger(__name__)
NAME = "regrow"
"""Of the folder below the run's."""


class RegrowFlatConfig(FlatConfig):
    """When a generator is good enough."""

    drop: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Being flat counts from when the loss has fallen by this share of what the frequencies of the tokens alone give."""


class RegrowConfig(Config):
    """How a discriminator that comes alone gets a generator again."""

    length: Duration = Duration(0.5, "of length")
    """At most so long, beside `train`'s length and measured by it. An update of a generator alone costs about a fifth of one of both."""
    until_flat: RegrowFlatConfig = RegrowFlatConfig()
    """When it is enough; its interval may be a share of this length. Without held-out text the whole length is used."""
    heldout_rows: Annotated[int, Field(ge=1)] = 1024
    """At most so many rows of each source's held-out text are measured; they decide when it ends, so this is semantic."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Highest learning rate, which then stays; the default is `train`'s. Everything else (batch, precision, ...) is `train`'s too."""
    warmup: Duration = Duration(0.05, "of length")
    """How long the learning rate rises, measured by this length."""
    generator: dict[str, object] = Field(default_factory=dict)
    """Size of the generator: `fraction` of the discriminator's width, or fields. Default: those of `model`, else of the preset that
    is nearest to the discriminator in width."""

    @field_validator("length", "warmup")
    @classmethod
    def _no_clock(cls, value: Duration) -> Duration:
        if value.unit == "seconds":
            raise ValueError(f'"{value}" is a time, which regrowing does not take: write steps, rows, tokens or epochs')
        return value

    @field_validator("length")
    @classmethod
    def _a_length(cls, value: Duration) -> Duration:
        if value.amount <= 0:
            raise ValueError(f'"{value}" is no length: write a positive number of steps, rows, tokens or epochs')
        return value


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What the generator grows on, and from."""

    dataset: Path
    tokenizer: Tokenizer
    world: World
    seed: int
    informed: bool
    """Whether it begins with heads that look at the neighbours (`kitae.models.informed`)."""
    rows: PhaseRows
    """The rows and the settings of the training that comes after it, or of its first phase."""


@dataclass(frozen=True, kw_only=True)
class Regrown:
    """The new generator, and what it took."""

    part: Part
    counts: dict[str, object]
    """Steps, tokens, FLOPs, seconds, the held-out losses by step, and what ended it."""


def regrow(
    discriminator: Part,
    generator: EncoderConfig,
    folder: Path,
    *,
    config: RegrowConfig,
    masking: MaskingConfig,
    ground: Ground,
) -> Regrown:
    """Train a generator of these numbers in `folder`, going on from its newest checkpoint. Every rank of the world calls it.

    `masking` is the masks of the objective that both halves will train with. Raises KitaeError as `kitae.train.loop.fit` does.
    """
    tokenizer, world, seed = ground.tokenizer, ground.world, key(ground.seed, NAME)
    phase, plans = ground.rows.phase, ground.rows.plans
    train = phase.config
    batches = Sampler(
        ground.dataset, rows_per_step=phase.rows, rows_per_micro_batch=phase.micro_rows, seed=seed, sources=phase.sources, plans=plans
    )
    masks = MlmConfig.model_validate({name: getattr(masking, name) for name in MaskingConfig.model_fields})
    planted = _planted(discriminator, generator, ground)
    objective = table.load({"generator": planted}, masks, tokenizer.special, tokenizer.vocab_size)
    assert isinstance(objective, MlmObjective)
    objective.encoder.encoder.embed.requires_grad_(False)  # it is the discriminator's
    meter = HeldoutMeter(objective, ground.dataset, world=world, rows=config.heldout_rows, plans=plans)
    settings = _settings(config, train, steps=steps_of(config.length, train, batches), measured=bool(heldout_sources(ground.dataset)))
    if world.main:
        claim(folder, "data", {"dataset": content_hash(ground.dataset / DATASET), "heldout_rows": config.heldout_rows})
        trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
        most = int(settings.length.amount)
        log.info("the discriminator comes without a generator: %d parameters are trained first, for %d steps at most", trained, most)
    attach = {"tokenizer": ground.dataset / "tokenizer"}
    fitted = fit(objective, batches, settings, folder, world=world, seed=seed, attach=attach, evaluate=meter)
    (part,) = read_parts(fitted.checkpoint).values()  # the module may hold rounded copies of its weights
    per_token = flops_per_token(Architecture(encoder=part.config), batches.context(0), "mlm", masks.mean_rate)
    return Regrown(part=part, counts=_counts(fitted, settings, folder, flops=per_token * fitted.tokens))


def _planted(discriminator: Part, config: EncoderConfig, ground: Ground) -> Part:
    """A new generator on the discriminator's embeddings; its bias knows the frequencies of the tokens."""
    model = build_masked_lm(config, torch_generator(ground.seed, "weights", "generator"))
    frequencies = log_frequencies(ground.dataset, config.vocab_size)
    if ground.informed:
        inform([model], frequencies)
    with torch.no_grad():
        model.head.bias.copy_(frequencies)
    embeddings = {name: tensor for name, tensor in discriminator.state.items() if name.startswith("encoder.embed.")}
    return Part(head="mlm", config=config, state={**model.state_dict(), **embeddings})


def _settings(config: RegrowConfig, train: TrainConfig, *, steps: int, measured: bool) -> TrainConfig:
    if not measured:
        log.warning("the dataset has no held-out text that could tell when the generator is good enough: it trains for %d steps", steps)
    own = {
        "length": Duration(steps, "steps"),
        "learning_rate": config.learning_rate or train.learning_rate,
        "schedule": "constant",  # nobody knows the end beforehand
        "schedule_config": CurveConfig(),
        "batch_warmup": None,
        "decay_from": None,
        "warmup": config.warmup,
        "until_flat": config.until_flat if measured else None,
        "layer_decay": 1.0,
        "electra_layer_decay": False,
        "freeze": FreezeConfig(),  # the generator's layers are new
        "milestones": (),
    }
    return TrainConfig.model_validate({**dict(train), **own})


def _counts(fitted: Fitted, settings: TrainConfig, folder: Path, *, flops: float) -> dict[str, object]:
    losses: Mapping[str, object] = {
        str(record["step"]): {name: value for name, value in record.items() if name.endswith("/mlm_loss")}
        for record in read_metrics(folder)
        if record["kind"] == "evaluate"
    }
    return {
        "steps": fitted.steps,
        "most_steps": int(settings.length.amount),
        "tokens": fitted.tokens,
        "seconds": fitted.seconds,
        "flops": flops,
        "checkpoint": fitted.checkpoint.name,
        "heldout": losses,
    }
