"""Heads that only DeBERTa has: its detector of replaced tokens and its enhanced mask decoder.

Shapes: B rows, L positions, D hidden size, P absolute positions.
"""

import torch
from torch import Tensor, nn

from kitae.models.deberta import DebertaEncoder
from kitae.models.deberta_config import DisentangledConfig
from kitae.models.encoder import Encoder
from kitae.models.heads import Decoder, MlmHead
from kitae.models.layers import ACTIVATIONS
from kitae.tensor.batch import Layout, Texts


class DebertaRtdHead(nn.Module):
    """Replaced token detection of DeBERTaV3: every position together with its piece's [CLS] (positive = replaced).

    LayerNorm of their sum, dense, activation, one number; microsoft/DeBERTa's `LMMaskPredictionHead`.
    """

    def __init__(self, config: DisentangledConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, 1)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        """logits_BL. Padding holds numbers without meaning."""
        places = torch.arange(layout.pieces_BL.numel(), device=x_BLD.device).view(layout.pieces_BL.shape)
        starts = (places - layout.positions_BL * layout.mask_BL).flatten()
        first_BLD = x_BLD.flatten(0, 1).index_select(0, starts).view_as(x_BLD)
        return self.out(self.activation(self.dense(self.norm(first_BLD + x_BLD)))).squeeze(-1)


class EnhancedMaskHead(MlmHead, Decoder):
    """The vocabulary head that reads the enhanced mask decoder; the decoder's absolute positions are here."""

    def __init__(self, config: DisentangledConfig) -> None:
        super().__init__(config, activation=ACTIVATIONS[config.hidden_act], eps=config.layer_norm_eps)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def read(self, encoder: Encoder, texts: Texts) -> Tensor:
        """x_BLD from which words are predicted."""
        assert isinstance(encoder, DebertaEncoder)
        return encoder.decoded(texts, self.position.weight)
