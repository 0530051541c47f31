"""Bringing what a recipe names by a URL to this machine, once and whole. Afterwards it is a file like any other.

A copy is made rather than a stream because every process of the corpus stage reads the source, and because the content
of the copy enters the fingerprint: what changes at the address later changes no result. http and https need nothing but
the standard library; every other address is opened by fsspec, with the package that its file system asks for.
"""

import hashlib
import http.client
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec.core  # type: ignore[import-untyped]

from kitae.core.errors import KitaeError

log = logging.getLogger(__name__)
PIECE_BYTES = 1 << 20
TRIES = 3
WAIT_SECONDS = 2.0
TIMEOUT_SECONDS = 60
PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))  # HTTP's answers that another try may mend
CUT = (OSError, http.client.HTTPException)


class _Again(Exception):
    """A failure that another try may mend; its text says what happened."""


def download(url: str, path: Path) -> None:
    """Copy a file, or (not over http) a folder, to `path`, which appears only when everything is there.

    The size that the server states must be reached, and `#sha256=HEX` at the end of the URL must be the file's checksum.
    Raises KitaeError naming the address for everything else.
    """
    address, _, checksum = url.partition("#sha256=")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.part"
    log.info("downloading %s", address)
    try:
        for attempt in range(1, TRIES + 1):
            try:
                _bring(address, beside, checksum.lower())
                break
            except _Again as error:
                if attempt == TRIES:
                    cure = "check the address and the network, and run again"
                    raise KitaeError(f"the download failed {TRIES} times: {error}", cure=cure, where=address) from error
                log.warning("%s: %s; trying again", address, error)
                time.sleep(WAIT_SECONDS * attempt)
        if not path.exists():  # another process may have brought it meanwhile
            beside.rename(path)
    finally:
        _remove(beside)


def _bring(address: str, beside: Path, checksum: str) -> None:
    _remove(beside)
    if address.lower().startswith(("http://", "https://")):
        with closing(_answer(address)) as answer:
            length = answer.headers.get("Content-Length")
            if length is None and answer.headers.get("Transfer-Encoding", "").lower() != "chunked" and not checksum:
                log.warning("%s: the server does not state the size, so that a cut cannot be seen: add #sha256=... to the address", address)
            _copy(answer, beside, size=int(length) if length else None, checksum=checksum, where=address)
        return
    for name, opened, size in _files(address):
        if name and checksum:
            raise KitaeError("a folder has no sha256", cure="take #sha256=... away, or name a file", where=address)
        with opened as stream:
            _copy(stream, beside / name if name else beside, size=size, checksum=checksum, where=f"{address}{name and '/'}{name}")


def _answer(address: str) -> http.client.HTTPResponse:
    request = urllib.request.Request(address, headers={"User-Agent": "kitae", "Accept-Encoding": "identity"})
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        what = f"the server answers {error.code} ({error.reason})"
        if error.code in PASSING:
            raise _Again(what) from error
        raise KitaeError(what, cure="correct the address", where=address) from error
    except CUT as error:
        raise _Again(str(getattr(error, "reason", "") or error or type(error).__name__)) from error
    except ValueError as error:
        raise KitaeError(f"this is no address: {error}", cure="correct it", where=address) from error
    return answer


def _files(address: str) -> Iterator[tuple[str, IO[bytes], int | None]]:
    """Name below the address ("" for a file), bytes, and size if the file system knows it."""
    try:
        system, root = fsspec.core.url_to_fs(address)
        if system.isfile(root):
            found = [root]
        else:
            found = sorted(system.find(root))
    except (ImportError, ValueError) as error:  # unknown kinds of address, and file systems whose package is not installed
        raise KitaeError(f"this address cannot be opened: {error}", cure="correct it, or install that", where=address) from error
    except CUT as error:
        raise _Again(str(error)) from error
    if not found:
        raise KitaeError("there is nothing at this address", cure="correct the address", where=address)
    for file in found:
        name = "" if file == root else PurePosixPath(file).relative_to(root).as_posix()
        if ".." in PurePosixPath(name).parts:
            raise KitaeError(f"the name {name!r} leaves the folder", cure="do not use this source: it may be an attack", where=address)
        yield name, *_opened(system, file, address)


def _opened(system: Any, file: str, address: str) -> tuple[IO[bytes], int | None]:
    try:
        size = system.info(file).get("size")
        return system.open(file, "rb"), size if isinstance(size, int) else None
    except CUT as error:
        raise _Again(str(error)) from error


def _copy(stream: IO[bytes] | http.client.HTTPResponse, path: Path, *, size: int | None, checksum: str, where: str) -> None:
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


def _read(stream: IO[bytes] | http.client.HTTPResponse, length: int, size: int | None) -> bytes:
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
