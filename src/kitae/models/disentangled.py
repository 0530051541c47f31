"""Disentangled attention (DeBERTa, arXiv:2006.03654): scores see content and relative position, each through projections of its own.

Shapes: B rows, L positions of a row, N heads, H size of a head, D = N * H, R rows of a position table, W = 2L - 1 distances.
A distance is (position of the query) - (position of the key) within the row, so packed rows need nothing of their own: the mask cuts
what lies between pieces, and masked probabilities are exact zeros on every path.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kitae.models.attention import cover
from kitae.models.layers import dropout as drop
from kitae.models.layers import lookup
from kitae.models.skewed import Call, Chunk, SkewedAttention
from kitae.tensor.batch import Layout

LONG_ROW = 512
"""Rows longer than this go piece by piece on a CPU, and dropout draws no bytes for what lies between pieces."""
LEAST_PIECE = 64
"""Shorter rows, whose pieces are shorter than this in the mean, go whole: small products cost more than the masked part of large ones."""
CHUNK = 512
"""Rows go together up to this number of positions."""

RelativeKind = Literal["block", "spans", "dense"]


@dataclass(frozen=True, kw_only=True)
class RelativePlan:
    """What every layer needs of one batch, worked out once."""

    kind: RelativeKind
    """block: few passes over rows or pieces (CPU, short rows); spans: the same piece by piece (CPU, long rows); dense: plain operations,
    the reference of the tests and the form that is compiled on a CPU."""
    rows_W: Tensor
    """int64: the row of the position tables for the distances L - 1 (first) to 1 - L (last), the order of keys before a query."""
    bias_BLL: Tensor | None = None
    """0 where a position may attend, -inf elsewhere (kind dense)."""
    chunks: tuple[Chunk, ...] = ()
    """Rows or pieces that cover all positions (kinds block and spans)."""


def log_bucket(distances: Tensor, *, buckets: int, max_distance: int) -> Tensor:
    """The bucket (int64, in 1 - buckets ... buckets - 1) of signed distances: exact up to buckets / 2, then wider and wider.

    A distance of max_distance - 1 has bucket buckets - 1. As DeBERTa's `make_log_bucket_position`, in fp64.
    """
    half = buckets // 2
    sizes = distances.abs().clamp(min=1).double()
    wide = torch.ceil((sizes / half).log() / math.log((max_distance - 1) / half) * (half - 1)) + half
    return torch.where(sizes <= half, distances, distances.sign() * wide.long())


def make_relative_plan(layout: Layout, *, kind: RelativeKind, dtype: torch.dtype, buckets: int, max_distance: int) -> RelativePlan:
    """Work out masks, and the row of the position tables for every distance.

    With `buckets` > 0 (DeBERTa-v2 and v3: `position_buckets`) tables have R = 2 * buckets rows and distances up to `max_distance`
    share them by their logarithm; with 0 (v1, or v2 without buckets) R = 2 * max_distance. `max_distance` is
    `max_relative_positions`, or `max_position_embeddings` where that is below 1. Distances beyond the ends take the rows at the ends.
    """
    chunks = _chunks(layout, kind, dtype) if kind in ("block", "spans") else ()
    device = layout.pieces_BL.device
    length = max((chunk.length for chunk in chunks), default=layout.pieces_BL.shape[1])
    distances = torch.arange(length - 1, -length, -1)
    if buckets:
        distances = log_bucket(distances, buckets=buckets, max_distance=max_distance)
    span = buckets or max_distance
    rows = (distances + span).clamp(0, 2 * span - 1).to(device)
    if chunks:
        return RelativePlan(kind=kind, rows_W=rows, chunks=chunks)
    mask = layout.block_mask_BLL
    bias = torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill_(~mask, -math.inf)
    return RelativePlan(kind=kind, rows_W=rows, bias_BLL=bias)


def attend_relative(
    qkv_BLC: Tensor, pos_key_RD: Tensor | None, pos_query_RD: Tensor | None, plan: RelativePlan, *, heads: int, dropout: float
) -> Tensor:
    """Disentangled softmax attention over queries, keys and values stacked on the last axis (C = 3D); returns x_BLD.

    The score of query i and key j is (q_i . k_j + q_i . pos_key[row] + k_j . pos_query[row]) / sqrt(H * (1 + tables given)) where
    row = plan's for the distance i - j. The tables are the layer's projections of the position table, heads on the last axis as
    in qkv; one that is None leaves its term out. `dropout` of probabilities; 0 = none.
    """
    b, length, channels = qkv_BLC.shape
    factor = score_factor(channels // (3 * heads), pos_key_RD, pos_query_RD)
    if plan.chunks:
        call = Call(chunks=plan.chunks, heads=heads, factor=factor, rate=dropout, square=plan.kind == "block")
        return SkewedAttention.apply(qkv_BLC, pos_key_RD, pos_query_RD, plan.rows_W, call)
    q, k, v = qkv_BLC.view(b, length, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    scores = torch.matmul(q, k.transpose(-1, -2))
    if pos_key_RD is not None:
        scores = scores + _skew(torch.matmul(q, _heads(pos_key_RD, plan.rows_W, heads)))
    if pos_query_RD is not None:
        scores = scores + _skew(torch.matmul(k, _heads(pos_query_RD, plan.rows_W.flip(0), heads))).transpose(-1, -2)
    scores = scores * factor
    if plan.bias_BLL is not None:
        scores = scores + plan.bias_BLL[:, None]
    probabilities = drop(torch.softmax(scores, dim=-1), dropout, True)
    return torch.matmul(probabilities, v).transpose(1, 2).reshape(b, length, channels // 3)


def score_factor(head_size: int, pos_key_RD: Tensor | None, pos_query_RD: Tensor | None) -> float:
    """One over the square root of the head size times the number of terms in a score."""
    terms = 1 + (pos_key_RD is not None) + (pos_query_RD is not None)
    return float((head_size * terms) ** -0.5)


def _heads(table_RD: Tensor, rows_W: Tensor, heads: int) -> Tensor:
    """The table's row of every distance, a matrix [N, H, W] for products with queries or keys."""
    return lookup(rows_W, table_RD).view(len(rows_W), heads, -1).permute(1, 2, 0)


def _skew(x_BNLW: Tensor) -> Tensor:
    """From distances to positions: out[..., i, j] = x[..., i, j - i + L - 1]."""
    b, heads, length, width = x_BNLW.shape
    flat = F.pad(x_BNLW, (0, 1)).flatten(2)  # a row's start moves by W + 1, its distances by W: the difference is the skew
    return flat[..., length - 1 : length - 1 + length * width].view(b, heads, length, width)[..., :length]


def _chunks(layout: Layout, kind: RelativeKind, dtype: torch.dtype) -> tuple[Chunk, ...]:
    """Cover the rows: whole rows with a mask, as many at once as the cache takes, or piece by piece."""
    rows, length = layout.pieces_BL.shape
    spans = cover(layout)
    if kind == "spans" or (len(spans) > rows and len(spans) * LEAST_PIECE <= rows * length):
        return tuple(Chunk(start=row * length + start, count=1, length=end - start) for row, start, end in spans)
    bias = None
    if len(spans) > rows:
        mask = layout.block_mask_BLL
        bias = torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, -math.inf)
    step = max(1, CHUNK // length)
    return tuple(
        Chunk(start=row * length, count=min(step, rows - row), length=length, bias=None if bias is None else bias[row : row + step])
        for row in range(0, rows, step)
    )
