"""Bidirectional attention within the pieces of a packed row, dispatched by device, dtype and row length.

Shapes: B rows, L positions of a row, N heads, H size of a head, D = N * H, T = B * L.
A position's output never depends on another piece: masked probabilities are exact zeros on every path.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn

from kitae.models.layers import drop, keep_drops, kept_drops, mask_bias, scaled_product
from kitae.models.layers import dropout as dropped
from kitae.models.windows import BandedAttention, band, pays, within
from kitae.tensor.batch import Layout

TILE = 128
"""Flash attention's tiles of queries: a bound on lengths that is a multiple costs nothing and changes seldom."""
FLASH_HEADS = range(8, 200, 8)
"""Sizes of heads that flash attention takes on every GPU, with gradients; from 200 on it depends on the GPU."""
FLASH_CAPABILITY = (8, 0)
"""Compute capability from which on GPUs have it (Ampere); a V100 has 7.0, a T4 7.5."""
LONG_ROW = 512
"""Rows longer than this go document by document on a CPU; up to it one batched product with a mask is faster."""

Kind = Literal["block", "spans", "banded", "varlen", "sdpa", "dense"]


@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """What every layer needs of one batch, worked out once."""

    kind: Kind
    """block: batched products (CPU, short rows); spans: document by document (CPU, long rows); banded: blocks of queries
    (CPU, sliding windows in rows that are several times as long); varlen: flash attention over the flattened rows (CUDA, half precision);
    sdpa: torch's kernels with a mask (CUDA otherwise: single precision, odd head sizes, older GPUs); dense: plain operations, the reference
    of the tests and the form that is compiled on a CPU."""
    bias_BLL: Tensor | None = None
    """0 where a position may attend, -inf elsewhere; None when every row is one piece (kinds block, sdpa and dense)."""
    spans: tuple[tuple[int, int, int], ...] = ()
    """(row, start, end) that cover all rows, padding included (kind spans)."""
    bounds: Tensor | None = None
    """int32 boundaries of the pieces in the flattened rows (kind varlen)."""
    longest: int = 0
    """Length of the longest piece, rounded up to a whole tile (kind varlen)."""
    window: int | None = None
    """Farthest position that a position may attend to, on either side; None = all (kind varlen; others have it in a bias)."""
    bias_BKSW: Tensor | None = None
    """See `kitae.models.windows.band` (kind banded)."""
    causal: bool = False
    """Whether a position attends to itself and what stands before it only (kinds spans and varlen; others have it in the bias)."""


def choose(
    device: str,
    *,
    length: int,
    head_size: int,
    dtype: torch.dtype,
    compiled: bool = False,
    capability: tuple[int, int] = FLASH_CAPABILITY,
) -> Kind:
    """The fastest path for rows of `length` on a type of device; `capability` is the CUDA device's.

    On a CPU, compiled and plain blocks drop the same elements for rows up to LONG_ROW; longer rows draw in another order.
    """
    if device == "cuda":
        half = dtype in (torch.bfloat16, torch.float16)
        return "varlen" if half and head_size in FLASH_HEADS and capability >= FLASH_CAPABILITY else "sdpa"
    if compiled:
        return "dense"
    return "block" if length <= LONG_ROW else "spans"


