"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864), in the form with a head's two halves that Hugging Face uses.

Shapes: B rows, L positions, N heads, H size of a head, P = H / 2 planes, C = 3NH.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """By how much every position of a batch turns each plane of a head; worked out once for all layers of one kind."""

    cos_BLP: Tensor
    sin_BLP: Tensor


def rotation(positions_BL: Tensor, *, theta: float, head_size: int, dtype: torch.dtype) -> Rotation:
    """The angles position * theta^(-2p / H) in fp32, whatever the model's dtype; float64 models get them as float64.

    transformers rounds sines and cosines to a half-precision model's dtype; here they stay in fp32.
    """
    planes = torch.arange(0, head_size, 2, dtype=torch.float32, device=positions_BL.device)
    angles_BLP = positions_BL[..., None].float() * (1.0 / theta ** (planes / head_size))
    working = torch.float64 if dtype == torch.float64 else torch.float32
    return Rotation(cos_BLP=angles_BLP.cos().to(working), sin_BLP=angles_BLP.sin().to(working))


def rotate(qkv_BLC: Tensor, turn: Rotation, *, heads: int) -> Tensor:
    """Queries, keys and values stacked on the last axis, with queries and keys turned; the dtype stays."""
    return _Rotate.apply(qkv_BLC, turn.cos_BLP, turn.sin_BLP, heads)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv_BLC: Tensor, cos_BLP: Tensor, sin_BLP: Tensor, heads: int) -> Tensor:
        ctx.save_for_backward(cos_BLP, sin_BLP)
        ctx.heads = heads
        return _turned(qkv_BLC, cos_BLP, sin_BLP, heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BLC: Tensor) -> tuple[Tensor, None, None, None]:
        cos_BLP, sin_BLP = ctx.saved_tensors
        return _turned(grad_BLC, cos_BLP, -sin_BLP, ctx.heads), None, None, None


def _turned(qkv_BLC: Tensor, cos_BLP: Tensor, sin_BLP: Tensor, heads: int) -> Tensor:
    b, length, _ = qkv_BLC.shape
    halves = qkv_BLC.reshape(b, length, 3 * heads, 2, -1)
    first, second = halves[:, :, : 2 * heads].unbind(3)
    cos, sin = cos_BLP[:, :, None], sin_BLP[:, :, None]
    out = torch.empty_like(halves)
    out[:, :, 2 * heads :] = halves[:, :, 2 * heads :]
    out[:, :, : 2 * heads, 0] = first * cos - second * sin
    out[:, :, : 2 * heads, 1] = second * cos + first * sin
    return out.view(qkv_BLC.shape)
