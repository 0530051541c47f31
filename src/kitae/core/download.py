"""Files from the network: continued after a cut, hashed while they come in, looked for on several servers in turn.

What is incomplete lies in `NAME.part` (with `NAME.part.json`, which tells whose part it is) and nowhere else; a file that has
its own name is whole, and is what the publisher's checksum says.
"""

import contextlib
import errno
import fcntl
import hashlib
import http.client
import json
import logging
import os
import shutil
import string
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, TypeVar

from kitae import __version__
from kitae.core.errors import KitaeError
from kitae.core.runtime import Progress

log = logging.getLogger(__name__)
Result = TypeVar("Result")
PIECE_BYTES = 1 << 18
MOST_WAIT = 60.0
PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that may be others in a minute
PAGES = (b"<!doctype html", b"<html")


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """What a publisher says of a file's content; `algorithm` is a name that hashlib knows."""

    algorithm: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file, the addresses that it can be had from (the best first), and its checksum where one is published."""

    name: str
    urls: tuple[str, ...]
    checksum: Checksum | None = None
    page: bool = False
    """Whether it is a web page; elsewhere one that comes is a refusal in words."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to bear with a server: seconds of silence, failures in a row, seconds before the first new attempt (then doubled)."""

    timeout: float = 60.0
    attempts: int = 6
    wait: float = 1.0


PATIENCE = Patience()


