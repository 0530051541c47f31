"""What installed packages add to kitae's tables by entry points. A package is imported only when a recipe names what it adds."""

from importlib.metadata import entry_points
from typing import TypeVar

from kitae.core.errors import KitaeError

Kept = TypeVar("Kept")


def names(group: str) -> list[str]:
    """The names that installed packages add to a group, sorted. Nothing is imported."""
    return sorted({point.name for point in entry_points(group=group)})


def extension(group: str, name: str, wanted: type[Kept], *, key: str) -> Kept | None:
    """What a package adds under a name, the value of the setting `key`; None when there is none.

    Raises KitaeError when several packages give the name, when it cannot be imported, or is no instance of `wanted`.
    """
    points = {point.value: point for point in entry_points(group=group) if point.name == name}
    if not points:
        return None
    if len(points) > 1:
        raise KitaeError(f'{key} = "{name}" is given by several packages: {", ".join(sorted(points))}', cure="remove all but one")
    ((value, point),) = points.items()
    try:
        found = point.load()
    except Exception as error:  # the package's own code runs here
        what = f'{key} = "{name}" cannot be loaded from {value}: {type(error).__name__}: {error}'
        raise KitaeError(what, cure="mend or remove that package") from error
    if not isinstance(found, wanted):
        raise KitaeError(f'{key} = "{name}": {value} is no {wanted.__name__} of {wanted.__module__}', cure="mend or remove that package")
    return found
