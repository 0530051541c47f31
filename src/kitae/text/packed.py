"""Compressed files of any number of streams, read to their last byte.

The standard library's own readers of .bz2 and .xz take whatever follows a stream and is none for the end of the file: one flipped
bit in the head of a dump's second stream, and the rest of Wikipedia is silently gone. Here it is an error, as is a truncated stream.
"""

import bz2
import io
import lzma
from collections.abc import Callable
from typing import BinaryIO, Protocol

import zstandard

PIECE_BYTES = 1 << 18
ZSTD_PIECE_BYTES = 1 << 10  # its decompressor gives all that a piece unpacks to at once: at most 32,768 times as much


class Decompressor(Protocol):
    """One stream: bz2's, lzma's, and ours for zstandard."""

    @property
    def eof(self) -> bool:
        """Whether the stream is at its end."""

    @property
    def needs_input(self) -> bool:
        """Whether it has given all that it was fed."""

    @property
    def unused_data(self) -> bytes:
        """What was fed from behind the end."""

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        """At most `max_length` bytes more."""


class _ZstdFrame:
    """zstandard's decompressor in the form of the others; it takes no limit."""

    needs_input = True

    def __init__(self) -> None:
        self._frame = zstandard.ZstdDecompressor().decompressobj()

    @property
    def eof(self) -> bool:
        return bool(self._frame.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._frame.unused_data)

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        return bytes(self._frame.decompress(data))


class Packed(io.RawIOBase):
    """The unpacked bytes of all streams of a file. Raises EOFError for a truncated one, the decompressor's error for damage."""

    def __init__(self, file: BinaryIO, new: Callable[[], Decompressor], *, piece: int = PIECE_BYTES, padded: bool = False) -> None:
        super().__init__()
        self._file, self._new, self._piece, self._padded = file, new, piece, padded
        self._stream: Decompressor | None = None
        self._packed, self._ready = b"", b""

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        wanted = 1 << 62 if size is None or size < 0 else size
        pieces, length = [self._ready], len(self._ready)
        while length < wanted and (piece := self._next(min(PIECE_BYTES, wanted - length))):
            pieces.append(piece)
            length += len(piece)
        data = b"".join(pieces)
        self._ready = data[wanted:]
        return data[:wanted]

    def _next(self, most: int) -> bytes:
        """A few more bytes; none at the end."""
        while True:
            hungry = self._stream is None or self._stream.needs_input
            packed = (self._packed or self._file.read(self._piece)) if hungry else b""
            if hungry:
                self._packed = b""
            if self._stream is None:
                if not packed:
                    return b""
                if self._padded and not (packed := packed.lstrip(b"\0")):
                    continue
                self._stream = self._new()
            elif hungry and not packed:
                raise EOFError
            data = self._stream.decompress(packed, most)
            if self._stream.eof:
                self._packed, self._stream = self._stream.unused_data, None
            if data:
                return data

    def close(self) -> None:
        self._file.close()
        super().close()


def bzip2(file: BinaryIO) -> Packed:
    """A .bz2 file, multistream or not."""
    return Packed(file, bz2.BZ2Decompressor)


def xz(file: BinaryIO) -> Packed:
    """An .xz file; NUL bytes between its streams are padding."""
    return Packed(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ), padded=True)


def zstd(file: BinaryIO) -> Packed:
    """A .zst file of any number of frames."""
    return Packed(file, _ZstdFrame, piece=ZSTD_PIECE_BYTES)
