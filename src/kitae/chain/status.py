"""What is up to date: every node's fingerprint against what lies in the output folder, with the reason for each difference."""

import dataclasses
import enum
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kitae.core.artifact import MANIFEST, content_hash, dropped, read_manifest
from kitae.core.errors import KitaeError
from kitae.core.graph import Node, differences, fingerprint, identity
from kitae.core.paths import is_url

log = logging.getLogger(__name__)
STARTED = "started.json"
DROPPED_TEXT = "dropped: nothing needs its text any more"
Facts = dict[str, object]


class State(enum.StrEnum):
    """What `kitae plan` says of a node."""

    DONE = "done"
    STALE = "stale"
    STARTED = "started"
    MISSING = "missing"
    ABSENT = "source absent"


@dataclass(frozen=True, kw_only=True)
class Status:
    """A node's state, why, and what its artifact has to record."""

    node: Node
    state: State
    reasons: tuple[str, ...]
    facts: Facts
    dropped: bool = False
    """Whether parts of the artifact were dropped."""


def statuses(nodes: Sequence[Node], output: Path, seed: int) -> dict[str, Status]:
    """The status of every node, in the given (parents first) order."""
    hashes = _Hashes(output / ".hashes.json")
    found: dict[str, Status] = {}
    for node in nodes:
        found[node.name] = _status(node, output, seed, hashes, found)
    hashes.save()
    for node in reversed(nodes):
        if found[node.name].state is not State.DONE:
            for parent in node.parents.values():
                found[parent] = _needed(found[parent], node.name)
    return found


def _needed(status: Status, reader: str) -> Status:
    """The status of what `reader` reads: what was dropped has to be made again."""
    if status.state is not State.DONE or not status.dropped:
        return status
    absent = [path for path, place in status.node.sources.items() if not place.exists()]
    reasons = (f"dropped, but {reader} needs it", *(f"{path} does not exist" for path in absent))
    return dataclasses.replace(status, state=State.ABSENT if absent else State.MISSING, reasons=reasons)


def recorded(folder: Path) -> Facts | None:
    """What the artifact in a folder (complete, or training that was cut off) says it was made from."""
    if (folder / MANIFEST).is_file():
        return dict(read_manifest(folder).facts)
    if (folder / STARTED).is_file():
        facts: Facts = json.loads((folder / STARTED).read_text(encoding="utf-8"))
        return facts
    return None


def _status(node: Node, output: Path, seed: int, hashes: "_Hashes", done: Mapping[str, Status]) -> Status:
    folder = output / node.name
    old, gone = recorded(folder), bool(dropped(folder))
    absent = [name for name, path in node.sources.items() if not path.exists()]
    if absent and old is not None:  # a result outlives its source: the recorded contents stand in
        inputs = _list(old.get("identity"), "inputs")
    else:
        inputs = [] if absent else [hashes.of(path) for path in node.sources.values()]
    parents = {role: str(done[name].facts["fingerprint"]) for role, name in node.parents.items()}
    this = identity(node, seed, inputs, parents)
    lineage: dict[str, object] = {}
    for name in node.parents.values():
        inherited = done[name].facts["lineage"]
        assert isinstance(inherited, dict)
        lineage |= inherited
    paths = list(node.sources)
    facts: Facts = {"node": node.name, "fingerprint": fingerprint(this), "identity": this, "input_paths": paths}
    facts["lineage"] = {**lineage, node.name: {**this, "input_paths": paths}}
    if old is None:
        state = State.ABSENT if absent else State.MISSING
        reasons = tuple(f"{path} {'is not downloaded yet' if is_url(path) else 'does not exist'}" for path in absent)
    elif old.get("fingerprint") == facts["fingerprint"]:
        state, reasons = (State.DONE if (folder / MANIFEST).is_file() else State.STARTED), (DROPPED_TEXT,) * gone
    else:
        state, reasons = State.STALE, tuple(_changes(old, facts))
    return Status(node=node, state=state, reasons=reasons, facts=facts, dropped=gone)


def _changes(old: Facts, new: Facts) -> list[str]:
    """The first causes of a difference: settings and contents of the node and of everything above it."""
    before, after = old.get("lineage"), new["lineage"]
    if not isinstance(before, dict) or not isinstance(after, dict):
        return ["it was made by another version of kitae"]
    lines: list[str] = []
    for name in after:
        if name not in before:
            lines.append(f"{name} is new")
            continue
        was, is_ = before[name], after[name]
        for key in ("config", "version", "seed"):
            lines += differences(was.get(key), is_.get(key), name if key == "config" else f"{name} {key}")
        if was.get("inputs") != is_.get("inputs"):
            lines += _changed_files(was, is_)
    lines += [f"{name} is gone" for name in before if name not in after]
    return lines or ["it was made by another version of kitae"]


def _changed_files(was: Facts, is_: Facts) -> list[str]:
    old, new = _list(was, "inputs"), _list(is_, "inputs")
    paths = _list(is_, "input_paths")
    if len(old) != len(new):
        return [f"the sources are now {', '.join(paths)}"]
    return [f"the content of {path} changed" for path, a, b in zip(paths, old, new, strict=True) if a != b]


def _list(facts: object, key: str) -> list[str]:
    value = facts.get(key, []) if isinstance(facts, dict) else []
    return [str(item) for item in value]


class _Hashes:
    """Content hashes, remembered by path, size and time of change, so that planning over large corpora is quick."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except ValueError:
            self._known = {}
        self._before = dict(self._known)

    def of(self, path: Path) -> str:
        files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
        stats = [(str(item), item.stat()) for item in files]
        mark = json.dumps([(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats])
        if mark not in self._known:
            self._known[mark] = content_hash(path)
        return self._known[mark]

    def save(self) -> None:
        if self._known == self._before or not self._path.parent.is_dir():
            return
        temporary = self._path.with_suffix(".part")
        try:
            temporary.write_text(json.dumps(self._known), encoding="utf-8")
            temporary.rename(self._path)
        except OSError as error:  # only a cache: a read-only output still can be planned
            log.debug("hashes are not kept: %s", error)


def require_sources(status: Status) -> None:
    """Raises KitaeError when a node that has to be made lacks a source."""
    if status.state is State.ABSENT:
        raise KitaeError(f"{status.node.name}: {'; '.join(status.reasons)}", cure="correct the path in the recipe, or bring the data there")
