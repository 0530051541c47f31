"""A source's path as a row of text files: one file, a folder, a tar, a zip, or archives inside a tar. Nothing touches the disk."""

import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from kitae.core.errors import KitaeError
from kitae.text.streams import COMPRESSIONS, CheckedStream, look_at, open_bytes, unpack

MOST_MEMBERS = 10_000_000
MOST_NESTED_BYTES = 1 << 28
MOST_NESTED_DEPTH = 3
TARS = (".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tgz", ".tbz2", ".txz")


class Member(NamedTuple):
    """One file of a source: its name below the source's path, and its unpacked bytes."""

    name: str
    stream: CheckedStream


def members(path: Path, endings: tuple[str, ...] = ()) -> Iterator[Member]:
    """The files of a path in a fixed order: a folder's by name (hidden ones left out), an archive's as stored.

    With `endings`, only files called so (compressed or not) of a folder or an archive, which may hold pictures and
    style sheets besides; a path that is itself a plain file is always read. A member must be read before the next is
    asked for. Raises KitaeError for what is missing, empty, damaged or dangerous: links, devices, absolute names, names
    that leave the archive, too many members.
    """
    if path.is_dir():
        for file in files_of(path):
            if _wanted(file.name, endings) or file.name.lower().endswith((".zip", *TARS)):
                yield from _file(file, file.relative_to(path).as_posix(), endings)
    else:
        yield from _file(path, path.name, endings)


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


def _wanted(name: str, endings: tuple[str, ...]) -> bool:
    """Whether a file is called as the format's files are, any compression's ending taken off."""
    lower = name.lower()
    for compression in COMPRESSIONS:
        lower = lower.removesuffix(compression)
    return not endings or lower.endswith(endings)


def _file(path: Path, name: str, endings: tuple[str, ...]) -> Iterator[Member]:
    lower = path.name.lower()
    if lower.endswith(".zip"):
        yield from _zip(path, endings)
        return
    with open_bytes(path) as stream:
        if lower.endswith(TARS):
            yield from _tar(stream, endings, depth=1)
        elif lower.endswith(COMPRESSIONS):
            yield from _unpacked(stream, name, endings, depth=1)
        else:
            yield Member(name, stream)


def _unpacked(stream: CheckedStream, name: str, endings: tuple[str, ...], *, depth: int) -> Iterator[Member]:
    """What a compressed file holds: a text, or a tar that does not say so in its name (OpenWebText's `..._data.xz`)."""
    head, stream = look_at(stream)
    if head[257:262] == b"ustar":
        yield from _tar(stream, endings, depth=depth)
    else:
        yield Member(name, stream)


def _tar(stream: CheckedStream, endings: tuple[str, ...], *, depth: int) -> Iterator[Member]:
    where, count = stream.where, 0
    try:
        with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:
            for count, info in enumerate(archive, start=1):
                _check_name(info.name, where, count)
                if info.isdir():
                    continue
                file = archive.extractfile(info) if info.isreg() else None
                if file is None:
                    raise KitaeError(
                        f"the member {info.name!r} is a link or a device", cure="use an archive of plain files only", where=where
                    )
                if _wanted(info.name, endings) or info.name.lower().endswith(TARS):
                    yield from _inside(file, info.name, info.size, f"{where}, member {info.name}", endings, depth=depth)
    except tarfile.TarError as error:
        raise KitaeError("the tar archive is truncated or damaged", cure="bring a complete copy of the file", where=where) from error
    while stream.read(1 << 16):  # what follows the end mark is padding; reading it checks the compression's own end
        pass
    if stream.tail.strip(b"\0"):
        raise KitaeError("the tar archive is truncated: its end mark is missing", cure="bring a complete copy of the file", where=where)
    if not count:
        raise KitaeError("the archive holds no file", cure="bring a complete copy of the file", where=where)


def _zip(path: Path, endings: tuple[str, ...]) -> Iterator[Member]:
    where, found = str(path), False
    open_bytes(path).close()
    try:
        with zipfile.ZipFile(path) as archive:
            for count, info in enumerate(archive.infolist(), start=1):
                _check_name(info.filename, where, count)
                if (info.external_attr >> 28) == 0xA:
                    raise KitaeError(f"the member {info.filename!r} is a link", cure="use an archive of plain files only", where=where)
                if info.is_dir():
                    continue
                found = True
                if not _wanted(info.filename, endings):
                    continue
                with archive.open(info) as file:
                    yield Member(info.filename, CheckedStream(file, where=f"{where}, member {info.filename}", stored=info.compress_size))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise KitaeError(
            f"the zip archive is damaged or encrypted: {error}", cure="bring a complete, unencrypted copy", where=where
        ) from error
    if not found:
        raise KitaeError("the archive holds no file", cure="bring a complete copy of the file", where=where)


def _inside(file: IO[bytes], name: str, size: int, where: str, endings: tuple[str, ...], *, depth: int) -> Iterator[Member]:
    """A member of a tar: a text file as it is, a compressed file or a tar unpacked in turn (bounded in size and depth)."""
    lower = name.lower()
    if not lower.endswith((*TARS, *COMPRESSIONS)):
        yield Member(name, CheckedStream(file, where=where))
        return
    if depth >= MOST_NESTED_DEPTH or size > MOST_NESTED_BYTES:
        what = f"the member {name!r} is an archive of {size:,} bytes at depth {depth}"
        raise KitaeError(what, cure="unpack the outer archive and name the inner ones as sources", where=where)
    inner = unpack(io.BytesIO(file.read()), PurePosixPath(name).name, where=where, stored=size)
    found = _tar(inner, endings, depth=depth + 1) if lower.endswith(TARS) else _unpacked(inner, "", endings, depth=depth + 1)
    yield from (Member(f"{name}/{member.name}".removesuffix("/"), member.stream) for member in found)


def _check_name(name: str, where: str, count: int) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or name[1:2] == ":":
        raise KitaeError(f"the member name {name!r} leaves the archive", cure="do not use this archive: it may be an attack", where=where)
    if count > MOST_MEMBERS:
        raise KitaeError(f"the archive has more than {MOST_MEMBERS:,} members", cure="split it", where=where)
