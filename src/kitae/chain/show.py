"""The settings of a stage as text: name, type, default, whether it is operational, and the documentation at the field."""

import typing
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from kitae.core.config import Config, Operational
from kitae.core.duration import BatchSize, Duration


def describe(config: type[Config], indent: str = "") -> Iterator[str]:
    """Lines for every field, inner tables indented below theirs."""
    for name, field in config.model_fields.items():
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
