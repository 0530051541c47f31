"""Translate state dicts between our parameter names and Hugging Face's, both ways, from one table.

A row is `(ours, theirs)` and names modules; their `.weight` and `.bias` follow, a bare name is a parameter itself. `{}` stands
for a layer number. When `theirs` is a tuple, our parameter is those tensors stacked on dim 0 (fused queries, keys, values).
"""

import itertools
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from kitae.core.errors import KitaeError

Rows = tuple[tuple[str, str | tuple[str, ...]], ...]
State = dict[str, Tensor]


def _leaves(rows: Rows, layers: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    for ours, theirs in rows:
        names = (theirs,) if isinstance(theirs, str) else theirs
        for number, leaf in itertools.product(range(layers) if "{}" in ours else (0,), ("", ".weight", ".bias")):
            yield ours.format(number) + leaf, tuple(name.format(number) + leaf for name in names)


def modern(state: Mapping[str, Tensor], *, where: str) -> State:
    """The same state with LayerNorm's names of the TensorFlow days (gamma, beta) replaced by weight and bias.

    Raises KitaeError for a weight that has both names.
    """
    renamed: State = {}
    for name, tensor in state.items():
        base = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if base in renamed:
            raise KitaeError(
                f"weight {base} is there twice, with its old name too", cure="use a folder that was saved at once", where=where
            )
        renamed[base] = tensor
    return renamed


def from_huggingface(state: Mapping[str, Tensor], rows: Rows, *, layers: int, where: str) -> State:
    """Our state dict. Raises KitaeError naming keys that no row explains, or weights of unlike shapes that ours is stacked from.

    Missing ones are the caller's to find.
    """
    rest, out = dict(state), {}
    for ours, theirs in _leaves(rows, layers):
        if all(name in rest for name in theirs):
            tensors = [rest.pop(name) for name in theirs]
            odd = next((i for i, tensor in enumerate(tensors) if tensor.shape != tensors[0].shape), None)
            if odd is not None:
                raise KitaeError(
                    f"weight {theirs[odd]} has the shape {tuple(tensors[odd].shape)}, {theirs[0]} {tuple(tensors[0].shape)}",
                    cure="use a folder whose config matches its weights",
                    where=where,
                )
            out[ours] = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
    if rest:
        raise KitaeError(
            f"{len(rest)} weights have no place in this model: {', '.join(sorted(rest)[:3])}{', ...' if len(rest) > 3 else ''}",
            cure="use a folder whose config.json matches its weights",
            where=where,
        )
    return out


def to_huggingface(state: Mapping[str, Tensor], rows: Rows, *, layers: int) -> State:
    """Hugging Face's state dict, without tied copies. The rows must explain every key."""
    rest = dict(state)
    out: State = {}
    for ours, theirs in _leaves(rows, layers):
        if ours in rest:
            out.update(zip(theirs, rest.pop(ours).chunk(len(theirs)), strict=True))
    assert not rest, f"no row for {sorted(rest)[:3]}"
    return out
