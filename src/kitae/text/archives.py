"""A source's path as a row of text files: one file, a folder, a tar, a zip, or archives inside archives. Nothing touches the disk."""

import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from kitae.core.errors import KitaeError
from kitae.text.streams import COMPRESSIONS, Allowance, CheckedStream, look_at, open_bytes, open_file, unpack

MOST_MEMBERS = 10_000_000
MOST_DIRECTORY_BYTES = 1 << 26  # of a zip, whose list of members is held in memory: some 600,000 of them
MOST_NESTED_BYTES = 1 << 28
MOST_NESTED_DEPTH = 3
TARS = (".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tgz", ".tbz2", ".txz")
ARCHIVES = (".zip", *TARS)
ZIP_END, ZIP_END_BYTES, ZIP64_PLACE, ZIP64_END = b"PK\5\6", 22, b"PK\6\7", b"PK\6\6"


class Member(NamedTuple):
    """One file of a source: its name below the source's path, its unpacked bytes, and whether there are none."""

    name: str
    stream: CheckedStream
    empty: bool = False


def members(path: Path, endings: tuple[str, ...] = ()) -> Iterator[Member]:
    """The files of a path in a fixed order: a folder's by name, an archive's as stored; hidden ones are left out.

    With `endings`, only files called so (compressed or not) of a folder or an archive, which may hold pictures and
    style sheets besides; a path that is itself a plain file is always read. A member must be read before the next is
    asked for. Raises KitaeError for what is missing, damaged or dangerous: a path that is an empty file, links, devices,
    absolute names, names that leave the archive, too many members, and more than the path's size lets expect.
    """
    allowance = Allowance()
    if path.is_dir():
        for file in files_of(path):
            if file.is_file() and not file.stat().st_size and _wanted(file.name, endings):
                yield _nothing(file.relative_to(path).as_posix(), str(file))
            elif _wanted(file.name, endings) or _may_hold(file.name):
                yield from _file(file, file.relative_to(path).as_posix(), endings, allowance)
    else:
        yield from _file(path, path.name, endings, allowance, alone=True)


def files_of(folder: Path) -> Iterator[Path]:
    """The files in and below a folder by name, hidden ones left out. Raises KitaeError when there is none, or a linked folder."""
    empty = True
    for file in _walk(folder):
        empty = False
        yield file
    if empty:
        raise KitaeError("the folder holds no file", cure="correct the path, or bring the files there", where=str(folder))


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if (Path(root) / name).is_symlink():
                raise KitaeError(f"{name} is a link to a folder", cure="name the folder that it points to as a source", where=root)
        yield from (Path(root) / name for name in sorted(files) if not name.startswith("."))


def _bare(name: str) -> str:
    """A name in small letters, any compression's ending taken off."""
    lower = name.lower()
    for compression in COMPRESSIONS:
        lower = lower.removesuffix(compression)
    return lower


def _wanted(name: str, endings: tuple[str, ...]) -> bool:
    """Whether a file is called as the format's files are."""
    return not endings or _bare(name).endswith(endings)


def _may_hold(name: str) -> bool:
    """Whether a file is an archive, or may be one: a compressed file that does not say of what."""
    return name.lower().endswith(ARCHIVES) or (name.lower().endswith(COMPRESSIONS) and not PurePosixPath(_bare(name)).suffix)


