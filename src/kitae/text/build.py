"""Raw sources -> corpus folder, in two passes.

Pass 1, in parallel: parts of the sources are read, cleaned and checked; every document leaves a record of a few bytes.
Then all records (and sketches) together, on disk, decide what is a duplicate and what is held out. Pass 2, in parallel, copies the kept
lines into the shards in source order. So the result depends neither on workers nor on parts, and finished parts outlive
an interruption: a task leaves its files whole or not at all.
"""

import collections
import contextlib
import functools
import itertools
import json
import logging
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datatrove.pipeline.base import PipelineStep

from kitae.core.artifact import content_hash
from kitae.core.errors import KitaeError
from kitae.core.resume import resume
from kitae.core.runtime import worker_pool
from kitae.text import corpus
from kitae.text.engine import LocalExecutor
from kitae.text.executors import Engine, cancel, incomplete
from kitae.text.executors import run as run_pipeline
from kitae.text.feed import Group, serve
from kitae.text.nearduplicates import WriteSketches
from kitae.text.parts import Facts, PartReader, Rows, intact
from kitae.text.records import (
    DROPPED,
    DUPLICATE,
    HELDOUT,
    NEAR,
    TRAIN,
    Fates,
    all_rows,
    count,
    first_rows,
    mark_duplicates,
    mark_held_out,
    mark_near_duplicates,
    merge,
    new_fates,
    shard_ends,
)
from kitae.text.steps import EXAMPLES, CopyShards, Fed, Part, ReadParts, Run, Source, WriteParts, all_documents, divides, example, part_of

log = logging.getLogger(__name__)
PARALLEL_BYTES = 1 << 20  # a smaller source is one part: starting a process costs more than it saves
PARALLEL_SHARDS = 8  # fewer shards (64 MB) are copied here when no process runs yet: that takes less time than starting some
PARTS, DECIDED, ENGINE = "parts", "decided", "engine"
SPLITS = {TRAIN: "train", HELDOUT: "heldout"}
DOUBLE = {DUPLICATE: "duplicate", NEAR: "near-duplicate"}
"""Fates that only all records together decide, and the reasons that they are counted under."""


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """How many documents of every source are kept apart: a share of them, or a number."""

    share: float = 0.0
    documents: int = 0


@dataclass
class Tally:
    """Documents and characters, with a few examples, the first ones (id, beginning of the text)."""

    documents: int = 0
    characters: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Built:
    """What came out: per source, documents read, and tallies of what was kept, held out and dropped by reason."""

    documents_in: dict[str, int]
    train: dict[str, Tally]
    heldout: dict[str, Tally]
    dropped: dict[str, dict[str, Tally]]
    changes: dict[str, dict[str, int]]
    """How often cleaners changed something in documents that no filter dropped, per source and kind of change."""
    items_found: frozenset[int]
    replaced: dict[str, int]
    """Documents that were not dropped in pass 1, with U+FFFD for bytes that are no text; only sources that have any."""
    first_bad: dict[str, str]
    """Where the first bytes of such a source stand that are no text, in dropped documents too."""


