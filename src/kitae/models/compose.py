"""An encoder with a head: what pre-training learns and what fine-tuning starts from.

Shapes: B rows, L positions, D hidden size, V vocabulary, N gathered positions or texts, C labels.
"""

import torch
from torch import Tensor, nn

from kitae.models.encoder import Encoder, EncoderConfig
from kitae.models.heads import Decoder
from kitae.tensor.batch import Layout


class Headed(nn.Module):
    """An encoder and a head over its states."""

    encoder: Encoder

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    @property
    def config(self) -> EncoderConfig:
        """The encoder's numbers."""
        return self.encoder.config


class MaskedLm(Headed):
    """Encoder + vocabulary head: a masked language model, or ELECTRA's generator. See Discriminator for the other half."""

    @property
    def table_VE(self) -> Tensor | None:
        """The token table, which is also the output table of tied heads."""
        return self.encoder.table_VE

    def forward(
        self,
        ids_BL: Tensor,
        layout: Layout,
        segments_BL: Tensor | None = None,
        picks_N: Tensor | None = None,
        chars_WC: Tensor | None = None,
    ) -> Tensor:
        """logits_NV at `picks_N` (int64 positions in the flattened rows); without picks logits_BLV everywhere."""
        if isinstance(self.head, Decoder):
            x_BLD = self.head.read(self.encoder, ids_BL, layout, segments_BL)
        else:
            x_BLD = self.encoder(ids_BL, layout, segments_BL, chars_WC)
        # index_select, because the backward of x[index] is not reproducible on several threads
        rows = x_BLD if picks_N is None else x_BLD.flatten(0, 1).index_select(0, picks_N)
        return self.head(rows, self.table_VE)


class Discriminator(Headed):
    """Encoder + replaced-token head: ELECTRA's discriminator."""

    def forward(self, ids_BL: Tensor, layout: Layout, segments_BL: Tensor | None = None, chars_WC: Tensor | None = None) -> Tensor:
        """logits_BL; positive = replaced. Padding positions hold numbers without meaning."""
        return self.head(self.encoder(ids_BL, layout, segments_BL, chars_WC), layout)


class Classifier(Headed):
    """Encoder + sequence head: one text or pair -> labels."""

    def forward(self, ids_BL: Tensor, layout: Layout, segments_BL: Tensor | None = None, chars_WC: Tensor | None = None) -> Tensor:
        """logits_NC, one row per piece, row by row and from left to right: several texts may share a packed row."""
        x_BLD = self.encoder(ids_BL, layout, segments_BL, chars_WC)
        length = ids_BL.shape[1]
        starts = torch.tensor([row * length + start for row, start, _ in layout.spans()], device=x_BLD.device)
        return self.head(x_BLD.flatten(0, 1).index_select(0, starts))
