"""Weights that are not trained."""

from collections.abc import Iterable, Mapping

from torch import nn

from kitae.core.errors import KitaeError
from kitae.train.layers import depths, place_of
from kitae.train.rule_config import FreezeConfig


def freeze(module: nn.Module, config: FreezeConfig) -> None:
    """Take the gradient from the weights that `config` names, before any forward pass. Raises KitaeError when the model lacks them."""
    named = dict(module.named_parameters())
    for name in frozen_names(named, config):
        named[name].requires_grad_(False)


def frozen_names(names: Iterable[str], config: FreezeConfig) -> set[str]:
    """Which of a model's weights do not train. Raises KitaeError when the model has no such embeddings or too few layers.

    What frozen layers read beside their input is frozen with them, so that they go on to compute the same.
    """
    names = list(names)
    check_depths(config, {stack.strip(".") or "the encoder": depth for stack, depth in depths(names).items()} or {"the model": 0})

    stacks = tuple(stack for stack in depths(names) if stack)

    def chosen(name: str) -> bool:
        place = place_of(name)
        if config.encoder:
            return place.kind != "head" or name.startswith(stacks)  # a last norm is no part of a layer
        if place.kind == "block":
            return place.layer < config.layers
        return config.layers > 0 if place.kind == "beside" else config.embeddings and place.kind == "embeddings"

    frozen = {name for name in names if chosen(name)}
    if config.embeddings and not any(place_of(name).kind == "embeddings" for name in frozen):
        raise KitaeError("freeze.embeddings = true, but the model has no embeddings", cure="set freeze.layers only")
    return frozen


def check_depths(config: FreezeConfig, found: Mapping[str, int]) -> None:
    """Refuse to freeze more layers than a model has. `found`: number of layers by what messages call the model."""
    for owner, depth in sorted(found.items()):
        if config.layers > depth:
            what = f"freeze.layers = {config.layers}, but {owner} has {depth} layers"
            raise KitaeError(what, cure=f"freeze at most {min(found.values())}")
