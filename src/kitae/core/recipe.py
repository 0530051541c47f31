"""Reading a recipe: TOML with `base` inheritance, `--set` overrides and `[data]` roots, checked against a closed model.

Errors name file, table and key, and say what was probably meant.
"""

import os
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.paths import locate_recipe

Raw = dict[str, object]
Model = TypeVar("Model", bound=BaseModel)
PLAIN = {
    "tuple_type": "this must be a list, in [ ]",
    "dict_type": "this must be a table",
    "model_type": "this must be a table",
    "string_type": 'this must be text, in " "',
    "int_type": "this must be a whole number",
    "int_parsing": "this must be a whole number",
    "int_from_float": "this must be a whole number",
    "float_type": "this must be a number",
    "float_parsing": "this must be a number",
    "bool_type": "this must be true or false",
    "bool_parsing": "this must be true or false",
    "too_short": "this list is empty",
}
"""What pydantic's kinds of errors mean in a recipe."""


def load(name: str, overrides: Sequence[str] = ()) -> tuple[Raw, Path]:
    """The recipe's tables with `base` files below and `--set` values on top, and its file.

    Raises KitaeError for a missing file, broken TOML, a circle of bases, or an override that is no `a.b=VALUE`.
    """
    path = locate_recipe(name)
    raw = _with_base(path, ())
    for override in overrides:
        _set(raw, override)
    return raw, path


def overridden(overrides: Sequence[str]) -> Raw:
    """The tables that `--set` values alone make. Raises KitaeError for an override that is no `a.b=VALUE`."""
    raw: Raw = {}
    for override in overrides:
        _set(raw, override)
    return raw


def _with_base(path: Path, seen: tuple[Path, ...]) -> Raw:
    if path.resolve() in seen:
        raise KitaeError(f"base = {path.name} leads back to itself", cure="remove one `base` of the circle", where=str(path))
    try:
        raw: Raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise KitaeError(f"this is not TOML: {error}", cure="mend that line", where=str(path)) from error
    base = raw.pop("base", None)
    if base is None:
        return raw
    if not isinstance(base, str):
        raise KitaeError(f"base = {base!r} is not a path", cure='write base = "other.toml"', where=str(path))
    below = Path(base) if base.startswith("recipe:") else path.parent / base
    parent = locate_recipe(base if base.startswith("recipe:") else str(below))
    return merge(_with_base(parent, (*seen, path.resolve())), raw)


def merge(below: Raw, above: Mapping[str, object]) -> Raw:
    """Tables are merged key by key, everything else (lists too) is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _set(raw: Raw, override: str) -> None:
    path, separator, value = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise KitaeError(f"--set {override} is not KEY=VALUE", cure='write for example --set pretrain.train.length="30 steps"')
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise KitaeError(
            f"--set {path}: {value} is not a TOML value", cure=f"text needs quotes of its own: --set '{path}=\"{value}\"'"
        ) from error
    table = raw
    for key in keys[:-1]:
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            raise KitaeError(f"--set {path}: {key} is not a table", cure="name a key of a table")
        table = inner
    table[keys[-1]] = parsed


def substitute_roots(raw: Raw, roots: Mapping[str, str], where: str) -> Raw:
    """Replace a leading `KEY:` of every text by the root of that name from `[data]`; `$NAME` in a root is the environment's.

    Raises KitaeError when a root names an unset variable without `|default`.
    """
    resolved = {key: _root(key, value, where) for key, value in roots.items()}

    def walk(value: object) -> object:
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        if isinstance(value, str) and value.partition(":")[0] in resolved and ":" in value:
            key, _, rest = value.partition(":")
            return f"{resolved[key].rstrip('/')}/{rest}"
        return value

    return {key: item if key == "data" else walk(item) for key, item in raw.items()}


def _root(key: str, value: str, where: str) -> str:
    if not value.startswith("$"):
        return value
    name, _, default = value[1:].partition("|")
    found = os.environ.get(name, default)
    if not found:
        raise KitaeError(f"data.{key} = {value!r}, but {name} is not set", cure=f"export {name}=FOLDER", where=where)
    return found


def validate(model: type[Model], raw: Mapping[str, object], where: str, prefix: str = "") -> Model:
    """Build the model. Raises KitaeError for the first error, with its key, its table and what was probably meant."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        keys = [str(part) for part in first["loc"]]
        name = ".".join([*filter(None, [prefix]), *keys])
        table = name.rpartition(".")[0]
        place = f"{where}, table [{table}]" if table else where
        kind, given = first["type"], first.get("input")
        if kind == "extra_forbidden":
            known = _fields(model, keys[:-1])
            raise KitaeError(f"{name} is not a known key", cure=did_you_mean(keys[-1], known), where=place) from error
        if kind == "missing":
            raise KitaeError(f"{name} is missing", cure="add it", where=place) from error
        if kind == "literal_error":
            known = sorted(word.strip(" '") for word in str(first["ctx"]["expected"]).replace(" or ", ",").split(","))
            listed = f"known are {', '.join(known)}"
            near = did_you_mean(str(given), known)
            raise KitaeError(
                f'{name} = "{given}" is not known', cure=near if near == listed else f"{near} {listed}", where=place
            ) from error
        message = PLAIN.get(kind, first["msg"].removeprefix("Value error, "))
        whole = isinstance(given, Mapping) and kind == "value_error"  # about several keys of the table
        cure = "" if whole or ":" in message else f"it is {given!r} now"
        raise KitaeError(f"{name}: {message}" if name else message, cure=cure, where=place) from error


def _fields(model: type[BaseModel], keys: Sequence[str]) -> list[str]:
    current: object = model
    for key in keys:
        found = _model_in(current)
        if found is None:
            return []
        if key in found.model_fields:
            current = found.model_fields[key].annotation
        elif not key.isdigit() and found is current:
            by_alias = [field.annotation for field in found.model_fields.values() if field.alias == key]
            current = by_alias[0] if by_alias else None
    found = _model_in(current)
    return [] if found is None else [field.alias or name for name, field in found.model_fields.items()]


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
