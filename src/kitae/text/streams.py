"""Files as checked streams: plain, .gz, .bz2, .xz and .zst; every damage is an error that names file and cure, never silence."""

import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, cast

import zstandard

from kitae.core.errors import KitaeError
from kitae.text.encodings import WIDE_MARKS, by_mark, decoder, guess, known, spoken
from kitae.text.mending import Mended
from kitae.text.packed import bzip2, xz, zstd

MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
DAMAGE = (EOFError, OSError, lzma.LZMAError, zlib.error, zstandard.ZstdError, tarfile.TarError, zipfile.BadZipFile)  # gzip's are OSErrors
HEAD_BYTES = 1 << 16
PIECE_BYTES = 1 << 18
MOST_UNPACKED_RATIO = 1000  # text rarely shrinks more than 20 times, bombs a million times
ALWAYS_ALLOWED_BYTES = 1 << 28
LONGEST_LINE = 1 << 24  # characters; five times the Bible
SHIFTED = re.compile(rb"\x1b\$[@B]")  # how ISO-2022-JP goes over to Japanese
Errors = Literal["fail", "replace", "skip"]
"""What becomes of bytes that are no text: the run stops; they become U+FFFD; the document is dropped."""


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Allowance:
    """How many bytes a source's path may unpack to, whatever lies in it and however deep, by what is stored on the disk."""

    def __init__(self) -> None:
        self._stored = self._spent = 0

    def store(self, size: int) -> None:
        """A file of the path is opened; what is packed inside of it stores nothing more."""
        self._stored += size

    def spend(self, size: int) -> bool:
        """Whether so many bytes more are borne."""
        self._spent += size
        return self._spent <= most_unpacked(self._stored)


def most_unpacked(stored: int) -> int:
    """How many bytes so many stored ones may unpack to."""
    return max(ALWAYS_ALLOWED_BYTES, MOST_UNPACKED_RATIO * stored)


class CheckedStream(io.RawIOBase):
    """Unpacked bytes of one file or archive member. Reading raises KitaeError for a truncated, damaged or bursting archive.

    With `text`, also for NUL bytes (a binary file). `where` names the file in errors, `stored` is its size where it is packed;
    what it unpacks to is taken from `allowance`, too.
    """

    def __init__(
        self, inner: _Readable, *, where: str, stored: int | None = None, allowance: Allowance | None = None, text: bool = False
    ) -> None:
        super().__init__()
        self._inner, self.where, self._stored, self._text = inner, where, stored, text
        self.allowance = allowance or Allowance()
        self.position = 0
        self.tail = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:  # in pieces, so that a bomb is seen before it has filled the memory
            return b"".join(iter(lambda: self.read(PIECE_BYTES), b""))
        try:
            data = self._inner.read(size)
        except DAMAGE as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise KitaeError(
                    f"the file cannot be read: {error.strerror}", cure="check the disk and the permissions", where=self.where
                ) from error
            what = f"the archive is truncated or damaged after {self.position:,} unpacked bytes"
            raise KitaeError(what, cure="bring a complete copy of the file", where=self.where) from error
        if self._text and b"\0" in data:
            offset = self.position + data.index(b"\0")
            raise KitaeError(f"this is not text: NUL byte at offset {offset:,}", cure=_cure_for_binary(data), where=self.where)
        self.position += len(data)
        if data:
            self.tail = data[-512:]
        if self._stored is not None:
            self._check_size(len(data), self._stored)
        return data

    def _check_size(self, size: int, stored: int) -> None:
        check_ratio(self.position, stored, self.where)
        if not self.allowance.spend(size):
            what = f"all that is packed in it unpacks to more than {MOST_UNPACKED_RATIO} times its size: this looks like an archive bomb"
            raise KitaeError(what, cure="unpack it yourself if it is right", where=self.where)

    def read1(self, size: int = -1) -> bytes:
        """As `read`: TextIOWrapper asks for this name."""
        return self.read(size)

    def close(self) -> None:
        if isinstance(self._inner, io.IOBase):
            self._inner.close()
        super().close()


def check_ratio(unpacked: int, stored: int, where: str) -> None:
    """Raises KitaeError if this many unpacked bytes came from so few stored ones that it must be a bomb."""
    if unpacked > most_unpacked(stored):
        what = f"{stored:,} stored bytes unpack to more than {MOST_UNPACKED_RATIO} times as many: this looks like an archive bomb"
        raise KitaeError(what, cure="unpack it yourself if it is right", where=where)


