"""Disentangled attention (DeBERTa, arXiv:2006.03654): scores see content and relative position, each through projections of its own.

Shapes: B rows, L positions of a row, N heads, H size of a head, D = N * H, R rows of a position table, W = 2L - 1 distances.
A distance is (position of the query) - (position of the key) within the row, so packed rows need nothing of their own: the mask cuts
what lies between pieces, and masked probabilities are exact zeros on every path.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from kitae.models.attention import cover
from kitae.models.layers import dropout as drop
from kitae.models.layers import lookup, mask_bias
from kitae.models.skewed import Call, Chunk, SkewedAttention
from kitae.tensor.batch import Layout

LONG_ROW = 512
"""Rows longer than this go piece by piece on a CPU, and dropout draws no bytes for what lies between pieces."""
FLEX_HEAD = 16
"""FlexAttention's kernels take heads of at least this size."""
PIECE_COST = 8192
"""Pairs of positions that take as long as what a piece of its own costs: rows of many short pieces go whole, with a mask."""
CHUNK = 512
"""Rows go together up to this number of positions."""

RelativeKind = Literal["block", "spans", "flex", "sdpa", "dense"]


@dataclass(frozen=True, kw_only=True)
class RelativePlan:
    """What every layer needs of one batch, worked out once."""

    kind: RelativeKind
    """block: few passes over rows or pieces (CPU, short rows); spans: the same piece by piece (CPU, long rows); flex: FlexAttention,
    which has no dropout (CUDA); sdpa: torch's kernels with the relative terms as a mask (CUDA otherwise); dense: plain operations,
    the reference of the tests and the form that is compiled on a CPU."""
    rows_W: Tensor
    """int64: the row of the position tables for the distances L - 1 (first) to 1 - L (last), the order of keys before a query. For
    the kinds block and spans L is the longest chunk."""
    bias_BLL: Tensor | None = None
    """0 where a position may attend, -inf elsewhere (kinds sdpa and dense)."""
    chunks: tuple[Chunk, ...] = ()
    """Rows or pieces that cover all positions (kinds block and spans)."""
    blocks: BlockMask | None = None
    """Which tiles of the scores are worth computing (kind flex)."""


def choose_relative(
    device: str, *, length: int, head_size: int, dtype: torch.dtype, dropout: float, compiled: bool = False
) -> RelativeKind:
    """The fastest path for rows of `length` on a type of device; `dropout` is the rate on probabilities in this pass.

    FlexAttention offers no dropout, adds up the gradients of position tables in any order, takes no heads below FLEX_HEAD and works in
    fp32 at most: all four send CUDA to sdpa.
    On a CPU, compiled and plain blocks drop the same elements for rows up to LONG_ROW; longer rows draw in another order.
    """
    if device == "cuda":
        exact = dtype == torch.float64 or torch.are_deterministic_algorithms_enabled()
        return "sdpa" if exact or dropout or head_size < FLEX_HEAD else "flex"
    if compiled:
        return "dense"
    return "block" if length <= LONG_ROW else "spans"


def log_bucket(distances: Tensor, *, buckets: int, max_distance: int) -> Tensor:
    """The bucket (int64, in 1 - buckets ... buckets - 1) of signed distances: exact up to buckets / 2, then wider and wider.

    A distance of max_distance - 1 has bucket buckets - 1. As DeBERTa's `make_log_bucket_position`, in fp64: its fp32 puts one distance of
    160,000 into another bucket, and none of the published models' (256 buckets, 512 positions).
    """
    half = buckets // 2
    if max_distance <= half + 1:  # short rows: every distance that there is has a bucket of its own
        return distances
    sizes = distances.abs().clamp(min=1).double()
    wide = (sizes / half).log() / math.log((max_distance - 1) / half) * (half - 1)
    wide = torch.ceil(wide - 1e-9) + half  # a distance at the very end of its bucket is not rounded into the next
    return torch.where(sizes <= half, distances, distances.sign() * wide.long())


