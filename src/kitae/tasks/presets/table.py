"""Published tasks: what a recipe's [task.NAME] table takes with `like = "glue/cola"` and `folder`, where the original files lie.

A preset is a table as a recipe has it, with the files' names below the folder. To add one: an entry in a file beside this one.
"""

from collections.abc import Mapping
from pathlib import Path

from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.recipe import merge, validate
from kitae.tasks.config import FILES, TaskConfig
from kitae.tasks.presets import glue, jglue, questions, sentences, tagging

PRESETS: Mapping[str, Mapping[str, object]] = {
    **glue.PRESETS,
    **jglue.PRESETS,
    **questions.PRESETS,
    **sentences.PRESETS,
    **tagging.PRESETS,
}
PACKED = ("", ".xz", ".gz", ".bz2", ".zst", ".tar", ".tar.xz", ".tar.gz", ".tgz", ".tar.bz2", ".zip")
"""What compression, or an archive of a folder, adds to a name; a preset's files may lie there packed or not."""
OWN = ("like", "folder", "submit")
"""Keys that only tasks like a published one have."""
POOL, APART = ("path", "split", "parts"), ("train", "validation", "test")
"""A task names a pool and its division, or files for each split; one that names the other way than its preset replaces the preset's."""


def expand(table: Mapping[str, object], where: str) -> dict[str, object]:
    """A task's table with what the preset that it is `like` says, its own keys first; as it is when it is like none.

    `submit = true` takes the preset's submissions, too. Raises KitaeError for an unknown preset, when the folder is missing or not
    wanted, and for a submission that the preset does not have.
    """
    given = {key: value for key, value in table.items() if key not in OWN}
    like, folder, place = table.get("like"), table.get("folder"), f"{where}, table [task.{table.get('name')}]"
    if like is None:
        unwanted = next((key for key in OWN if key in table), None)
        if unwanted is not None:
            cure = 'say like = "NAME", or give `path` or `train` and `test` (and `submissions`)'
            raise KitaeError(f"`{unwanted}` is for tasks like a published one", cure=cure, where=place)
        return given
    if not isinstance(like, str) or like not in PRESETS:
        raise KitaeError(f'like = "{like}" is no published task', cure=did_you_mean(str(like), PRESETS), where=place)
    preset = _without_replaced(PRESETS[like], given) | {"shorten": _proposes(PRESETS[like]) and not _proposes(given)}
    submissions = _submissions(preset.pop("submissions", {}), table.get("submit", False), place)
    if not isinstance(folder, str):
        if submissions or any(key in preset and key not in given for key in FILES):
            raise KitaeError(f"`folder` is missing: where the files of {like} lie", cure='say folder = "..."', where=place)
        return merge(preset, given)
    placed: dict[str, object] = {key: _below(folder, value) if key in FILES else value for key, value in preset.items()}
    if submissions:
        placed["submissions"] = {name: {**one, "path": _found(f"{folder}/{one['path']}")} for name, one in submissions.items()}
    return merge(placed, given)


def _proposes(table: Mapping[str, object]) -> bool:
    """Whether it says how long texts are."""
    own = table.get("finetune")
    return isinstance(own, Mapping) and "max_length" in own


def _without_replaced(preset: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """The preset without what the task's own files or division replace."""
    if "path" in preset:
        dropped: tuple[str, ...] = POOL if any(key in given for key in APART) else POOL[1:] if "split" in given or "parts" in given else ()
    else:
        dropped = (*APART, "validation_share") if any(key in given for key in POOL) else ()
    return {key: value for key, value in preset.items() if key not in dropped}


def _submissions(known: object, submit: object, place: str) -> dict[str, dict[str, object]]:
    assert isinstance(known, dict), "a preset's submissions are a table"
    if not isinstance(submit, bool):
        raise KitaeError(f"submit = {submit!r} is neither true nor false", cure="write true or false", where=place)
    if submit and not known:
        raise KitaeError("`submit`: nothing is submitted for this task", cure="remove it, or give `submissions`", where=place)
    return known if submit else {}


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