def open_bytes(path: Path, allowance: Allowance | None = None) -> CheckedStream:
    """A file's unpacked bytes. Raises KitaeError when it is missing, empty, or not what its ending says (an HTML page, say)."""
    file = open_file(path)
    allowance, size = allowance or Allowance(), path.stat().st_size
    allowance.store(size)
    return unpack(file, path.name, where=str(path), stored=size, allowance=allowance)


def open_file(path: Path) -> BinaryIO:
    """A file as it is. Raises KitaeError when it is missing, not a file, or locked."""
    where = str(path)
    if not path.exists():
        raise KitaeError(f"{path.name} does not exist", cure="correct the path, or bring the file there", where=where)
    if not path.is_file():
        raise KitaeError(f"{path.name} is not a file", cure="give the path of a file", where=where)
    try:
        return path.open("rb")
    except OSError as error:
        raise KitaeError(f"{path.name} cannot be opened: {error.strerror}", cure="check the permissions", where=where) from error


def unpack(file: BinaryIO, name: str, *, where: str, stored: int, allowance: Allowance) -> CheckedStream:
    """The unpacked bytes of an open, seekable file that was called `name`."""
    head = file.read(512)
    file.seek(0)
    if not head:
        file.close()
        raise KitaeError("the file is empty", cure="remove it from the sources or bring a complete copy", where=where)
    found = next((ending for magic, ending in MAGIC.items() if head.startswith(magic)), None)
    claimed = claimed_compression(name)
    if claimed and found != claimed:
        file.close()
        page = head.lstrip().lower().startswith((b"<!doctype html", b"<html"))
        what = f"this is {'an HTML page' if page else 'not a ' + claimed + ' archive'}, although its name ends in {claimed}"
        raise KitaeError(what, cure="download the file again" if page else "correct its name or bring a complete copy", where=where)
    return CheckedStream(_opened(file, found), where=where, stored=stored if found else None, allowance=allowance)


def look_at(stream: CheckedStream) -> tuple[bytes, CheckedStream]:
    """The first bytes (512, or fewer at the end), and a stream that gives them again."""
    head = b""
    while len(head) < 512 and (more := stream.read(512 - len(head))):
        head += more
    return head, CheckedStream(_Joined(head, stream), where=stream.where, allowance=stream.allowance)


def claimed_compression(name: str) -> str | None:
    """The compression that a file's ending announces: ".gz", ".bz2", ".xz", ".zst" or None."""
    ending = Path(name.lower()).suffix
    return {".tgz": ".gz", ".tbz2": ".bz2", ".txz": ".xz"}.get(ending, ending if ending in COMPRESSIONS else None)


def _opened(file: BinaryIO, compression: str | None) -> _Readable:
    if compression == ".gz":
        return gzip.GzipFile(fileobj=file)
    return {".bz2": bzip2, ".xz": xz, ".zst": zstd}[compression](file) if compression else file


def open_pipe(file: _Readable, *, where: str) -> CheckedStream:
    """The unpacked bytes of a pipe, such as standard input without a buffer. No more is asked for than one `read` gives: lines come out
    as they come in, unless they are packed.
    """
    head = b""
    while any(len(head) < len(magic) and magic.startswith(head) for magic in MAGIC) and (more := file.read(512)):
        head += more
    whole = CheckedStream(_Joined(head, file), where=where)
    found = next((ending for magic, ending in MAGIC.items() if head.startswith(magic)), None)
    return CheckedStream(_opened(cast(BinaryIO, whole), found), where=where) if found else whole


