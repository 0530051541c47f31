"""An encoder with a head: what pre-training learns and what fine-tuning starts from.

Shapes: B rows, L positions, D hidden size, V vocabulary, N gathered positions or texts, C labels, P pieces or pairs, Q questions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kitae.models.attention import cover
from kitae.models.encoder import Encoder, EncoderConfig
from kitae.models.heads import Decoder, PretrainingHead
from kitae.models.joint import BEAM, Beam, JointLogits, pieces_of
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

    known: int | None = None
    """Tokens that there are, where the table has more rows (published tables are padded, to a multiple of 64 say): logits end there, so
    that none of the other rows is predicted, sampled or taught."""

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
        return self.vocabulary(self.read(ids_BL, layout, segments_BL, picks_N, chars_WC))

    def read(
        self,
        ids_BL: Tensor,
        layout: Layout,
        segments_BL: Tensor | None = None,
        picks_N: Tensor | None = None,
        chars_WC: Tensor | None = None,
    ) -> Tensor:
        """x_ND at `picks_N`, which the head makes logits of; without picks x_BLD everywhere."""
        if isinstance(self.head, Decoder):
            x_BLD = self.head.read(self.encoder, ids_BL, layout, segments_BL)
        else:
            x_BLD = self.encoder(ids_BL, layout, segments_BL, chars_WC)
        # index_select, because the backward of x[index] is not reproducible on several threads
        return x_BLD if picks_N is None else x_BLD.flatten(0, 1).index_select(0, picks_N)

    def vocabulary(self, rows_ND: Tensor) -> Tensor:
        """logits_NV of hidden states."""
        logits_NV = self.head(rows_ND, self.table_VE)
        return logits_NV if self.known is None else logits_NV[..., : self.known]


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
        return self.vocabulary(x_TD.index_select(0, picks_N)), self.order(x_TD.index_select(0, pairs_P))


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


class TokenClassifier(Headed):
    """Encoder + token head: labels of positions, for tagging."""

    def forward(
        self,
        ids_BL: Tensor,
        layout: Layout,
        segments_BL: Tensor | None = None,
        picks_N: Tensor | None = None,
        chars_WC: Tensor | None = None,
    ) -> Tensor:
        """logits_NC at `picks_N` (int64 positions in the flattened rows); without picks logits_BLC everywhere."""
        x_BLD = self.encoder(ids_BL, layout, segments_BL, chars_WC)
        return self.head(x_BLD if picks_N is None else x_BLD.flatten(0, 1).index_select(0, picks_N))


class SpanFinder(Headed):
    """Encoder + span head: where an answer begins and ends, each on its own. See JointSpanFinder for the end given the start."""

    def forward(self, ids_BL: Tensor, layout: Layout, segments_BL: Tensor | None = None, chars_WC: Tensor | None = None) -> Tensor:
        """logits_BL2 of start and end. Padding positions hold numbers without meaning."""
        return self.head(self.encoder(ids_BL, layout, segments_BL, chars_WC))


class MultipleChoice(Classifier):
    """Encoder + sequence head with one output: a number for every choice. The choices of a question are pieces that follow each other;
    `by_question` groups their numbers.
    """


def by_question(scores_P1: Tensor, counts: Sequence[int]) -> Tensor:
    """logits_QC of questions with `counts` choices each, of which the scores follow each other; -inf where a question has fewer."""
    assert scores_P1.shape == (sum(counts), 1), "every score belongs to a question"
    return nn.utils.rnn.pad_sequence(list(scores_P1.squeeze(1).split(list(counts))), batch_first=True, padding_value=-torch.inf)


class JointSpanFinder(Headed):
    """Encoder + ELECTRA's head of questions: start, end given the start, and whether there is an answer (kitae.models.joint).

    `allowed_BL` is true where an answer may start or end (tokens of the text, not of the question); [CLS] always may, and stands for no
    answer. Positions of starts and ends count within their piece.
    """

    def forward(
        self,
        ids_BL: Tensor,
        layout: Layout,
        segments_BL: Tensor | None = None,
        *,
        allowed_BL: Tensor,
        starts_P: Tensor,
        chars_WC: Tensor | None = None,
    ) -> JointLogits:
        """For training, with the true starts (int64, one per piece)."""
        x_PLD, allowed_PL = self._pieces(ids_BL, layout, segments_BL, allowed_BL, chars_WC)
        return self.head(x_PLD, allowed_PL, starts_P)

    def search(
        self,
        ids_BL: Tensor,
        layout: Layout,
        segments_BL: Tensor | None = None,
        *,
        allowed_BL: Tensor,
        beam: int = BEAM,
        chars_WC: Tensor | None = None,
    ) -> Beam:
        """For prediction: the best starts and the best ends of each."""
        x_PLD, allowed_PL = self._pieces(ids_BL, layout, segments_BL, allowed_BL, chars_WC)
        return self.head.search(x_PLD, allowed_PL, beam=beam)

    def _pieces(
        self, ids_BL: Tensor, layout: Layout, segments_BL: Tensor | None, allowed_BL: Tensor, chars_WC: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        x_PLD, places_PL = pieces_of(self.encoder(ids_BL, layout, segments_BL, chars_WC), layout)
        allowed_PL = allowed_BL.flatten()[places_PL] & (places_PL >= 0)
        allowed_PL[:, 0] = True
        return x_PLD, allowed_PL


def _means(x_TD: Tensor, layout: Layout, starts_N: Tensor) -> Tensor:
    """x_ND: the mean over each piece that begins at these positions."""
    spans, length = cover(layout), layout.pieces_BL.shape[1]
    means_PD = torch.stack([x_LD.mean(dim=0) for x_LD in x_TD.split([end - start for _, start, end in spans])])
    starts_P = torch.tensor([row * length + start for row, start, _ in spans], device=x_TD.device)
    return means_PD.index_select(0, torch.searchsorted(starts_P, starts_N))
