"""Disentangled attention on a CPU: few passes, over matrices that stay in the cache.

Shapes: B rows, L positions of a row, N heads, H size of a head, D = N * H, C = 3D, R rows of a position table. Of a chunk: G pieces or
rows of S positions, M = G * N matrices. W = 2 * (longest S) - 1 distances; T positions of a block, U = S + T the rows that it meets.

A relative term is the product of a block of T queries (or keys) with the rows of the table that its S + T - 1 distances need, and a
strided view of that product (`_band`), in which neighbours lie side by side: neither gather nor scatter. Products with the R rows
themselves would be fewer where distances share rows, but need both. One row more than needed makes U even where S is: products are faster.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kitae.models.layers import Drops, drop, keep_drops, kept_drops, scaled_product

BLOCK = 128
"""Most positions of a block: a short one wastes no products on distances that it has not, a long one makes larger products."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Pieces or rows one after another in the flattened rows, each of which attends within itself."""

    start: int
    """First position in the flattened rows."""
    count: int
    """How many; more than one only for whole rows."""
    length: int
    """Positions of each."""
    bias: Tensor | None = None
    """[count, length, length]: 0 where a position may attend, -inf elsewhere; None = everywhere."""

    @property
    def places(self) -> slice:
        """The positions in the flattened rows."""
        return slice(self.start, self.start + self.count * self.length)


@dataclass(frozen=True, kw_only=True)
class Call:
    """What stays the same over the chunks of a call."""

    chunks: tuple[Chunk, ...]
    heads: int
    factor: float
    """Of the scores."""
    rate: float
    """Of dropout on probabilities; 0 = none."""
    square: bool
    """Whether dropout draws a byte for every pair of positions of a row, as the dense form does; else only for those that may attend."""


class PairDrops:
    """Which probabilities are dropped: a random byte each, compared again in the backward pass (in fp32 a mask takes four times that)."""

    def __init__(self, call: Call, rows: int, length: int, drops: Drops) -> None:
        """`rows` of `length` positions: B and L."""
        self.rows, self.length, self.heads = rows, length, call.heads
        self.square = call.square
        self.bytes, self.least, self.factor = drops
        self.split = () if call.square else self.bytes.split(_pairs(call))

    @classmethod
    def draw(cls, call: Call, rows: int, length: int) -> "PairDrops":
        """New bytes."""
        count = rows * length**2 * call.heads if call.square else sum(_pairs(call))
        return cls(call, rows, length, drop(count, rate=call.rate))

    @property
    def drops(self) -> Drops:
        """The bytes, as they are kept."""
        return Drops(self.bytes, self.least, self.factor)

    def keep(self, number: int, chunk: Chunk, dtype: torch.dtype) -> Tensor:
        """Ones (kept) and zeros [M, S, S] of a chunk."""
        shape = (chunk.count, self.heads, chunk.length, chunk.length)
        if self.square:
            row, start = divmod(chunk.start, self.length)
            inside = slice(start, start + chunk.length)
            drawn = self.bytes.view(self.rows, self.heads, self.length, self.length)[row : row + chunk.count, :, inside, inside]
        else:
            drawn = self.split[number].view(shape)
        keep = torch.empty(shape, dtype=dtype)
        return torch.ge(drawn, self.least, out=keep).view(-1, chunk.length, chunk.length)


def _pairs(call: Call) -> list[int]:
    """Probabilities of each chunk."""
    return [chunk.count * chunk.length**2 * call.heads for chunk in call.chunks]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A position table with a row for every distance (and one more), for each matrix of the largest chunk."""

    rows: Tensor
    """[M, W + 1, H]."""
    columns: Tensor
    """[M, H, W + 1], in the memory's order that products of queries or keys with it are fast in."""

    @classmethod
    def spread(cls, table_RD: Tensor, rows_W: Tensor, call: Call) -> "Table":
        """Look the distances up, and part the heads."""
        copies = max(chunk.count for chunk in call.chunks)
        places = torch.cat((rows_W, rows_W[-1:]))
        rows = table_RD.detach().index_select(0, places).view(len(places), call.heads, -1).transpose(0, 1).repeat(copies, 1, 1)
        columns = rows.transpose(1, 2)
        return cls(rows=rows, columns=columns.contiguous() if rows.dtype == torch.bfloat16 else columns)

    def windows(self, chunk: Chunk) -> Iterator[tuple[slice, slice]]:
        """Of every block of a chunk: its positions, and the U rows of the table that it meets."""
        longest = self.rows.shape[1] // 2
        for start in range(0, chunk.length, BLOCK):
            end = min(start + BLOCK, chunk.length)
            yield slice(start, end), slice(longest - end, longest - start + chunk.length)


