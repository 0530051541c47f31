"""Token shards: flat memory-mapped integers with the ends of documents and sentences and the starts of words.

A shard NNNNN is five files: tokens-NNNNN.bin (uint16 for vocabularies up to 65536, else uint32, little endian),
documents-NNNNN.bin and sentences-NNNNN.bin (uint64: ends, counted in tokens of this shard), sources-NNNNN.bin (uint16:
source number of each document) and words-NNNNN.bin (one bit per token, lowest bit first: 1 where a word starts).
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.data.files import check_sizes, read_index
from kitae.tokenization.encoding import Flat, Word, flat

Ints = NDArray[np.int64]
Renumber = Callable[[NDArray], NDArray]
INDEX = "index.json"
PARTS = ("tokens", "documents", "sentences", "sources", "words")
SHARD_TOKENS = 1 << 27
_ENDS = np.dtype("<u8")
_FLUSH_WORDS = 1 << 18
_CHUNK = 1 << 20


class _Counts(Config):
    """What the index says of a shard."""

    tokens: int
    documents: int
    sentences: int


class _Index(Config):
    """What `index.json` says."""

    format: int
    dtype: Literal["<u2", "<u4"]
    shards: tuple[_Counts, ...]
    empty_documents: int


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest little-endian unsigned type that holds every id."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


class ShardWriter:
    """Writes documents into shards below a folder. Use as a context manager; leaving it writes `index.json`.

    Raises KitaeError for an id outside of the vocabulary, at the latest when it is left.
    """

    def __init__(self, folder: Path, *, vocab_size: int, shard_tokens: int = SHARD_TOKENS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._vocab_size, self._shard_tokens = folder, vocab_size, shard_tokens
        self._dtype = token_dtype(vocab_size)
        self.empty_documents = 0
        self._shards: list[dict[str, int]] = []
        self._gathered: list[tuple[Sequence[Sequence[Word]], int]] = []
        self._size = 0
        self._open_shard()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._flush()
        self._close_shard()
        if error is None:
            shards = [shard for shard in self._shards if shard["tokens"]]
            index = {"format": 1, "dtype": self._dtype.str, "shards": shards, "empty_documents": self.empty_documents}
            (self.folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")

    def add(self, sentences: Sequence[Sequence[Word]], *, source: int = 0) -> None:
        """One document: per sentence its words, per word its ids. A document without any token is only counted."""
        self._gathered.append((sentences, source))
        self._size += sum(map(len, sentences))
        if self._size >= _FLUSH_WORDS:
            self._flush()

    def extend(self, tokens: Flat, *, sentences: Sequence[int], sources: Sequence[int]) -> None:
        """Documents in arrays, and of each the number of its sentences and of its source."""
        self._flush()
        self._write(tokens, sentences, sources)

    def _open_shard(self) -> None:
        number = len(self._shards)
        self._files = {part: (self.folder / f"{part}-{number:05d}.bin").open("wb") for part in PARTS}
        self._tokens = self._documents = self._sentences = 0
        self._bits = np.zeros(0, dtype=np.uint8)

    def _close_shard(self) -> None:
        self._files["words"].write(np.packbits(self._bits, bitorder="little").tobytes())
        for file in self._files.values():
            file.close()
        if not self._tokens:
            for part in PARTS:
                (self.folder / f"{part}-{len(self._shards):05d}.bin").unlink()
        self._shards.append({"tokens": self._tokens, "documents": self._documents, "sentences": self._sentences})

    def _flush(self) -> None:
        """Write what was gathered."""
        gathered, self._gathered, self._size = self._gathered, [], 0
        if gathered:
            sentences = [sentence for sentences, _ in gathered for sentence in sentences]
            tokens = flat(list(chain.from_iterable(sentences)), list(map(len, sentences)))
            self._write(tokens, [len(sentences) for sentences, _ in gathered], [source for _, source in gathered])

    def _write(self, tokens: Flat, sentences: Sequence[int], sources: Sequence[int]) -> None:
        """Write documents; a shard that has become large enough ends here, at the end of a document."""
        ids, ends = tokens.ids, tokens.lengths.cumsum()
        if len(ids) and (ids.min() < 0 or ids.max() >= self._vocab_size):
            odd = int(ids[(ids < 0) | (ids >= self._vocab_size)][0])
            raise KitaeError(f"token id {odd} is not below the size of the vocabulary, {self._vocab_size}", cure="check the tokenizer")
        document_ends = np.concatenate([[0], ends])[np.asarray(sentences, dtype=np.int64).cumsum()]
        kept = np.diff(document_ends, prepend=0) > 0
        self.empty_documents += int((~kept).sum())
        sentence_ends, document_ends = ends[tokens.lengths > 0], document_ends[kept]
        bits = np.concatenate([self._bits, tokens.begins.astype(np.uint8)])
        whole = len(bits) // 8 * 8
        self._bits = bits[whole:]
        self._files["tokens"].write(ids.astype(self._dtype).tobytes())
        self._files["words"].write(np.packbits(bits[:whole], bitorder="little").tobytes())
        self._files["sentences"].write((sentence_ends + self._tokens).astype("<u8").tobytes())
        self._files["documents"].write((document_ends + self._tokens).astype("<u8").tobytes())
        self._files["sources"].write(np.asarray(sources, dtype="<u2")[kept].tobytes())
        self._tokens += len(ids)
        self._documents += len(document_ends)
        self._sentences += len(sentence_ends)
        if self._tokens >= self._shard_tokens:
            self._close_shard()
            self._open_shard()


def join(parts: Sequence[Path], folder: Path, *, shard_tokens: int = SHARD_TOKENS, renumber: Sequence[Renumber] = ()) -> None:
    """Append the shards of several written folders, in the order given, into shards of one. The parts stay.

    `renumber`, one a part or none, gives its tokens other numbers. Shards that lie in the folder already, from an attempt that was cut
    off, are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    for stale in (path for name in PARTS for path in folder.glob(f"{name}-*.bin")):
        stale.unlink()
    shards: list[dict[str, int]] = []
    empty = 0
    dtype = "<u2"
    bits = np.zeros(0, dtype=np.uint8)
    for place, part in enumerate(parts):
        index = read_index(part / INDEX, _Index, what="token shards")
        dtype = index.dtype
        empty += index.empty_documents
        for number, shard in enumerate(index.shards):
            check_sizes(part, _sizes(number, shard, np.dtype(dtype)))
            if not shards or shards[-1]["tokens"] >= shard_tokens:
                shards.append({"tokens": 0, "documents": 0, "sentences": 0})
                bits = np.zeros(0, dtype=np.uint8)
            bits = _append(part, number, folder, len(shards) - 1, open_shard=shards[-1], bits=bits, tokens=shard.tokens)
            if renumber:
                _renumber(folder / f"tokens-{len(shards) - 1:05d}.bin", np.dtype(dtype), shard.tokens, renumber[place])
            for name, count in shard:
                shards[-1][name] += count
    text = json.dumps({"format": 1, "dtype": dtype, "shards": shards, "empty_documents": empty}, indent=1)
    (folder / INDEX).write_text(text, encoding="utf-8")


