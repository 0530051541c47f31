"""The base of all settings: frozen, closed, documented at the field, with semantic and operational fields told apart."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


@dataclass(frozen=True)
class Operational:
    """Marks a field that changes how a result is made, not what it is; it stays out of the fingerprint."""


OPERATIONAL = Operational()


@dataclass(frozen=True)
class Later:
    """Marks a field that decides the result but came later: at its default it stays out of the fingerprint, so that what was made
    before it came still is what it was."""


LATER = Later()


class Config(BaseModel):
    """Frozen settings that refuse unknown keys, NaN and infinity. The string under a field is its documentation (`kitae show`)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True, validate_default=True, allow_inf_nan=False
    )

    def semantic(self) -> dict[str, object]:
        """The settings that decide the result, as JSON values: every field but those marked OPERATIONAL, and those marked
        LATER that are at their default, at every depth."""
        return _semantic(self, self.model_dump(mode="json", by_alias=True))


def _semantic(config: BaseModel, dumped: dict[str, Any]) -> dict[str, object]:
    kept: dict[str, object] = {}
    for name, field in type(config).model_fields.items():
        if any(isinstance(mark, Operational) for mark in field.metadata):
            continue
        default = field.get_default(call_default_factory=True)
        if any(isinstance(mark, Later) for mark in field.metadata) and getattr(config, name) == default:
            continue
        key = field.serialization_alias or field.alias or name
        kept[key] = _inner(getattr(config, name), dumped[key])
    return kept


def _inner(value: object, dumped: Any) -> object:
    if isinstance(value, Config):
        return _semantic(value, dumped)
    if isinstance(value, tuple | list):
        return [_inner(item, dumped[i]) for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: _inner(item, dumped[key]) for key, item in value.items()}
    return dumped


def complaint(error: ValidationError) -> str:
    """The first thing that pydantic says against the fields of a file, with their names before it."""
    first = error.errors()[0]
    key, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message