class TextStream:
    """Lines or the whole text of checked bytes; `\\r\\n` and `\\r` become `\\n`, a byte order mark is taken off.

    Raises KitaeError that names the byte offset and the encoding which the bytes look like; unless `errors` is "fail", bad bytes
    become `mending.MARK` instead, and `mended` counts them.
    """

    def __init__(self, stream: CheckedStream, *, encoding: str | None = None, errors: Errors = "fail") -> None:
        self.where, self.encoding = stream.where, "utf-8" if encoding is None else encoding
        try:
            self.encoding = known(self.encoding)
        except LookupError as error:
            cure = 'use "utf-8", "cp932", "euc_jp" or "utf-16"'
            raise KitaeError(f'encoding = "{encoding}" is unknown', cure=cure, where=self.where) from error
        head = stream.read(HEAD_BYTES)
        _check_head(head, self.encoding, stream.where, strict=errors == "fail")
        codec = decoder(self.encoding, head)
        self.mended: Mended | None = None
        self._text: io.TextIOWrapper
        if errors == "fail":
            wide = self.encoding.startswith(("utf-16", "utf-32"))
            self._stream = CheckedStream(_Joined(head, stream), where=stream.where, text=not wide)
            self._text = io.TextIOWrapper(self._stream, encoding=codec, errors="strict", newline=None)  # type: ignore[arg-type]
        else:
            self.mended = Mended(_Joined(head, stream), encoding=self.encoding, codec=codec, where=stream.where)
            self._text = io.TextIOWrapper(self.mended, encoding="utf-8", errors="surrogatepass", newline=None)  # type: ignore[arg-type]
        self._text._CHUNK_SIZE = PIECE_BYTES  # type: ignore[attr-defined]  # calls of Python code per 256 KiB, not per 8

    def __iter__(self) -> "TextStream":
        return self

    def __next__(self) -> str:
        line = self.readline()
        if not line:
            raise StopIteration
        if len(line) > LONGEST_LINE:
            what = f"a line has more than {LONGEST_LINE:,} characters"
            raise KitaeError(what, cure="check the format and the line ends of the file, or split the line", where=self.where)
        return line

    def readline(self, most: int | None = None) -> str:
        """The next line or, of one that is longer, its next `most` characters; nothing at the end."""
        try:
            return self._text.readline(LONGEST_LINE + 1 if most is None else most)
        except UnicodeDecodeError as error:
            raise self._explain(error) from error

    def read(self, size: int = -1) -> str:
        """The next `size` characters, or all that is left."""
        try:
            return self._text.read(size)
        except UnicodeDecodeError as error:
            raise self._explain(error) from error

    def _explain(self, error: UnicodeDecodeError) -> KitaeError:
        data = error.object
        offset = max(0, self._stream.position - len(data)) + error.start
        start = data.rfind(b"\n", 0, error.start) + 1
        return _wrong_encoding(self.encoding, offset, guess(data[start : start + HEAD_BYTES]), self.where)


class _Joined:
    """The head that was looked at, then the rest."""

    def __init__(self, head: bytes, rest: _Readable) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int = -1, /) -> bytes:
        if not self._head:
            return self._rest.read(size)
        if size < 0:
            head, self._head = self._head, b""
            return head + self._rest.read()
        head, self._head = self._head[:size], self._head[size:]
        return head


def open_text(path: Path, *, encoding: str | None = None) -> TextStream:
    """A text file, compressed or not, as a stream of lines. Raises KitaeError as `open_bytes` and `TextStream` do."""
    return TextStream(open_bytes(path), encoding=encoding)


def _check_head(head: bytes, encoding: str, where: str, *, strict: bool) -> None:
    if not head:
        raise KitaeError("the file is empty", cure="remove it from the sources or bring a complete copy", where=where)
    if encoding in WIDE_MARKS:
        _check_wide(head, encoding, where)
        return
    looks = by_mark(head) or (guess(head) if b"\0" in head else None)
    if encoding == "utf-8" and SHIFTED.search(head) and guess(head) == "iso2022_jp":
        raise _wrong_encoding(encoding, head.index(b"\x1b"), "iso2022_jp", where)  # valid UTF-8, too: seven bits
    if looks and looks.startswith("utf-16"):
        raise _wrong_encoding(encoding, 0, looks, where)
    if strict and encoding != "utf-8" and not head.isascii():
        cut = head.rfind(b"\n") + 1 or len(head)
        if guess(head[:cut]) == "utf-8":
            raise _wrong_encoding(encoding, 0, "utf-8", where)


def _check_wide(head: bytes, encoding: str, where: str) -> None:
    """Refuse UTF-16 and UTF-32 that lack the byte order mark which they go by, or have that of the other order."""
    marked = head.startswith(WIDE_MARKS[encoding[:6]])
    if marked and not head.startswith(WIDE_MARKS[encoding]):
        raise _wrong_encoding(encoding, 0, encoding[:6], where)
    if not marked and encoding == encoding[:6]:
        looks = guess(head)
        what = f"the file has no byte order mark, which {spoken(encoding)} begins with"
        raise KitaeError(what, cure=f'say encoding = "{looks or encoding + "-le"}" in this source', where=where)


def _wrong_encoding(encoding: str, offset: int, looks: str | None, where: str) -> KitaeError:
    if looks is None or looks == encoding:
        what = f"byte {offset:,} is not valid {spoken(encoding)}"
        return KitaeError(what, cure='say the right encoding = "..." in this source, or repair the file', where=where)
    what = f"this is not {spoken(encoding)} (byte {offset:,}); it looks like {spoken(looks)}"
    return KitaeError(what, cure=f'say encoding = "{looks}" in this source', where=where)


def _cure_for_binary(data: bytes) -> str:
    looks = guess(data[:HEAD_BYTES])
    if looks and looks.startswith("utf-16"):
        return f'it looks like {spoken(looks)}: say encoding = "{looks}" in this source'
    return "give a text file, or a compression or archive that kitae reads (.gz .bz2 .xz .zst .tar .zip)"
