"""Corpus shards -> token shards, one task a corpus shard. The bytes written do not depend on the number of workers.

A task leaves its folder whole or not at all, so that an attempt which was cut off is taken up where it ended.
"""

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from kitae.core.artifact import sync_folder
from kitae.core.errors import KitaeError
from kitae.core.resume import resume
from kitae.core.runtime import cores, uncollected, worker_pool
from kitae.data.plan import Packing
from kitae.data.sampler import DatasetFacts
from kitae.data.shards import ShardWriter, join, token_dtype
from kitae.data.spelling import WORDS, Renumber, keep, unite
from kitae.data.together import tokens_of_documents
from kitae.text.corpus import read_shard
from kitae.tokenization.characters import NumberedCache
from kitae.tokenization.tokenizer import Tokenizer

log = logging.getLogger(__name__)
ANY_NUMBER = 1 << 32
"""Words are counted while they are numbered."""
LITTLE = 256 << 10
"""Bytes of compressed text, about 1 MB, that one process has tokenized before others have started."""
FAILURES = "failures.txt"
"""In a part, where it is not zero: the number of its sentences that the segmenter failed at."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One corpus shard to tokenize into a folder of its own; `split_sources` gives every source a folder below it."""

    shard: Path
    tokenizer: Path
    fingerprint: str
    folder: Path
    sources: tuple[str, ...]
    split_sources: bool

    @property
    def making(self) -> Path:
        """Where the work is done; it becomes `folder` when it is complete."""
        return self.folder.with_suffix(".making")


