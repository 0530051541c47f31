"""Counting words of any corpus in bounded memory: sorted runs on disk, merged word by word, so that every count kept is exact.

Shards are counted in parallel; what comes out depends neither on the number of processes nor on how the corpus lies in shards.
"""

import contextlib
import hashlib
import heapq
import itertools
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenizers import pre_tokenizers

from kitae.core.errors import KitaeError
from kitae.core.runtime import worker_pool
from kitae.tokenization.counts import Counts, Row, merge, write
from kitae.tokenization.cuts import encodable
from kitae.tokenization.library import BYTES
from kitae.tokenization.segmenter import SegmenterSpec, library_parts, words_of_each

log = logging.getLogger(__name__)
DISTINCT = 3_000_000
"""Words kept, the most frequent first."""
TEXT = 30_000_000
"""Characters of all words kept."""
RUN = 1_000_000
"""Distinct units that a process gathers before it writes them down: about 0.2 gigabytes."""
RUN_TEXT = 20_000_000
"""Characters of them: at most 0.1 gigabytes more."""
SENTENCE = 32
"""What a sentence counts for besides its characters."""
LONGEST = 1000
"""Characters of a sentence or word kept whole; SentencePiece drops longer sentences than 4,192 bytes."""
LONGEST_WORD = 100
"""Characters of a word that WordPiece looks at; of longer ones only the characters count."""
STRETCH = 100
"""Bytes of a stretch of byte-level BPE kept whole: Japanese writes no blanks, its stretches are whole clauses."""
_INNER = frozenset(char for char, byte in BYTES.items() if 0x80 <= byte < 0xC0)  # bytes inside a character of UTF-8

Reader = Callable[[Path], Iterable[str]]
Unit = Literal["words", "parts-of-words", "characters", "byte-words", "sentences"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one process counts, and where it writes."""

    shard: Path
    read: Reader
    spec: SegmenterSpec
    unit: Unit
    sample: int
    place: Path


@contextlib.contextmanager
def count_words(
    shards: Sequence[Path],
    read: Reader,
    spec: SegmenterSpec,
    *,
    unit: Unit = "words",
    sample: int = 0,
    workers: int = 1,
    scratch: Path | None = None,
) -> Iterator[Counts]:
    """How often each unit occurs in the shards. `read` gives a shard's sentences; it must be a module's function (it travels).

    Units: "words" of the segmenter, of which one longer than LONGEST_WORD counts as its characters; "parts-of-words", where one
    longer than LONGEST counts as equal parts; "characters" of words; "byte-words", the stretches of byte-level BPE, also in equal
    parts; or whole "sentences", of which `sample` characters are kept, chosen by their hash. The counts lie in `scratch` (the system's
    place for temporary files if None) and are gone behind the `with`. Raises KitaeError when a process was killed.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix="counts-") as folder:
        places = [Path(folder) / f"{number:06d}" for number in range(len(shards))]
        jobs = [
            Job(shard=shard, read=read, spec=spec, unit=unit, sample=sample, place=place)
            for shard, place in zip(shards, places, strict=True)
        ]
        merged = merge(_runs(jobs, workers), Path(folder) / "merged")
        if unit == "sentences":
            kept = write(_sample(merged.rows(), sample), Path(folder) / "kept")
        else:
            kept = merged.most_frequent(units=DISTINCT, characters=TEXT)
        if kept.distinct < merged.distinct and unit != "sentences":
            share = kept.total / max(merged.total, 1)
            log.warning("kept the %d most frequent of %d distinct words: %.4f of the text", kept.distinct, merged.distinct, share)
            kept = write(kept.rows(), Path(folder) / "kept")
        yield kept


def _runs(jobs: Sequence[Job], workers: int) -> list[Path]:
    if min(workers, len(jobs)) <= 1:
        return list(itertools.chain.from_iterable(map(count_shard, jobs)))
    with worker_pool(min(workers, len(jobs))) as pool:
        futures = [pool.submit(count_shard, job) for job in jobs]
        try:
            return [run for future in futures for run in future.result()]
        except BrokenProcessPool as error:
            begun = ", ".join(f"{job.shard.parent.name}/{job.shard.name}" for job in jobs if job.place.exists()) or "none had begun"
            raise KitaeError(
                f"a counting process was killed while these shards were in work: {begun}",
                cure="if it was for want of memory, run again with fewer workers",
            ) from error


