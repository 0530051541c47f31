"""Batches as a pure function of (seed, step, micro-batch), without state: see order.py for which row comes when."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kitae.core.config import Config
from kitae.core.errors import KitaeError, did_you_mean
from kitae.data.collate import Collator
from kitae.data.files import read_index
from kitae.data.order import Permutation, order
from kitae.data.pairs import PairConfig, Partners
from kitae.data.plan import Packing, Plan
from kitae.data.shards import Shards
from kitae.data.spelling import WordTable
from kitae.tensor.batch import Batch
from kitae.tensor.random import key

DATASET = "dataset.json"


class DatasetFacts(Config):
    """What `dataset.json` says."""

    format: int = 1
    """Version of this layout."""
    max_length: int
    """Positions of a row."""
    packing: Packing
    """How documents lie in rows."""
    vocab_size: int
    """Number of ids of the tokenizer."""
    words: int | None = None
    """Number of different words, those of the tokenizer's vocabulary first, where tokens are numbers of words (spelling.py)."""
    word_bytes: int | None = None
    """Characters of a word, then."""
    dtype: str
    """numpy type of the token shards."""
    special: dict[str, int]
    """Ids of cls, sep, mask, pad, unk."""
    tokenizer: str
    """Fingerprint of the tokenizer."""
    sources: tuple[str, ...]
    """Names of the sources; heldout/N is the N-th of them."""
    repeat: dict[str, int] = {}
    """Visits of a source's documents in every pass; 1 where nothing is said."""
    weight: dict[str, float] = {}
    """Shares in which the sources are drawn; empty = as they are."""
    pairs: PairConfig | None = None
    """What is to be told of pairs, in the packing "pairs"."""

    @classmethod
    def read(cls, folder: Path) -> "DatasetFacts":
        """Read them from a dataset artifact. Raises KitaeError when it is none, or dataset.json is damaged."""
        return read_index(folder / DATASET, cls, what="dataset", cure="give the folder of a dataset stage")

    def write(self, folder: Path) -> None:
        """Into a dataset artifact, where `read` finds them."""
        text = json.dumps(self.model_dump(mode="json", exclude_none=True), indent=1, ensure_ascii=False)
        (folder / DATASET).write_text(text, encoding="utf-8")


def _collator(dataset: Path, split: str, seed: int, plans: Path | None) -> tuple[Collator, Plan]:
    facts = DatasetFacts.read(dataset)
    plan, shards = Plan((plans or dataset) / split / "plan"), Shards(dataset / split)
    special = facts.special
    partners = None if facts.pairs is None else Partners(shards, plan, facts.pairs, seed=seed)
    spelling = None
    if facts.words is not None and facts.word_bytes is not None:
        spelling = WordTable(dataset, words=facts.words, word_bytes=facts.word_bytes)
    collator = Collator(
        shards,
        plan,
        vocab_size=facts.words or facts.vocab_size,
        cls=special["cls"],
        sep=special["sep"],
        pad=special["pad"],
        partners=partners,
        spelling=spelling,
    )
    return collator, plan


class Sampler:
    """Micro-batches of the training rows. Step s takes the rows s * rows_per_step ... of the endless sequence of them."""

    def __init__(
        self,
        dataset: Path,
        *,
        rows_per_step: int,
        rows_per_micro_batch: int,
        seed: int,
        split: str = "train",
        sources: Sequence[str] = (),
        plans: Path | None = None,
        first_row: int = 0,
    ) -> None:
        """`sources`: only these (default: all). `plans`: the folder of another packing of the same text (repack.py). `first_row`: where in
        the sequence of rows step 0 begins.

        Raises KitaeError when a step is not made of whole micro-batches, the split has no rows, or weights make no sense.
        """
        if rows_per_micro_batch < 1 or rows_per_step < 1 or rows_per_step % rows_per_micro_batch:
            raise KitaeError(
                f"a step of {rows_per_step} rows is not made of whole micro-batches of {rows_per_micro_batch} rows",
                cure=f"choose a micro-batch of 1 row or more that divides {rows_per_step}",
            )
        self._collate, plan = _collator(dataset, split, seed, plans)
        if not plan.num_rows:
            raise KitaeError(f'the dataset has no rows in "{split}"', cure="give the corpus more text", where=str(dataset))
        facts = DatasetFacts.read(dataset)
        self._order = order(plan, facts.sources, repeats=facts.repeat, weights=facts.weight, seed=seed, only=sources)
        self._first_row = first_row
        self._rows_per_micro_batch = rows_per_micro_batch
        self.rows_per_step = rows_per_step
        """Rows of a step over all processes."""
        self.micro_batches_per_step = rows_per_step // rows_per_micro_batch
        """Micro-batches of a step over all processes."""
        self.rows_per_epoch = self._order.rows_per_epoch
        """Rows of one pass over the data, repeats included."""
        self.tokens_per_step = rows_per_step * plan.max_length
        """Positions of a step (nominal: padding included)."""
        self.tokens_per_epoch = self._order.tokens_per_epoch
        """Real positions of one pass: special tokens included, padding not; of pairs with true seconds."""
        numbers = [facts.sources.index(name) for name in sources]
        self._plan, self._context = plan, plan.context_of(numbers) if numbers else None

    def row(self, epoch: int, k: int) -> int:
        """The k-th row of an epoch."""
        return int(self._order(np.array([epoch * self.rows_per_epoch + k]))[0][0])

    def context(self, step: int) -> float:
        """How many positions a real token attends to in the mean: the same at every step."""
        return self._plan.context if self._context is None else self._context

    def micro(self, step: int, micro: int) -> Batch:
        """Micro-batch `micro` of step `step`: a pure function of (seed, step, micro), immediate at any step."""
        first = self._first_row + step * self.rows_per_step + micro * self._rows_per_micro_batch
        rows, visits = self._order(np.arange(first, first + self._rows_per_micro_batch, dtype=np.int64))
        return self._collate(rows, visits, step=step, micro=micro)


def heldout_sources(dataset: Path) -> tuple[str, ...]:
    """The sources that have held-out rows."""
    sources = DatasetFacts.read(dataset).sources
    return tuple(name for number, name in enumerate(sources) if (dataset / "heldout" / str(number)).is_dir())


class Heldout:
    """The held-out rows of one source as batches in a fixed order (step 0, micro = number of the batch).

    The order is mixed, because a plan's first rows are all of long documents: any first part is a fair sample.
    """

    def __init__(self, dataset: Path, source: str, rows_per_micro_batch: int, plans: Path | None = None) -> None:
        """`plans`: the folder of another packing of the same text. Raises KitaeError when the source has no held-out rows."""
        known = heldout_sources(dataset)
        if source not in known:
            raise KitaeError(f'there is no held-out text of "{source}"', cure=did_you_mean(source, known), where=str(dataset))
        split = f"heldout/{DatasetFacts.read(dataset).sources.index(source)}"
        self._collate, plan = _collator(dataset, split, key("heldout"), plans)
        self._each, self.num_rows = rows_per_micro_batch, plan.num_rows
        self._order = Permutation(plan.num_rows, key("heldout"))

    def __len__(self) -> int:
        return (self.num_rows + self._each - 1) // self._each

    def __iter__(self) -> Iterator[Batch]:
        for number in range(len(self)):
            first = number * self._each
            rows = np.arange(first, min(first + self._each, self.num_rows))
            yield self._collate(self._order(rows), np.zeros_like(rows), step=0, micro=number)