class _Refused(Exception):
    """This server does not have the file; the next one may."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to other web servers, but not from https to http, and nowhere else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme != "https" and (scheme != "http" or req.type == "https"):
            raise _Refused(f"sends us on to {newurl}, which is not safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Broken(Exception):
    """This attempt failed, another may not. `progress`: more of the file is there than ever before."""

    def __init__(self, what: str, *, progress: bool = False, wait: float | None = None) -> None:
        super().__init__(what)
        self.progress, self.wait = progress, wait


class _Beyond(_Broken):
    """More was asked for than the file has."""


def download(remote: Remote, folder: Path, *, cure: str = "", patience: Patience = PATIENCE) -> Path:
    """Bring a file into a folder, or only check it when it is there; the path.

    Raises KitaeError when no server gives it whole, when it is not what its checksum says, when the disk is full, or when
    another process is at it. `cure` tells what to do when no server has it.
    """
    target = folder / remote.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KitaeError(f"{folder} cannot be written: {error.strerror}", cure="choose another folder") from error
    if target.exists():
        _check_present(target, remote.checksum)
        return target
    with _part(target) as part, Progress(remote.name) as progress:
        _in_turn(remote, cure, patience, lambda url: _whole(url, part, remote, patience, progress))
        part.finish(target)
    return target


def beginning(remote: Remote, size: int, *, cure: str = "", patience: Patience = PATIENCE) -> bytes:
    """The first `size` bytes of a file (all of a shorter one), unchecked. Raises KitaeError as `download` does."""

    def read(url: str) -> bytes:
        with _opened(url, {"Range": f"bytes=0-{size - 1}"}, patience, page=remote.page) as response:
            data = b""
            while len(data) < size and (piece := _read(response, min(PIECE_BYTES, size - len(data)))):
                data += piece
            length = response.headers.get("Content-Length", "")
        if not remote.page:
            _refuse_page(data)
        if length.isdigit() and len(data) < min(size, int(length)):
            raise _Broken("the connection was cut")
        return data

    return _in_turn(remote, cure, patience, read)


def _in_turn(remote: Remote, cure: str, patience: Patience, action: Callable[[str], Result]) -> Result:
    """The result of the first address that works, each given its attempts."""
    reasons: list[str] = []
    for url in remote.urls:
        failures = 0
        while failures < patience.attempts:
            try:
                return action(url)
            except _Refused as refusal:
                reasons.append(f"{_server(url)} {refusal}")
                break
            except _Broken as broken:
                failures = 1 if broken.progress else failures + 1
                if failures == patience.attempts:
                    reasons.append(f"{_server(url)} failed {failures} times, last: {broken}")
                    break
                wait = min(MOST_WAIT, patience.wait * 2 ** (failures - 1) if broken.wait is None else broken.wait)
                log.info("%s: %s; again in %.0f s", _server(url), broken, wait)
                time.sleep(wait)
    cure = cure or "run the same command later; it goes on where it stopped"
    raise KitaeError(f"{remote.name} could not be downloaded: {'; '.join(reasons)}", cure=cure, where=remote.urls[0])


def _server(url: str) -> str:
    return url.partition("://")[2].partition("/")[0] or url


class _Part:
    """The open, locked part of a file: how much is there, whose it is, and its hash so far."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path, self._note = file, path, path.with_name(f"{path.name}.json")
        self.size = self.best = os.fstat(file.fileno()).st_size
        self.joined = self.size > 0  # made of what several answers brought
        self._hash: tuple[str, hashlib._Hash] | None = None
        self.origin: dict[str, str] = {}
        self.total: int | None = None
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            note = json.loads(self._note.read_text(encoding="utf-8"))
            self.origin, self.total = {key: str(note[key]) for key in ("url", "mark")}, note["total"]
        file.seek(0, os.SEEK_END)

    def begin(self, url: str, mark: str, total: int | None) -> None:
        """Note whose part this is, before the first byte of it is written."""
        self.origin, self.total = {"url": url, "mark": mark}, total
        self._note.write_text(json.dumps({**self.origin, "total": total}), encoding="utf-8")

    def clear(self) -> None:
        """Throw away what is there."""
        self.file.seek(0)
        self.file.truncate()
        self.size, self.joined, self._hash, self.total = 0, False, None, None

    def write(self, data: bytes) -> None:
        """Append. Raises KitaeError when the disk is full; what is there stays for the next attempt."""
        left = memoryview(data)
        try:
            while left:
                left = left[self.file.write(left) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            self.file.truncate(self.size)
            cure = "free some space and run the same command again; it goes on where it stopped"
            raise KitaeError("the disk is full", cure=cure, where=str(self.path)) from error
        if self._hash is not None:
            self._hash[1].update(data)
        self.size += len(data)

    def hash_with(self, algorithm: str) -> "hashlib._Hash":
        """The hash of what is there, kept up to date from now on."""
        if self._hash is None or self._hash[0] != algorithm:
            with self.path.open("rb") as file:
                self._hash = algorithm, hashlib.file_digest(file, algorithm)
        return self._hash[1]

    def finish(self, target: Path) -> None:
        """Give the file its name, on disk for good."""
        os.fsync(self.file.fileno())
        self.path.rename(target)
        self._note.unlink(missing_ok=True)


@contextlib.contextmanager
def _part(target: Path) -> Iterator[_Part]:
    path = target.with_name(f"{target.name}.part")
    while True:
        try:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
        except OSError as error:
            raise KitaeError(f"{path} cannot be written: {error.strerror}", cure="choose another folder") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise KitaeError(f"{target.name} is being downloaded by another process", cure="wait for it", where=str(path)) from error
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            break
        file.close()  # another process finished this part between our opening and locking it
    with file:
        part = _Part(file, path)
        try:
            yield part
        finally:
            if path.exists() and not part.size:
                path.unlink()
                path.with_name(f"{path.name}.json").unlink(missing_ok=True)


def _whole(url: str, part: _Part, remote: Remote, patience: Patience, progress: Progress) -> None:
    """Bring the rest of the file, then compare it with its checksum."""
    checksum = remote.checksum
    if part.size != part.total:
        try:
            _receive(url, part, remote, patience, progress)
        except _Beyond:
            part.clear()
            raise
    if checksum is None:
        return
    found = part.hash_with(checksum.algorithm).hexdigest()
    if found != checksum.digest:
        joined = part.joined
        part.clear()
        what = f"gives a file with the {checksum.algorithm} {found}, but {checksum.digest} is published"
        if joined:
            raise _Broken(f"{what}; the parts may be of different files")
        raise _Refused(what)


def _receive(url: str, part: _Part, remote: Remote, patience: Patience, progress: Progress) -> None:
    checksum = remote.checksum
    mark = part.origin.get("mark", "") if part.origin.get("url") == url else ""
    headers: dict[str, str] = {}
    if part.size and (mark or checksum):  # otherwise nothing would tell that the file is another one by now
        headers["Range"] = f"bytes={part.size}-"
        if mark:
            headers["If-Range"] = mark
    with _opened(url, headers, patience, page=remote.page) as response:
        first, total = _extent(response)
        if response.status == 206 and first != part.size:
            part.clear()
            raise _Broken("the server sent another part than was asked for")
        if response.status == 206 and part.total not in (None, total):
            part.clear()
            raise _Broken("the file has changed on the server")
        if response.status != 206:
            part.clear()
        part.joined = part.size > 0
        part.begin(url, _mark(response), total)
        _check_space(part)
        if checksum is not None:
            part.hash_with(checksum.algorithm)
        _copy(response, part, progress, page=remote.page)
        if total is None and checksum is None and not response.chunked:
            log.warning("%s: the server does not say how long the file is, so that a cut cannot be seen", url)
    if total is not None and part.size != total:
        if part.size > total:
            part.clear()
        grown, part.best = part.size > part.best, max(part.size, part.best)
        raise _Broken(f"the connection was cut after {part.size:,} of {total:,} bytes", progress=grown)


def _copy(response: http.client.HTTPResponse, part: _Part, progress: Progress, *, page: bool) -> None:
    begun, before = time.monotonic(), part.size
    while True:
        try:
            data = _read(response, PIECE_BYTES)
        except _Broken as broken:
            grown, part.best = part.size > part.best, max(part.size, part.best)
            raise _Broken(str(broken), progress=grown) from broken
        if not data:
            return
        if not part.size and not page:
            _refuse_page(data)
        part.write(data)
        rate = (part.size - before) / 1e6 / max(time.monotonic() - begun, 1e-3)
        of = "" if part.total is None else f" of {part.total / 1e6:,.1f}"
        progress.update(part.size, part.total, f"{part.size / 1e6:,.1f}{of} MB, {rate:.1f} MB/s")


@contextlib.contextmanager
def _opened(url: str, headers: dict[str, str], patience: Patience, *, page: bool) -> Iterator[http.client.HTTPResponse]:
    """A server's answer with 200 or 206; any other, and a web page instead of a file, raises _Refused or _Broken."""
    if not url.lower().startswith(("http://", "https://")):
        raise _Refused("is no address of a web server: it begins with neither https:// nor http://")
    standing = {"User-Agent": f"kitae/{__version__} (a toolkit for text encoders)", "Accept-Encoding": "identity"}
    try:
        request = urllib.request.Request(urllib.parse.quote(url, safe=string.punctuation), headers={**standing, **headers})
        response = urllib.request.build_opener(_Redirects).open(request, timeout=patience.timeout)
    except urllib.error.HTTPError as error:
        with error:
            what = f"answers {error.code} {error.reason}"
            if error.code in PASSING:
                later = error.headers.get("Retry-After", "")
                raise _Broken(what, wait=float(later) if later.isdigit() else None) from error
            if error.code == 416:
                raise _Beyond(f"{what}: the file is shorter than what is here already") from error
            raise _Refused(what) from error
    except (ValueError, http.client.InvalidURL) as error:
        raise _Refused(f"is no address: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(_spoken(error)) from error
    with response:
        if response.headers.get_content_type() == "text/html" and not page:
            raise _Refused("sends a web page instead of the file")
        yield response


def _read(response: http.client.HTTPResponse, size: int) -> bytes:
    try:
        return response.read(size)
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"the connection was cut: {_spoken(error)}") from error


def _spoken(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return "the server is silent"
    return (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(reason).__name__


def _extent(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where the answer begins in the file, and how long the whole file is if the server says so."""
    if response.status == 206:
        span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        first = span.partition("-")[0]
        return (int(first) if first.isdigit() else -1), (int(total) if total.isdigit() else None)
    length = response.headers.get("Content-Length", "")
    return 0, (int(length) if length.isdigit() else None)


def _mark(response: http.client.HTTPResponse) -> str:
    """What tells this version of the file from any other: a strong ETag, else the time of its last change."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _refuse_page(data: bytes) -> None:
    if data.lstrip()[:64].lower().startswith(PAGES):
        raise _Refused("sends a web page instead of the file")


def _check_space(part: _Part) -> None:
    free = shutil.disk_usage(part.path.parent).free
    if part.total is not None and part.total - part.size > free:
        what = f"{(part.total - part.size) / 1e6:,.0f} MB are missing, but only {free / 1e6:,.0f} MB are free on the disk"
        raise KitaeError(what, cure="free some space, or choose another folder", where=str(part.path))


def _check_present(target: Path, checksum: Checksum | None) -> None:
    if not target.is_file():
        raise KitaeError(f"{target} exists and is not a file", cure="choose another folder")
    if checksum is not None:
        with target.open("rb") as file:
            found = hashlib.file_digest(file, checksum.algorithm).hexdigest()
        if found != checksum.digest:
            what = f"{target.name} is there already, with the {checksum.algorithm} {found}; {checksum.digest} is published"
            raise KitaeError(what, cure="remove it and run again", where=str(target))


def text_of(urls: Sequence[str], name: str, *, cure: str = "", patience: Patience = PATIENCE, most: int = 1 << 22) -> str:
    """A small text from the network, a list of checksums say. Raises KitaeError as `download` does."""
    data = beginning(Remote(name=name, urls=tuple(urls)), most, cure=cure, patience=patience)
    return data.decode("utf-8", errors="replace")