def make_plan(layout: Layout, *, kind: Kind, dtype: torch.dtype, window: int | None = None, causal: bool = False) -> AttentionPlan:
    """Work out masks or boundaries for a batch; with a window, of layers whose positions see so far and no farther; causal: no
    position sees what comes after it."""
    if kind == "varlen":
        longest = -(-layout.longest // TILE) * TILE
        return AttentionPlan(kind=kind, bounds=layout.bounds, longest=longest, window=window, causal=causal)
    if window is not None and layout.longest <= window + 1:
        window = None  # no piece is long enough to notice
    if window is not None and (kind == "spans" or (kind == "block" and pays(layout.pieces_BL.shape[1], window))):
        assert not causal, "no family has windows that look back only"
        return AttentionPlan(kind="banded", bias_BKSW=band(layout.pieces_BL, window=window, dtype=dtype))
    if kind == "spans":
        return AttentionPlan(kind=kind, spans=cover(layout), causal=causal)
    mask = layout.block_mask_BLL.tril() if causal else layout.block_mask_BLL
    if window is not None:
        mask = mask & within(mask.shape[1], window, mask.device)
    if kind == "block" and bool(mask.all()):
        return AttentionPlan(kind=kind)
    return AttentionPlan(kind=kind, bias_BLL=mask_bias(mask, dtype))


def attend(qkv_BLC: Tensor, plan: AttentionPlan, *, heads: int, dropout: float) -> Tensor:
    """Softmax attention over queries, keys and values stacked on the last axis (C = 3D); returns x_BLD. `dropout` 0 = none."""
    if plan.kind == "block":
        return BlockAttention.apply(qkv_BLC, plan.bias_BLL, heads, dropout)
    if plan.kind == "spans":
        return _attend_spans(qkv_BLC, plan, heads, dropout)
    if plan.kind == "banded":
        return BandedAttention.apply(qkv_BLC, plan.bias_BKSW, heads, dropout)
    b, length, channels = qkv_BLC.shape
    if plan.kind == "varlen":
        qkv_TNH = qkv_BLC.view(b * length, 3, heads, -1)
        return _varlen(qkv_TNH, plan, dropout).reshape(b, length, channels // 3)
    q, k, v = qkv_BLC.view(b, length, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    bias = None if plan.bias_BLL is None else plan.bias_BLL[:, None]
    if plan.kind == "sdpa":
        x_BNLH = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    else:
        scores = torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5  # scaled before the mask, as Hugging Face does
        probabilities = torch.softmax(scores if bias is None else scores + bias, dim=-1)
        x_BNLH = torch.matmul(dropped(probabilities, dropout, True), v)
    return x_BNLH.transpose(1, 2).reshape(b, length, channels // 3)


class BlockAttention(torch.autograd.Function):
    """scores -> mask -> softmax -> dropout -> values in few passes; keeps the probabilities and the random bytes of dropout only.

    Inputs: qkv_BLC, additive bias_BLL or None, heads, dropout rate. Half precision rounds the scores; the softmax itself
    works in fp32 inside torch.
    """

    @staticmethod
    def forward(ctx: Any, qkv_BLC: Tensor, bias_BLL: Tensor | None, heads: int, rate: float) -> Tensor:
        b, length, channels = qkv_BLC.shape
        size = channels // (3 * heads)
        stacked = qkv_BLC.view(b, length, 3, heads, size).permute(2, 0, 3, 1, 4).contiguous().view(3, b * heads, length, size)
        scores = scaled_product(stacked[0], stacked[1].transpose(1, 2), size**-0.5)
        if bias_BLL is not None:
            scores.view(b, heads, length, length).add_(bias_BLL[:, None])
        probabilities = torch.softmax(scores, dim=-1)
        drops = drop(probabilities.numel(), rate=rate) if rate else None
        factor = 1.0 if drops is None else drops.factor
        out = scaled_product(probabilities if drops is None else drops.dropped(probabilities), stacked[2], factor)
        keep_drops(ctx, drops, stacked, probabilities)
        ctx.heads = heads
        return out.view(b, heads, length, size).transpose(1, 2).reshape(b, length, channels // 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BLD: Tensor) -> tuple[Tensor, None, None, None]:
        (stacked, probabilities), drops = kept_drops(ctx)
        factor = 1.0 if drops is None else drops.factor
        b, length, width = grad_BLD.shape
        size = width // ctx.heads
        grad = grad_BLD.view(b, length, ctx.heads, size).transpose(1, 2).reshape(b * ctx.heads, length, size)
        dropped = probabilities if drops is None else drops.dropped(probabilities)
        out = torch.empty_like(stacked)
        scaled_product(dropped.transpose(1, 2), grad, factor, out=out[2])
        scores = scaled_product(grad, stacked[2].transpose(1, 2), factor)
        if drops is not None:
            scores.mul_(drops.keep(scores.shape, scores.dtype))
        scores = torch._softmax_backward_data(scores, probabilities, -1, probabilities.dtype)
        scaled_product(scores, stacked[1], size**-0.5, out=out[0])
        scaled_product(scores.transpose(1, 2), stacked[0], size**-0.5, out=out[1])
        merged = out.view(3, b, ctx.heads, length, size).permute(1, 3, 0, 2, 4).reshape(b, length, 3 * width)
        return merged, None, None, None


def _attend_spans(qkv_BLC: Tensor, plan: AttentionPlan, heads: int, dropout: float) -> Tensor:
    b, length, channels = qkv_BLC.shape
    flat = qkv_BLC.view(b * length, channels)
    sizes = [end - start for _, start, end in plan.spans]
    pieces = []
    for piece in flat.split(sizes):
        if dropout:  # the CPU's fused kernel has no dropout
            ahead = torch.full((len(piece), len(piece)), -math.inf, dtype=piece.dtype).triu(1)[None] if plan.causal else None
            pieces.append(BlockAttention.apply(piece[None], ahead, heads, dropout)[0])
            continue
        q, k, v = piece.view(1, len(piece), 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        pieces.append(F.scaled_dot_product_attention(q, k, v, is_causal=plan.causal)[0].transpose(0, 1).reshape(len(piece), channels // 3))
    return torch.cat(pieces).view(b, length, channels // 3)


def cover(layout: Layout) -> tuple[tuple[int, int, int], ...]:
    """The pieces and, as one more piece, each row's padding: together all positions, in order."""
    rows, length = layout.pieces_BL.shape
    ends = [0] * rows
    for row, _, end in layout.spans():
        ends[row] = max(ends[row], end)
    padding = [(row, end, length) for row, end in enumerate(ends) if end < length]
    return tuple(sorted([*layout.spans(), *padding]))


def _varlen(qkv_TNH: Tensor, plan: AttentionPlan, dropout: float) -> Tensor:
    """Flash attention over pieces of different lengths; returns x_TNH."""
    assert plan.bounds is not None
    q, k, v = qkv_TNH.unbind(1)
    bounds, longest = plan.bounds, plan.longest
    reach = -1 if plan.window is None else plan.window  # on either side, inclusive; -1 = all
    # varlen_attn has no dropout, and says windows and causality otherwise from version to version (2.10 no windows at all); what it
    # stands on has all three.
    if dropout or plan.causal or plan.window is not None:
        return torch.ops.aten._flash_attention_forward(
            q, k, v, bounds, bounds, longest, longest, dropout, plan.causal, False, window_size_left=reach, window_size_right=reach
        )[0]
    out = varlen_attn(q, k, v, bounds, bounds, longest, longest)
    assert isinstance(out, Tensor)
    return out
