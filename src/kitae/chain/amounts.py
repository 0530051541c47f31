"""How much text a dataset holds: exact when it is made, before that from the corpus or the size of its sources, with assumptions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.core.graph import Node
from kitae.core.paths import locate
from kitae.data.plan import Plan
from kitae.data.sampler import Sampler
from kitae.stages.corpus import CorpusConfig, SourceConfig
from kitae.stages.dataset import DatasetConfig
from kitae.text.corpus import Corpus

BYTES_PER_TOKEN = 4.5
"""Of UTF-8 text: 1.5 characters of three bytes in Japanese (1.42 to 1.57 measured, vocabularies of 16,000 and 32,000), 4.5 in English."""
CHARACTERS_PER_TOKEN: Mapping[str, float] = {"ja": 1.5, "en": 4.5}
UNPACKED: Mapping[str, float] = {".gz": 3.0, ".bz2": 4.0, ".xz": 4.0, ".zst": 3.0, ".zip": 3.0, ".parquet": 2.0, ".tgz": 3.0}
"""How many times larger text is than a file with this ending."""
KEPT: Mapping[str, float] = {"wikipedia": 0.5, "cirrussearch": 0.35, "jsonl": 0.9, "edinet": 0.2, "ixbrl": 0.2}
"""Share of such a file that is text; of other formats all."""
FILL, CONTEXT = 0.99, 0.95
"""Share of the positions that are not padding, and of a row that a position attends to, before a dataset is there."""


@dataclass(frozen=True, kw_only=True)
class Amount:
    """The training text of a dataset."""

    tokens: float
    """Of one pass, with special ones and without padding."""
    context: float
    """Positions that a position attends to in the mean."""
    fill: float
    exact: bool
    """Whether it was counted."""

    def repacked(self, length: int) -> "Amount":
        """The same text in rows of another length."""
        return replace(self, context=CONTEXT * length, fill=FILL, exact=False)

    def rows(self, length: int) -> float:
        """Rows of one pass, of so many positions."""
        return self.tokens / (self.fill * length)


def amount(dataset: Node, corpus: Node, output: Path, *, made: bool, corpus_made: bool) -> Amount | None:
    """What a dataset holds, or will; None when nobody can say it (a source that is not here yet). `made`: the dataset's artifact is up
    to date; `corpus_made`: the corpus's is."""
    assert isinstance(dataset.config, DatasetConfig)
    assert isinstance(corpus.config, CorpusConfig)
    length = dataset.config.max_length
    if made:
        try:
            rows = Sampler(output / dataset.name, rows_per_step=1, rows_per_micro_batch=1, seed=1)
            packed = Plan(output / dataset.name / "train" / "plan")
            fill = rows.tokens_per_epoch / (rows.rows_per_epoch * length)
            return Amount(tokens=rows.tokens_per_epoch, context=packed.context, fill=fill, exact=True)
        except KitaeError:  # `run` will say what is wrong with it
            return None
    tokens = _tokens_of_corpus(output / corpus.name) if corpus_made else _tokens_of_sources(corpus.config)
    return None if tokens is None else Amount(tokens=tokens, context=CONTEXT * length, fill=FILL, exact=False)


def corpus_bytes(config: CorpusConfig) -> float | None:
    """UTF-8 bytes of text of one visit to every document; None when a source is not here."""
    found = [_bytes(source, config) for source in config.source]
    return None if any(size is None for size in found) else sum(filter(None, found))


def _tokens_of_corpus(folder: Path) -> float | None:
    try:
        corpus = Corpus(folder)
        return corpus.characters("train") / CHARACTERS_PER_TOKEN.get(corpus.language, BYTES_PER_TOKEN)
    except (KitaeError, KeyError):
        return None


def _tokens_of_sources(config: CorpusConfig) -> float | None:
    total = 0.0
    for source in config.source:
        size = _bytes(source, config)
        if size is None:
            return None
        total += source.repeat * size / BYTES_PER_TOKEN
    share = config.holdout if isinstance(config.holdout, float | int) else 0.0
    return total * (1 - share)


def _bytes(source: SourceConfig, config: CorpusConfig) -> float | None:
    """Bytes of text of a source."""
    if source.task is not None:
        task = next((task for task in config.tasks if task.name == source.task), None)
        places = [locate(name) for name in task.train or task.path] if task is not None else []
        share = task.split.train if task is not None and task.split is not None else 1.0
        return share * sum(map(_unpacked, places)) if places and all(place.is_file() for place in places) else None
    place = locate(source.path)
    if not place.exists():
        return None
    files = [place] if place.is_file() else [item for item in place.rglob("*") if item.is_file()]
    size = sum(_unpacked(file) for file in files) * KEPT.get(source.format, 1.0)
    return size if source.max_characters is None else min(size, 3.0 * source.max_characters)


def _unpacked(file: Path) -> float:
    return file.stat().st_size * UNPACKED.get(file.suffix.lower(), 1.0)
