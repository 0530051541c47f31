"""Words from their characters (El Boukkouri et al. 2020, arXiv:2010.10392; after Kim et al. 2016 and ELMo).

Character table -> convolutions of several widths -> greatest value over all places -> highway layers -> projection. Every place of a
row takes part, padding too, as in the authors' code (helboukkouri/character-bert, modeling/character_cnn.py).

Shapes: W words, C characters of a row, P places, J = widest kernel * width of a character, F filters, D hidden size.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kitae.models.encoder import working_dtype
from kitae.models.layers import lookup
from kitae.tokenization.characters import PAD, ROWS

CHUNK = 128
"""Words at a time on a CPU, of like length, so that the working memory stays in the cache and few places are computed for nothing."""
ACTIVATIONS = {"relu": F.relu, "tanh": torch.tanh}


class Highway(nn.Module):
    """x -> g * x + (1 - g) * relu(A x), g = sigmoid(B x) (Srivastava et al. 2015, arXiv:1505.00387). A and B are one matrix."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.both = nn.Linear(width, 2 * width)

    def forward(self, x_WF: Tensor) -> Tensor:
        """One layer; returns x_WF."""
        new_WF, gate_WF = self.both(x_WF).chunk(2, dim=-1)
        return torch.lerp(F.relu(new_WF), x_WF, torch.sigmoid(gate_WF))


class CharacterCnn(nn.Module):
    """Characters of words -> vectors of words."""

    def __init__(
        self,
        *,
        filters: Sequence[tuple[int, int]],
        width: int,
        activation: Literal["relu", "tanh"],
        highways: int,
        out: int,
        deviation: float,
    ) -> None:
        """`filters`: (characters that a kernel spans, number of such kernels); `width` of a character's vector, `out` of a word's."""
        super().__init__()
        self.activation, self.deviation = ACTIVATIONS[activation], deviation
        total = sum(count for _, count in filters)
        self.characters = nn.Embedding(ROWS, width)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, count, size) for size, count in filters)
        self.highways = nn.ModuleList(Highway(total) for _ in range(highways))
        self.project = nn.Linear(total, out)

    def initialize(self, generator: torch.Generator) -> None:
        """New weights: characters from N(0, 1) with both paddings 0 (the authors' later code), highways that carry (ELMo), BERT's rule."""
        for parameter in self.parameters():
            if parameter.ndim == 1:
                parameter.zero_()
            else:
                nn.init.trunc_normal_(parameter, std=self.deviation, a=-2 * self.deviation, b=2 * self.deviation, generator=generator)
        self.characters.weight.normal_(generator=generator)
        self.characters.weight[[0, PAD + 1]] = 0
        for layer in self.highways:
            bias = layer.both.bias
            bias[len(bias) // 2 :] = 1

    def forward(self, chars_WC: Tensor) -> Tensor:
        """Vectors x_WD of words whose characters these are (int64).

        A row that ends in equal characters (the padding) has equal windows there, of which one is computed.
        """
        x_WF = self._pooled(chars_WC)
        for layer in self.highways:
            x_WF = layer(x_WF)
        return self.project(x_WF)

    def _pooled(self, chars_WC: Tensor) -> Tensor:
        """x_WF: what every filter finds at its best place, activated."""
        kernel_FJ, bias_F = self._kernels()
        order_W, chunks = _by_length(chars_WC)
        pooled = [self._chunk(chunk_WC, places, kernel_FJ) for chunk_WC, places in chunks]
        best_WF = torch.cat(pooled)
        x_WF = self.activation(best_WF + bias_F.to(best_WF.dtype))
        return x_WF if order_W is None else x_WF.index_select(0, order_W.argsort())

    def _kernels(self) -> tuple[Tensor, Tensor]:
        """All kernels as rows of the widest one's size, filled up with zeros, so that all widths are one matrix product."""
        widest = max(layer.kernel_size[0] for layer in self.convolutions)
        kernels = [F.pad(layer.weight.transpose(1, 2), (0, 0, 0, widest - layer.kernel_size[0])).flatten(1) for layer in self.convolutions]
        return torch.cat(kernels), torch.cat([layer.bias for layer in self.convolutions])

    def _chunk(self, chars_WC: Tensor, places: int, kernel_FJ: Tensor) -> Tensor:
        """x_WF of some words, from the first `places` places."""
        width = self.characters.embedding_dim
        widest = kernel_FJ.shape[1] // width
        chars = chars_WC[:, : places + widest - 1]
        if chars.shape[1] < places + widest - 1:  # the last places are those of narrow kernels alone
            chars = F.pad(chars, (0, places + widest - 1 - chars.shape[1]))
        table = self.characters.weight
        windows_WPJ = lookup(chars.unfold(1, widest, 1), table).flatten(2)
        dtype = working_dtype(table)
        outside_PF = self._outside(places, chars_WC.shape[1], windows_WPJ.device)
        return _BestPlace.apply(windows_WPJ.to(dtype), kernel_FJ.to(dtype), outside_PF)

    def _outside(self, places: int, length: int, device: torch.device) -> Tensor | None:
        """bool [P, F]: where a kernel would reach beyond the row; None when none does."""
        widest = max(layer.kernel_size[0] for layer in self.convolutions)
        if places <= length - widest + 1:
            return None
        sizes_F = torch.cat([torch.full((layer.out_channels,), layer.kernel_size[0], device=device) for layer in self.convolutions])
        return torch.arange(places, device=device)[:, None] + sizes_F > length


def _by_length(chars_WC: Tensor) -> tuple[Tensor | None, Iterator[tuple[Tensor, int]]]:
    """(order of the words, or None for their own; some words and how many places of them differ) on a CPU in chunks of like length."""
    length = chars_WC.shape[1]
    if chars_WC.device.type != "cpu":  # one large product, and no waiting for lengths
        return None, iter([(chars_WC, length)])
    ends = chars_WC[:, 1:] != chars_WC[:, :-1]
    sizes_W = (ends * torch.arange(1, length)).amax(dim=1) if length > 1 else torch.zeros(len(chars_WC), dtype=torch.int64)
    sizes_W, order_W = sizes_W.sort(stable=True)
    parts = zip(chars_WC.index_select(0, order_W).split(CHUNK), sizes_W.split(CHUNK), strict=True)
    return order_W, ((chunk, min(int(sizes[-1]) + 1, length)) for chunk, sizes in parts)


class _BestPlace(torch.autograd.Function):
    """(windows_WPJ @ kernel_JF).amax over P. Equal best places share the gradient. torch's own backward takes five times as long."""

    @staticmethod
    def forward(ctx: Any, windows_WPJ: Tensor, kernel_FJ: Tensor, outside_PF: Tensor | None) -> Tensor:
        found_WPF = windows_WPJ @ kernel_FJ.T
        if outside_PF is not None:
            found_WPF.masked_fill_(outside_PF, float("-inf"))
        best_WF = found_WPF.amax(dim=1)
        ctx.save_for_backward(windows_WPJ, kernel_FJ, found_WPF, best_WF)
        return best_WF

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_WF: Tensor) -> tuple[Tensor, Tensor, None]:
        windows_WPJ, kernel_FJ, found_WPF, best_WF = ctx.saved_tensors
        share_WPF = torch.eq(found_WPF, best_WF[:, None], out=torch.empty_like(found_WPF))
        share_WPF.mul_((grad_WF / share_WPF.sum(dim=1))[:, None])
        flat = share_WPF.flatten(0, 1)
        return share_WPF @ kernel_FJ, flat.T @ windows_WPJ.flatten(0, 1), None
