"""Decoding that goes on after bytes which are no text: each bad place becomes a MARK, is counted, and the first is kept for the report."""

import codecs
import io
from typing import Protocol

from kitae.core.errors import KitaeError
from kitae.text.encodings import guess, spoken

MARK = "\udcff"  # a lone surrogate, which no decoder makes of good bytes
REPLACEMENT = "\ufffd"
PIECE_BYTES = 1 << 16
ALWAYS_BORNE = 100
MOST_BAD_SHARE = 0.01  # of the bytes; beyond that it is not damage but another encoding, or no text


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Mended(io.RawIOBase):
    """Bytes of any encoding as bytes of UTF-8 (marks are encoded with "surrogatepass"). NULs count as bad. `codec` decodes them.

    Raises KitaeError when so many places are bad that the encoding must be another one.
    """

    def __init__(self, stream: _Readable, *, encoding: str, codec: str, where: str) -> None:
        super().__init__()
        self._stream, self._encoding, self._where = stream, encoding, where
        self._decoder = codecs.getincrementaldecoder(codec)()
        self._wide = encoding.startswith(("utf-16", "utf-32"))
        self._seen = 0
        self.bad = 0
        self.first: int | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        """A piece of whatever length, or all that is left."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(PIECE_BYTES), b""))
        while True:
            data = self._stream.read(PIECE_BYTES)
            text = self._decode(data)
            if text or not data:
                return text.encode("utf-8", "surrogatepass")

    def read1(self, size: int = -1) -> bytes:
        """As `read`: TextIOWrapper asks for this name."""
        return self.read(size)

    def _decode(self, data: bytes) -> str:
        final, texts, read = not data, [], data
        kept = len(self._decoder.getstate()[0])  # the beginning of a letter that the last piece ended in
        before, self._seen = self._seen, self._seen + len(data)
        if not self._wide and b"\0" in data:
            self._count(before + data.index(b"\0"), data.count(b"\0"), data)
        while True:
            state = self._decoder.getstate()[1]
            try:
                texts.append(self._decoder.decode(data, final))
                break
            except UnicodeDecodeError as error:  # its object is what the decoder had kept, then the data
                whole = error.object
                self._decoder.setstate((b"", state))
                texts += [self._decoder.decode(whole[: error.start]), MARK]
                data = whole[error.end :]
                self._count(self._seen - len(whole) + error.start, 1, whole)
        text = "".join(texts)
        if self._wide and "\0" in text:  # a zero byte is half of a good letter there, a zero character is none
            wide = "utf-16-le" if self._encoding.startswith("utf-16") else "utf-32-le"
            self._count(before - kept + len(text[: text.index("\0")].encode(wide, "surrogatepass")), text.count("\0"), read)
        return text.replace("\0", MARK)

    def _count(self, offset: int, number: int, sample: bytes) -> None:
        self.first = offset if self.first is None else min(offset, self.first)
        self.bad += number
        if self.bad > max(ALWAYS_BORNE, MOST_BAD_SHARE * self._seen):
            looks = guess(sample)
            what = f"{self.bad:,} places in the first {self._seen:,} bytes are not valid {spoken(self._encoding)} text"
            other = looks is not None and looks != self._encoding
            cure = f'it looks like {spoken(str(looks))}: say encoding = "{looks}"' if other else "bring a file of text"
            raise KitaeError(what, cure=cure, where=self._where)

    def close(self) -> None:
        if isinstance(self._stream, io.IOBase):
            self._stream.close()
        super().close()
