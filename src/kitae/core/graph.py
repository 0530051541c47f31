"""The recipe as a graph of named nodes, and the fingerprints that tell what is up to date."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kitae.core.artifact import digest_json
from kitae.core.config import Config


@dataclass(frozen=True, kw_only=True)
class Node:
    """One piece of work: a stage with its settings, outside inputs, and the nodes whose artifacts it reads."""

    name: str
    """Unique, and its folder below the output: "corpus", "adapt.dataset", "finetune/kyoto/adapt/1"."""
    stage: str
    """A key of the stage table."""
    version: int
    """The stage's version: raised when the same settings give another result."""
    config: Config
    """Resolved settings."""
    parents: Mapping[str, str]
    """Role -> node name."""
    sources: Mapping[str, Path]
    """What the recipe calls an outside input -> where it lies; its content enters the fingerprint."""
    trained: bool = False
    """Whether the artifact holds trained weights, which are never replaced silently."""


def order(nodes: Sequence[Node]) -> list[Node]:
    """Parents before children, otherwise in the given order."""
    by_name = {node.name: node for node in nodes}
    ordered: dict[str, Node] = {}

    def visit(node: Node) -> None:
        if node.name not in ordered:
            for parent in node.parents.values():
                visit(by_name[parent])
            ordered[node.name] = node

    for node in nodes:
        visit(node)
    return list(ordered.values())


def ancestors(nodes: Sequence[Node], names: Sequence[str]) -> list[Node]:
    """The named nodes and everything they need, in order."""
    by_name = {node.name: node for node in nodes}
    needed: set[str] = set()
    stack = list(names)
    while stack:
        name = stack.pop()
        if name not in needed:
            needed.add(name)
            stack.extend(by_name[name].parents.values())
    return [node for node in order(nodes) if node.name in needed]


def identity(node: Node, seed: int, inputs: Sequence[str], parents: Mapping[str, str]) -> dict[str, object]:
    """Everything that decides a node's result: stage, version, semantic settings, seed, contents, parents' fingerprints.

    Of an outside input only the content counts, not where it lies.
    """
    return {
        "stage": node.stage,
        "version": node.version,
        "seed": seed,
        "config": node.config.semantic(),
        "inputs": list(inputs),
        "parents": dict(parents),
    }


def fingerprint(of: Mapping[str, object]) -> str:
    """sha256 of an identity."""
    return digest_json(of)


def differences(old: object, new: object, path: str) -> list[str]:
    """The keys in which two JSON values differ, with both values: 'corpus.holdout: 0.02 -> 0.05'."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*new, *(key for key in old if key not in new)]
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}.{key}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i, pair in enumerate(zip(old, new, strict=True)) for line in differences(*pair, f"{path}[{i}]")]
    return [] if old == new else [f"{path}: {_short(old)} -> {_short(new)}"]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