def tokenize(
    shards: Mapping[str, Sequence[Path]], *, tokenizer: Path, sources: tuple[str, ...], folder: Path, work: Path, workers: int
) -> tuple[Path, dict[int, Path], int]:
    """Tokenize the corpus shards of "train" into folder/train and of "heldout" into folder/heldout/<source number>.

    `work` is for the parts, one a corpus shard; those that an earlier, equal attempt finished there are taken over. `workers` are
    processes; 0 are as many as there are cores, or this one alone where there is little to do.
    Returns the training folder, the held-out folders by source number (sources without held-out text have none), and the number of
    sentences whose words are what stands between blanks, because the segmenter failed at them.
    Raises KitaeError naming the shards in work when a worker process dies.
    """
    loaded = Tokenizer.load(tokenizer)
    files = [[[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in shards[split]] for split in ("train", "heldout")]
    fingerprint = loaded.fingerprint
    parts = resume(work / "parts", [files, fingerprint, sources])
    jobs = [
        Job(
            shard=path,
            tokenizer=tokenizer,
            fingerprint=fingerprint,
            folder=parts / split / f"{number:05d}",
            sources=sources,
            split_sources=split == "heldout",
        )
        for split in ("train", "heldout")
        for number, path in enumerate(shards[split])
    ]
    for stale in parts.glob("*/*.making"):
        shutil.rmtree(stale)
    todo = [job for job in jobs if not job.folder.is_dir()]
    if len(todo) < len(jobs):
        log.info("going on: %d of %d shards are tokenized already", len(jobs) - len(todo), len(jobs))
    _run(todo, workers)
    train = folder / "train"
    renumber: list[Renumber] = []
    if loaded.definition.word_bytes:
        folder.mkdir(parents=True, exist_ok=True)
        renumber = unite([job.folder for job in jobs], loaded.definition, folder=folder, work=work / "words")
    once = [job.folder for job in jobs if not job.split_sources]
    join(once, train, renumber=renumber[: len(once)])
    heldout: dict[int, Path] = {}
    for number in range(len(sources)):
        mine = [place for place, job in enumerate(jobs) if (job.folder / str(number)).is_dir()]
        if mine:
            heldout[number] = folder / "heldout" / str(number)
            below = [jobs[place].folder / str(number) for place in mine]
            join(below, heldout[number], renumber=[renumber[place] for place in mine] if renumber else ())
    failures = sum(int((job.folder / FAILURES).read_text(encoding="utf-8")) for job in jobs if (job.folder / FAILURES).is_file())
    return train, heldout, failures


def _run(jobs: Sequence[Job], workers: int) -> None:
    workers = workers or (1 if sum(job.shard.stat().st_size for job in jobs) < LITTLE else cores())
    if min(workers, len(jobs)) <= 1:
        for job in jobs:
            run_job(job)
        return
    with worker_pool(min(workers, len(jobs))) as pool:
        # the largest first, so that no long one is left when the others are done
        largest_first = sorted(jobs, key=lambda job: -job.shard.stat().st_size)
        futures: list[Future[None]] = [pool.submit(run_job, job) for job in largest_first]
        try:
            for future in futures:
                future.result()
        except BrokenProcessPool as error:
            begun = [job.shard for job in jobs if job.making.exists()]
            names = ", ".join(f"{shard.parent.name}/{shard.name}" for shard in begun) or "none had begun"
            what = f"a tokenizing process was killed while these shards were in work: {names}"
            raise KitaeError(what, cure="if it was for want of memory, run again with fewer workers; finished shards are kept") from error


@lru_cache(maxsize=1)
def _tokenizer(folder: Path, fingerprint: str) -> Tokenizer:  # the folder may hold another one at the next call
    return Tokenizer.load(folder)


def run_job(job: Job) -> None:
    """Tokenize one corpus shard (in whichever process)."""
    shutil.rmtree(job.making, ignore_errors=True)
    job.making.mkdir(parents=True)  # from now on the job counts as begun
    numbers = {name: number for number, name in enumerate(job.sources)}
    tokenizer = _tokenizer(job.tokenizer, job.fingerprint)
    words = NumberedCache(tokenizer.definition) if tokenizer.definition.word_bytes else None
    before = tokenizer.failures
    documents = ((numbers[document.metadata["source"]], document.text) for document in read_shard(job.shard))
    if job.split_sources:  # one after the other: a writer for each would have 5 files open
        ordered = sorted(documents, key=itemgetter(0))
        for number, texts in groupby(ordered, key=itemgetter(0)):
            _write(tokenizer, job.making / str(number), texts, words)
    else:
        _write(tokenizer, job.making, documents, words)
    if words is not None:
        keep(words, tokenizer.definition.word_bytes, job.making)
    if tokenizer.failures > before:
        (job.making / FAILURES).write_text(str(tokenizer.failures - before), encoding="utf-8")
    sync_folder(job.making)
    job.making.rename(job.folder)


def _write(tokenizer: Tokenizer, folder: Path, documents: Iterable[tuple[int, str]], words: NumberedCache | None) -> None:
    """Tokenize documents, given as (source number, text), into a folder; with `words`, to numbers of words."""
    with uncollected(), ShardWriter(folder, vocab_size=tokenizer.vocab_size if words is None else ANY_NUMBER) as writer:
        for some in tokens_of_documents(tokenizer, documents, words):
            writer.extend(some.tokens, sentences=some.sentences, sources=some.sources)


def facts_of(folder: Path, tokenizer: Tokenizer, *, max_length: int, packing: Packing, sources: tuple[str, ...]) -> DatasetFacts:
    """What the dataset.json of a folder that `tokenize` filled says."""
    word_bytes = tokenizer.definition.word_bytes
    words = (folder / WORDS).stat().st_size // (2 * word_bytes) if word_bytes else None
    return DatasetFacts(
        max_length=max_length,
        packing=packing,
        vocab_size=tokenizer.vocab_size,
        words=words,
        word_bytes=word_bytes or None,
        dtype=token_dtype(tokenizer.vocab_size if words is None else ANY_NUMBER).str,
        special=asdict(tokenizer.special),
        tokenizer=tokenizer.fingerprint,
        sources=sources,
    )
