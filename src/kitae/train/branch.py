"""Goes on from a checkpoint of another training, where one of these settings would have come through itself.

So the decay of a warm-up-stable-decay schedule can begin at any checkpoint of the stable part of a longer training.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from kitae.core.artifact import checkpoints, newest, verify
from kitae.core.errors import KitaeError
from kitae.core.graph import differences
from kitae.core.paths import locate
from kitae.train.batches import Batches
from kitae.train.checkpoint import IDENTITY, STATE, read_identity, read_state
from kitae.train.config import TrainConfig
from kitae.train.course import Dealt
from kitae.train.schedule import rate_of_step, timetable

FREE = frozenset({"length", "schedule", "schedule_config", "warmup", "until_flat"})
"""Settings that may differ, as long as the learning rates before the checkpoint are the same."""


def branch(config: TrainConfig, batches: Dealt, folder: Path) -> Path:
    """The checkpoint that `config.decay_from` names, verified, for the run in `folder`, which is claimed already.

    Raises KitaeError when it is none, is past the length, or when anything but `FREE` or a learning rate before it differs.
    """
    assert config.decay_from is not None
    assert not isinstance(batches, tuple), "refused by TrainConfig"
    path = newest(locate(config.decay_from))
    if not _is_checkpoint(path):
        raise _none(str(path))
    verify(path)
    state = read_state(path)
    changed = differences(_identity(path.parent.parent), _identity(folder), "train")
    if changed:
        raise KitaeError(f"decay_from is of a training with other settings: {changed[0]}", cure="restore the setting", where=str(path))
    theirs = TrainConfig.model_validate(state.config)
    if theirs.budget is not None:
        raise KitaeError("decay_from is of a training with a wall-clock length", cure="name one of a length in steps", where=str(path))
    _check_rates(config, theirs, batches, state.step, where=str(path))
    return path


def check_branch(decay_from: str, where: str) -> None:
    """Raise KitaeError, with the place `where` in a recipe, when there is no checkpoint of a training. Nothing is verified."""
    folder = locate(decay_from)
    if not folder.exists():
        cure = "name a checkpoint of the longer training, or make that one first"
        raise KitaeError(f'decay_from = "{decay_from}" does not exist', cure=cure, where=where)
    if not any(_is_checkpoint(path) for path in [folder, *checkpoints(folder)]):
        raise _none(f"{folder}, {where}")


def _is_checkpoint(path: Path) -> bool:
    return (path / STATE).is_file() and (path.parent.parent / IDENTITY).is_file()


def _none(where: str) -> KitaeError:
    cure = "name a folder checkpoints/step-... inside the run that wrote it"
    return KitaeError("decay_from is no checkpoint of a training", cure=cure, where=where)


def _identity(folder: Path) -> Mapping[str, object]:
    """What a run folder was claimed for, without what is free."""
    parts = read_identity(folder)
    train = dict(parts["train"])
    train["config"] = {name: value for name, value in train["config"].items() if name not in FREE}
    return {"training": train, "data": parts.get("data")}


def _check_rates(ours: TrainConfig, theirs: TrainConfig, batches: Batches, steps: int, *, where: str) -> None:
    mine, other = timetable(ours, batches), timetable(theirs, batches)
    if steps >= mine.total:
        raise KitaeError(
            f"decay_from has {steps} steps, and this training ends after {mine.total}", cure="make length longer by the decay", where=where
        )
    for step in range(steps):
        wanted, had = rate_of_step(ours, mine, step), rate_of_step(theirs, other, step)
        if not math.isclose(wanted, had, rel_tol=1e-9):
            raise KitaeError(
                f"decay_from learnt step {step} at a rate of {had:.6g}, where these settings have {wanted:.6g}",
                cure="write warmup in the other training's steps, and a decay that begins at this checkpoint or later",
                where=where,
            )
