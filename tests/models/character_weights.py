"""A tiny CharacterBERT with the authors' names of weights, drawn anew from a seed wherever it is needed."""

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

FILTERS = [[1, 4], [2, 5], [3, 6], [7, 8]]
WIDTH, HIGHWAYS = 6, 2
NUMBERS = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
}
SENTENCES = (
    "[CLS] hello , my [MASK] is カニ [SEP]",
    "[CLS] internationalization-of-a-very-long-word-that-is-cut-somewhere! aaaa [SEP] x [SEP]",
)


def segments(chars: Tensor) -> Tensor:
    """Segment numbers [B, L] for the golden sentences."""
    return (torch.arange(chars.shape[1])[None] >= torch.tensor([[8], [4]])).long()


def draw(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A tensor for every name, of that name alone, from numpy's oldest generator, whose numbers stay the same for ever."""
    state = {}
    for name, shape in shapes.items():
        numbers = np.random.RandomState(zlib.crc32(name.removeprefix("character_bert.").encode()))
        tensor = torch.from_numpy(numbers.normal(size=shape)).float() * 0.4
        state[name] = tensor + 1 if "LayerNorm.weight" in name else tensor
    return state
