"""ELECTRA's head of questions: the end of an answer given its start, and whether there is an answer at all.

Source: google-research/electra, finetune/qa/qa_tasks.py (joint_prediction, answerable_classifier, answerable_uses_start_logits). There
the layers begin uniform (Glorot); here as all new layers of kitae do.
Shapes: B rows, L positions, P pieces (texts), D hidden size, H inner width, K starts of the beam, T = B * L.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kitae.models.encoder import EncoderConfig
from kitae.tensor.batch import Layout

INNER = 512
"""Width between the states and the logits of ends, and of answerability."""
BEAM = 20
"""Starts, and ends of each, that are looked at."""


@dataclass(frozen=True, kw_only=True)
class JointLogits:
    """What training sees; positions count within a piece, those that may not be chosen have -inf."""

    start_PL: Tensor
    end_PL: Tensor
    """Given the true start."""
    impossible_P: Tensor
    """Positive: the text holds no answer."""


@dataclass(frozen=True, kw_only=True)
class Beam:
    """The best starts and the best ends of each, as log-probabilities, best first.

    Where a text has fewer positions that may be chosen than K, the rest have the score -inf and positions without meaning. An end may
    stand before its start: whoever picks the answer leaves such pairs out.
    """

    starts_PK: Tensor
    """int64 positions within the piece."""
    start_scores_PK: Tensor
    ends_PKK: Tensor
    """int64; [p, i, j] is the j-th best end of the i-th best start."""
    end_scores_PKK: Tensor
    """log P(end | start); the score of an answer is the sum of both."""
    impossible_P: Tensor
    """Logit; positive: the text holds no answer."""


class JointSpanHead(nn.Module):
    """P(start), P(end | start), P(no answer). Needs the true starts in training; SpanHead predicts start and end apart from each other."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.start = nn.Linear(width, 1)
        self.pair = nn.Linear(2 * width, INNER)  # [state of the start, state of the end]
        self.end = nn.Linear(INNER, 1)
        self.text = nn.Linear(2 * width, INNER)  # [state of [CLS], mean state of the starts]
        self.impossible = nn.Linear(INNER, 1)

    def forward(self, x_PLD: Tensor, allowed_PL: Tensor, starts_P: Tensor) -> JointLogits:
        """Logits of ends given the true starts (int64 positions). allowed_PL: true where an answer may start or end, [CLS] included."""
        start_PL = self._starts(x_PLD, allowed_PL)
        rows = torch.arange(len(x_PLD), device=x_PLD.device) * x_PLD.shape[1]
        starts_PD = x_PLD.flatten(0, 1).index_select(0, rows + starts_P)
        return JointLogits(
            start_PL=start_PL,
            end_PL=self._ends(self._half(x_PLD, 1), starts_PD, allowed_PL),
            impossible_P=self._impossible(x_PLD, start_PL),
        )

    def search(self, x_PLD: Tensor, allowed_PL: Tensor, *, beam: int = BEAM) -> Beam:
        """The best `beam` starts and the best `beam` ends of each."""
        start_PL = self._starts(x_PLD, allowed_PL)
        scores_PK, starts_PK = start_PL.log_softmax(-1).topk(min(beam, start_PL.shape[1]))
        rows = torch.arange(len(x_PLD), device=x_PLD.device) * x_PLD.shape[1]
        ends, end_scores, half_PLH = [], [], self._half(x_PLD, 1)
        for starts_P in starts_PK.unbind(1):  # one start at a time: together they would need K times the memory
            starts_PD = x_PLD.flatten(0, 1).index_select(0, rows + starts_P)
            best = self._ends(half_PLH, starts_PD, allowed_PL).log_softmax(-1).topk(starts_PK.shape[1])
            ends.append(best.indices)
            end_scores.append(best.values)
        return Beam(
            starts_PK=starts_PK,
            start_scores_PK=scores_PK,
            ends_PKK=torch.stack(ends, dim=1),
            end_scores_PKK=torch.stack(end_scores, dim=1),
            impossible_P=self._impossible(x_PLD, start_PL),
        )

    def _starts(self, x_PLD: Tensor, allowed_PL: Tensor) -> Tensor:
        return _only(self.start(x_PLD).squeeze(-1), allowed_PL)

    def _half(self, x: Tensor, number: int) -> Tensor:
        """`pair` of the first or second half of its input; its bias goes with the second."""
        weight_HD = self.pair.weight.chunk(2, dim=1)[number]
        return F.linear(x, weight_HD, self.pair.bias if number else None)

    def _ends(self, half_PLH: Tensor, starts_PD: Tensor, allowed_PL: Tensor) -> Tensor:
        inner_PLH = F.gelu(half_PLH + self._half(starts_PD, 0)[:, None])
        return _only(self.end(inner_PLH).squeeze(-1), allowed_PL)

    def _impossible(self, x_PLD: Tensor, start_PL: Tensor) -> Tensor:
        share_PL = start_PL.softmax(-1).to(x_PLD.dtype)
        mean_PD = torch.matmul(share_PL[:, None], x_PLD).squeeze(1)
        inner_PH = F.gelu(self.text(torch.cat([x_PLD[:, 0], mean_PD.to(x_PLD.dtype)], dim=-1)))
        return _exact(self.impossible(inner_PH).squeeze(-1))


def pieces_of(x_BLD: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """(x_PLD with one piece a row, places_PL: its positions in the flattened rows, -1 behind its end, where x repeats its last)."""
    spans, length = layout.spans(), x_BLD.shape[1]
    starts_P1 = torch.tensor([[row * length + start] for row, start, _ in spans], device=x_BLD.device)
    lengths_P1 = torch.tensor([[end - start] for _, start, end in spans], device=x_BLD.device)
    offsets = torch.arange(max((end - start for _, start, end in spans), default=0), device=x_BLD.device)
    places_PL = starts_P1 + torch.minimum(offsets, lengths_P1 - 1)
    x_PLD = x_BLD.flatten(0, 1).index_select(0, places_PL.flatten()).view(*places_PL.shape, x_BLD.shape[2])
    return x_PLD, places_PL.masked_fill(offsets >= lengths_P1, -1)


def _exact(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _only(logits_PL: Tensor, allowed_PL: Tensor) -> Tensor:
    return _exact(logits_PL).masked_fill(~allowed_PL, -torch.inf)
