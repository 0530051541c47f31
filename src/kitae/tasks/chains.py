"""Chains of tags: the likeliest one (Viterbi), what each tag's share is, and a linear-chain conditional random field.

A chain's score is the sum of its tags' logits, of a number for every pair of neighbours, and of one each for its first and last tag
(Lafferty et al., 2001; Lample et al., 2016, section 2).

Shapes: S chains, T tags of the longest chain, N tags of one chain, C labels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Floats = NDArray[np.float64]
NEVER = -1e4
"""What an illegal step adds to a score: finite, so that nothing becomes NaN."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What neighbours add to the score of a chain."""

    between_CC: Floats
    """From row to column."""
    first_C: Floats
    last_C: Floats

    def plus(self, other: "Steps") -> "Steps":
        """Both together."""
        return Steps(between_CC=self.between_CC + other.between_CC, first_C=self.first_C + other.first_C, last_C=self.last_C + other.last_C)


def viterbi(logits_NC: Floats, steps: Steps) -> list[int]:
    """The chain of the highest score; of equal ones that with the lowest numbers from the end on."""
    if not len(logits_NC):
        return []
    score_C = logits_NC[0] + steps.first_C
    back: list[NDArray[np.int64]] = []
    for row_C in logits_NC[1:]:
        ways_CC = score_C[:, None] + steps.between_CC
        back.append(ways_CC.argmax(axis=0))
        score_C = ways_CC.max(axis=0) + row_C
    path = [int((score_C + steps.last_C).argmax())]
    for best_C in reversed(back):
        path.append(int(best_C[path[-1]]))
    return path[::-1]


def shares(logits_NC: Floats, steps: Steps) -> Floats:
    """[N, C]: the probability of each tag over all chains (forward and backward sums)."""
    forward_NC, backward_NC = np.empty_like(logits_NC), np.empty_like(logits_NC)
    for i in range(len(logits_NC)):
        before = steps.first_C if i == 0 else _sum(forward_NC[i - 1][:, None] + steps.between_CC, axis=0)
        forward_NC[i] = before + logits_NC[i]
    for i in reversed(range(len(logits_NC))):
        last = i == len(logits_NC) - 1
        backward_NC[i] = steps.last_C if last else _sum(steps.between_CC + (logits_NC[i + 1] + backward_NC[i + 1])[None, :], axis=1)
    both_NC = forward_NC + backward_NC
    return np.exp(both_NC - _sum(both_NC, axis=1)[:, None])


def _sum(values: Floats, axis: int) -> Floats:
    """log of the sum of the exponentials."""
    top = values.max(axis=axis, keepdims=True)
    return np.asarray(top.squeeze(axis) + np.log(np.exp(values - top).sum(axis=axis)))


class Crf(nn.Module):
    """A linear-chain conditional random field over the logits of a model. Its own numbers start at 0: then it is a softmax of each tag."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.between_CC = nn.Parameter(torch.zeros(labels, labels))
        self.first_C = nn.Parameter(torch.zeros(labels))
        self.last_C = nn.Parameter(torch.zeros(labels))

    def loss(self, logits_STC: Tensor, tags_ST: Tensor, lengths_S: Tensor, edges_S2: Tensor) -> Tensor:
        """The summed negative log-likelihood of the chains in nats.

        tags_ST: int64, anything behind a chain's end. lengths_S: int64, at least 1. edges_S2: bool, whether a chain's first tag is the
        first of its sentence and its last the last one; where not, that end adds nothing (a window of a long sentence).
        """
        begin_SC = self.first_C * edges_S2[:, :1]
        end_SC = self.last_C * edges_S2[:, 1:]
        return (self._all(logits_STC, lengths_S, begin_SC, end_SC) - self._one(logits_STC, tags_ST, lengths_S, begin_SC, end_SC)).sum()

    def _one(self, logits_STC: Tensor, tags_ST: Tensor, lengths_S: Tensor, begin_SC: Tensor, end_SC: Tensor) -> Tensor:
        """[S]: the score of the given chain."""
        real_ST = torch.arange(tags_ST.shape[1], device=tags_ST.device) < lengths_S[:, None]
        tags_ST = tags_ST.masked_fill(~real_ST, 0)
        at_tags_ST = logits_STC.gather(2, tags_ST[..., None]).squeeze(2)
        size = len(self.first_C)
        steps = self.between_CC.flatten().index_select(0, (tags_ST[:, :-1] * size + tags_ST[:, 1:]).flatten()).view(len(tags_ST), -1)
        last_S1 = tags_ST.gather(1, lengths_S[:, None] - 1)
        ends_S = begin_SC.gather(1, tags_ST[:, :1]).squeeze(1) + end_SC.gather(1, last_S1).squeeze(1)
        return (at_tags_ST * real_ST).sum(1) + (steps * real_ST[:, 1:]).sum(1) + ends_S

    def _all(self, logits_STC: Tensor, lengths_S: Tensor, begin_SC: Tensor, end_SC: Tensor) -> Tensor:
        """[S]: log of the sum over all chains (the forward algorithm)."""
        score_SC = begin_SC + logits_STC[:, 0]
        for t in range(1, logits_STC.shape[1]):
            further_SC = (score_SC[:, :, None] + self.between_CC).logsumexp(1) + logits_STC[:, t]
            score_SC = torch.where((t < lengths_S)[:, None], further_SC, score_SC)
        return (score_SC + end_SC).logsumexp(1)
