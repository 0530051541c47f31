"""The steps of the corpus pipeline, each a datatrove `PipelineStep`.

A dropped document stays in the stream, marked with its reason, so that the last step can account for every document:
`metadata["dropped"]` holds the reason, and later steps leave such documents alone. A new filter is one class here (or in
another package) that sets the mark.
"""

import collections
import functools
import itertools
import json
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from kitae.text.clean import Normalization, normalize
from kitae.text.corpus import ShardWriter
from kitae.text.decontaminate import Index, find, load_index
from kitae.text.dedup import digest
from kitae.text.feed import Row, ask
from kitae.text.format import Columns, Found
from kitae.text.parts import Facts, PartReader, PartWriter
from kitae.text.readers import read, share
from kitae.text.records import decided_rows
from kitae.text.selection import Selection
from kitae.text.sentences import SPLITTERS
from kitae.text.streams import Errors

BLOCK = 64  # documents dealt to a part at a time
EXAMPLES = 3
EXAMPLE_CHARACTERS = 80


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where documents come from, and how they are read."""

    name: str
    path: Path
    format: str
    columns: Columns = Columns()
    encoding: str | None = None
    errors: Errors = "fail"
    limit: int | None = None
    max_characters: int | None = None
    selection: Selection = Selection()


@dataclass(frozen=True, kw_only=True)
class Part:
    """One task's share of a source's documents."""

    source: int
    part: int
    parts: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """A task's share of the output: shards of one split from number `shard` on, made of the rows of one fate from begin to end."""

    split: str
    fate: int
    shard: int
    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Fed:
    """The parts whose documents the starting process reads for them, and where to ask for these."""

    address: str
    ranks: frozenset[int]