def count_shard(job: Job) -> list[Path]:
    """Count one shard into sorted runs (in whichever process)."""
    job.place.touch()  # from now on the job counts as begun
    counts: Counter[str] = Counter()
    runs: list[Path] = []
    seen = 0
    for units in _units_of_each(job):
        counts.update(units)
        seen += sum(map(len, units))
        if len(counts) >= RUN or seen >= RUN_TEXT:
            if job.unit == "sentences":
                counts = Counter(dict(_sample(counts.items(), job.sample)))
            seen = sum(map(len, counts))
            if len(counts) >= RUN // 2 or seen >= RUN_TEXT // 2:
                runs.append(_write(counts, job, len(runs)))
                counts, seen = Counter(), 0
    runs.append(_write(counts, job, len(runs)))
    job.place.unlink()
    return runs


def _write(counts: Counter[str], job: Job, number: int) -> Path:
    path = job.place.with_suffix(f".{number}")
    write(((unit, counts[unit]) for unit in sorted(counts)), path)
    return path


def _units_of_each(job: Job) -> Iterator[list[str]]:
    """The units of every sentence of a shard."""
    sentences = map(encodable, job.read(job.shard))
    if job.unit == "sentences":
        return map(_pieces_of_sentence, sentences)
    if job.unit == "byte-words":
        return map(_stretches(job.spec), sentences)
    words = words_of_each(job.spec)(sentences)
    if job.unit == "characters":
        return (list("".join(found)) for found in words)
    return map(_short_words if job.unit == "words" else _parts_of_words, words)


def _short_words(words: list[str]) -> list[str]:
    if max(map(len, words), default=0) <= LONGEST_WORD:
        return words
    return [part for word in words for part in ([word] if len(word) <= LONGEST_WORD else word)]


def _parts_of_words(words: list[str]) -> list[str]:
    if max(map(len, words), default=0) <= LONGEST:
        return words
    return [part for word in words for part in _equal_parts(word, LONGEST)]


def _stretches(spec: SegmenterSpec) -> Callable[[str], list[str]]:
    normalizer = library_parts(spec).normalizer
    split = pre_tokenizers.ByteLevel(add_prefix_space=True).pre_tokenize_str

    def stretches(text: str) -> list[str]:
        text = normalizer.normalize_str(text) if normalizer else text
        return [part for word, _ in split(text) for part in _equal_parts(word, STRETCH, _INNER)] if text else []

    return stretches


def _equal_parts(text: str, most: int, inner: Container[str] = ()) -> list[str]:
    """Parts of about one length, none much longer than `most`; none begins with a character of `inner`."""
    number = -(-len(text) // most)
    if number <= 1:
        return [text]
    cuts = [len(text) * i // number for i in range(number + 1)]
    for i, cut in enumerate(cuts):
        while cut < len(text) and text[cut] in inner:
            cut += 1
        cuts[i] = cut
    return [text[start:end] for start, end in itertools.pairwise(cuts)]


def _pieces_of_sentence(text: str) -> list[str]:
    text = encodable(text).replace("\t", " ").strip()
    return [part for i in range(0, len(text), LONGEST) if (part := text[i : i + LONGEST].strip())]


def _sample(rows: Iterable[Row], most: int) -> list[Row]:
    """The sentences with the smallest hashes, of about so many characters, in the order of their text."""
    heap: list[tuple[int, str, int]] = []
    size = 0
    for text, count in rows:
        heapq.heappush(heap, (-int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()), text, count))
        size += len(text) + SENTENCE
        while size - len(heap[0][1]) - SENTENCE >= most:
            size -= len(heapq.heappop(heap)[1]) + SENTENCE
    return sorted((text, count) for _, text, count in heap)
