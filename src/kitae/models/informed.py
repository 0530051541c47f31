"""Initial weights that know two things BERT's rule lets a model find out: how frequent tokens are, and what stands beside them.

From normally distributed weights a small encoder first learns the frequencies and then stays there for millions of tokens, because
nothing tells neighbours from other positions (docs/log.md has the curves). Here the vocabulary's bias starts at the logarithm of the
frequencies, the position table at sines and cosines, and two heads at one token back and one token ahead: for sines a step by one is
a rotation, so queries turned by it fit the keys of the neighbour (an idea of Trockman & Kolter 2023, arXiv:2305.09828: begin with
weights that look like trained ones). Everything stays trainable, and the architecture is unchanged.

Shapes: L positions, E embedding size, D hidden size, V vocabulary.
"""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from kitae.core.errors import KitaeError
from kitae.models.bert import BertEncoder
from kitae.models.compose import MaskedLm
from kitae.models.encoder import Encoder

GOLDEN = (math.sqrt(5) - 1) / 2
STRENGTH = 8.0
"""Logit of the neighbour at the start, where other positions have about 0: nine tenths of the attention in rows of 256."""
LOUDNESS = 2.0
"""Positions begin this many times as large as tokens."""


def check_informed(encoder: type[Encoder]) -> None:
    """Raise KitaeError for an encoder that has other embeddings or blocks."""
    if not issubclass(encoder, BertEncoder):
        raise KitaeError("informed initial weights are for BERT, RoBERTa and ELECTRA only", cure='set initialization = "normal"')


def inform(models: Iterable[torch.nn.Module], log_frequencies_V: Tensor) -> None:
    """Give new models (with an `encoder`) these weights in place; embeddings that they share must be shared already."""
    with torch.no_grad():
        for model in models:
            encoder = model.encoder
            check_informed(type(encoder))
            _set_positions(encoder)
            _set_neighbours(encoder)
            if isinstance(model, MaskedLm):
                model.head.bias.copy_(log_frequencies_V)


def angles(width: int) -> Tensor:
    """Radians per position of the width // 2 waves: half of them spread over (0, pi), which tell neighbours apart, half slow ones."""
    waves, fast = width // 2, width // 4
    quick = [math.pi * ((j + 0.5) * GOLDEN % 1) for j in range(fast)]
    slow = [256.0 ** -(j / (waves - fast)) for j in range(waves - fast)]
    return torch.tensor(quick + slow)


def _set_positions(encoder: BertEncoder) -> None:
    table_LE = encoder.embed.position.weight[encoder.config.first_position :]
    length, width = table_LE.shape
    turned = torch.arange(length)[:, None] * angles(width)
    waves = torch.cat([turned.sin(), turned.cos()], dim=1) * math.sqrt(2)
    table_LE[:, : waves.shape[1]] = LOUDNESS * encoder.config.initializer_range * waves


def _set_neighbours(encoder: BertEncoder) -> None:
    config = encoder.config
    width, hidden, heads = config.embedding_width, config.hidden_size, config.num_attention_heads
    size = hidden // heads
    count = min(size // 2, width // 4, hidden // 4)
    if count == 0:
        return  # too narrow for a single wave
    sines, cosines = torch.arange(count), width // 2 + torch.arange(count)
    gain = 1.0
    if encoder.project is not None:  # the waves get hidden dimensions of their own, as large as the others
        gain = config.initializer_range * math.sqrt(width)
        encoder.project.weight[: 2 * count] = 0
        encoder.project.weight[torch.arange(2 * count), torch.cat([sines, cosines])] = gain
        sines, cosines = torch.arange(count), count + torch.arange(count)
    share = LOUDNESS**2 / (LOUDNESS**2 + 2)  # of positions in the variance of an embedding: tokens and segments have 1 each
    scale = math.sqrt(STRENGTH * math.sqrt(size) / (2 * share * count))
    for number, head, step in _places(config.num_hidden_layers, heads):
        block = encoder.blocks[number]
        qkv = block.qkv.weight.view(3, heads, size, hidden)
        qkv[:2, head] = 0
        turn, row = angles(width)[:count] * step, torch.arange(count)
        factor = scale / (gain if number == 0 else 1.0)  # later blocks get normalized states
        qkv[0, head, row, sines], qkv[0, head, row, cosines] = factor * turn.cos(), factor * turn.sin()
        qkv[0, head, count + row, cosines], qkv[0, head, count + row, sines] = factor * turn.cos(), -factor * turn.sin()
        qkv[1, head, row, sines] = qkv[1, head, count + row, cosines] = factor
        # What such a head brings must be heard beside the token itself.
        louder = max(1.0, 1 / (config.initializer_range * math.sqrt(hidden)))
        qkv[2, head] *= louder
        block.out.weight[:, head * size : (head + 1) * size] *= louder


def _places(blocks: int, heads: int) -> Iterator[tuple[int, int, int]]:
    """(block, head, step): two heads of the first block when it has more than two, else one of each of the first two."""
    places = ((0, 0), (0, 1)) if heads > 2 else ((0, 0), (1, 0))
    for (block, head), step in zip(places, (-1, 1), strict=True):
        if block < blocks:
            yield block, head, step
