"""An encoder with a head: what pre-training learns and what fine-tuning starts from.

Shapes: B rows, L positions, D hidden size, V vocabulary, N gathered positions or texts, C labels,
P pairs.
"""

import torch
from torch import Tensor, nn

from kitae.models.encoder import Encoder, EncoderConfig
from kitae.models.heads import PretrainingHead
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
        x_BLD = self.encoder(ids_BL, layout, segments_BL, chars_WC)
        # index_select, because the backward of x[index] is not reproducible on several threads
        rows = x_BLD if picks_N is None else x_BLD.flatten(0, 1).index_select(0, picks_N)
        return self.head(rows, self.table_VE)


class PretrainingLm(MaskedLm):
    """A masked language model that also judges pairs of segments: BERT as it was pre-trained. Called, it is a MaskedLm."""

    def __init__(self, encoder: Encoder, head: PretrainingHead) -> None:
        super().__init__(encoder, head.vocabulary)
        self.order = head.order

    def with_order(
        self,
        ids_BL: Tensor,
        layout: Layout,
        segments_BL: Tensor | None,
        picks_N: Tensor,
        pairs_P: Tensor,
        chars_WC: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(logits_NV at `picks_N`, logits_P2 of the pairs whose [CLS] stands at `pairs_P`; both in the flattened rows)."""
        x_TD = self.encoder(ids_BL, layout, segments_BL, chars_WC).flatten(0, 1)
        return self.head(x_TD.index_select(0, picks_N), self.table_VE), self.order(x_TD.index_select(0, pairs_P))


class Discriminator(Headed):
    """Encoder + replaced-token head: ELECTRA's discriminator."""

    def forward(self, ids_BL: Tensor, layout: Layout, segments_BL: Tensor | None = None, chars_WC: Tensor | None = None) -> Tensor:
        """logits_BL; positive = replaced. Padding positions hold numbers without meaning."""
        return self.head(self.encoder(ids_BL, layout, segments_BL, chars_WC), layout)


class Classifier(Headed):
    """Encoder + sequence head: one text or pair -> labels."""

    def forward(
        self,
        ids_BL: Tensor,
        layout: Layout,
        segments_BL: Tensor | None = None,
        starts_N: Tensor | None = None,
        chars_WC: Tensor | None = None,
    ) -> Tensor:
        """logits_NC of the texts that begin at `starts_N` (int64 positions in the flattened rows); without them of every piece,
        row by row and from left to right: several texts may share a packed row.
        """
        x_BLD = self.encoder(ids_BL, layout, segments_BL, chars_WC)
        if starts_N is None:
            length = ids_BL.shape[1]
            starts_N = torch.tensor([row * length + start for row, start, _ in layout.spans()], device=x_BLD.device)
        x_TD = x_BLD.flatten(0, 1)
        return self.head(_means(x_TD, layout, starts_N) if self.config.pooling == "mean" else x_TD.index_select(0, starts_N))


def _means(x_TD: Tensor, layout: Layout, starts_N: Tensor) -> Tensor:
    """x_ND: the mean over each piece that begins at these positions."""
    bounds = layout.bounds.long()
    sizes_N1 = (bounds[torch.searchsorted(bounds, starts_N, right=True)] - starts_N)[:, None]
    steps_L = torch.arange(layout.longest, device=x_TD.device)
    inside_NL = steps_L < sizes_N1
    # Beyond its end a piece repeats its first position, times zero: index_select adds up the gradient in a fixed order.
    index_NL = starts_N[:, None] + steps_L * inside_NL
    rows_NLD = x_TD.index_select(0, index_NL.flatten()).view(*index_NL.shape, -1)
    return (rows_NLD * inside_NL[..., None]).sum(dim=1) / sizes_N1
