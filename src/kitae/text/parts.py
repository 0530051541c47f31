"""What one task leaves of its documents, on disk, whole or not at all: kept lines, a record of every document, and examples.

RRRRR.lines are zstd frames of some lines each, RRRRR.frames.npy says where they begin, so that any line is found without
reading those before it. RRRRR.records are records of RECORD, one a document, in order. RRRRR.json holds what is small.
"""

import contextlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NotRequired, TypedDict

import numpy as np
import zstandard
from numpy.typing import NDArray

from kitae.core.artifact import sync_entry
from kitae.core.errors import KitaeError

RECORD = np.dtype([("number", "<u8"), ("high", "<u8"), ("low", "<u8"), ("characters", "<u4"), ("size", "<u4"), ("reason", "<u2")])
"""Number in the source, digest in two halves, characters, bytes of the kept line, and the reason's number (0: kept)."""
PACK = struct.Struct("<QQQIIH")
FRAME_BYTES = 1 << 17
MOST = (1 << 32) - 1
ENDINGS = (".lines", ".records", ".frames.npy", ".json")  # in the order in which they get their names: the last one speaks for all
SKETCHES = ".sketch"
"""Ending of the file that `nearduplicates.WriteSketches` makes, if it is among the steps."""


class Facts(TypedDict):
    """What is small: reasons by number, examples (number, id, text) of each, evaluation items found, kept documents with U+FFFD,
    the first document with bytes that are no text and their place, and how often cleaners changed something in kept documents.
    The writer adds the sizes."""

    reasons: list[str]
    examples: dict[str, list[tuple[int, str, str]]]
    items: list[int]
    replaced: int
    first_bad: tuple[int, str] | None
    changes: dict[str, int]
    sizes: NotRequired[dict[str, int]]
    """Bytes of the part's other files, by ending."""


class PartWriter:
    """Writes one part. Its files get their names when the block ends without an error; until then there are none."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._at, self._open = f"{folder}/{rank:05d}", contextlib.ExitStack()
        self._lines, self._records = (self._open.enter_context(self._making(ending).open("wb")) for ending in ENDINGS[:2])
        self._compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
        self._frame = bytearray()
        self._count, self._offset = 0, 0
        self._frames: list[tuple[int, int]] = []
        self.facts = Facts(reasons=[""], examples={}, items=[], replaced=0, first_bad=None, changes={})

    def add(self, number: int, characters: int, *, reason: int = 0, line: bytes = b"", digest: bytes = bytes(16)) -> None:
        """One document: its line when it is kept (`reason` 0)."""
        high, low = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
        self._records.write(PACK.pack(number, high, low, min(characters, MOST), len(line), reason))
        if not reason:
            if not self._frame:
                self._frames.append((self._offset, self._count))
            self._frame += line + b"\n"
            self._count += 1
            if len(self._frame) >= FRAME_BYTES:
                self._flush()

    def _flush(self) -> None:
        if self._frame:
            self._offset += self._lines.write(self._compressor.compress(bytes(self._frame)))
            self._frame.clear()

    def _making(self, ending: str) -> Path:
        return Path(f"{self._at}{ending}.making")

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._flush()
                with self._making(".frames.npy").open("wb") as file:
                    np.save(file, np.array([*self._frames, (self._offset, self._count)], np.int64))
                self._open.close()
                sizes = {ending: self._making(ending).stat().st_size for ending in ENDINGS[:-1]}
                if (sketches := Path(self._at + SKETCHES)).is_file():
                    sizes[SKETCHES] = sketches.stat().st_size
                with self._making(".json").open("w", encoding="utf-8") as text:
                    json.dump({**self.facts, "sizes": sizes}, text, ensure_ascii=False)
                for ending in ENDINGS:
                    sync_entry(self._making(ending))
                    self._making(ending).replace(self._at + ending)
        finally:
            with contextlib.suppress(OSError):  # closing flushes, which fails again on a full disk
                self._open.close()
            for ending in ENDINGS:
                self._making(ending).unlink(missing_ok=True)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that gets its name on the disk itself when the block ends without an error."""
    making = path.with_name(path.name + ".making")
    try:
        with making.open("wb") as file:
            yield file
        sync_entry(making)
        making.replace(path)
    finally:
        making.unlink(missing_ok=True)


def intact(folder: Path, rank: int) -> bool:
    """Whether a part's files are all there, in the sizes that they were written in."""
    at = f"{folder}/{rank:05d}"
    try:
        sizes = json.loads(Path(f"{at}.json").read_text(encoding="utf-8"))["sizes"]
        return bool(sizes) and all(Path(at + ending).stat().st_size == size for ending, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


class PartReader:
    """Reads one part: `facts`, `records`, and its kept lines with one frame in memory. Raises KitaeError for damaged lines."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._at = f"{folder}/{rank:05d}"
        self._frames = np.load(f"{self._at}.frames.npy", allow_pickle=False)
        self._first = self._end = 0
        self._lines: list[bytes] = []

    @property
    def facts(self) -> Facts:
        """What `PartWriter.facts` was."""
        facts: Facts = json.loads(Path(f"{self._at}.json").read_text(encoding="utf-8"))
        return facts

    @property
    def records(self) -> "Rows":
        """RECORD of every document, in order."""
        return Rows(Path(f"{self._at}.records"), RECORD)

    def line(self, number: int) -> bytes:
        """A kept line, without its end; cheap when asked for in order."""
        if not self._first <= number < self._end:
            place = int(np.searchsorted(self._frames[:, 1], number, side="right")) - 1
            (begin, self._first), (end, self._end) = self._frames[place].tolist(), self._frames[place + 1].tolist()
            with open(f"{self._at}.lines", "rb") as file:
                file.seek(begin)
                packed = file.read(end - begin)
            try:
                self._lines = zstandard.ZstdDecompressor().decompress(packed).split(b"\n")
            except zstandard.ZstdError as error:
                cure = "remove the folder and run again: what is missing is made again"
                raise KitaeError(
                    f"a finished part is damaged: {Path(self._at).name}.lines", cure=cure, where=str(Path(self._at).parent)
                ) from error
        return self._lines[number - self._first]


class Rows:
    """Records in a file, read some at a time: the pages of a memory map would count as memory in use."""

    def __init__(self, path: Path, dtype: np.dtype, first: int = 0, count: int | None = None) -> None:
        self._path, self._dtype, self._first = path, dtype, first
        self._count = path.stat().st_size // dtype.itemsize if count is None else count

    def __len__(self) -> int:
        return self._count

    def read(self, first: int, count: int) -> NDArray[np.void]:
        """`count` records from `first` on, fewer at the end."""
        count = max(0, min(count, self._count - first))
        return np.fromfile(self._path, self._dtype, count, offset=(self._first + first) * self._dtype.itemsize)

    def some(self, first: int, count: int) -> "Rows":
        """A run of the records."""
        return Rows(self._path, self._dtype, self._first + first, count)
