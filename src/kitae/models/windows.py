"""Sliding-window attention on a CPU in blocks of queries, so that its cost grows with the length and not with its square.

Every block of S queries looks at three blocks of keys, its own and the two beside it, which hold all keys within S positions.
Shapes: B rows, L positions, N heads, H size of a head, C = 3NH, K blocks of a row, S positions of a block, W = 3S.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kitae.models.layers import drop, keep_drops, kept_drops, mask_bias, scaled_product

SMALLEST = 32
"""Smaller blocks than this cost more in calls than they save in products."""


def pays(length: int, window: int) -> bool:
    """Whether blocks cost less than one masked product over whole rows: 3S (L + S) against L * L, and the copies."""
    return length >= 5 * max(window, SMALLEST)


def within(length: int, window: int, device: torch.device) -> Tensor:
    """True where two positions of a row are at most `window` apart; [L, L]."""
    positions = torch.arange(length, device=device)
    return (positions[:, None] - positions[None]).abs() <= window


def band(pieces_BL: Tensor, *, window: int, dtype: torch.dtype) -> Tensor:
    """bias_BKSW: 0 where a query of a block may attend to a key of its three blocks, -inf elsewhere.

    A row has one block more than it needs: an empty one, which separates it from the next row.
    """
    length, size = pieces_BL.shape[1], max(window, SMALLEST)
    blocks = -(-length // size) + 1
    padded = F.pad(pieces_BL, (size, (blocks + 1) * size - length), value=-1)
    keys_BKW = padded.unfold(1, 3 * size, size)
    queries_BKS = keys_BKW[..., size : 2 * size]
    offsets = torch.arange(3 * size)[None] - size - torch.arange(size)[:, None]
    allowed_BKSW = (queries_BKS[..., None] == keys_BKW[:, :, None]) & (offsets.abs() <= window)
    return mask_bias(allowed_BKSW, dtype)


class BandedAttention(torch.autograd.Function):
    """Softmax attention within a band, exact: keys outside of `band` have a probability of zero.

    Inputs: qkv_BLC, the bias of `band`, heads, dropout rate; returns x_BLD. Keeps queries, keys, values, probabilities and the
    random bytes of dropout.
    """

    @staticmethod
    def forward(ctx: Any, qkv_BLC: Tensor, bias_BKSW: Tensor, heads: int, rate: float) -> Tensor:
        b, length, channels = qkv_BLC.shape
        blocks, size = bias_BKSW.shape[1:3]
        stacked = _blocks(qkv_BLC.view(b, length, 3, heads, -1), blocks, size)
        scores = scaled_product(stacked[0, 1:-1], _triples(stacked[1]).transpose(1, 2), (channels // (3 * heads)) ** -0.5)
        scores.view(b, heads, blocks, size, 3 * size).add_(bias_BKSW[:, None])
        probabilities = torch.softmax(scores, dim=-1)
        drops = drop(probabilities.numel(), rate=rate) if rate else None
        factor = 1.0 if drops is None else drops.factor
        out = scaled_product(probabilities if drops is None else drops.dropped(probabilities), _triples(stacked[2]), factor)
        keep_drops(ctx, drops, stacked, probabilities)
        ctx.heads = heads
        x_BNLH = out.view(b, heads, blocks * size, -1)[:, :, :length]
        return x_BNLH.transpose(1, 2).reshape(b, length, channels // 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BLD: Tensor) -> tuple[Tensor, None, None, None]:
        (stacked, probabilities), drops = kept_drops(ctx)
        factor = 1.0 if drops is None else drops.factor
        b, length, width = grad_BLD.shape
        heads, size, scale = ctx.heads, stacked.shape[2], stacked.shape[3] ** -0.5
        blocks = (stacked.shape[1] - 2) // (b * heads)
        grad = _blocks(grad_BLD.reshape(b, length, 1, heads, -1), blocks, size)[0, 1:-1]
        out = torch.zeros_like(stacked)
        dropped = probabilities if drops is None else drops.dropped(probabilities)
        _add_triples(out[2], scaled_product(dropped.transpose(1, 2), grad, factor))
        scores = scaled_product(grad, _triples(stacked[2]).transpose(1, 2), factor)
        if drops is not None:
            scores.mul_(drops.keep(scores.shape, scores.dtype))
        scores = torch._softmax_backward_data(scores, probabilities, -1, probabilities.dtype)
        scaled_product(scores, _triples(stacked[1]), scale, out=out[0, 1:-1])
        _add_triples(out[1], scaled_product(scores.transpose(1, 2), stacked[0, 1:-1], scale))
        rows = out[:, 1:-1].view(3, b, heads, blocks * size, -1)[:, :, :, :length]
        return rows.permute(1, 3, 0, 2, 4).reshape(b, length, 3 * width), None, None, None


def _blocks(x_BLANH: Tensor, blocks: int, size: int) -> Tensor:
    """[A, 1 + B * N * K + 1, S, H]: the blocks of all rows and heads one after another, an empty one at either end."""
    b, length, kinds, heads, head_size = x_BLANH.shape
    out = x_BLANH.new_zeros(kinds, b * heads * blocks + 2, size, head_size)
    out[:, 1:-1].view(kinds, b, heads, blocks * size, head_size)[:, :, :, :length] = x_BLANH.permute(2, 0, 3, 1, 4)
    return out


def _triples(blocks_MSH: Tensor) -> Tensor:
    """[M - 2, 3S, H]: every block but the first and last with its neighbours, as a view."""
    count, size, head_size = blocks_MSH.shape
    return blocks_MSH.as_strided((count - 2, 3 * size, head_size), (size * head_size, head_size, 1), blocks_MSH.storage_offset())


def _add_triples(out_MSH: Tensor, triples: Tensor) -> None:
    """Add the three parts of every triple to the blocks that they came from."""
    count, size = out_MSH.shape[:2]
    for part in range(3):
        out_MSH[part : part + count - 2] += triples[:, part * size : (part + 1) * size]
