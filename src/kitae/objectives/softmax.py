"""One pass over the vocabulary: cross-entropy, its gradient, and a sample from the same softmax.

The sample is drawn by inverting the cumulative distribution at a given uniform number, first over blocks of the vocabulary, then
within one block: the exact distribution, for one random number instead of one per token as the Gumbel trick needs.
Shapes: N predictions, V vocabulary, K blocks of BLOCK tokens.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 256
CHUNK = 64
"""Predictions at a time on a CPU, so that the working memory stays in the cache."""


def cross_entropy(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    """loss_N in float64, with a gradient for the logits."""
    return _CrossEntropy.apply(logits_NV, labels_N, None, 1.0, _learns(logits_NV))[0]


def cross_entropy_and_sample(logits_NV: Tensor, labels_N: Tensor, uniform_N: Tensor, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """(loss_N in float64, with a gradient for the logits; sampled ids_N, without one).

    uniform_N: float64 in [0, 1). The loss is that of temperature 1; the temperature flattens (> 1) what is sampled.
    """
    losses_N, ids_N = _CrossEntropy.apply(logits_NV, labels_N, uniform_N, temperature, _learns(logits_NV))
    return losses_N, ids_N


def _learns(logits_NV: Tensor) -> bool:
    """Whether a gradient will be wanted; inside the function below autograd does not tell."""
    return torch.is_grad_enabled() and logits_NV.requires_grad


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits_NV: Tensor, labels_N: Tensor, uniform_N: Tensor | None, temperature: float, learns: bool
    ) -> tuple[Tensor, Tensor]:
        count, vocab = logits_NV.shape
        working = torch.float64 if logits_NV.dtype == torch.float64 else torch.float32
        slopes_NV = torch.empty_like(logits_NV, memory_format=torch.contiguous_format) if learns else None  # softmax - one-hot
        losses_N = torch.empty(count, dtype=torch.float64, device=logits_NV.device)
        ids_N = torch.empty(count, dtype=torch.int64, device=logits_NV.device)
        step = CHUNK if logits_NV.device.type == "cpu" else max(count, 1)
        blocks = -(-vocab // BLOCK)
        work = torch.zeros(min(step, count), blocks * BLOCK, dtype=working, device=logits_NV.device)
        for first in range(0, count, step):
            here = slice(first, min(first + step, count))
            logits = logits_NV[here]
            weights = work[: len(logits)]  # exp(logit - maximum); the rest of the last block stays 0
            weights[:, :vocab].copy_(logits).sub_(logits.amax(dim=1, keepdim=True).to(working))
            picked = weights.gather(1, labels_N[here, None]).double().squeeze(1)
            if uniform_N is not None and temperature != 1.0:
                flat = torch.zeros_like(weights)
                torch.exp(weights[:, :vocab] / temperature, out=flat[:, :vocab])
                ids_N[here] = _invert(flat, uniform_N[here])
            weights[:, :vocab].exp_()
            total = _sums(weights).sum(dim=1)
            losses_N[here] = total.log() - picked
            if uniform_N is not None and temperature == 1.0:
                ids_N[here] = _invert(weights, uniform_N[here])
            if slopes_NV is not None:
                weights.div_(total.to(working)[:, None])
                weights.scatter_add_(1, labels_N[here, None], weights.new_full((len(logits), 1), -1.0))
                slopes_NV[here] = weights[:, :vocab]
        if slopes_NV is not None:
            ctx.save_for_backward(slopes_NV)
        ctx.mark_non_differentiable(ids_N)
        return losses_N, ids_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (slopes_NV,) = ctx.saved_tensors
        # in place, because memory traffic is what this costs; autograd refuses a second backward pass after it
        if grad_N.stride() == (0,) and len(grad_N):  # of a plain sum: one factor, which a scalar keeps unrounded
            return slopes_NV.mul_(grad_N[0]), None, None, None, None
        return slopes_NV.mul_(grad_N[:, None].to(slopes_NV.dtype)), None, None, None, None


def _sums(weights_NV: Tensor) -> Tensor:
    """sums_NK of every block, in float64."""
    return weights_NV.view(len(weights_NV), -1, BLOCK).sum(dim=2).double()


def _invert(weights_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """ids_N at which the cumulative weights pass uniform * total. Only tokens of positive weight can be met."""
    block_N, inside_N = _pass(_sums(weights_NV).cumsum(dim=1), uniform_N)
    blocks_NKB = weights_NV.view(len(weights_NV), -1, BLOCK)
    chosen_NB = blocks_NKB.gather(1, block_N[:, None, None].expand(-1, 1, BLOCK)).squeeze(1)
    token_N, _ = _pass(chosen_NB.double().cumsum(dim=1), inside_N)
    return block_N * BLOCK + token_N


def _pass(cumulative_NK: Tensor, uniform_N: Tensor) -> tuple[Tensor, Tensor]:
    """(index of the step that passes uniform * total, how far into that step it is, from 0 to 1)."""
    total_N1 = cumulative_NK[:, -1:]
    target_N1 = uniform_N[:, None] * total_N1
    last_N = (cumulative_NK < total_N1).sum(dim=1)  # the last step with any weight, should rounding reach the total
    index_N = torch.minimum((cumulative_NK <= target_N1).sum(dim=1), last_N)
    before_N1 = torch.where(index_N[:, None] > 0, cumulative_NK.gather(1, (index_N[:, None] - 1).clamp_min(0)), 0.0)
    size_N1 = cumulative_NK.gather(1, index_N[:, None]) - before_N1
    return index_N, ((target_N1 - before_N1) / size_N1).clamp(0.0, 1.0).squeeze(1)
