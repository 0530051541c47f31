"""Values of JSON that must be there: errors say what is wrong and where."""

from collections.abc import Mapping, Sequence

from kitae.core.errors import KitaeError


def kind_of_value(value: object) -> str:
    """What a value of JSON is called."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def need_object(value: object, where: str) -> dict[str, object]:
    """Raises KitaeError for anything else."""
    if not isinstance(value, dict):
        raise KitaeError(f"this is {kind_of_value(value)}, not an object", cure="check that the file has this format", where=where)
    return value


def need_key(values: Mapping[str, object], key: str, where: str) -> object:
    """Raises KitaeError when there is none, naming the keys that there are."""
    if key not in values:
        raise KitaeError(f'there is no "{key}"', cure=f"the keys are {', '.join(values) or 'none'}", where=where)
    return values[key]


def need_list(values: Mapping[str, object], key: str, where: str) -> list[object]:
    """Raises KitaeError for anything else."""
    value = need_key(values, key, where)
    if not isinstance(value, list):
        raise KitaeError(f'"{key}" is {kind_of_value(value)}, not a list', cure="check that the file has this format", where=where)
    return value


def need_text(values: Mapping[str, object], key: str, where: str) -> str:
    """A text that is not empty. Raises KitaeError for anything else."""
    value = need_key(values, key, where)
    if not isinstance(value, str):
        raise KitaeError(f'"{key}" is {kind_of_value(value)}, not a text', cure="check that the file has this format", where=where)
    if not value.strip():
        raise KitaeError(f'"{key}" is empty', cure="fill it in or remove the question", where=where)
    return value


def need_id(values: Mapping[str, object], key: str, where: str) -> str:
    """A name, or a number as its digits. Raises KitaeError for anything else."""
    value = need_key(values, key, where)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise KitaeError(f'"{key}" is {kind_of_value(value)}, not a name', cure="give every question an id of its own", where=where)
    return str(value)


def need_place(values: Mapping[str, object], key: str, where: str) -> int:
    """A whole number, 0 or more. Raises KitaeError for anything else."""
    value = need_key(values, key, where)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise KitaeError(f'"{key}" is {value!r}, not a character\'s number', cure="correct it", where=where)
    return value


def slices_of(names: Sequence[str], of: Sequence[Mapping[str, object]], where: str) -> dict[str, str]:
    """The values of these names, each from the first object that has it. Raises KitaeError where none has."""
    found = {}
    for name in names:
        holder = next((values for values in of if name in values), None)
        if holder is None:
            raise KitaeError(f'there is no "{name}" to slice by', cure=f"the keys are {', '.join(of[0])}", where=where)
        found[name] = str(holder[name])
    return found
