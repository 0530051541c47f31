"""The steps of the corpus pipeline, each a datatrove `PipelineStep`.

A dropped document stays in the stream, marked with its reason, so that the last step can account for every document:
`metadata["dropped"]` holds the reason, and later steps leave such documents alone. A new filter is one class here (or in
another package) that sets the mark.
"""

import json
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from kitae.text.clean import Normalization, normalize
from kitae.text.decontaminate import Index, find, load_index
from kitae.text.dedup import digest
from kitae.text.format import Columns
from kitae.text.readers import read_part
from kitae.text.sentences import SPLITTERS

EXAMPLES = 3
EXAMPLE_CHARACTERS = 80
RECORD = np.dtype([("number", "<u8"), ("high", "<u8"), ("low", "<u8"), ("characters", "<u4"), ("reason", "<u2")])


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where documents come from, and how they are read."""

    name: str
    path: Path
    format: str
    columns: Columns = Columns()
    encoding: str | None = None
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """One task's share of a source's documents."""

    source: int
    part: int
    parts: int


class ReadParts(PipelineStep):
    """Yields the documents of a part; see `readers.read_part` for who reads what."""

    type = "reader"
    name = "read parts"

    def __init__(self, sources: tuple[Source, ...], parts: tuple[Part, ...]) -> None:
        super().__init__()
        self.sources, self.parts = sources, parts

    def run(self, data: Iterator[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Documents with `source`, `number` (in the source) and perhaps `dropped` in their metadata."""
        part = self.parts[rank]
        source = self.sources[part.source]
        for number, one in read_part(
            source.path, source.format, part.part, part.parts, columns=source.columns, encoding=source.encoding, limit=source.limit
        ):
            metadata: dict[str, object] = {"source": source.name, "number": number}
            text = one.content
            if reason := one.drop or ("stub" if not text and not isinstance(one.text, str) else ""):
                metadata["dropped"] = reason
            own = number if one.key is None else normalize(one.key, "none").replace("\n", " ")  # no lone surrogates, no controls
            yield Document(text=text, id=f"{source.name}/{own}", metadata=metadata)


class DocumentStep(PipelineStep):
    """A step that looks at one document at a time; dropped documents pass by."""

    type = "filter"

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """The same documents, some changed, some marked as dropped."""
        for document in data:
            if "dropped" not in document.metadata:
                reason = self.change(document)
                if reason is not None:
                    document.metadata["dropped"] = reason
            yield document

    @abstractmethod
    def change(self, document: Document) -> str | None:
        """Change the document in place; return why it is dropped, or None to keep it."""


class Clean(DocumentStep):
    """Normal form, then one sentence a line; documents with nothing left are "empty", those with too little "short"."""

    name = "clean"

    def __init__(self, *, normalization: Normalization, language: str, min_characters: int) -> None:
        super().__init__()
        self.normalization, self.language, self.min_characters = normalization, language, min_characters

    def change(self, document: Document) -> str | None:
        """See the class."""
        text = normalize(document.text, self.normalization)
        if not text:
            return "empty"
        document.text = "\n".join(SPLITTERS[self.language](text))
        return "short" if len(document.text) < self.min_characters else None


class Decontaminate(DocumentStep):
    """Documents that hold evaluation text are "contaminated"; see `decontaminate` for what that means."""

    name = "decontaminate"

    def __init__(self, index: Path, *, overlap: float) -> None:
        super().__init__()
        self.path, self.overlap = index, overlap
        self._index: Index | None = None

    def change(self, document: Document) -> str | None:
        """Marks the document's items in `metadata["items"]`."""
        if self._index is None:
            self._index = load_index(self.path)
        hit = find(self._index, document.text, self.overlap)
        if hit:
            document.metadata["items"] = hit.items
        return "contaminated" if hit else None


class WriteParts(PipelineStep):
    """Writes a part: kept documents as lines, a record of every document, and examples of what was dropped."""

    type = "writer"
    name = "write parts"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Files `RRRRR.jsonl.zst`, `RRRRR.npy` and `RRRRR.json`; passes the documents on."""
        reasons, items = [""], set()
        examples: dict[str, list[tuple[int, str, str]]] = {}
        records = bytearray()
        with (
            (self.folder / f"{rank:05d}.jsonl.zst").open("wb") as file,
            zstandard.ZstdCompressor(level=1).stream_writer(file) as lines,
        ):
            for document in data:
                reason = document.metadata.get("dropped", "")
                number = document.metadata["number"]
                high, low = 0, 0
                if reason:
                    if reason not in reasons:
                        reasons.append(reason)
                    items.update(document.metadata.get("items", ()))
                    if len(kept := examples.setdefault(reason, [])) < EXAMPLES:
                        kept.append((number, document.id, example(document.text)))
                else:
                    both = digest(document.text)
                    high, low = int.from_bytes(both[:8], "little"), int.from_bytes(both[8:], "little")
                    line = {"id": document.id, "source": document.metadata["source"], "text": document.text}
                    lines.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
                records += np.array((number, high, low, len(document.text), reasons.index(reason)), RECORD).tobytes()
                yield document
        np.save(self.folder / f"{rank:05d}.npy", np.frombuffer(bytes(records), RECORD))
        facts = {"reasons": reasons, "examples": examples, "items": sorted(items)}
        (self.folder / f"{rank:05d}.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")


def example(text: str) -> str:
    """The beginning of a text on one line, safe to print."""
    return " ".join(normalize(text[: 4 * EXAMPLE_CHARACTERS], "none").split())[:EXAMPLE_CHARACTERS]