def _chosen(name: str, endings: tuple[str, ...]) -> bool:
    """Whether an archive's member is looked at: it is not hidden, and is called as the format's files or archives are."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)
    return not hidden and (_wanted(name, endings) or _may_hold(name))


def _nothing(name: str, where: str) -> Member:
    return Member(name, CheckedStream(io.BytesIO(), where=where), empty=True)


def _file(path: Path, name: str, endings: tuple[str, ...], allowance: Allowance, *, alone: bool = False) -> Iterator[Member]:
    """The files of one on the disk. One that the recipe names (`alone`) is read whatever it is called, and must not be empty."""
    if path.name.lower().endswith(".zip"):
        with open_file(path) as file:
            allowance.store(size := path.stat().st_size)
            yield from _zip(file, size, str(path), endings, allowance, depth=1)
        return
    with open_bytes(path, allowance) as stream:
        lower = path.name.lower()
        if lower.endswith(TARS):
            yield from _tar(stream, endings, depth=1)
        elif lower.endswith(COMPRESSIONS):
            for member in _unpacked(stream, name, endings, depth=1, alone=alone):
                yield member._replace(empty=member.empty and not alone)
        else:
            yield Member(name, stream)


def _unpacked(stream: CheckedStream, name: str, endings: tuple[str, ...], *, depth: int, alone: bool = False) -> Iterator[Member]:
    """What a compressed file holds: a text, or a tar that does not say so in its name (OpenWebText's `..._data.xz`)."""
    head, stream = look_at(stream)
    if head[257:262] == b"ustar":
        yield from _tar(stream, endings, depth=depth)
    elif head.startswith(b"PK\3\4"):
        raise KitaeError("this is a compressed zip", cure="unpack it and name the zip", where=stream.where)
    elif alone or _wanted(name, endings):
        yield Member(name, stream, empty=not head)


def _tar(stream: CheckedStream, endings: tuple[str, ...], *, depth: int) -> Iterator[Member]:
    where, count = stream.where, 0
    try:
        with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:
            for count, info in enumerate(archive, start=1):
                archive.members = []  # type: ignore[attr-defined]  # it would keep the head of every member
                _check_name(info.name, where, count)
                if info.isdir():
                    continue
                file = archive.extractfile(info) if info.isreg() and not info.issparse() else None
                if file is None:
                    what = f"the member {info.name!r} is {'a sparse file' if info.issparse() else 'a link or a device'}"
                    raise KitaeError(what, cure="use an archive of plain files only", where=where)
                if not _chosen(info.name, endings):
                    continue
                inner = CheckedStream(file, where=f"{where}, member {info.name}", allowance=stream.allowance)
                yield from _inside(inner, info.name, info.size, endings, depth=depth)
    except tarfile.TarError as error:
        raise KitaeError("the tar archive is truncated or damaged", cure="bring a complete copy of the file", where=where) from error
    while stream.read(1 << 16):  # what follows the end mark is padding; reading it checks the compression's own end
        pass
    if stream.tail.strip(b"\0"):
        raise KitaeError("the tar archive is truncated: its end mark is missing", cure="bring a complete copy of the file", where=where)
    if not count:
        raise KitaeError("the archive holds no file", cure="bring a complete copy of the file", where=where)


def _zip(opened: BinaryIO, size: int, where: str, endings: tuple[str, ...], allowance: Allowance, *, depth: int) -> Iterator[Member]:
    found = False
    try:
        _check_directory(opened, size, where)
        with zipfile.ZipFile(opened) as archive:
            for count, info in enumerate(archive.infolist(), start=1):
                _check_name(info.filename, where, count)
                if (info.external_attr >> 28) == 0xA:
                    raise KitaeError(f"the member {info.filename!r} is a link", cure="use an archive of plain files only", where=where)
                if info.is_dir():
                    continue
                found = True
                if not _chosen(info.filename, endings):
                    continue
                place = f"{where}, member {info.filename}"
                with archive.open(info) as file:
                    inner = CheckedStream(file, where=place, stored=info.compress_size, allowance=allowance)
                    yield from _inside(inner, info.filename, info.file_size, endings, depth=depth)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise KitaeError(
            f"the zip archive is damaged or encrypted: {error}", cure="bring a complete, unencrypted copy", where=where
        ) from error
    if not found:
        raise KitaeError("the archive holds no file", cure="bring a complete copy of the file", where=where)


def _check_directory(file: BinaryIO, size: int, where: str) -> None:
    """Refuse a zip whose list of members would fill the memory, before zipfile makes it; found as zipfile finds it."""
    file.seek(max(0, size - (1 << 16) - ZIP_END_BYTES))
    tail = file.read()
    at = len(tail) - ZIP_END_BYTES
    if not (tail[at:].startswith(ZIP_END) and tail.endswith(b"\0\0")):
        at = tail.rfind(ZIP_END)
    listed = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
    if at >= 20 and tail[at - 20 :].startswith(ZIP64_PLACE) and tail[max(0, at - 76) :].startswith(ZIP64_END):
        listed = int.from_bytes(tail[at - 36 : at - 28], "little")
    if listed > MOST_DIRECTORY_BYTES:
        what = f"the zip archive's list of members takes {listed:,} bytes; at most {MOST_DIRECTORY_BYTES:,} are read"
        raise KitaeError(what, cure="split it, or make a tar of it", where=where)


def _inside(stream: CheckedStream, name: str, size: int, endings: tuple[str, ...], *, depth: int) -> Iterator[Member]:
    """A member of an archive: a text file as it is, an archive or a compressed file unpacked in turn (bounded in size and depth)."""
    lower, where = name.lower(), stream.where
    if not lower.endswith((*ARCHIVES, *COMPRESSIONS)):
        yield Member(name, stream, empty=not size)
        return
    if depth >= MOST_NESTED_DEPTH or size > MOST_NESTED_BYTES:
        what = f"the member {name!r} is an archive of {size:,} bytes at depth {depth}"
        raise KitaeError(what, cure="unpack the outer archive and name the inner ones as sources", where=where)
    packed = io.BytesIO(stream.read())
    if lower.endswith(".zip"):
        found = _zip(packed, size, where, endings, stream.allowance, depth=depth + 1)
    else:
        inner = unpack(packed, PurePosixPath(name).name, where=where, stored=size, allowance=stream.allowance)
        if not lower.endswith(TARS):
            yield from _unpacked(inner, name, endings, depth=depth + 1)
            return
        found = _tar(inner, endings, depth=depth + 1)
    yield from (member._replace(name=f"{name}/{member.name}") for member in found)


def _check_name(name: str, where: str, count: int) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or name[1:2] == ":":
        raise KitaeError(f"the member name {name!r} leaves the archive", cure="do not use this archive: it may be an attack", where=where)
    if count > MOST_MEMBERS:
        raise KitaeError(f"the archive has more than {MOST_MEMBERS:,} members", cure="split it", where=where)
