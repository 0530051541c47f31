"""An artifact is a folder with a manifest: what made it, from what, and the sha256 of every file. Complete or absent."""

import contextlib
import errno
import glob
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from kitae.core.config import Config
from kitae.core.errors import KitaeError

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
DROPPED = "dropped.json"
"""Beside the manifest of an artifact of which parts were removed because nothing needed them any more."""


class FileRecord(Config):
    """Size in bytes and sha256 of one file."""

    size: int
    sha256: str


class Manifest(Config):
    """What `manifest.json` says."""

    format: int = 1
    """Version of this layout."""
    kind: str
    """Which stage made it, or "checkpoint"."""
    facts: dict[str, object] = {}
    """What made it and what came out: node, config, parents, inputs, counts, licences, packages."""
    files: dict[str, FileRecord]
    """Every file of the folder but this one, by its path below it."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a stage gets: its parents' folders by role, and the seed of the recipe."""

    parents: Mapping[str, Path]
    seed: int

    def path(self, role: str) -> Path:
        """The folder of a parent that the graph guarantees."""
        return self.parents[role]

    def get(self, role: str) -> Path | None:
        """The folder of a parent that may be missing."""
        return self.parents.get(role)


@dataclass(frozen=True, kw_only=True)
class Out:
    """What a stage fills: a folder to write in, and what goes into the manifest."""

    path: Path
    counts: dict[str, object] = field(default_factory=dict)
    licences: list[dict[str, str]] = field(default_factory=list)
    work: Path | None = None
    """A folder for unfinished work that outlives a failure, so that the next attempt goes on there."""

    @contextlib.contextmanager
    def workplace(self) -> Iterator[Path]:
        """The folder for what lies in between: `work`, or a passing one. Whoever gave `work` removes it after the success."""
        place = self.work or self.path / ".work"
        place.mkdir(parents=True, exist_ok=True)
        yield place
        if self.work is None:
            shutil.rmtree(place)

    def inherit_licences(self, parent: Path) -> None:
        """Take over the licences of an artifact that this one was made from; a folder from outside has none."""
        found = read_manifest(parent).facts.get("licences") if (parent / MANIFEST).is_file() else None
        for licence in found if isinstance(found, list) else []:
            if licence not in self.licences:
                self.licences.append(licence)


