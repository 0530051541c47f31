"""Settings as text: name, default, whether it is operational, and the documentation at the field."""

import typing
from collections.abc import Container, Iterator
from itertools import chain

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from kitae.core.config import Config, Operational
from kitae.core.duration import BatchSize, Duration
from kitae.core.errors import KitaeError, did_you_mean
from kitae.models.families import FAMILIES
from kitae.models.presets import PRESETS, fields
from kitae.objectives.table import OBJECTIVES
from kitae.procedures.measure import MeasureConfig
from kitae.procedures.predict import PredictConfig
from kitae.stages.table import STAGES, stage
from kitae.tasks.formats import FORMATS
from kitae.tasks.kinds import KINDS

MODELS = tuple(dict.fromkeys(preset.family for preset in PRESETS.values()))
"""Families of which a recipe can make a new model."""


def settings(name: str) -> tuple[str, Iterator[str]]:
    """(title, lines) of what can be set of a stage, an objective (`objective_config`), a model family (`config`), a kind of task
    (`kind_config`), a format of labelled files (`format_config`), or "predict".

    Raises KitaeError for an unknown name.
    """
    if name == "evaluate":
        head = ["", "kitae evaluate FOLDER TEXT, which measures any model on any text without training:"]
        return STAGES[name].line, chain(describe(stage(name).config), head, describe(MeasureConfig))
    if name in STAGES:
        return STAGES[name].line, describe(stage(name).config)
    if name == "predict":
        return "label new texts, fill their masks, or score them", describe(PredictConfig)
    if name in OBJECTIVES:
        return f"objective_config, to {OBJECTIVES[name].line}", describe(OBJECTIVES[name].config)
    if name in MODELS:
        own = fields(name)
        config = FAMILIES[name].config
        return "config of a new model, on top of its preset", describe(config, without=set(config.model_fields) - set(own))
    if name in KINDS:
        return f"kind_config: {KINDS[name].line}", describe(KINDS[name].options)
    if name in FORMATS:
        return f"format_config: {FORMATS[name].line}", describe(FORMATS[name].config)
    cure = did_you_mean(name, [*STAGES, "predict", "slurm", *OBJECTIVES, *MODELS, *KINDS, *FORMATS])
    raise KitaeError(f'there is no stage, objective, model family, kind or format "{name}"', cure=cure)


def describe(config: type[Config], indent: str = "", *, without: Container[str] = ()) -> Iterator[str]:
    """Lines for every field, inner tables indented below theirs."""
    for name, field in config.model_fields.items():
        if name in without:
            continue
        key = field.alias or name
        inner = _inner(field.annotation)
        missing = field.default is PydanticUndefined and field.default_factory is None
        default = "required" if missing else "a table" if inner is not None else f"= {_shown(field.get_default(call_default_factory=True))}"
        mark = ", operational" if any(isinstance(item, Operational) for item in field.metadata) else ""
        yield f"{indent}{key} ({default}{mark})"
        if field.description:
            yield f"{indent}    {field.description}"
        if inner is not None:
            yield from describe(inner, indent + "    ")


def _shown(value: object) -> str:
    """A default as a recipe writes it."""
    return f'"{value}"' if isinstance(value, Duration | BatchSize) else repr(value)


def _inner(annotation: object) -> type[Config] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation if issubclass(annotation, Config) else None
    for argument in typing.get_args(annotation):
        found = _inner(argument)
        if found is not None:
            return found
    return None