def _band(x_MTU: Tensor, length: int) -> Tensor:
    """The view [M, T, S] of products of a block with its window: out[m, a, b] = x[m, a, b - a + T - 1]."""
    matrices, block, width = x_MTU.shape
    return x_MTU.as_strided((matrices, block, length), (block * width, width - 1, 1), block - 1)


def _parts(flat_PC: Tensor, chunk: Chunk, heads: int, parts: int) -> Tensor:
    """A chunk's heads [parts, M, S, H] of positions with `parts` vectors each."""
    flat = flat_PC[chunk.places].view(chunk.count, chunk.length, parts, heads, -1)
    return flat.permute(2, 0, 3, 1, 4).reshape(parts, chunk.count * heads, chunk.length, -1)


def _put(flat_PC: Tensor, chunk: Chunk, x_KMSH: Tensor) -> None:
    """The inverse of `_parts`, into a place of `flat_PC`."""
    parts, matrices, length, size = x_KMSH.shape
    heads = matrices // chunk.count
    target = flat_PC[chunk.places].view(chunk.count, length, parts, heads, size)
    target.copy_(x_KMSH.view(parts, chunk.count, heads, length, size).permute(1, 3, 0, 2, 4))


def _probabilities(qkv: Tensor, chunk: Chunk, key: Table | None, query: Table | None, factor: float) -> Tensor:
    """Softmax of the scores [M, S, S]."""
    q, k, _ = qkv
    _, length, _ = q.shape
    scores = scaled_product(q, k.transpose(1, 2), factor)
    if key is not None:
        for block, term in _terms(q, chunk, key, factor):
            scores[:, block].add_(term)
    if query is not None:
        for block, term in _terms(k, chunk, query, factor):
            across = term.transpose(1, 2)
            scores[:, :, block].add_(scores.new_empty(across.shape).copy_(across))  # adding what lies across takes longer than both
    if chunk.bias is not None:
        scores.view(chunk.count, -1, length, length).add_(chunk.bias[:, None])
    return torch.softmax(scores, dim=-1)


def _terms(x_MSH: Tensor, chunk: Chunk, table: Table, factor: float) -> Iterator[tuple[slice, Tensor]]:
    """Of every block of queries (or keys) x: its positions, and its scores [M, T, S] with the distances to all positions."""
    for block, window in table.windows(chunk):
        yield block, _band(scaled_product(x_MSH[:, block], table.columns[: len(x_MSH), :, window], factor), chunk.length)


