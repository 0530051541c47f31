"""Published tasks: what a recipe's [task.NAME] table takes with `like = "glue/cola"` and `folder`, where the original files lie.

A preset is a table as a recipe has it, with the files' names below the folder. To add one: an entry in a file beside this one.
"""

from collections.abc import Mapping
from pathlib import Path

from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.recipe import merge, validate
from kitae.tasks.config import FILES, TaskConfig
from kitae.tasks.presets import tagging

PRESETS: Mapping[str, Mapping[str, object]] = {**tagging.PRESETS}
PACKED = ("", ".xz", ".gz", ".bz2", ".zst")
"""What compression adds to a file's name; a preset's files may lie there packed or not."""


def expand(table: Mapping[str, object], where: str) -> dict[str, object]:
    """A task's table with what the preset that it is `like` says, its own keys first; as it is when it is like none.

    Raises KitaeError for an unknown preset, and when the folder is missing or not wanted.
    """
    given = {key: value for key, value in table.items() if key not in ("like", "folder")}
    like, folder, place = table.get("like"), table.get("folder"), f"{where}, table [task.{table.get('name')}]"
    if like is None:
        if folder is not None:
            raise KitaeError("`folder` is for tasks like a published one", cure="give `path` or `train` and `test`", where=place)
        return given
    if not isinstance(like, str) or like not in PRESETS:
        raise KitaeError(f'like = "{like}" is no published task', cure=did_you_mean(str(like), PRESETS), where=place)
    if not isinstance(folder, str):
        raise KitaeError("`folder` is missing", cure=f'say where the files of {like} lie: folder = "..."', where=place)
    preset = {key: _below(folder, value) if key in FILES else value for key, value in PRESETS[like].items()}
    return merge(preset, given)


def task_like(like: str, folder: Path | str, **own: object) -> TaskConfig:
    """A published task whose files lie in `folder`; further settings by name, `name` among them (default: the preset's last part)."""
    table = {"name": like.rpartition("/")[2], **own, "like": like, "folder": str(folder)}
    return validate(TaskConfig, expand(table, like), like)


def _below(folder: str, names: object) -> list[str]:
    """The files below the folder, under the names that they have there."""
    listed = [names] if isinstance(names, str) else names
    assert isinstance(listed, list | tuple), "a preset lists names"
    return [_found(f"{folder}/{name}") for name in listed]


def _found(path: str) -> str:
    return next((path + ending for ending in PACKED if Path(path + ending).exists()), path)
