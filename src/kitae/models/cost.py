"""What a model costs: parameters, and floating-point operations per real token, for `plan` and for MFU.

Matrix products only; forward + backward = 3 x forward; h hidden, i inner, L layers, S attended length, e embedding, V vocabulary,
f share of predicted tokens. The formulas are those of the papers' models; google-research/electra's own script multiplies by 2
and counts look-ups as dense products, so its numbers are not comparable.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from kitae.models.encoder import EncoderConfig
from kitae.models.families import FAMILIES, bare
from kitae.models.presets import Architecture
from kitae.models.towers import TwoTowerConfig


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Numbers of parameters with heads; the token table counts once where input and output share it."""

    encoder: int
    """The encoder with its pre-training head: ELECTRA's discriminator, or BERT as a masked language model."""
    generator: int = 0
    """ELECTRA's generator with its head and (shared) embeddings."""
    total: int
    """Distinct parameters of the whole: shared embeddings count once."""


Objective = Literal["mlm", "rtd", "electric"]


def count_parameters(
    architecture: Architecture, objective: Objective | None = None, *, shared: bool = True, pairs: bool = False
) -> Parameters:
    """Exact counts, by building the modules without memory. Without an objective: "rtd" where there is a generator, else "mlm".

    shared: the halves have one embedding module; a disentangled table is as large as one that is not shared. pairs: a masked language
    model with BERT's head for pairs of segments.
    """
    objective = objective or ("mlm" if architecture.generator is None else "rtd")
    encoder = bare(architecture.encoder, "rtd" if objective != "mlm" else "pretraining" if pairs else "mlm")
    if architecture.generator is None or objective == "mlm":
        return Parameters(encoder=_size(encoder), total=_size(encoder))
    generator = bare(TwoTowerConfig.of(architecture.generator) if objective == "electric" else architecture.generator, "mlm")
    whole = _size(encoder) + _size(generator) - (_size(encoder.encoder.embed) if shared else 0)
    return Parameters(encoder=_size(encoder), generator=_size(generator), total=whole)


def body_parameters(config: EncoderConfig) -> int:
    """Of an encoder without a head."""
    with torch.device("meta"):
        return _size(FAMILIES[config.model_type].encoder(config))


def flops_per_token(architecture: Architecture, length: float, objective: Objective, mask_rate: float = 0.15) -> float:
    """Training FLOPs per real token at an attended length of `length`; `mask_rate` is the share of positions with logits."""
    encoder, generator = architecture.encoder, architecture.generator
    if objective == "mlm":
        return _body(encoder, length) + _mlm_head(encoder, mask_rate)
    discriminator = _body(encoder, length) + 6 * (encoder.hidden_size**2 + encoder.hidden_size)
    if generator is None:  # replacements drawn uniformly
        return discriminator
    if objective == "electric":
        towers = TwoTowerConfig.of(generator)
        return discriminator + _body(towers, length) + _mlm_head(towers, 1.0)
    return discriminator + _body(generator, length) + _mlm_head(generator, mask_rate)


def forward_flops_per_token(config: EncoderConfig, length: float) -> float:
    """FLOPs per real token of one forward pass without head: prediction, and a third of fine-tuning."""
    return _body(config, length) / 3


def _body(c: EncoderConfig, length: float) -> float:
    return FAMILIES[c.model_type].flops(c, length)


def _mlm_head(c: EncoderConfig, share: float) -> float:
    width = 2 * c.hidden_size if isinstance(c, TwoTowerConfig) else c.hidden_size
    return 6 * share * (width * c.embedding_width + c.embedding_width * c.vocab_size)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