def make_relative_plan(layout: Layout, *, kind: RelativeKind, dtype: torch.dtype, buckets: int, max_distance: int) -> RelativePlan:
    """Work out masks, and the row of the position tables for every distance.

    With `buckets` > 0 (DeBERTa-v2 and v3: `position_buckets`) tables have R = 2 * buckets rows and distances up to `max_distance`
    share them by their logarithm; with 0 (v1, or v2 without buckets) R = 2 * max_distance. `max_distance` is
    `max_relative_positions`, or `max_position_embeddings` where that is below 1. Distances beyond the ends take the rows at the ends, as
    in transformers; microsoft/DeBERTa takes row 1 for keys far behind a query, because rows of `max_distance` positions never train row 0.
    """
    chunks = _chunks(layout, kind, dtype) if kind in ("block", "spans") else ()
    pieces_BL = layout.pieces_BL
    length = max((chunk.length for chunk in chunks), default=pieces_BL.shape[1])
    distances = torch.arange(length - 1, -length, -1)
    if buckets:
        distances = log_bucket(distances, buckets=buckets, max_distance=max_distance)
    span = buckets or max_distance
    rows = (distances + span).clamp(0, 2 * span - 1).to(pieces_BL.device, non_blocking=True)
    if chunks:
        return RelativePlan(kind=kind, rows_W=rows, chunks=chunks)
    if kind == "flex":

        def same_piece(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return pieces_BL[b, i] == pieces_BL[b, j]

        blocks = create_block_mask(same_piece, len(pieces_BL), None, length, length, device=pieces_BL.device)
        return RelativePlan(kind=kind, rows_W=rows, blocks=blocks)
    return RelativePlan(kind=kind, rows_W=rows, bias_BLL=mask_bias(layout.block_mask_BLL, dtype))


def attend_relative(
    qkv_BLC: Tensor, pos_key_RD: Tensor | None, pos_query_RD: Tensor | None, plan: RelativePlan, *, heads: int, dropout: float
) -> Tensor:
    """Disentangled softmax attention over queries, keys and values stacked on the last axis (C = 3D); returns x_BLD.

    The score of query i and key j is (q_i . k_j + q_i . pos_key[row] + k_j . pos_query[row]) / sqrt(H * (1 + tables given)) where
    row = plan's for the distance i - j. The tables are the layer's projections of the position table, heads on the last axis as
    in qkv; one that is None leaves its term out. `dropout` of probabilities; 0 = none.
    """
    b, length, channels = qkv_BLC.shape
    terms = 1 + (pos_key_RD is not None) + (pos_query_RD is not None)
    factor = (channels // (3 * heads) * terms) ** -0.5
    if plan.chunks:
        call = Call(chunks=plan.chunks, heads=heads, factor=factor, rate=dropout, square=plan.kind == "block")
        given: list[Tensor | None] = [qkv_BLC, pos_key_RD, pos_query_RD]
        if not torch.is_grad_enabled():  # so that nothing is kept for a backward pass
            given = [None if x is None else x.detach() for x in given]
        return SkewedAttention.apply(*given, plan.rows_W, call)
    q, k, v = qkv_BLC.view(b, length, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    if plan.kind == "flex":
        assert not dropout, "FlexAttention has no dropout"
        x_BNLH = _flex(q, k, v, (pos_key_RD, pos_query_RD), plan, factor)
        return x_BNLH.transpose(1, 2).reshape(b, length, channels // 3)
    assert plan.bias_BLL is not None
    scores = plan.bias_BLL[:, None]
    if pos_key_RD is not None:
        scores = scores + _skew(torch.matmul(q, _heads(pos_key_RD, plan.rows_W, heads)) * factor)
    if pos_query_RD is not None:
        scores = scores + _skew(torch.matmul(k, _heads(pos_query_RD, plan.rows_W.flip(0), heads)) * factor).transpose(-1, -2)
    if plan.kind == "sdpa":
        x_BNLH = F.scaled_dot_product_attention(q, k, v, attn_mask=scores, dropout_p=dropout, scale=factor)
    else:
        scores = torch.matmul(q, k.transpose(-1, -2)) * factor + scores
        x_BNLH = torch.matmul(drop(torch.softmax(scores, dim=-1), dropout, True), v)
    return x_BNLH.transpose(1, 2).reshape(b, length, channels // 3)


def _heads(table_RD: Tensor, rows_W: Tensor, heads: int) -> Tensor:
    """The table's row of every distance, a matrix [N, H, W] for products with queries or keys."""
    return lookup(rows_W, table_RD).view(len(rows_W), heads, -1).permute(1, 2, 0)


def _skew(x_BNLW: Tensor) -> Tensor:
    """From distances to positions: out[..., i, j] = x[..., i, j - i + L - 1]."""
    b, heads, length, width = x_BNLW.shape
    flat = F.pad(x_BNLW, (0, 1)).flatten(2)  # a row's start moves by W + 1, its distances by W: the difference is the skew
    return flat[..., length - 1 : length - 1 + length * width].view(b, heads, length, width)[..., :length]


def _flex(q: Tensor, k: Tensor, v: Tensor, tables: tuple[Tensor | None, Tensor | None], plan: RelativePlan, factor: float) -> Tensor:
    """FlexAttention whose scores look the relative terms up by distance; returns x_BNLH."""
    heads, length = q.shape[1], q.shape[2]
    rows_W = plan.rows_W

    def scores_of(x_BNLH: Tensor, table_RD: Tensor | None) -> Tensor | None:
        if table_RD is None:
            return None
        return torch.matmul(x_BNLH, table_RD.view(len(table_RD), heads, -1).permute(1, 2, 0)) * factor

    c2p_BNLR, p2c_BNLR = scores_of(q, tables[0]), scores_of(k, tables[1])

    def relative(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        row = rows_W[j - i + length - 1]
        if c2p_BNLR is not None:
            score = score + c2p_BNLR[b, h, i, row]
        if p2c_BNLR is not None:
            score = score + p2c_BNLR[b, h, j, row]
        return score

    fused = flex_attention if torch.compiler.is_compiling() or q.device.type == "cpu" else _compiled_flex()
    return fused(q, k, v, score_mod=relative, block_mask=plan.blocks, scale=factor)


@functools.cache
def _compiled_flex() -> Callable[..., Any]:
    """One kernel instead of plain operations; compiled at the first call."""
    return torch.compile(flex_attention, dynamic=False)


def _chunks(layout: Layout, kind: RelativeKind, dtype: torch.dtype) -> tuple[Chunk, ...]:
    """Cover the rows: whole rows with a mask, as many at once as the cache takes, or piece by piece."""
    rows, length = layout.pieces_BL.shape
    spans = cover(layout)
    if kind == "spans" or (len(spans) > rows and len(spans) * PIECE_COST <= rows * length**2):
        return tuple(Chunk(start=row * length + start, count=1, length=end - start) for row, start, end in spans)
    bias = mask_bias(layout.block_mask_BLL, dtype) if len(spans) > rows else None
    step = max(1, CHUNK // length)
    return tuple(
        Chunk(start=row * length, count=min(step, rows - row), length=length, bias=None if bias is None else bias[row : row + step])
        for row in range(0, rows, step)
    )