def _append(
    part: Path, number: int, folder: Path, target: int, *, open_shard: dict[str, int], bits: NDArray[np.uint8], tokens: int
) -> NDArray[np.uint8]:
    """Append one shard to an open one whose last byte of word starts holds `bits`; returns the bits of the new last byte."""
    for name in PARTS:
        source, goal = part / f"{name}-{number:05d}.bin", folder / f"{name}-{target:05d}.bin"
        with goal.open("r+b" if goal.exists() else "w+b") as file:
            file.seek(0, 2)
            if name in ("documents", "sentences"):
                file.write((np.fromfile(source, dtype="<u8") + np.uint64(open_shard["tokens"])).tobytes())
            elif name == "words":
                starts = np.unpackbits(np.fromfile(source, dtype=np.uint8), count=tokens, bitorder="little")
                starts = np.concatenate([bits, starts])
                file.seek(open_shard["tokens"] // 8)
                file.write(np.packbits(starts, bitorder="little").tobytes())
                bits = starts[len(starts) // 8 * 8 :]
            else:
                with source.open("rb") as content:
                    shutil.copyfileobj(content, file, 1 << 20)
    return bits


def _renumber(path: Path, dtype: np.dtype, tokens: int, renumber: Renumber) -> None:
    """Give the last tokens of a file other numbers."""
    with path.open("r+b") as file:
        file.seek(-tokens * dtype.itemsize, 2)
        changed = renumber(np.fromfile(file, dtype=dtype)).astype(dtype)
        file.seek(-tokens * dtype.itemsize, 2)
        file.write(changed.tobytes())


def _sizes(number: int, shard: _Counts, dtype: np.dtype) -> dict[str, int]:
    """Bytes of a shard's files."""
    tokens, documents, sentences = shard.tokens, shard.documents, shard.sentences
    sizes = (dtype.itemsize * tokens, 8 * documents, 8 * sentences, 2 * documents, -(-tokens // 8))
    return {f"{part}-{number:05d}.bin": size for part, size in zip(PARTS, sizes, strict=True)}


class Shards:
    """Reads the shards of a folder, memory mapped. Tokens are numbered through all shards.

    Raises KitaeError when they are absent, or a file has not the size that the index says.
    """

    def __init__(self, folder: Path) -> None:
        index = read_index(folder / INDEX, _Index, what="token shards")
        self.folder = folder
        self._dtype = np.dtype(index.dtype)
        self._index = index.shards
        for number, shard in enumerate(index.shards):
            check_sizes(folder, _sizes(number, shard, self._dtype))
        self.empty_documents = index.empty_documents
        self._maps: dict[int, tuple[NDArray, NDArray]] = {}
        self.starts: Ints = np.concatenate([[0], np.cumsum([shard.tokens for shard in self._index])]).astype(np.int64)
        """First token of each shard, and the end of the last."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all shards, without special tokens."""
        return int(self.starts[-1])

    @property
    def num_documents(self) -> int:
        """Documents with at least one token."""
        return sum(shard.documents for shard in self._index)

    def __len__(self) -> int:
        return len(self._index)

    def documents(self, shard: int) -> Ints:
        """Ends of the shard's documents, in tokens over all shards."""
        return self._map("documents", shard, _ENDS).astype(np.int64) + self.starts[shard]

    def sentences(self, shard: int) -> Ints:
        """Ends of the shard's sentences, in tokens over all shards."""
        return self._map("sentences", shard, _ENDS).astype(np.int64) + self.starts[shard]

    def sources(self, shard: int) -> NDArray[np.uint16]:
        """Source number of each document of the shard."""
        return self._map("sources", shard, np.dtype("<u2"))

    @cached_property
    def source_numbers(self) -> list[int]:
        """The sources that have documents here, ascending."""
        return sorted({int(number) for present in self._sources_of_shards for number in present})

    def documents_of(self, source: int) -> Iterator[tuple[Ints, Ints]]:
        """First tokens and ends of a source's documents, a million of them at most (and of one shard) at a time."""
        for shard, present in enumerate(self._sources_of_shards):
            if source not in present:
                continue
            sources, stored = self.sources(shard), self._map("documents", shard, _ENDS)
            for first in range(0, len(stored), _CHUNK):
                ends = stored[first : first + _CHUNK].astype(np.int64)
                before = np.int64(stored[first - 1]) if first else np.int64(0)
                mine = sources[first : first + _CHUNK] == source
                if mine.any():
                    starts = np.concatenate([[before], ends[:-1]])
                    yield starts[mine] + self.starts[shard], ends[mine] + self.starts[shard]

    def count_sources(self, sources: int) -> tuple[list[int], list[int]]:
        """Documents and tokens of each of the sources 0, 1, ..."""
        documents, tokens = np.zeros(sources, dtype=np.int64), np.zeros(sources, dtype=np.int64)
        for source in self.source_numbers:
            for starts, ends in self.documents_of(source):
                documents[source] += len(starts)
                tokens[source] += int((ends - starts).sum())
        return documents.tolist(), tokens.tolist()

    def sentence_ends(self, start: int, end: int) -> Ints:
        """Ends of the sentences behind token `start` up to `end`; both lie in one shard."""
        shard = int(np.searchsorted(self.starts, start, side="right")) - 1
        stored = self._map("sentences", shard, _ENDS)
        first, last = np.searchsorted(stored, np.array([start, end], dtype=np.int64) - self.starts[shard], side="right")
        return stored[first:last].astype(np.int64) + self.starts[shard]

    def next_sentences(self, start: int, end: int, count: int) -> Ints:
        """The first `count` of sentence_ends(start, end), without a look at the others."""
        shard = int(np.searchsorted(self.starts, start, side="right")) - 1
        stored = self._ends[shard][1]
        first = int(np.searchsorted(stored, np.uint64(start - self.starts[shard]), side="right"))
        found = stored[first : first + count].astype(np.int64) + self.starts[shard]
        return found[found <= end]

    def document_at(self, index: Ints) -> tuple[Ints, Ints]:
        """First token and end of the document that each of these tokens belongs to."""

        def look(shard: int, local: Ints) -> Ints:
            stored = self._ends[shard][0]
            place = np.searchsorted(stored, local.astype(_ENDS), side="right")
            starts = np.where(place > 0, stored[np.maximum(place, 1) - 1], np.uint64(0))
            return np.stack([starts, stored[place]]).astype(np.int64)

        starts, ends = self._by_shard(index, look)
        return starts, ends

    def sentence_end_before(self, index: Ints) -> Ints:
        """The last end of a sentence at or before each of these positions (of 1 and more), in the shard of the token before it."""

        def look(shard: int, local: Ints) -> Ints:
            stored = self._ends[shard][1]
            place = np.searchsorted(stored, (local + 1).astype(_ENDS), side="right")
            return np.where(place > 0, stored[np.maximum(place, 1) - 1], np.uint64(0)).astype(np.int64)[None]

        return self._by_shard(index - 1, look)[0]

    def _by_shard(self, index: Ints, look: Callable[[int, Ints], Ints]) -> Ints:
        """look(shard, tokens within it) for the tokens of each shard, as [results, tokens] with token numbers over all shards."""
        shard_of = np.searchsorted(self.starts, index, side="right") - 1
        parts, places = [], []
        for shard in np.unique(shard_of).tolist():
            where = np.nonzero(shard_of == shard)[0]
            parts.append(look(shard, index[where] - self.starts[shard]) + self.starts[shard])
            places.append(where)
        found = np.concatenate(parts, axis=1)
        result = np.empty_like(found)
        result[:, np.concatenate(places)] = found
        return result

    @cached_property
    def _ends(self) -> list[tuple[NDArray, NDArray]]:
        count = range(len(self._index))
        return [(self._map("documents", shard, _ENDS), self._map("sentences", shard, _ENDS)) for shard in count]

    @cached_property
    def _sources_of_shards(self) -> list[frozenset[int]]:
        return [frozenset(np.flatnonzero(np.bincount(self.sources(shard))).tolist()) for shard in range(len(self))]

    def tokens(self, start: int, end: int) -> Ints:
        """The ids from token `start` to `end`, both over all shards."""
        return self.gather(np.arange(start, end, dtype=np.int64))[0]

    def gather(self, index: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """(ids int64, whether a word starts there) at any token numbers, in their order."""
        if len(self) == 1:
            return self._gather_one(0, index)
        ids = np.empty(len(index), dtype=np.int64)
        starts = np.empty(len(index), dtype=np.bool_)
        shard_of = np.searchsorted(self.starts, index, side="right") - 1
        for shard in np.unique(shard_of):
            where = np.nonzero(shard_of == shard)[0]
            ids[where], starts[where] = self._gather_one(int(shard), index[where] - self.starts[shard])
        return ids, starts

    def _gather_one(self, shard: int, index: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        if shard not in self._maps:  # when it is needed: a large corpus has thousands of files, a batch looks into a few
            self._maps[shard] = (self._map("tokens", shard, self._dtype), self._map("words", shard, np.dtype(np.uint8)))
        tokens, words = self._maps[shard]
        starts = (words[index >> 3] >> (index & 7).astype(np.uint8)) & 1
        return tokens[index].astype(np.int64), starts.astype(np.bool_)

    def _map(self, part: str, shard: int, dtype: np.dtype) -> NDArray:
        # np.asarray: indexing an np.memmap costs several times what a plain view of it does
        return np.asarray(np.memmap(self.folder / f"{part}-{shard:05d}.bin", dtype=dtype, mode="r"))
