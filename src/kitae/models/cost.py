"""What a model costs: parameters, and floating-point operations per real token, for `plan` and for MFU.

Matrix products only; forward + backward = 3 x forward; h hidden, i inner, L layers, S attended length, e embedding, V vocabulary,
f share of predicted tokens. The formulas are those of the papers' models; google-research/electra's own script multiplies by 2
and counts look-ups as dense products, so its numbers are not comparable.
"""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from kitae.models.encoder import EncoderConfig
from kitae.models.families import FAMILIES, bare
from kitae.models.presets import Architecture


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Numbers of parameters with heads; the token table counts once where input and output share it."""

    encoder: int
    """The encoder with its pre-training head: ELECTRA's discriminator, or BERT as a masked language model."""
    generator: int = 0
    """ELECTRA's generator with its head and (shared) embeddings."""
    total: int
    """Distinct parameters of the whole: shared embeddings count once."""


def count_parameters(architecture: Architecture) -> Parameters:
    """Exact counts, by building the modules without memory."""
    if architecture.generator is None:
        count = _size(bare(architecture.encoder, "mlm"))
        return Parameters(encoder=count, total=count)
    discriminator, generator = bare(architecture.encoder, "rtd"), bare(architecture.generator, "mlm")
    shared = _size(discriminator.encoder.embed)
    whole = _size(discriminator) + _size(generator) - shared
    return Parameters(encoder=_size(discriminator), generator=_size(generator), total=whole)


def flops_per_token(architecture: Architecture, length: float, objective: Literal["mlm", "rtd"], mask_rate: float = 0.15) -> float:
    """Training FLOPs per real token at an attended length of `length`; `mask_rate` is the share of positions with logits."""
    encoder, generator = architecture.encoder, architecture.generator
    if objective == "mlm":
        return _body(encoder, length) + _mlm_head(encoder, mask_rate)
    discriminator = _body(encoder, length) + 6 * (encoder.hidden_size**2 + encoder.hidden_size)
    if generator is None:  # replacements drawn uniformly
        return discriminator
    return discriminator + _body(generator, length) + _mlm_head(generator, mask_rate)


def forward_flops_per_token(config: EncoderConfig, length: float) -> float:
    """FLOPs per real token of one forward pass without head: prediction, and a third of fine-tuning."""
    return _body(config, length) / 3


def _body(c: EncoderConfig, length: float) -> float:
    return FAMILIES[c.model_type].flops(c, length)


def _mlm_head(c: EncoderConfig, share: float) -> float:
    return 6 * share * (c.hidden_size * c.embedding_width + c.embedding_width * c.vocab_size)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