@dataclass(frozen=True, kw_only=True)
class _Table:
    """One source's merged records and their fates."""

    source: str
    ranks: tuple[int, ...]
    rows: Rows
    fates: Fates
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Folders of what lies between: the finished parts, and what is decided of their documents."""

    parts: Path
    decided: Path


def build(
    sources: Sequence[Source],
    steps: Sequence[PipelineStep],
    *,
    holdout: Holdout,
    seed: int,
    engine: Engine,
    work: Path,
    out: Path,
    similarity: float = 0.0,
) -> Built:
    """Make `out/train` and `out/heldout`. `work` is for what lies between; what an earlier, equal attempt finished there is taken over.

    From `similarity` on, documents are near-duplicates; 0 leaves them in. Raises KitaeError when nothing is kept, or when a
    source has fewer documents than are to be held out.
    """
    parts = tuple(
        Part(source=number, part=part, parts=tasks)
        for number, tasks in enumerate(engine.parts if _is_large(source) else 1 for source in sources)
        for part in range(tasks)
    )
    labels = [f"{sources[part.source].name} ({part.part + 1} of {part.parts})" for part in parts]
    described = [_described(sources, parts, steps, work), *(["sketches"] if similarity else [])]
    made = resume(work / PARTS, described, leave=lambda old: cancel(old / ENGINE))
    for rank in range(len(parts)):
        mark = made / ENGINE / "completions" / f"{rank:05d}"
        if mark.is_file() and not intact(made, rank):
            log.warning("%s: the finished part is damaged, and made again", labels[rank])
            mark.unlink()
    large = any(_is_large(source) for source in sources)
    here = engine if large or engine.executor != "local" else Engine(workers=1)
    with worker_pool(engine.processes) as pool:  # its processes start when they are needed first
        with _fed(sources, parts, here, made) as fed:
            pipeline = [ReadParts(tuple(sources), parts, fed), *steps, *([WriteSketches(made)] if similarity else []), WriteParts(made)]
            run_pipeline(pipeline, labels=labels, engine=here, folder=made / ENGINE, pool=pool)
        shutil.rmtree(work / DECIDED, ignore_errors=True)  # quickly done again
        (work / DECIDED).mkdir()
        places = _Places(parts=made, decided=work / DECIDED)
        built = _decided(sources, parts, places, holdout=holdout, seed=seed, similarity=similarity)
        _copy(places, out, engine.processes, pool, least=2 if here.executor == "local" and here.processes > 1 else PARALLEL_SHARDS)
    return built


def _decided(sources: Sequence[Source], parts: Sequence[Part], places: _Places, *, holdout: Holdout, seed: int, similarity: float) -> Built:
    """What becomes of every document, on disk, and the counts."""
    readers = [PartReader(places.parts, rank) for rank in range(len(parts))]
    facts = [reader.facts for reader in readers]
    tables = _decide(sources, parts, readers, facts, places, similarity)
    for table in tables:
        mark_held_out(table.rows, table.fates, _number_held_out(table, holdout), seed)
    built = _counted(tables, readers, facts)
    _check(built)
    return built


@contextlib.contextmanager
def _fed(sources: Sequence[Source], parts: Sequence[Part], engine: Engine, folder: Path) -> Iterator[Fed | None]:
    """Read sources here for the parts that work at the same time on this machine, where a part cannot read its share alone."""
    groups = []
    if engine.executor == "local" and engine.processes > 1:
        todo = incomplete(folder / ENGINE, len(parts))
        for number, source in enumerate(sources):
            mine = [rank for rank in todo if parts[rank].source == number and parts[rank].parts > 1]
            if mine and not divides(source):
                for first in range(0, len(mine), engine.processes):
                    ranks = {parts[rank].part: rank for rank in mine[first : first + engine.processes]}
                    read = functools.partial(all_documents, source, report=0 in ranks, travel=True)
                    groups.append(Group(read, functools.partial(part_of, parts=parts[mine[0]].parts), ranks))
    if groups:
        with serve(groups) as address:
            yield Fed(address=address, ranks=frozenset(rank for group in groups for rank in group.ranks))
    else:
        yield None


def _is_large(source: Source) -> bool:
    files = (file for file in source.path.rglob("*") if file.is_file()) if source.path.is_dir() else (source.path,)
    sizes = itertools.accumulate(file.stat().st_size for file in files if file.is_file())
    return any(size >= PARALLEL_BYTES for size in sizes)  # a folder is looked through only as far as needed


def _described(sources: Sequence[Source], parts: Sequence[Part], steps: Sequence[PipelineStep], work: Path) -> object:
    """All that decides what the parts hold, as JSON: sources and steps with their settings, and the files that these name."""
    of_steps = [
        [type(step).__module__, type(step).__qualname__, {name: _value(value) for name, value in vars(step).items() if name != "stats"}]
        for step in steps
    ]
    return [repr(tuple(sources)), [_files(source.path, work) for source in sources], [repr(part) for part in parts], of_steps]


def _files(path: Path, work: Path) -> list[list[object]]:
    """A source's files by size and time, which is quick for any size; those that were just made for this attempt by content."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path] if path.is_file() else []
    made = path.is_relative_to(work)
    return [[str(file), content_hash(file) if made else [file.stat().st_size, file.stat().st_mtime_ns]] for file in files]


def _value(value: object) -> str:
    return content_hash(value) if isinstance(value, Path) and value.is_file() else repr(value)


def _decide(
    sources: Sequence[Source],
    parts: Sequence[Part],
    readers: Sequence[PartReader],
    facts: Sequence[Facts],
    places: _Places,
    similarity: float,
) -> list[_Table]:
    """Merge all records, and mark what is dropped or a duplicate of what came before, in its source or an earlier one."""
    ends, named, decided = [0], [], places.decided
    for number in range(len(sources)):
        ranks = tuple(rank for rank, part in enumerate(parts) if part.source == number)
        reasons = tuple(dict.fromkeys(reason for rank in ranks for reason in facts[rank]["reasons"]))
        codes = {rank: np.array([reasons.index(reason) for reason in facts[rank]["reasons"]], np.uint16) for rank in ranks}
        every = not divides(sources[number])
        ends.append(ends[-1] + merge([(rank, readers[rank], codes[rank]) for rank in ranks], decided, every=every))
        named.append((ranks, reasons))
    rows = all_rows(decided)
    fates = new_fates(decided, rows)
    mark_duplicates(rows, fates, decided)
    if similarity:
        mark_near_duplicates(rows, fates, places.parts, similarity)
    return [
        _Table(source=source.name, ranks=ranks, reasons=reasons, rows=rows.some(begin, end - begin), fates=fates[begin:end])
        for source, (ranks, reasons), begin, end in zip(sources, named, ends, ends[1:])
    ]


