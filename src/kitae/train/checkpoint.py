"""Checkpoints of a training run: complete or absent, verified before they are used, named by their step.

`checkpoints/step-00000400/`: weights.safetensors (exact weights under the module's names), model.json, optimizer.safetensors,
state.json, attached folders, manifest.json.
"""

import json
import logging
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kitae.core.artifact import checkpoints, read_manifest, replace_text, seal, sweep, verify, write_folder
from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.core.graph import differences
from kitae.train.meter import Spent
from kitae.train.optimizer import Optimizer
from kitae.train.policy import PolicyState

log = logging.getLogger(__name__)
IDENTITY = "identity.json"
STATE = "state.json"
PERMANENT = "permanent"
"""The fact of a checkpoint's manifest that says whether it is a milestone."""
NEW = "choose a new output"


class State(Config):
    """What `state.json` says. Randomness has no state: it is keyed by seed, step and micro-batch."""

    step: int
    """Updates made."""
    tokens_seen: int
    """Real tokens seen, padding not counted."""
    seconds: float
    """Time spent in training steps."""
    spent: Spent = Spent()
    """What else the steps came to, for reports."""
    world_size: int
    """Processes that took part when it was written."""
    seed: int
    """Seed of the run."""
    config: dict[str, object]
    """Settings of the training."""
    policy: PolicyState = PolicyState()
    """What decides which updates are applied."""


def _aliases(module: nn.Module) -> dict[str, str]:
    """Every name of every parameter -> its first name (shared parameters have several)."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(value), name) for name, value in module.named_parameters(remove_duplicate=False)}


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a checkpoint is written from."""

    weights: Mapping[str, Tensor]
    """As `tensors` gives them."""
    optimizer: Mapping[str, Tensor]
    """The state of the optimizer's rules."""
    model: Mapping[str, object]
    """What the module says of itself, for model.json."""
    state: State
    permanent: frozenset[int]
    """Steps whose checkpoints stay for ever."""


