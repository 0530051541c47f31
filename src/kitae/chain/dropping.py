"""Dropping what nothing needs any more (`keep = "needed"`): text of finished corpora and datasets, old checkpoints of finished trainings.

What is dropped stays known by its manifest, and is made again when something that reads it has to be made. Manifests, reports, tokenizers,
held-out text, newest checkpoints and milestones stay.
"""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from kitae.chain.status import State, Status
from kitae.core.artifact import DROPPED, MANIFEST, checkpoints, dropped, read_manifest, replace_text, verify
from kitae.core.errors import KitaeError
from kitae.core.graph import Node
from kitae.stages.table import stage
from kitae.train.checkpoint import PERMANENT, remove

log = logging.getLogger(__name__)
PARTS: Mapping[str, tuple[str, ...]] = {"corpus": ("train",), "dataset": ("train",)}
"""Stage -> the folders of its artifact that are dropped."""


def drop(nodes: Sequence[Node], found: Mapping[str, Status], output: Path) -> list[str]:
    """Drop what all nodes of a recipe leave unused; the names of what was dropped now. An interrupted call is completed by the next.

    A finished node's text goes when all nodes that read it are finished; a finished training's checkpoints but the newest go in any case.
    Nothing goes that a node takes by its path.
    """
    done = {name for name, status in found.items() if status.state is State.DONE}
    paths = [path.resolve() for node in nodes for path in node.sources.values()]
    gone: list[str] = []
    for node in nodes:
        folder = output / node.name
        readers = [other.name for other in nodes if node.name in other.parents.values()]
        if node.name not in done or _taken(folder / MANIFEST, paths):
            continue
        if node.stage in PARTS and readers and done.issuperset(readers):
            gone += _drop_parts(folder, PARTS[node.stage], paths)
        if stage(node.stage).resumable:
            gone += _drop_checkpoints(folder, paths)
    if gone:
        log.info('dropped, because nothing needs it any more (keep = "needed"): %s', ", ".join(gone))
    return gone


def _taken(place: Path, paths: Sequence[Path]) -> bool:
    """Whether a path of the recipe lies in `place`, or holds it."""
    here = place.resolve()
    return any(here == path or here in path.parents or path in here.parents for path in paths)


def _drop_parts(folder: Path, parts: Sequence[str], paths: Sequence[Path]) -> list[str]:
    there = [part for part in parts if (folder / part).is_dir()]
    if not there or any(_taken(folder / part, paths) for part in there):
        return []
    if set(dropped(folder)) != set(parts):  # said first: from then on nobody takes the folder for whole
        replace_text(folder / DROPPED, json.dumps({"dropped": list(parts)}))
    for part in there:
        _remove(folder / part)
    return [f"{folder.name}/{part}" for part in there]


def _drop_checkpoints(folder: Path, paths: Sequence[Path]) -> list[str]:
    *older, newest = checkpoints(folder) or [folder]
    facts = {path: read_manifest(path).facts for path in older}
    old = [path for path in older if facts[path].get(PERMANENT) is False and not _taken(path, paths)]
    if not old:
        return []
    try:
        verify(newest)
    except KitaeError as error:
        log.warning("the old checkpoints of %s stay: %s", folder.name, error.what)
        return []
    manifest = read_manifest(folder)
    heads = tuple(f"{path.relative_to(folder).as_posix()}/" for path in old)
    files = {name: record for name, record in manifest.files.items() if not name.startswith(heads)}
    replace_text(folder / MANIFEST, manifest.model_copy(update={"files": files}).model_dump_json(indent=1))
    for path in old:
        remove(path)
    return [f"{folder.name}/{path.name}" for path in old]


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        log.warning("%s could not be removed: %s", folder, error.strerror)
