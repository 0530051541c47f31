"""Bringing what a recipe names by a URL to this machine, once and whole. Afterwards it is a file like any other.

A copy is made rather than a stream because every process of the corpus stage reads the source, and because the content
of the copy enters the fingerprint: what changes at the address later changes no result. http and https are brought as
public corpora are (core/download.py); every other address is opened by fsspec, with the package that its file system asks for.
"""

import errno
import hashlib
import http.client
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec.core  # type: ignore[import-untyped]

from kitae.core import download as web
from kitae.core.errors import KitaeError

log = logging.getLogger(__name__)
PIECE_BYTES = 1 << 20
PATIENCE = web.Patience(attempts=3, wait=2.0)
CUT = (OSError, http.client.HTTPException)
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)  # no second try mends these
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PAGES = (".htm", ".html", ".xhtml")


class _Again(Exception):
    """A failure that another try may mend; its text says what happened."""


def download(url: str, path: Path) -> None:
    """Copy a file, or (not over http) a folder, to `path`, which appears only when everything is there.

    The size that the server states must be reached, and `#sha256=HEX` at the end of the URL must be the file's checksum.
    What a cut left of a file over http is taken up by the next call. Raises KitaeError naming the address for everything else.
    """
    address, _, checksum = url.partition("#sha256=")
    log.info("downloading %s", address)
    if address.lower().startswith(("http://", "https://")):
        known = web.Checksum(algorithm="sha256", digest=checksum.lower()) if checksum else None
        file = web.Remote(name=path.name, urls=(address,), checksum=known, page=path.name.lower().endswith(PAGES))
        web.download(file, path.parent, cure="check the address and the network, and run again", patience=PATIENCE)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        for attempt in range(1, PATIENCE.attempts + 1):
            try:
                _bring(address, beside, checksum.lower())
                break
            except _Again as error:
                if attempt == PATIENCE.attempts:
                    cure = "check the address and the network, and run again"
                    raise KitaeError(f"the download failed {attempt} times: {error}", cure=cure, where=address) from error
                log.warning("%s: %s; trying again", address, error)
                time.sleep(PATIENCE.wait * attempt)
        if not path.exists():  # another process may have brought it meanwhile
            beside.rename(path)
    finally:
        _remove(beside)


def _bring(address: str, beside: Path, checksum: str) -> None:
    _remove(beside)
    try:
        for name, opened, size in _files(address):
            if name and checksum:
                raise KitaeError("a folder has no sha256", cure="take #sha256=... away, or name a file", where=address)
            with opened as stream:
                _copy(stream, beside / name if name else beside, size=size, checksum=checksum, where=f"{address}{name and '/'}{name}")
    except (KitaeError, _Again):
        raise  # as it is
    except CUT as error:
        if isinstance(error, FINAL) or getattr(error, "errno", None) in FULL:
            cure = "correct the address or the permissions, or free some space"
            raise KitaeError(f"this address cannot be copied: {error}", cure=cure, where=address) from error
        raise _Again(str(error) or type(error).__name__) from error
    except Exception as error:  # file systems of fsspec raise what they like: ImportError, TypeError, BadZipFile, their own
        what = f"this address cannot be opened: {type(error).__name__}: {error}"
        raise KitaeError(what, cure="correct it, or install what its file system asks for", where=address) from error


def _files(address: str) -> Iterator[tuple[str, IO[bytes], int | None]]:
    """Name below the address ("" for a file), bytes, and size if the file system knows it."""
    system, root = fsspec.core.url_to_fs(address)
    found = [root] if system.isfile(root) else sorted(system.find(root))
    if not found:
        raise KitaeError("there is nothing at this address", cure="correct the address", where=address)
    for file in found:
        name = "" if file == root else PurePosixPath(file).relative_to(root).as_posix()
        if ".." in PurePosixPath(name).parts:
            raise KitaeError(f"the name {name!r} leaves the folder", cure="do not use this source: it may be an attack", where=address)
        yield name, *_opened(system, file)


def _opened(system: Any, file: str) -> tuple[IO[bytes], int | None]:
    size = system.info(file).get("size")
    return system.open(file, "rb"), size if isinstance(size, int) else None


def _copy(stream: IO[bytes], path: Path, *, size: int | None, checksum: str, where: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, length = hashlib.sha256(), 0
    with path.open("wb") as file:
        while data := _read(stream, length, size):
            file.write(data)
            digest.update(data)
            length += len(data)
        file.flush()
        os.fsync(file.fileno())
    if size is not None and length != size:
        raise _Again(f"the connection was cut after {length:,} of {size:,} bytes")
    if checksum and digest.hexdigest() != checksum:
        what = f"the download's sha256 is {digest.hexdigest()}, not {checksum}"
        raise KitaeError(what, cure="the file changed or is damaged: check where it comes from, or correct the checksum", where=where)


def _read(stream: IO[bytes], length: int, size: int | None) -> bytes:
    try:
        return stream.read(PIECE_BYTES)
    except CUT as error:  # an error of the disk is not raised here but by write
        whole = f" of {size:,}" if size is not None else ""
        raise _Again(f"the connection was cut after {length:,}{whole} bytes: {error or type(error).__name__}") from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