def tensors(module: nn.Module, exact: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Exact weights, which are given by parameter name, and buffers under every name of the module's state dict: no copies; one tensor
    under several names where it has them."""
    aliases = _aliases(module)
    return {name: exact[aliases[name]] if name in aliases else value for name, value in module.state_dict().items()}


def _apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same on the CPU, with a copy for every further name of a tensor, as the file format wants it."""
    places: set[int] = set()
    kept: dict[str, Tensor] = {}
    for name, value in weights.items():
        again = value.numel() > 0 and value.data_ptr() in places
        places.add(value.data_ptr())
        kept[name] = value.cpu().clone() if again else value.cpu()
    return kept


def save(folder: Path, content: Content, attach: Mapping[str, Path]) -> Path:
    """Write the checkpoint of `content.state.step` below `folder/checkpoints`. Raises KitaeError when the disk is full."""
    state = content.state
    path = folder / "checkpoints" / name_of(state.step)
    with write_folder(path) as beside:
        try:
            save_file(_apart(content.weights), beside / "weights.safetensors")
            save_file({name: value.cpu() for name, value in content.optimizer.items()}, beside / "optimizer.safetensors")
        except SafetensorError as error:  # its input and output errors carry no errno
            raise KitaeError(
                f"the disk is full or cannot be written: {path.name} could not be saved ({error})",
                cure="free some space and run again: the earlier checkpoints are intact",
                where=str(path.parent),
            ) from error
        (beside / "model.json").write_text(json.dumps(content.model, indent=1), encoding="utf-8")
        (beside / STATE).write_text(state.model_dump_json(indent=1), encoding="utf-8")
        for name, source in attach.items():
            shutil.copytree(source, beside / name)
        facts = {"step": state.step, "tokens_seen": state.tokens_seen, "seed": state.seed, PERMANENT: state.step in content.permanent}
        seal(beside, kind="checkpoint", facts=facts)
    return path


def load(path: Path, module: nn.Module, optimizer: Optimizer) -> State:
    """Fill module and optimizer from a verified checkpoint. Raises KitaeError when a name or shape differs."""
    weights = load_file(path / "weights.safetensors")  # on the CPU, page by page: a process may need a part of it only
    aliases = _aliases(module)
    own = module.state_dict()
    if set(own) != set(weights):
        missing, unexpected = _some(own.keys() - weights.keys()), _some(weights.keys() - own.keys())
        odd = "; ".join(text for text in (missing and f"it lacks {missing}", unexpected and f"it also has {unexpected}") if text)
        raise KitaeError(f"the checkpoint does not fit this model: {odd}", cure=NEW, where=str(path))
    state = read_state(path)
    averages = load_file(path / "optimizer.safetensors")
    with torch.no_grad():
        optimizer.load(
            {aliases[name]: value for name, value in weights.items() if name in aliases}, averages, state.step - state.policy.skipped
        )
        for name in own.keys() - aliases.keys():
            own[name].copy_(weights[name])
    return state


def _some(names: Iterable[str], most: int = 5) -> str:
    listed = sorted(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def read_state(path: Path) -> State:
    """What a checkpoint's state.json says. Raises KitaeError when it is of another version."""
    try:
        return State.model_validate_json((path / STATE).read_bytes())
    except ValidationError as error:
        raise KitaeError(f"{STATE} is not of this version: {error.errors()[0]['msg']}", cure=NEW, where=str(path)) from error


def read_identity(folder: Path) -> dict[str, Any]:
    """What a run folder was claimed for, by the part that claimed it; empty for a new one. Raises KitaeError when the record is damaged."""
    path = folder / IDENTITY
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except ValueError as error:
        raise KitaeError(f"{IDENTITY} is damaged", cure="choose a new output folder", where=str(folder)) from error


def latest(folder: Path) -> Path | None:
    """The newest checkpoint that verifies, by step number; None when there is none yet. Damaged ones are named in a warning.

    Raises KitaeError when there are checkpoints and all are damaged.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        try:
            verify(path)
        except KitaeError as error:
            log.warning("checkpoint %s is passed over: %s", path.name, error.what)
        else:
            return path
    if found:
        raise KitaeError(
            f"all {len(found)} checkpoints are damaged", cure="remove them to train from the start", where=str(folder / "checkpoints")
        )
    return None


def name_of(step: int) -> str:
    """The folder of the checkpoint after so many steps."""
    return f"step-{step:08d}"


def permanent(path: Path) -> bool:
    """Whether a checkpoint was written as a milestone."""
    try:
        return bool(read_manifest(path).facts.get(PERMANENT))
    except KitaeError:
        return False


def prune(folder: Path, keep_last: int, milestones: frozenset[int]) -> None:
    """Remove all but the newest `keep_last` checkpoints and milestones (of earlier settings too). A failing removal is a warning."""
    for path in checkpoints(folder)[:-keep_last]:
        if int(path.name.removeprefix("step-")) not in milestones and not permanent(path):
            remove(path)


def remove(path: Path) -> None:
    """Remove a checkpoint; one that cannot be removed is a warning."""
    hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")  # first, so that no half removed checkpoint is ever seen
    try:
        path.rename(hidden)
        shutil.rmtree(hidden)
    except OSError as error:
        log.warning("the old checkpoint %s could not be removed: %s", path.name, error.strerror)


def claim(folder: Path, part: str, identity: Mapping[str, object]) -> None:
    """Record what a run folder is for, or refuse to continue it as something else.

    `part` keeps the identities of several callers apart; `identity` holds the settings that decide the result (JSON).
    While the folder has no checkpoint there is nothing to protect, and the record is replaced.
    Raises KitaeError naming the first key that differs. Only one process of a world may call it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = json.loads(json.dumps(dict(identity)))
    path = folder / IDENTITY
    recorded = read_identity(folder)
    if part in recorded and recorded[part] != wanted and checkpoints(folder):
        changed = differences(recorded[part], wanted, part)
        raise KitaeError(
            f"this run was trained with other settings: {changed[0]}",
            cure="restore the setting, choose a new output, or have the old run replaced",
            where=str(folder),
        )
    if recorded.get(part) != wanted:
        replace_text(path, json.dumps(recorded | {part: wanted}, indent=1))


def tidy(folder: Path) -> None:
    """Remove what interrupted saves and removals left in a run folder; the caller holds its lock."""
    sweep(folder / "checkpoints")
    for leftover in (folder / "checkpoints").glob(".step-*.old"):  # of earlier versions
        shutil.rmtree(leftover, ignore_errors=True)
