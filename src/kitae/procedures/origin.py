"""What is known of how a model folder was made: the settings that its held-out text was measured with while it was trained."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kitae.core.artifact import MANIFEST
from kitae.core.graph import fingerprint

STARTED = "started.json"
"""Stands for the manifest while a training is not finished."""
ABOVE = 4
"""How many folders above a checkpoint or an export are looked at."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Settings of the node that trained a model, and of its data; empty where the folder does not say them."""

    objective: str | None = None
    objective_config: Mapping[str, object] = field(default_factory=dict)
    dataset: Mapping[str, object] = field(default_factory=dict)
    corpus: Mapping[str, object] = field(default_factory=dict)


def origin(place: Path) -> Origin:
    """Of the weights in a folder: a checkpoint of a run of this toolkit, or an export beside others in a recipe's output."""
    place = place.resolve()
    for folder in (place, *place.parents[:ABOVE]):
        facts = _facts(folder)
        lineage = facts.get("lineage")
        if not isinstance(lineage, dict):
            continue
        inside = place.relative_to(folder).parts
        name = inside[0] if inside and inside[0] in lineage else str(facts.get("node"))  # an export has a folder for each model
        node = lineage.get(name)
        if isinstance(node, dict) and node.get("stage") == "pretrain":
            return _of(lineage, node)
    return Origin()


def _of(lineage: Mapping[str, Any], node: Mapping[str, Any]) -> Origin:
    named = {digest: other for other in lineage.values() if (digest := _digest(other)) is not None}
    dataset = named.get(node.get("parents", {}).get("dataset"), {})
    corpus = named.get(dataset.get("parents", {}).get("corpus"), {})
    config = node.get("config", {})
    last = ((config.get("train") or {}).get("phases") or [{}])[-1]  # whose rows the last measurement was in
    length = {} if last.get("max_length") is None else {"max_length": last["max_length"]}
    return Origin(
        objective=config.get("objective"),
        objective_config=config.get("objective_config", {}),
        dataset={**dataset.get("config", {}), **length},
        corpus=corpus.get("config", {}),
    )


def _digest(identity: object) -> str | None:
    """The fingerprint of a node that a lineage describes; its children name it so."""
    return fingerprint({key: value for key, value in identity.items() if key != "input_paths"}) if isinstance(identity, dict) else None


def _facts(folder: Path) -> Mapping[str, Any]:
    """What a folder says it was made from; nothing when it is no artifact of a recipe, or its record is damaged."""
    for name in (MANIFEST, STARTED):
        try:
            raw = json.loads((folder / name).read_bytes())
        except (OSError, ValueError):
            continue
        facts = raw.get("facts", raw) if isinstance(raw, dict) else {}
        if isinstance(facts, dict) and "lineage" in facts:
            return facts
    return {}