def sha256_of(path: Path) -> str:
    """sha256 of one file's content, read in pieces. Raises KitaeError when it cannot be read (the system's error names no file)."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise KitaeError(
            f"{path.name} cannot be read: {error.strerror}", cure="check the disk and the permissions", where=str(path)
        ) from error


def content_hash(path: Path) -> str:
    """sha256 of a file, or of the sorted names and contents of a folder's files. Raises KitaeError when absent."""
    if path.is_file():
        return sha256_of(path)
    if not path.is_dir():
        raise KitaeError(f"{path} does not exist", cure="correct the path, or bring the data there")
    digest = hashlib.sha256()
    for file in sorted(item for item in path.rglob("*") if item.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
    return digest.hexdigest()


def digest_json(value: object) -> str:
    """sha256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `path`; on success it is synced to disk and renamed to `path`, on error removed.

    Raises KitaeError when the disk is full. An existing `path` is replaced only after the new one is complete.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.part"
    beside.mkdir()
    try:
        yield beside
        sync_folder(beside)
        old = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.old"
        if path.exists():
            path.rename(old)
        beside.rename(path)
        sync_entry(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise KitaeError(
                f"the disk is full: {path.name} could not be written", cure="free some space and run again", where=str(path.parent)
            ) from error
        raise
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what an interrupted `write_folder` left directly below a folder (for `name` only: others may be at work), nothing else.

    Unfinished work of earlier versions (`.NAME.*.work`) goes too; `.NAME.work` stays.
    """
    whose = "*" if name is None else glob.escape(name)
    for leftover in [file for ending in ("part", "old", "work") for file in folder.glob(f".{whose}.*.{ending}")]:
        shutil.rmtree(leftover, ignore_errors=True)


def seal(folder: Path, *, kind: str, facts: Mapping[str, object]) -> Manifest:
    """Write the manifest over every file below the folder but hidden ones; call it last, inside `write_folder`."""
    below = sorted(item.relative_to(folder) for item in folder.rglob("*") if item.is_file())
    names = [path.as_posix() for path in below if path.as_posix() != MANIFEST and not any(part.startswith(".") for part in path.parts)]
    files = {name: FileRecord(size=(folder / name).stat().st_size, sha256=sha256_of(folder / name)) for name in names}
    manifest = Manifest(kind=kind, facts=dict(facts), files=files)
    replace_text(folder / MANIFEST, manifest.model_dump_json(indent=1))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artifact. Raises KitaeError when the folder has none or it cannot be read."""
    path = folder / MANIFEST
    if not path.is_file():
        raise KitaeError(f"{folder} is not a complete kitae artifact: it has no {MANIFEST}", cure="run the stage that makes it again")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise KitaeError(f"{path} is damaged: {error.errors()[0]['msg']}", cure="remove the folder and make it again") from error


def dropped(folder: Path) -> tuple[str, ...]:
    """The parts of an artifact that were dropped, on purpose. Raises KitaeError when the record is damaged."""
    path = folder / DROPPED
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8"))["dropped"]) if path.is_file() else ()
    except (ValueError, KeyError, TypeError) as error:
        raise KitaeError(f"{DROPPED} is damaged", cure="remove the folder and make it again", where=str(path)) from error


def verify(folder: Path) -> Manifest:
    """Check every file that was not dropped against the manifest. Raises KitaeError naming the first damaged or missing file."""
    manifest = read_manifest(folder)
    gone = tuple(f"{part}/" for part in dropped(folder))
    for name, record in manifest.files.items():
        if gone and name.startswith(gone):
            continue
        path = folder / name
        if not path.is_file():
            raise KitaeError(f"{name} is missing", cure="remove the folder and make it again", where=str(folder))
        if path.stat().st_size != record.size or sha256_of(path) != record.sha256:
            raise KitaeError(
                f"{name} is damaged: its content is not what the manifest records",
                cure="remove the folder and make it again",
                where=str(folder),
            )
    return manifest


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a training folder, oldest first by their step number (never by time stamps)."""
    found = [item for item in (folder / "checkpoints").glob("step-*") if (item / MANIFEST).is_file()]
    return sorted(found, key=lambda item: int(item.name.removeprefix("step-")))


def newest(folder: Path) -> Path:
    """The folder that holds the weights: the newest verified checkpoint of a training run, a trial's model, or itself.

    A damaged newest checkpoint is passed over with a warning. Raises KitaeError when there is nothing to load.
    """
    for checkpoint in reversed(checkpoints(folder)):
        try:
            verify(checkpoint)
        except KitaeError as error:
            log.warning("checkpoint %s is passed over: %s", checkpoint.name, error.what)
        else:
            return checkpoint
    if (folder / "model").is_dir():
        verify(folder / "model")
        return folder / "model"
    if (folder / "model.json").is_file():
        if (folder / MANIFEST).is_file():  # an exported folder has none
            verify(folder)
        return folder
    if any((folder / name).is_file() for name in ("config.json", "model.json")):
        return folder
    if (folder / "discriminator").is_dir() or (folder / "generator").is_dir():
        return folder
    what = "holds no model" if folder.is_dir() else "is no folder" if folder.exists() else "does not exist"
    raise KitaeError(f"{folder} {what}", cure="give the folder of a run, a checkpoint, an export or a Hugging Face model")


def replace_text(path: Path, text: str) -> None:
    """Write a small file that is there as a whole or as it was before, whenever this process ends."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def sync_folder(folder: Path) -> None:
    """Bring everything below a folder to the disk itself, so that a name given afterwards stands for complete files."""
    for item in folder.rglob("*"):
        sync_entry(item)
    sync_entry(folder)


def sync_entry(path: Path) -> None:
    """Bring one file, or a folder's list of names, to the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
