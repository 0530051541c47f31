"""One pass over the vocabulary: cross-entropy, its gradient, and a sample from the same softmax.

The sample is drawn by inverting the cumulative distribution at a given uniform number, first over blocks of the vocabulary, then
within one block: the exact distribution, for one random number instead of one per token as the Gumbel trick needs.
Shapes: N predictions, V vocabulary, K blocks of BLOCK tokens.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

BLOCK = 256
CHUNK = 64
"""Predictions at a time on a CPU, so that the working memory stays in the cache."""


def cross_entropy(logits_NV: Tensor, labels_N: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """loss_N in float64, with a gradient for the logits.

    `smoothing` s: the target is 1 - s at the label and s / V everywhere (the label too), as torch's `label_smoothing`.
    """
    return _CrossEntropy.apply(logits_NV, labels_N, None, (1.0, smoothing, False), _learns(logits_NV))[0]


def cross_entropy_and_sample(
    logits_NV: Tensor,
    labels_N: Tensor,
    uniform_N: Tensor,
    *,
    temperature: float = 1.0,
    smoothing: float = 0.0,
    wrong_only: bool = False,
) -> tuple[Tensor, Tensor]:
    """(loss_N in float64, with a gradient for the logits; sampled ids_N, without one).

    uniform_N: float64 in [0, 1). The loss is that of temperature 1; the temperature flattens (> 1) what is sampled.
    `smoothing`: see `cross_entropy`; samples know nothing of it. wrong_only: the label itself is never sampled, however certain it is.
    """
    shape = (temperature, smoothing, wrong_only)
    losses_N, ids_N = _CrossEntropy.apply(logits_NV, labels_N, uniform_N, shape, _learns(logits_NV))
    return losses_N, ids_N


def _learns(logits_NV: Tensor) -> bool:
    """Whether a gradient will be wanted; inside the function below autograd does not tell."""
    return torch.is_grad_enabled() and logits_NV.requires_grad


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits_NV: Tensor, labels_N: Tensor, uniform_N: Tensor | None, shape: tuple[float, float, bool], learns: bool
    ) -> tuple[Tensor, Tensor]:
        temperature, smoothing, wrong_only = shape
        if logits_NV.device.type != "cpu":
            losses_N, ids_N, slopes_NV = _at_once(logits_NV, labels_N, uniform_N, temperature, smoothing, wrong_only=wrong_only)
            ctx.save_for_backward(slopes_NV)
            ctx.mark_non_differentiable(ids_N)
            ctx.divisor = _divisor(logits_NV)
            return losses_N, ids_N
        count, vocab = logits_NV.shape
        working = torch.float64 if logits_NV.dtype == torch.float64 else torch.float32
        slopes_NV = torch.empty_like(logits_NV, memory_format=torch.contiguous_format) if learns else None  # softmax - target
        losses_N = torch.empty(count, dtype=torch.float64, device=logits_NV.device)
        ids_N = torch.empty(count, dtype=torch.int64, device=logits_NV.device)
        blocks, reshaped = -(-vocab // BLOCK), temperature != 1.0 or wrong_only
        work = torch.zeros(min(CHUNK, count), blocks * BLOCK, dtype=working, device=logits_NV.device)
        for first in range(0, count, CHUNK):
            here = slice(first, min(first + CHUNK, count))
            logits = logits_NV[here]
            weights = work[: len(logits)]  # exp(logit - maximum); the rest of the last block stays 0
            weights[:, :vocab].copy_(logits).sub_(logits.amax(dim=1, keepdim=True).to(working))
            picked = weights.gather(1, labels_N[here, None]).double().squeeze(1)
            if smoothing:
                picked = (1 - smoothing) * picked + smoothing * weights[:, :vocab].mean(dim=1, dtype=torch.float64)
            if uniform_N is not None and reshaped:
                flat = torch.zeros_like(weights)
                torch.exp(_scores(weights[:, :vocab], labels_N[here], temperature, wrong_only), out=flat[:, :vocab])
                ids_N[here] = _invert(flat, uniform_N[here])
            weights[:, :vocab].exp_()
            total = _sums(weights).sum(dim=1)
            losses_N[here] = total.log() - picked
            if uniform_N is not None and not reshaped:
                ids_N[here] = _invert(weights, uniform_N[here])
            if slopes_NV is not None:
                weights.div_(total.to(working)[:, None])
                if smoothing:
                    weights[:, :vocab].sub_(smoothing / vocab)
                weights.scatter_add_(1, labels_N[here, None], weights.new_full((len(logits), 1), smoothing - 1.0))
                slopes_NV[here] = weights[:, :vocab]
        if slopes_NV is not None:
            ctx.save_for_backward(slopes_NV)
        ctx.divisor = 1
        ctx.mark_non_differentiable(ids_N)
        return losses_N, ids_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (slopes_NV,) = ctx.saved_tensors
        # in place, because memory traffic is what this costs; autograd refuses a second backward pass after it
        if grad_N.stride() == (0,) and len(grad_N):  # of a plain sum: one factor, which a scalar keeps unrounded
            if slopes_NV.device.type == "cpu":
                return slopes_NV.mul_(grad_N[0]), None, None, None, None
            # A device rounds the factor to the dtype of the slopes: divided before, it is 1 for the mean of one micro-batch.
            torch._foreach_mul_([slopes_NV], (grad_N[0] * ctx.divisor).to(slopes_NV.dtype))
            return slopes_NV, None, None, None, None
        return slopes_NV.mul_((grad_N * ctx.divisor)[:, None].to(slopes_NV.dtype)), None, None, None, None


def _at_once(
    logits_NV: Tensor, labels_N: Tensor, uniform_N: Tensor | None, temperature: float, smoothing: float, *, wrong_only: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss_N, sampled ids_N, (softmax - target) / divisor) in few large kernels, for a device whose memory is faster than its launches."""
    working = torch.float64 if logits_NV.dtype == torch.float64 else torch.float32
    probabilities_NV = torch.softmax(logits_NV, dim=1, dtype=working)
    behind_N = (logits_NV.gather(1, labels_N[:, None]).double() - logits_NV.amax(dim=1, keepdim=True).double()).squeeze(1)
    if smoothing:
        mean_N = logits_NV.mean(dim=1, dtype=working).double() - logits_NV.amax(dim=1).double()
        behind_N = (1 - smoothing) * behind_N + smoothing * mean_N
    losses_N = -probabilities_NV.amax(dim=1).double().log() - behind_N  # the greatest probability is 1 / sum of exp(logit - greatest)
    ids_N = torch.empty(0, dtype=torch.int64, device=logits_NV.device)
    if uniform_N is not None:
        weights_NV = probabilities_NV
        if temperature != 1.0 or wrong_only:
            weights_NV = torch.softmax(_scores(logits_NV, labels_N, temperature, wrong_only), dim=1, dtype=working)
        short = -logits_NV.shape[1] % BLOCK
        ids_N = _invert(F.pad(weights_NV, (0, short)) if short else weights_NV, uniform_N)
    share = 1 / _divisor(logits_NV)
    slopes_NV = torch.mul(probabilities_NV, share, out=torch.empty_like(logits_NV, memory_format=torch.contiguous_format))
    everywhere = smoothing / logits_NV.shape[1]
    if smoothing:
        slopes_NV.sub_(everywhere * share)
    at_label_N1 = (probabilities_NV.gather(1, labels_N[:, None]) - (1 - smoothing) - everywhere) * share
    return losses_N, ids_N, slopes_NV.scatter_(1, labels_N[:, None], at_label_N1.to(slopes_NV.dtype))


