"""What a model costs: parameters, and floating-point operations per real token, for `plan` and for MFU.

Matrix products only; forward + backward = 3 x forward; h hidden, i inner, L layers, S attended length, e embedding, V vocabulary,
f share of predicted tokens. The formulas are those of the papers' models; google-research/electra's own script multiplies by 2
and counts look-ups as dense products, so its numbers are not comparable.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from kitae.models.bert import BertConfig, BertEncoder
from kitae.models.heads import MlmHead, RtdHead
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
    with torch.device("meta"):
        encoder = BertEncoder(architecture.encoder)
        if architecture.generator is None:
            count = _size(encoder) + _size(MlmHead(architecture.encoder))
            return Parameters(encoder=count, total=count)
        discriminator = _size(encoder) + _size(RtdHead(architecture.encoder))
        generator = _size(BertEncoder(architecture.generator)) + _size(MlmHead(architecture.generator))
    return Parameters(encoder=discriminator, generator=generator, total=discriminator + generator - _size(encoder.embed))


def flops_per_token(architecture: Architecture, length: float, objective: Literal["mlm", "rtd"], mask_rate: float = 0.15) -> float:
    """Training FLOPs per real token at an attended length of `length`; `mask_rate` is the share of positions with logits."""
    encoder, generator = architecture.encoder, architecture.generator
    if objective == "mlm":
        return _body(encoder, length) + _mlm_head(encoder, mask_rate)
    assert generator is not None, "replaced token detection needs a generator"
    head = 6 * (encoder.hidden_size**2 + encoder.hidden_size)
    return _body(encoder, length) + head + _body(generator, length) + _mlm_head(generator, mask_rate)


def forward_flops_per_token(config: BertConfig, length: float) -> float:
    """FLOPs per real token of one forward pass without head: prediction, and a third of fine-tuning."""
    return _body(config, length) / 3


def _body(c: BertConfig, length: float) -> float:
    blocks = c.num_hidden_layers * (4 * c.hidden_size**2 + 2 * c.hidden_size * c.intermediate_size)
    project = c.embedding_width * c.hidden_size if c.embedding_width != c.hidden_size else 0
    return 6 * (blocks + project) + 12 * c.num_hidden_layers * c.hidden_size * length


def _mlm_head(c: BertConfig, share: float) -> float:
    return 6 * share * (c.hidden_size * c.embedding_width + c.embedding_width * c.vocab_size)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
