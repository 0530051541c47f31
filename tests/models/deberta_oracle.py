"""transformers' DeBERTa in whole double precision, so that gradients can be compared to 1e-9.

Its code rounds the scale of scores and v1's LayerNorm to fp32 whatever the model's dtype; in a model of fp32 nothing changes here.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.deberta import modeling_deberta
from transformers.models.deberta_v2 import modeling_deberta_v2


def _scale(query_layer: Tensor, scale_factor: int) -> Tensor:
    return torch.sqrt(torch.tensor(query_layer.size(-1) * scale_factor, dtype=query_layer.dtype))


def _norm(self: modeling_deberta.DebertaLayerNorm, hidden_states: Tensor) -> Tensor:
    return F.layer_norm(hidden_states, hidden_states.shape[-1:], self.weight, self.bias, self.variance_epsilon)


def unround() -> None:
    """Put exact functions in the place of the rounding ones."""
    modeling_deberta.scaled_size_sqrt = modeling_deberta_v2.scaled_size_sqrt = _scale
    modeling_deberta.DebertaLayerNorm.forward = _norm
