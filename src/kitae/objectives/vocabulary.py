"""Cross-entropy of very many predictions from a vocabulary, whose logits never exist together.

All logits of 4,096 tokens and a vocabulary of 32,768 are 0.5 GB, and their gradient as much again. The sum of the losses is one number,
so the gradient of everything before it is known in the forward pass but for one factor: the logits of a chunk make their share of it
and are gone (as in Liger Kernel, Hsu et al. 2024, arXiv:2410.10989).

Shapes: R predictions, E embedding size, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kitae.objectives.softmax import cross_entropy

LOGITS = 1 << 24
"""How many exist at a time: 64 MB in fp32, of 512 predictions from a vocabulary of 32,768."""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """How well tokens were predicted."""

    total: Tensor
    """float64: the weighted sum of the losses, with a gradient."""
    losses_R: Tensor
    """float64, without a gradient."""
    likeliest_R: Tensor
    """int64: the tokens with the greatest logits."""


def predict_all(x_RE: Tensor, table_VE: Tensor, bias_V: Tensor, labels_R: Tensor, weights_R: Tensor) -> Predicted:
    """Cross-entropy of the logits x_RE @ table_VE.T + bias_V; `weights_R` are float64 and get no gradient."""
    wanted = tuple(torch.is_grad_enabled() and tensor.requires_grad for tensor in (x_RE, table_VE, bias_V))
    total, losses_R, likeliest_R = _InChunks.apply(x_RE, table_VE, bias_V, labels_R, weights_R, wanted)
    return Predicted(total=total, losses_R=losses_R, likeliest_R=likeliest_R)


class _InChunks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_RE: Tensor, table_VE: Tensor, bias_V: Tensor, labels_R: Tensor, weights_R: Tensor, wanted: tuple[bool, bool, bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        inputs, learns = (x_RE, table_VE, bias_V), any(wanted)
        # the shares of many chunks are added up in fp32 or better
        slopes = [
            torch.zeros_like(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32)) if own else None
            for tensor, own in zip(inputs, wanted, strict=True)
        ]
        losses_R = torch.empty(len(x_RE), dtype=torch.float64, device=x_RE.device)
        likeliest_R = torch.empty_like(labels_R)
        size = max(1, LOGITS // len(table_VE))
        for first in range(0, len(x_RE), size):
            here = slice(first, first + size)
            leaves = [t.detach().requires_grad_(w) for t, w in zip((x_RE[here], table_VE, bias_V), wanted, strict=True)]
            with torch.set_grad_enabled(learns):
                logits = F.linear(*leaves)
                losses = cross_entropy(logits, labels_R[here])
                total = (losses * weights_R[here]).sum()
            losses_R[here], likeliest_R[here] = losses.detach(), logits.detach().argmax(dim=1)
            if learns:
                learning = [leaf for leaf in leaves if leaf.requires_grad]
                shares = iter(torch.autograd.grad(total, learning))
                for slope, rows in zip(slopes, (here, slice(None), slice(None)), strict=True):
                    if slope is not None:
                        slope[rows].add_(next(shares))
        ctx.save_for_backward(*slopes)
        ctx.dtypes = [t.dtype for t in inputs]
        ctx.mark_non_differentiable(losses_R, likeliest_R)
        return (losses_R * weights_R).sum(), losses_R, likeliest_R

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        # in place, because memory traffic is what this costs; autograd refuses a second backward pass after it
        made = [None if s is None else s.mul_(grad).to(dtype) for s, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)]
        return *made, None, None, None