class ReadParts(PipelineStep):
    """Yields the documents of a part; see `documents_of` for who reads what."""

    type = "reader"
    name = "read parts"

    def __init__(self, sources: tuple[Source, ...], parts: tuple[Part, ...], fed: Fed | None = None) -> None:
        super().__init__()
        self.sources, self.parts, self.fed = sources, parts, fed

    def run(self, data: Iterator[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Documents with `source`, `number` (in the source) and perhaps `dropped` in their metadata."""
        part = self.parts[rank]
        source = self.sources[part.source]
        rows = ask(self.fed.address, rank) if self.fed and rank in self.fed.ranks else documents_of(source, part)
        for number, found, drop in rows:
            metadata: dict[str, object] = {"source": source.name, "number": number}
            if not drop:
                found, drop = _made(found)
            text = found.text if isinstance(found.text, str) else ""  # no costly conversion for what is dropped
            if drop:
                metadata["dropped"] = drop
            if found.replaced:
                metadata["replaced"], metadata["bad"] = found.replaced, found.bad
            own = number if found.key is None else normalize(found.key, "none").replace("\n", " ")  # no lone surrogates, no controls
            yield Document(text=text, id=f"{source.name}/{own}", metadata=metadata)


def part_of(number: int, parts: int) -> int:
    """Which of so many parts a document belongs to, when its source is read as a whole: blocks are dealt in turn."""
    return number // BLOCK % parts


def divides(source: Source) -> bool:
    """Whether a part can read its share of the source without the rest."""
    return _share(source, Part(source=0, part=0, parts=2)) is not None


def documents_of(source: Source, part: Part) -> Iterator[Row]:
    """The documents of a part: its share of a path that its format can divide, else of the whole what belongs to it."""
    mine = _share(source, part)
    if mine is not None:
        yield from mine
        return
    for row in all_documents(source, report=part.part == 0):  # every part reads all of the source
        if part_of(row[0], part.parts) == part.part:
            yield row


def _share(source: Source, part: Part) -> Iterator[Row] | None:
    whole = source.limit is not None or source.max_characters is not None
    if whole:
        return None
    mine = share(source.path, source.format, part.part, part.parts, columns=source.columns, encoding=source.encoding, errors=source.errors)
    return None if mine is None else ((number, one, one.drop or source.selection.reason(one.metadata)) for number, one in mine)


def all_documents(source: Source, *, report: bool, travel: bool = False) -> Iterator[Row]:
    """The documents as far as the source's limits reach. `max_characters` counts the raw text of all that are not dropped; the one
    that reaches it is the last. `report` logs the files with bytes that are no text; `travel` makes texts that cannot be made elsewhere.
    """
    characters = 0
    found = read(source.path, source.format, columns=source.columns, encoding=source.encoding, errors=source.errors, report=report)
    for number, one in enumerate(itertools.islice(found, source.limit)):
        drop = one.drop or source.selection.reason(one.metadata)
        if not drop and (source.max_characters is not None or (travel and not isinstance(one.text, str | functools.partial))):
            one, drop = _made(one)
        if source.max_characters is not None and not drop:
            characters += len(one.content)
        yield number, one, drop
        if source.max_characters is not None and characters >= source.max_characters:
            return


def _made(found: Found) -> tuple[Found, str | None]:
    """A document with its text, and why it is dropped: one made late that comes out empty is a "stub"."""
    text = found.content
    return found._replace(text=text), None if text or isinstance(found.text, str) else "stub"


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
        """Writes the files of `parts.PartWriter`; passes the documents on."""
        reasons, items = {"": 0}, set()
        changes: collections.Counter[str] = collections.Counter()
        examples: dict[str, list[tuple[int, str, str]]] = {}
        replaced, first_bad = 0, None
        with PartWriter(self.folder, rank) as writer:
            for document in data:
                reason, number = document.metadata.get("dropped", ""), document.metadata["number"]
                if first_bad is None and "bad" in document.metadata:
                    first_bad = (number, document.metadata["bad"])
                if reason:
                    items.update(document.metadata.get("items", ()))
                    if len(kept := examples.setdefault(reason, [])) < EXAMPLES:
                        kept.append((number, document.id, example(document.metadata.get("shown", document.text))))
                    writer.add(number, len(document.text), reason=reasons.setdefault(reason, len(reasons)))
                else:
                    changes.update(document.metadata.get("changes", {}))
                    line = {"id": document.id, "source": document.metadata["source"], "text": document.text}
                    packed = json.dumps(line, ensure_ascii=False).encode()
                    writer.add(number, len(document.text), line=packed, digest=digest(document.text))
                    replaced += "replaced" in document.metadata
                yield document
            writer.facts = Facts(
                reasons=list(reasons), examples=examples, items=sorted(items), replaced=replaced, first_bad=first_bad, changes=changes
            )


class CopyShards(PipelineStep):
    """Copies kept lines into shards: a task makes some whole shards of one split, from the lines of all parts."""

    type = "writer"
    name = "copy shards"

    def __init__(self, runs: tuple[Run, ...], *, parts: Path, decided: Path, out: Path, shard_bytes: int) -> None:
        super().__init__()
        self.runs, self.parts, self.decided, self.out, self.shard_bytes = runs, parts, decided, out, shard_bytes

    def run(self, data: Iterator[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yields nothing."""
        mine = self.runs[rank]
        readers: dict[int, PartReader] = {}
        with ShardWriter(self.out / mine.split, first=mine.shard, most=self.shard_bytes) as writer:
            for rows, fates in decided_rows(self.decided, mine.begin, mine.end):
                chosen = rows[fates == mine.fate]
                for part, line in zip(chosen["part"].tolist(), chosen["line"].tolist()):
                    if part not in readers:
                        readers[part] = PartReader(self.parts, part)
                    writer.write(readers[part].line(line))
        yield from ()


def count_change(document: Document, name: str, count: int) -> None:
    """Note that a cleaner changed something `count` times; the sums over the kept documents are reported."""
    if count:
        changes = document.metadata.setdefault("changes", {})
        changes[name] = changes.get(name, 0) + count


def example(text: str) -> str:
    """The beginning of a text on one line, safe to print."""
    return " ".join(normalize(text[: 4 * EXAMPLE_CHARACTERS], "none").split())[:EXAMPLE_CHARACTERS]
