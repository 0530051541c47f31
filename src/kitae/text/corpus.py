"""The corpus artifact: `train/NNNNN.jsonl.zst`, `heldout/NNNNN.jsonl.zst` and `corpus.json`; its reader and its writer."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal

import zstandard
from datatrove.data import Document

from kitae.core.errors import KitaeError
from kitae.text.streams import open_bytes

Split = Literal["train", "heldout"]
SHARD_BYTES = 8 << 20  # of JSON: small enough to hold whole in memory and to share out among workers
COMPRESSION_LEVEL = 3


class Corpus:
    """A corpus on disk. Documents have `text` (one sentence a line), `id`, and `metadata["source"]`.

    Raises KitaeError when the folder is no corpus or a shard is damaged.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "corpus.json"
        if not path.is_file():
            raise KitaeError(f"{folder} is not a corpus: it has no corpus.json", cure="give the folder of a corpus node")
        self.folder = folder
        self._facts = json.loads(path.read_text(encoding="utf-8"))

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, in the recipe's order."""
        return tuple(self._facts["sources"])

    @property
    def language(self) -> str:
        """ "ja" or "en"."""
        return str(self._facts["language"])

    @property
    def repeat(self) -> dict[str, int]:
        """How often a pass visits the documents of a source, where it is not once."""
        return dict(self._facts.get("repeat", {}))

    @property
    def weight(self) -> dict[str, float]:
        """The share in which each source is drawn, as a number among the others; empty = every source as it is."""
        return dict(self._facts.get("weight", {}))

    def characters(self, split: Split) -> int:
        """Characters of a split's texts, line ends included."""
        return int(self._facts["characters"][split])

    def shards(self, split: Split) -> list[Path]:
        """The split's files in order."""
        return sorted((self.folder / split).glob("*.jsonl.zst"), key=lambda path: (len(path.name), path.name))  # 100000 behind 99999

    def documents(self, split: Split) -> Iterator[Document]:
        """All documents of a split in order, one shard in memory at a time."""
        for shard in self.shards(split):
            yield from read_shard(shard)


def read_shard(path: Path) -> Iterator[Document]:
    """The documents of one shard in order."""
    for line in open_bytes(path).read().split(b"\n"):
        if line:
            row = json.loads(line)
            yield Document(text=row["text"], id=row["id"], metadata={"source": row["source"]})


class ShardWriter:
    """Writes lines into numbered compressed files of about SHARD_BYTES unpacked bytes; the bytes depend on the lines only.

    `first` is the number of the first file, `most` another size.
    """

    def __init__(self, folder: Path, *, first: int = 0, most: int | None = None) -> None:
        self.folder, self._count, self._size, self._most = folder, first, 0, most or SHARD_BYTES
        self._open: contextlib.ExitStack | None = None
        self._shard: zstandard.ZstdCompressionWriter | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, line: bytes) -> None:
        """Append one line, given without its end."""
        if self._shard is None:
            self._open = contextlib.ExitStack()
            file = self._open.enter_context((self.folder / f"{self._count:05d}.jsonl.zst").open("wb"))
            compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True)
            self._shard = self._open.enter_context(compressor.stream_writer(file))
            self._count, self._size = self._count + 1, 0
        self._shard.write(line + b"\n")
        self._size += len(line) + 1
        if self._size >= self._most:
            self.close()

    def close(self) -> None:
        """Finish the shard that is open, if any."""
        if self._open is not None:
            self._open.close()
        self._open = self._shard = None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
