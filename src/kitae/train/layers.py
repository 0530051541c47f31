"""What the names of an encoder's weights say: which layer, whether of the embeddings, how many matrices in one."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch

_BLOCK = re.compile(r"(.*?)\bblocks\.(\d+)\.")
_EMBEDDINGS = re.compile(r"(.*?)\b(?:embed|embed_norm|project)\.")
_BESIDE = re.compile(r"(.*?)\b(?:relative|relative_norm|conv)\.")
_FUSED = re.compile(r"(.*\bblocks\.\d+\.(?:.*\.)?)(qkv|up)\.(?:weight|bias)")


class Place(NamedTuple):
    """Where a weight lies in its encoder."""

    stack: str
    """What stands before `blocks.` or `embed.` in the name: "discriminator.encoder."."""
    kind: str
    """"block", "embeddings", "beside" (what turns positions and neighbours into states beside DeBERTa's blocks) or "head"."""
    layer: int = 0
    """Number of the block from the bottom, which is 0."""


def place_of(name: str) -> Place:
    """Read a weight's place from its name."""
    if match := _BLOCK.match(name):
        return Place(match[1], "block", int(match[2]))
    for kind, pattern in (("beside", _BESIDE), ("embeddings", _EMBEDDINGS)):
        if match := pattern.match(name):
            return Place(match[1], kind)
    return Place("", "head")


def depths(names: Iterable[str]) -> dict[str, int]:
    """Number of blocks of every stack: an encoder has one, a two-tower encoder two, a pair of models one or two each."""
    found: dict[str, int] = {}
    for place in map(place_of, names):
        if place.kind == "block":
            found[place.stack] = max(found.get(place.stack, 0), place.layer + 1)
    return found


def layer_scales(names: Iterable[str], decay: float, *, electra: bool = False) -> dict[str, float]:
    """Factor of the learning rate per weight: 1 for heads, decay for the top layer, then decay per layer down to the embeddings.

    A shared table goes with the model that its first name belongs to. `electra` counts as google-research/electra does
    (model/optimization.py, _get_layer_lrs, where a pooler that is not there takes a place): decay**2 for the top layer.
    """
    names = list(names)
    found = depths(names)

    def below_head(place: Place) -> int:
        if place.kind == "head":
            return 0
        if place.kind == "block":
            return found[place.stack] - place.layer + electra
        return max((depth for stack, depth in found.items() if stack.startswith(place.stack)), default=0) + 1 + electra

    return {name: decay ** below_head(place_of(name)) for name in names}


def hidden_matrix(name: str, shape: torch.Size) -> bool:
    """Whether this is a matrix of a block, which turns hidden states into hidden states: no table, no projection of one, no head."""
    return len(shape) == 2 and place_of(name).kind == "block"


def fused(shapes: Mapping[str, torch.Size]) -> dict[str, int]:
    """How many weights lie in one, above each other, by name: 3 in queries, keys and values, 2 in a gated feed-forward part."""
    parts: dict[str, int] = {}
    for name in shapes:
        match = _FUSED.fullmatch(name)
        if match is None:
            continue
        rows, columns = shapes[f"{match[1]}{match[2]}.weight"]
        if match[2] == "qkv" and rows == 3 * columns:
            parts[name] = 3
        elif match[2] == "up" and rows == 2 * shapes.get(f"{match[1]}down.weight", (0, 0))[1]:
            parts[name] = 2
    return parts