def _number_held_out(table: _Table, holdout: Holdout) -> int:
    left = count(table.rows, table.fates).get((TRAIN, 0), (0, 0))[0]
    if holdout.documents and holdout.documents >= max(1, left):
        what = f"holdout = {holdout.documents:,} documents, but only {left:,} of source {table.source} are left after cleaning"
        raise KitaeError(what, cure="hold out fewer documents, or a share")
    if holdout.share and left > 1:
        return min(max(1, round(holdout.share * left)), left - 1)
    return holdout.documents


def _counted(tables: Sequence[_Table], readers: Sequence[PartReader], facts: Sequence[Facts]) -> Built:
    built = Built(
        documents_in={table.source: len(table.rows) for table in tables},
        train={table.source: Tally() for table in tables},
        heldout={table.source: Tally() for table in tables},
        dropped={table.source: {} for table in tables},
        changes={table.source: _changes(facts[rank] for rank in table.ranks) for table in tables},
        items_found=frozenset(item for fact in facts for item in fact["items"]),
        replaced={table.source: number for table in tables if (number := sum(facts[rank]["replaced"] for rank in table.ranks))},
        first_bad={
            table.source: min(found)[1] for table in tables if (found := [bad for rank in table.ranks if (bad := facts[rank]["first_bad"])])
        },
    )
    for table in tables:
        for (fate, code), (documents, characters) in count(table.rows, table.fates).items():
            tally = Tally(documents, characters)
            if fate == DROPPED:
                reason = table.reasons[code]
                shown = [one for rank in table.ranks for one in facts[rank]["examples"].get(reason, ())]
                tally.examples = [(name, text) for _, name, text in sorted(shown)[:EXAMPLES]]
                built.dropped[table.source][reason] = tally
            elif fate in DOUBLE:
                tally.examples = [_example(table, row, readers) for row in first_rows(table.fates, fate, EXAMPLES)]
                built.dropped[table.source][DOUBLE[fate]] = tally
            else:
                (built.heldout if fate == HELDOUT else built.train)[table.source] = tally
    return built


def _changes(facts: Iterable[Facts]) -> dict[str, int]:
    total: collections.Counter[str] = collections.Counter()
    for fact in facts:
        total.update(fact["changes"])
    return dict(sorted(total.items()))


def _example(table: _Table, row: int, readers: Sequence[PartReader]) -> tuple[str, str]:
    (record,) = table.rows.read(row, 1)
    line = json.loads(readers[record["part"]].line(int(record["line"])))
    return line["id"], example(line["text"])


def _check(built: Built) -> None:
    for name, number in built.documents_in.items():
        dropped = sum(tally.documents for tally in built.dropped[name].values())
        kept, held = built.train[name].documents, built.heldout[name].documents
        assert number == kept + held + dropped, f"{name}: {number} documents in, {kept} + {held} + {dropped} out"
    if not any(tally.documents for tally in built.train.values()):
        reasons = sorted({reason for each in built.dropped.values() for reason in each})
        raise KitaeError(f"every document was dropped ({', '.join(reasons)})", cure="check the sources and the filters' settings")


def _copy(places: _Places, out: Path, workers: int, pool: ProcessPoolExecutor, *, least: int) -> None:
    """Write the shards of both splits; from `least` on, every worker writes runs of whole shards."""
    runs: list[Run] = []
    shards = 0
    for fate, split in SPLITS.items():
        (out / split).mkdir(parents=True, exist_ok=True)
        ends = shard_ends(places.decided, fate, corpus.SHARD_BYTES)
        shards += len(ends)
        each = max(1, math.ceil(len(ends) / (4 * workers)))
        for first in range(0, len(ends), each):
            begin, end = ends[first - 1] if first else 0, ends[min(first + each, len(ends)) - 1]
            runs.append(Run(split=split, fate=fate, shard=first, begin=begin, end=end))
    step = CopyShards(tuple(runs), parts=places.parts, decided=places.decided, out=out, shard_bytes=corpus.SHARD_BYTES)
    labels = [f"{run.split} shards from {run.shard:05d} on" for run in runs]
    if shards < least:
        workers = 1
    LocalExecutor([step], labels=labels, workers=workers, folder=places.decided / ENGINE, pool=pool).run()
