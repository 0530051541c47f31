"""A node of a stage, from its settings."""

from collections.abc import Mapping

from kitae.core.config import Config
from kitae.core.graph import Node
from kitae.core.paths import locate
from kitae.stages.table import stage


def make(name: str, stage_name: str, config: Config, parents: Mapping[str, str]) -> Node:
    """A node of a stage, with the outside inputs that the stage names."""
    made_by = stage(stage_name)
    sources = {path: locate(path) for path in made_by.sources(config)}
    return Node(
        name=name,
        stage=stage_name,
        version=made_by.version,
        config=config,
        parents=dict(parents),
        sources=sources,
        trained=made_by.trained,
    )