class SkewedAttention(torch.autograd.Function):
    """Scores of three terms -> mask -> softmax -> dropout -> values. Keeps the probabilities and the random bytes.

    Inputs: qkv_BLC, the projected position tables key_RD and query_RD (either may be None), rows_W (their row for each distance, keys
    before the query first), and the Call. Half precision rounds each term of a score; the softmax works in fp32 inside torch. Gradients
    of the tables are added up in fp32, chunk after chunk.
    """

    @staticmethod
    def forward(ctx: Any, qkv_BLC: Tensor, key_RD: Tensor | None, query_RD: Tensor | None, rows_W: Tensor, call: Call) -> Tensor:
        rows, length, channels = qkv_BLC.shape
        flat = qkv_BLC.reshape(rows * length, channels)
        key = None if key_RD is None else Table.spread(key_RD, rows_W, call)
        query = None if query_RD is None else Table.spread(query_RD, rows_W.flip(0), call)
        drops = PairDrops.draw(call, rows, length) if call.rate else None
        out = qkv_BLC.new_empty(rows * length, channels // 3)
        kept = []
        for number, chunk in enumerate(call.chunks):
            qkv = _parts(flat, chunk, call.heads, 3)
            probabilities = _probabilities(qkv, chunk, key, query, call.factor)
            if any(ctx.needs_input_grad):
                kept.append(probabilities)
            if drops is not None:
                probabilities = drops.keep(number, chunk, probabilities.dtype).mul_(probabilities)
            _put(out, chunk, scaled_product(probabilities, qkv[2], 1.0 if drops is None else drops.factor)[None])
        keep_drops(ctx, None if drops is None else drops.drops, flat, key_RD, query_RD, rows_W, *kept)
        ctx.call, ctx.tables = call, (key, query)
        return out.view(rows, length, channels // 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BLD: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        (flat, key_RD, query_RD, rows_W, *kept), found = kept_drops(ctx)
        call = ctx.call
        drops = None if found is None else PairDrops(call, grad_BLD.shape[0], grad_BLD.shape[1], found)
        key, query = (None if table is None else TableGradient(table) for table in ctx.tables)
        grad_flat = grad_BLD.reshape(len(flat), -1)
        out = torch.empty_like(flat)
        for number, (chunk, probabilities) in enumerate(zip(call.chunks, kept, strict=True)):
            q, k, v = _parts(flat, chunk, call.heads, 3)
            (grad,) = _parts(grad_flat, chunk, call.heads, 1)
            factor = 1.0 if drops is None else drops.factor
            keep = None if drops is None else drops.keep(number, chunk, probabilities.dtype)
            scores = scaled_product(grad, v.transpose(1, 2), factor)
            if keep is not None:
                scores.mul_(keep)
                keep.mul_(probabilities)
            dropped = probabilities if keep is None else keep
            grad_v = scaled_product(dropped.transpose(1, 2), grad, factor)
            scores = torch._softmax_backward_data(scores, probabilities, -1, probabilities.dtype)
            grad_q = scaled_product(scores, k, call.factor)
            grad_k = scaled_product(scores.transpose(1, 2), q, call.factor)
            if key is not None:
                key.add(scores, q, grad_q, chunk, call.factor)
            if query is not None:
                query.add(_apart(scores).transpose(1, 2), k, grad_k, chunk, call.factor)
            _put(out, chunk, torch.stack((grad_q, grad_k, grad_v)))
        grad_key = None if key is None else key.gathered(rows_W, key_RD)
        grad_query = None if query is None else query.gathered(rows_W.flip(0), query_RD)
        return out.view(grad_BLD.shape[0], grad_BLD.shape[1], -1), grad_key, grad_query, None, None


def _apart(x_MSS: Tensor) -> Tensor:
    """The same with rows a little apart in memory: columns of rows whose size is a power of two share few lines of the cache."""
    matrices, length, _ = x_MSS.shape
    return x_MSS.new_empty(matrices, length, length + 16)[:, :, :length].copy_(x_MSS)


class TableGradient:
    """The gradient of a spread table, added up over chunks."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.sums = torch.zeros_like(table.rows, dtype=torch.promote_types(table.rows.dtype, torch.float32))

    def add(self, scores: Tensor, x_MSH: Tensor, grad_MSH: Tensor, chunk: Chunk, factor: float) -> None:
        """Pass the gradient of the scores [M, S, S] (x's positions first) on to x's gradient and to the table's sums."""
        matrices, length, _ = x_MSH.shape
        term = scores.new_empty(0)
        for block, window in self.table.windows(chunk):
            shape = (matrices, block.stop - block.start, window.stop - window.start)
            if term.shape != shape:
                term = scores.new_zeros(shape)  # blocks of one size have one band: what lies beside it stays 0
            _band(term, length).copy_(scores[:, block])
            grad_MSH[:, block].baddbmm_(term, self.table.rows[:matrices, window], alpha=factor)
            self.sums[:matrices, window].add_(scaled_product(term.transpose(1, 2), x_MSH[:, block], factor))

    def gathered(self, rows_W: Tensor, table_RD: Tensor) -> Tensor:
        """The gradient of the table itself: rows that several distances share get the sum, in a fixed order."""
        size = self.sums.shape[2]
        sums = self.sums[:, : len(rows_W)].reshape(-1, table_RD.shape[1] // size, len(rows_W), size)
        sums_WD = sums.sum(0).transpose(0, 1).reshape(len(rows_W), -1)
        return torch.ops.aten.embedding_dense_backward(sums_WD, rows_W, len(table_RD), -1, False).to(table_RD.dtype)
