"""What finds answers: learners of start and end, apart from each other or the end given the start.

Their raw output is one form for both heads, [3 + 2 E, K] numbers of each window: the K best starts (positions), their scores, E rows
of ends and E rows of their scores, and the score of no answer (its first number). E is 1 where ends do not depend on starts, else K.
Scores of -inf are no candidates.

Source: google-research/bert, run_squad.py, and google-research/electra, finetune/qa/qa_tasks.py (Clark et al., 2020).
Shapes: N windows, P pieces (windows in the order of the rows), B rows, L positions, K candidates.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kitae.models.compose import JointSpanFinder, SpanFinder
from kitae.models.joint import Beam, pieces_of
from kitae.tasks.kind import Learner
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss, Term

TERM = "span"
ANSWERABLE = "answerable"
CONTEXT = "context"
"""Name of the places where an answer may start or end."""


class Spans(Learner):
    """Start and end, each by a softmax over the context and [CLS], which stands for no answer (Devlin et al., 2019, section 4.2)."""

    encoder: SpanFinder

    def __init__(self, finder: SpanFinder, *, n_best: int) -> None:
        super().__init__()
        self.encoder, self._n_best = finder, n_best

    def counts(self, batch: Batch) -> dict[str, int]:
        """How many windows there are."""
        return {TERM: int(batch.targets["start"].numel())}

    def forward(self, batch: Batch) -> Loss:
        """One term: the summed cross-entropy in nats, the mean of start's and end's."""
        start_NL, end_NL = self._logits(batch)
        truth = batch.targets["start"]
        total = (_cross_entropy(start_NL, truth) + _cross_entropy(end_NL, batch.targets["end"])) / 2
        return Loss(terms=(Term(name=TERM, sum=total, count=len(truth)),))

    def raw(self, batch: Batch) -> Sequence[Tensor]:
        """The best starts and the best ends of every window, and the logits of [CLS]; [5, K] each."""
        logits = self._logits(batch)
        starts, ends = (found.topk(min(self._n_best, found.shape[1])) for found in logits)
        nothing_N = (logits[0][:, 0] + logits[1][:, 0])[:, None].expand(starts.values.shape)
        # [CLS] is among the candidates; whoever decodes leaves out what lies outside of the context
        rows = (starts.indices.float(), starts.values, ends.indices.float(), ends.values, nothing_N)
        return torch.stack(rows, dim=1).unbind(0)

    def _logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """start_NL, end_NL of the windows in their order, -inf where no answer may start or end."""
        logits_PL2, places_PL = pieces_of(self.encoder(batch).float(), batch.layout)
        allowed_PL = allowed(batch).flatten()[places_PL] & (places_PL >= 0)
        allowed_PL[:, 0] = True
        logits_PL2 = logits_PL2.masked_fill(~allowed_PL[..., None], -torch.inf)
        logits_NL2 = logits_PL2.index_select(0, pieces(batch))
        return logits_NL2[..., 0], logits_NL2[..., 1]


class JointSpans(Learner):
    """Start, end given the start, and with `weight` above 0 whether a window has an answer."""

    encoder: JointSpanFinder

    def __init__(self, finder: JointSpanFinder, *, beam: int, weight: float) -> None:
        super().__init__()
        self.encoder, self._beam, self._weight = finder, beam, weight

    def counts(self, batch: Batch) -> dict[str, int]:
        """How many windows there are, for each term."""
        count = int(batch.targets["start"].numel())
        return {TERM: count, **({ANSWERABLE: count} if self._weight else {})}

    def forward(self, batch: Batch) -> Loss:
        """The summed cross-entropy in nats, the mean of start's and end's; and that of the window having no answer."""
        truth_N, piece_N = batch.targets["start"], pieces(batch)
        starts_P = torch.zeros(len(piece_N), dtype=torch.int64, device=truth_N.device)
        starts_P[piece_N[: len(truth_N)]] = truth_N
        found = self.encoder(batch, allowed_BL=allowed(batch), starts_P=starts_P)
        start_NL, end_NL = found.start_PL.index_select(0, piece_N), found.end_PL.index_select(0, piece_N)
        total = (_cross_entropy(start_NL, truth_N) + _cross_entropy(end_NL, batch.targets["end"])) / 2
        terms = [Term(name=TERM, sum=total, count=len(truth_N))]
        if self._weight:
            impossible_N = found.impossible_P.index_select(0, piece_N)[: len(truth_N)]
            wrong = F.binary_cross_entropy_with_logits(impossible_N, batch.targets["impossible"], reduction="sum")
            terms.append(Term(name=ANSWERABLE, sum=wrong, count=len(truth_N), weight=self._weight))
        return Loss(terms=tuple(terms))

    def raw(self, batch: Batch) -> Sequence[Tensor]:
        """The best starts and the best ends of each, as log-probabilities, and the logit of no answer; [3 + 2 K, K] each."""
        found = self.encoder.search(batch, allowed_BL=allowed(batch), beam=self._beam)
        return _rows(found).index_select(0, pieces(batch)).unbind(0)


def allowed(batch: Batch) -> Tensor:
    """allowed_BL: true at the tokens of contexts."""
    made = torch.zeros_like(batch.ids_BL, dtype=torch.bool).flatten()
    made[batch.targets[CONTEXT]] = True
    return made.view_as(batch.ids_BL)


def pieces(batch: Batch) -> Tensor:
    """int64 [N]: which piece of the rows each window is."""
    length = batch.ids_BL.shape[1]
    starts_P = torch.tensor([row * length + start for row, start, _ in batch.layout.spans()], device=batch.ids_BL.device)
    return torch.searchsorted(starts_P, batch.targets["cls"])


def _rows(found: Beam) -> Tensor:
    """[P, 3 + 2 K, K]."""
    starts_P1K, scores_P1K = found.starts_PK[:, None].float(), found.start_scores_PK[:, None]
    nothing_P1K = found.impossible_P[:, None, None].expand(starts_P1K.shape)
    return torch.cat([starts_P1K, scores_P1K, found.ends_PKK.float(), found.end_scores_PKK, nothing_P1K], dim=1)


def _cross_entropy(logits_NL: Tensor, truth_N: Tensor) -> Tensor:
    """Summed; of the first windows where fewer truths are given, which is of none in a batch without examples."""
    log_NL = logits_NL[: len(truth_N)].log_softmax(-1)
    return -log_NL.gather(1, truth_N[:, None]).sum()
