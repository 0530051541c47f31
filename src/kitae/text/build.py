"""Raw sources -> corpus folder, in two passes.

Pass 1, in parallel: parts of the sources are read, cleaned and checked; every document leaves a record of 30 bytes.
Then all records together decide what is a duplicate and what is held out. Pass 2 copies the kept lines into the shards in
source order. So the result depends neither on the number of workers nor on the number of parts.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

from kitae.core.errors import KitaeError
from kitae.text.corpus import ShardWriter, read_lines
from kitae.text.dedup import first_occurrences
from kitae.text.engine import LocalExecutor
from kitae.text.steps import EXAMPLES, Part, ReadParts, Source, WriteParts, example

log = logging.getLogger(__name__)
PARALLEL_BYTES = 1 << 20  # a smaller source is one part: starting a process costs more than it saves


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """How many documents of every source are kept apart: a share of them, or a number."""

    share: float = 0.0
    documents: int = 0


@dataclass
class Tally:
    """Documents and characters, with a few examples (document number, id, beginning of the text)."""

    documents: int = 0
    characters: int = 0
    examples: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Built:
    """What came out: per source, documents read, and tallies of what was kept, held out and dropped by reason."""

    documents_in: dict[str, int]
    train: dict[str, Tally]
    heldout: dict[str, Tally]
    dropped: dict[str, dict[str, Tally]]
    items_found: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class _Records:
    """The records of one source in document order, with the part that each document is in."""

    data: NDArray[np.void]
    part: NDArray[np.int64]
    reasons: tuple[str, ...]


def build(
    sources: Sequence[Source], steps: Sequence[PipelineStep], *, holdout: Holdout, seed: int, workers: int, work: Path, out: Path
) -> Built:
    """Make `out/train` and `out/heldout`. `work` is an empty folder for what lies between the passes; it is removed.

    Raises KitaeError when nothing is kept, or when a source has fewer documents than are to be held out.
    """
    work.mkdir(parents=True, exist_ok=True)
    workers = workers if any(_is_large(source) for source in sources) else 1
    parts = tuple(
        Part(source=number, part=part, parts=count)
        for number, count in enumerate(workers if _is_large(source) else 1 for source in sources)
        for part in range(count)
    )
    labels = [f"{sources[part.source].name} ({part.part + 1} of {part.parts})" for part in parts]
    pipeline = [ReadParts(tuple(sources), parts), *steps, WriteParts(work)]
    LocalExecutor(pipeline, labels=labels, workers=workers, folder=work / "engine").run()

    facts = [json.loads((work / f"{rank:05d}.json").read_text(encoding="utf-8")) for rank in range(len(parts))]
    records = [_gather(work, [rank for rank, part in enumerate(parts) if part.source == number], facts) for number in range(len(sources))]
    duplicates = _duplicates(records)
    built = Built(
        documents_in={source.name: len(each.data) for source, each in zip(sources, records)},
        train={source.name: Tally() for source in sources},
        heldout={source.name: Tally() for source in sources},
        dropped={source.name: {} for source in sources},
        items_found=frozenset(item for fact in facts for item in fact["items"]),
    )
    _count_dropped(built, sources, records, parts, facts)
    with ShardWriter(out / "train") as train, ShardWriter(out / "heldout") as heldout:
        for source, each, double in zip(sources, records, duplicates):
            held = _held_out(source.name, each.data, (each.data["reason"] == 0) & ~double, holdout, seed)
            _write(source.name, work, each, double, held, (train, heldout), built)
    shutil.rmtree(work)
    _check(built)
    return built


def _is_large(source: Source) -> bool:
    return source.path.is_dir() or (source.path.is_file() and source.path.stat().st_size >= PARALLEL_BYTES)


def _gather(work: Path, ranks: list[int], facts: list[dict]) -> _Records:
    reasons = tuple(dict.fromkeys(reason for rank in ranks for reason in facts[rank]["reasons"]))
    arrays = []
    for rank in ranks:
        array = np.load(work / f"{rank:05d}.npy", allow_pickle=False)
        codes = np.array([reasons.index(reason) for reason in facts[rank]["reasons"]], np.uint16)
        array["reason"] = codes[array["reason"]]
        arrays.append(array)
    data = np.concatenate(arrays)
    order = np.argsort(data["number"], kind="stable")
    assert (np.diff(data["number"][order]) > 0).all(), "a document is in two parts"
    return _Records(data=data[order], part=np.repeat(ranks, [len(array) for array in arrays])[order], reasons=reasons)


def _duplicates(records: list[_Records]) -> list[NDArray[np.bool_]]:
    """Per source, which otherwise kept documents have a text that came before, in this source or an earlier one."""
    kept = [np.flatnonzero(each.data["reason"] == 0) for each in records]
    high = np.concatenate([each.data["high"][places] for each, places in zip(records, kept)])
    low = np.concatenate([each.data["low"][places] for each, places in zip(records, kept)])
    later = ~first_occurrences(high, low)
    result, start = [], 0
    for each, places in zip(records, kept):
        double = np.zeros(len(each.data), bool)
        double[places] = later[start : start + len(places)]
        result.append(double)
        start += len(places)
    return result


def _held_out(name: str, data: NDArray[np.void], kept: NDArray[np.bool_], holdout: Holdout, seed: int) -> NDArray[np.bool_]:
    """The documents whose hash of (seed, text) is smallest: a choice that does not hang on order, parts or workers."""
    held = np.zeros(len(data), bool)
    places = np.flatnonzero(kept)
    if holdout.documents >= max(1, len(places)) and holdout.documents:
        what = f"holdout = {holdout.documents:,} documents, but only {len(places):,} of source {name} are left after cleaning"
        raise KitaeError(what, cure="hold out fewer documents, or a share")
    number = holdout.documents
    if holdout.share and len(places) > 1:
        number = min(max(1, round(holdout.share * len(places))), len(places) - 1)
    if number:
        with np.errstate(over="ignore"):
            mixed = (data["high"][places] ^ np.uint64(seed % (1 << 64))) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(32)) ^ data["low"][places]) * np.uint64(0xD6E8FEB86659FD93)
            mixed ^= mixed >> np.uint64(32)
        held[places[np.argsort(mixed, kind="stable")[:number]]] = True
    return held


def _count_dropped(built: Built, sources: Sequence[Source], records: list[_Records], parts: tuple[Part, ...], facts: list[dict]) -> None:
    for number, (source, each) in enumerate(zip(sources, records)):
        for code, reason in enumerate(each.reasons):
            which = each.data["reason"] == code
            if reason and which.any():
                shown = [one for part, fact in zip(parts, facts) if part.source == number for one in fact["examples"].get(reason, ())]
                places = [(int(np.searchsorted(each.data["number"], place)), name, text) for place, name, text in sorted(shown)]
                characters = int(each.data["characters"][which].sum(dtype=np.int64))
                built.dropped[source.name][reason] = Tally(int(which.sum()), characters, places[:EXAMPLES])


def _write(
    name: str,
    work: Path,
    records: _Records,
    double: NDArray[np.bool_],
    held: NDArray[np.bool_],
    writers: tuple[ShardWriter, ShardWriter],
    built: Built,
) -> None:
    """Copy one source's kept lines in document order; count them and the duplicates passed over."""
    lines: dict[int, Iterator[bytes]] = {part: read_lines(work / f"{part:05d}.jsonl.zst") for part in set(records.part.tolist())}
    places = np.flatnonzero(records.data["reason"] == 0)
    characters = records.data["characters"][places].tolist()
    for place, part, length, again, out in zip(
        places.tolist(), records.part[places].tolist(), characters, double[places].tolist(), held[places].tolist()
    ):
        line = next(lines[part])
        if again:
            tally = built.dropped[name].setdefault("duplicate", Tally())
            if len(tally.examples) < EXAMPLES:
                row = json.loads(line)
                tally.examples.append((place, row["id"], example(row["text"])))
        else:
            writers[out].write(line)
            tally = (built.heldout if out else built.train)[name]
        tally.documents += 1
        tally.characters += length


def _check(built: Built) -> None:
    for name, count in built.documents_in.items():
        dropped = sum(tally.documents for tally in built.dropped[name].values())
        kept, held = built.train[name].documents, built.heldout[name].documents
        assert count == kept + held + dropped, f"{name}: {count} documents in, {kept} + {held} + {dropped} out"
    if not any(tally.documents for tally in built.train.values()):
        reasons = sorted({reason for each in built.dropped.values() for reason in each})
        raise KitaeError(f"every document was dropped ({', '.join(reasons)})", cure="check the sources and the filters' settings")
