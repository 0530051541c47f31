"""Counting words of any corpus in bounded memory: sorted runs on disk, merged word by word, so that every count kept is exact.

Shards are counted in parallel; what comes out depends neither on the number of processes nor on how the corpus lies in shards.
"""

import hashlib
import heapq
import itertools
import logging
import operator
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenizers import pre_tokenizers

from kitae.core.runtime import worker_pool
from kitae.tokenization.cuts import encodable
from kitae.tokenization.segmenter import SegmenterSpec, library_parts, words_of, words_of_each

log = logging.getLogger(__name__)
DISTINCT = 3_000_000
"""Words kept, the most frequent first: about 0.7 gigabytes while the runs are merged."""
RUN = 1_000_000
"""Distinct words that a process gathers before it writes them down: about 0.2 gigabytes."""
CHARACTERS = 30_000_000
"""Characters of whole sentences kept for training on raw text: SentencePiece needs about 40 bytes for each."""
LONGEST = 1000
"""Characters of a sentence kept whole; SentencePiece drops longer ones than 4,192 bytes."""

Reader = Callable[[Path], Iterable[str]]
Unit = Literal["words", "byte-words", "sentences"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one process counts, and where it writes."""

    shard: Path
    read: Reader
    spec: SegmenterSpec
    unit: Unit
    place: Path


def count_words(
    shards: Sequence[Path],
    read: Reader,
    spec: SegmenterSpec,
    *,
    unit: Unit = "words",
    workers: int = 1,
    scratch: Path | None = None,
) -> Counter[str]:
    """How often each unit occurs in the shards. `read` gives a shard's sentences; it must be a module's function (it travels).

    Units: words of the segmenter; "byte-words", the stretches of byte-level BPE; or whole sentences, of which a sample is kept that
    is chosen by their hash. `scratch` is where the runs lie for a while (the system's place for temporary files if None).
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix="counts-") as folder, ExitStack() as stack:
        jobs = [Job(shard=path, read=read, spec=spec, unit=unit, place=Path(folder) / f"{i:06d}") for i, path in enumerate(shards)]
        if workers <= 1 or len(jobs) <= 1:
            runs = list(map(count_shard, jobs))
        else:
            pool = stack.enter_context(worker_pool(min(workers, len(jobs))))
            runs = list(pool.map(count_shard, jobs))
        merged = _merged(list(itertools.chain.from_iterable(runs)))
        return _sample(merged) if unit == "sentences" else _most_frequent(merged)


def count_shard(job: Job) -> list[Path]:
    """Count one shard into sorted runs (in whichever process)."""
    counts: Counter[str] = Counter()
    runs: list[Path] = []
    for units in _units_of_each(job):
        counts.update(units)
        if len(counts) >= RUN:
            if job.unit == "sentences":
                counts = _sample(counts.items())
            if len(counts) >= RUN // 2:
                runs.append(_write(counts, job.place.with_suffix(f".{len(runs)}")))
                counts = Counter()
    runs.append(_write(counts, job.place.with_suffix(f".{len(runs)}")))
    return runs


def _units_of_each(job: Job) -> Iterator[list[str]]:
    """The units of every sentence of a shard."""
    if job.unit == "words" and job.spec.kind == "jumanpp":
        yield from words_of_each(job.spec)(job.read(job.shard))
        return
    units = _units(job)
    for sentence in job.read(job.shard):
        try:
            yield units(sentence)
        except UnicodeEncodeError:  # half of a surrogate pair
            yield units(encodable(sentence))


def _units(job: Job) -> Callable[[str], list[str]]:
    if job.unit == "words":
        return words_of(job.spec)
    if job.unit == "sentences":
        return _pieces_of_sentence
    normalizer = library_parts(job.spec).normalizer
    split = pre_tokenizers.ByteLevel(add_prefix_space=True).pre_tokenize_str
    return lambda text: [word for word, _ in split(normalizer.normalize_str(text) if normalizer else text)] if text else []


def _pieces_of_sentence(text: str) -> list[str]:
    text = encodable(text).replace("\t", " ").strip()
    return [part for i in range(0, len(text), LONGEST) if (part := text[i : i + LONGEST].strip())]


def _write(counts: Counter[str], path: Path) -> Path:
    rows = sorted((word.encode("utf-8", "replace"), count) for word, count in counts.items())
    with path.open("wb") as file:
        file.writelines(b"%s\t%d\n" % row for row in rows)
    return path


def _rows(path: Path) -> Iterator[tuple[bytes, int]]:
    with path.open("rb") as file:
        for line in file:
            word, _, count = line.rpartition(b"\t")
            yield word, int(count)


def _merged(runs: Sequence[Path]) -> Iterator[tuple[str, int]]:
    rows = heapq.merge(*map(_rows, runs), key=operator.itemgetter(0))
    for word, group in itertools.groupby(rows, key=operator.itemgetter(0)):
        yield word.decode(), sum(count for _, count in group)


def _most_frequent(rows: Iterator[tuple[str, int]]) -> Counter[str]:
    """The most frequent words, exact; ties go by the word."""
    best: list[tuple[int, str]] = []
    last: tuple[int, str] | None = None
    seen = total = 0
    for word, count in rows:
        seen, total = seen + 1, total + count
        row = (-count, word)
        if last is None or row < last:
            best.append(row)
            if len(best) >= DISTINCT + DISTINCT // 4:
                best.sort()
                del best[DISTINCT:]
                last = best[-1]
    best.sort()
    del best[DISTINCT:]
    if seen > DISTINCT:
        kept = -sum(count for count, _ in best)
        log.warning("kept the %d most frequent of %d distinct words: %.4f of the text", DISTINCT, seen, kept / max(total, 1))
    return Counter({word: -count for count, word in best})


def _sample(rows: Iterable[tuple[str, int]]) -> Counter[str]:
    """The sentences with the smallest hashes, as many as CHARACTERS allows, in the order of their text."""
    heap: list[tuple[int, str, int]] = []
    size = 0
    for text, count in rows:
        heapq.heappush(heap, (-int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()), text, count))
        size += len(text)
        while size - len(heap[0][1]) >= CHARACTERS:
            size -= len(heapq.heappop(heap)[1])
    return Counter({text: count for _, text, count in sorted(heap, key=operator.itemgetter(1))})