def _divisor(logits_NV: Tensor) -> int:
    """What a device's slopes are divided by before the loss's own factor, which then rounds to 1 for a mean; fp16 has no room for it:
    the slope of most tokens would be 0."""
    return 1 if logits_NV.dtype == torch.float16 else max(len(logits_NV), 1)


def _scores(logits_NV: Tensor, labels_N: Tensor, temperature: float, wrong_only: bool) -> Tensor:
    """Logits as they are sampled from; without labels the greatest that is left is 0, so that some weight always remains."""
    scores_NV = logits_NV / temperature
    if wrong_only:
        scores_NV.scatter_(1, labels_N[:, None], -math.inf)
        scores_NV -= scores_NV.amax(dim=1, keepdim=True)
    return scores_NV


def _sums(weights_NV: Tensor) -> Tensor:
    """sums_NK of every block, in float64."""
    return weights_NV.view(len(weights_NV), -1, BLOCK).sum(dim=2).double()


def _invert(weights_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """ids_N at which the cumulative weights pass uniform * total. Only tokens of positive weight can be met."""
    block_N, inside_N = _pass(_running(_sums(weights_NV)), uniform_N)
    blocks_NKB = weights_NV.view(len(weights_NV), -1, BLOCK)
    chosen_NB = blocks_NKB.gather(1, block_N[:, None, None].expand(-1, 1, BLOCK)).squeeze(1)
    token_N, _ = _pass(_running(chosen_NB.double()), inside_N)
    return block_N * BLOCK + token_N


def _running(numbers_NK: Tensor) -> Tensor:
    """Running sums along the last axis."""
    if numbers_NK.device.type == "cuda" and torch.are_deterministic_algorithms_enabled():  # torch refuses cumsum there
        size = numbers_NK.shape[1]
        return numbers_NK @ torch.ones(size, size, dtype=numbers_NK.dtype, device=numbers_NK.device).triu()
    return numbers_NK.cumsum(dim=1)


def _pass(cumulative_NK: Tensor, uniform_N: Tensor) -> tuple[Tensor, Tensor]:
    """(index of the step that passes uniform * total, how far into that step it is, from 0 to 1)."""
    total_N1 = cumulative_NK[:, -1:]
    target_N1 = uniform_N[:, None] * total_N1
    last_N = (cumulative_NK < total_N1).sum(dim=1)  # the last step with any weight, should rounding reach the total
    index_N = torch.minimum((cumulative_NK <= target_N1).sum(dim=1), last_N)
    before_N1 = torch.where(index_N[:, None] > 0, cumulative_NK.gather(1, (index_N[:, None] - 1).clamp_min(0)), 0.0)
    size_N1 = cumulative_NK.gather(1, index_N[:, None]) - before_N1
    return index_N, ((target_N1 - before_N1) / size_N1).clamp(0.0, 1.0).squeeze(1)
