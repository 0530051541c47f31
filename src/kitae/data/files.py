"""Index files and the files they speak of: what was cut off or emptied is an error that says so, before anything is read from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from kitae.core.config import Config
from kitae.core.errors import KitaeError

Index = TypeVar("Index", bound=Config)


def read_index(path: Path, kind: type[Index], *, what: str, cure: str = "run the dataset stage again") -> Index:
    """What an index file says. Raises KitaeError when it is missing (then the folder "holds no `what`") or damaged."""
    if not path.is_file():
        raise KitaeError(f"{path.parent} holds no {what}: {path.name} is missing", cure=cure)
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise damaged(path, error.errors()[0]["msg"]) from error


def check_sizes(folder: Path, sizes: Mapping[str, int]) -> None:
    """Compare files with the bytes that their index says they have. Raises KitaeError naming the first that has others.

    It finds what was cut off, at the price of a look at the folder. Changed bytes are for `kitae verify`, which reads everything.
    """
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            raise damaged(path, "it is missing")
        if (found := path.stat().st_size) != size:
            raise damaged(path, f"it has {found:,} bytes instead of {size:,}")


def damaged(path: Path, why: str) -> KitaeError:
    """The error that says what to do with a damaged dataset."""
    return KitaeError(f"{path.name} is damaged: {why}", cure="remove the dataset and run its stage again", where=str(path.parent))
