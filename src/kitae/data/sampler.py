"""Batches as a pure function of (seed, step, micro-batch): a counter-based permutation of the rows in every epoch, no state."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kitae.core.config import Config
from kitae.core.errors import KitaeError, did_you_mean
from kitae.data.collate import Collator
from kitae.data.plan import Plan
from kitae.data.shards import Ints, Shards
from kitae.tensor.batch import Batch
from kitae.tensor.random import key

_ROUNDS = 6
DATASET = "dataset.json"


class DatasetFacts(Config):
    """What `dataset.json` says."""

    format: int = 1
    """Version of this layout."""
    max_length: int
    """Positions of a row."""
    packing: str
    """How documents lie in rows."""
    vocab_size: int
    """Number of ids of the tokenizer."""
    dtype: str
    """numpy type of the token shards."""
    special: dict[str, int]
    """Ids of cls, sep, mask, pad, unk."""
    tokenizer: str
    """Fingerprint of the tokenizer."""
    sources: tuple[str, ...]
    """Names of the sources; heldout/N is the N-th of them."""

    @classmethod
    def read(cls, folder: Path) -> "DatasetFacts":
        """Read them from a dataset artifact. Raises KitaeError when it is none."""
        path = folder / DATASET
        if not path.is_file():
            raise KitaeError(f"{folder} is no dataset: {DATASET} is missing", cure="give the folder of a dataset stage")
        return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))


class Permutation:
    """A pseudo-random bijection of 0 .. size-1 that is computed, not stored: a Feistel network with cycle walking.

    The network permutes the next even power of two; a number that lands outside is sent through again until it is inside.
    """

    def __init__(self, size: int, seed: int) -> None:
        assert size > 0
        self._size = size
        half = max(1, ((size - 1).bit_length() + 1) // 2)
        self._half, self._mask = np.uint64(half), np.uint64((1 << half) - 1)
        self._keys = [np.uint64(key(seed, "feistel", number)) for number in range(_ROUNDS)]

    def __call__(self, index: Ints) -> Ints:
        """Where these indices (int64, each below size) go."""
        values = index.astype(np.uint64)
        todo = np.arange(len(values))
        while len(todo):
            moved = self._network(values[todo])
            values[todo] = moved
            todo = todo[moved >= self._size]
        return values.astype(np.int64)

    def _network(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._half, values & self._mask
        for salt in self._keys:
            # the finalizer of splitmix64 as round function
            mixed = (right ^ salt) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(27)
            left, right = right, left ^ ((mixed >> np.uint64(17)) & self._mask)
        return (left << self._half) | right


def _collator(dataset: Path, split: str) -> tuple[Collator, Plan]:
    facts = DatasetFacts.read(dataset)
    plan = Plan(dataset / split / "plan")
    special = facts.special
    return Collator(Shards(dataset / split), plan, cls=special["cls"], sep=special["sep"], pad=special["pad"]), plan


class Sampler:
    """Micro-batches of the training rows. Step s takes the rows s * rows_per_step ... of the endless, permuted epochs."""

    def __init__(self, dataset: Path, *, rows_per_step: int, rows_per_micro_batch: int, seed: int, split: str = "train") -> None:
        """Raises KitaeError when a step is not made of whole micro-batches, or the split has no rows."""
        if rows_per_step % rows_per_micro_batch:
            raise KitaeError(
                f"a step of {rows_per_step} rows is not made of whole micro-batches of {rows_per_micro_batch} rows",
                cure=f"choose a micro-batch that divides {rows_per_step}",
            )
        self._collate, plan = _collator(dataset, split)
        if not plan.num_rows:
            raise KitaeError(f'the dataset has no rows in "{split}"', cure="give the corpus more text", where=str(dataset))
        self._seed = seed
        self._rows_per_micro_batch = rows_per_micro_batch
        self.rows_per_step = rows_per_step
        """Rows of a step over all processes."""
        self.micro_batches_per_step = rows_per_step // rows_per_micro_batch
        """Micro-batches of a step over all processes."""
        self.rows_per_epoch = plan.num_rows
        """Rows of one pass over the data."""
        self.tokens_per_step = rows_per_step * plan.max_length
        """Positions of a step (nominal: padding included)."""
        self.tokens_per_epoch = plan.real_positions
        """Real positions of one pass: special tokens included, padding not."""

    def row(self, epoch: int, k: int) -> int:
        """The k-th row of an epoch."""
        return int(self._permutation(epoch)(np.array([k]))[0])

    def micro(self, step: int, micro: int) -> Batch:
        """Micro-batch `micro` of step `step`: a pure function of (seed, step, micro), immediate at any step."""
        first = step * self.rows_per_step + micro * self._rows_per_micro_batch
        epochs, within = np.divmod(np.arange(first, first + self._rows_per_micro_batch, dtype=np.int64), self.rows_per_epoch)
        rows = np.empty_like(within)
        for epoch in np.unique(epochs):
            rows[epochs == epoch] = self._permutation(int(epoch))(within[epochs == epoch])
        return self._collate(rows, step=step, micro=micro)

    def _permutation(self, epoch: int) -> Permutation:
        return Permutation(self.rows_per_epoch, key(self._seed, "epoch", epoch))


def heldout_sources(dataset: Path) -> tuple[str, ...]:
    """The sources that have held-out rows."""
    sources = DatasetFacts.read(dataset).sources
    return tuple(name for number, name in enumerate(sources) if (dataset / "heldout" / str(number)).is_dir())


class Heldout:
    """The held-out rows of one source as batches in a fixed order (step 0, micro = number of the batch).

    The order is mixed, because a plan's first rows are all of long documents: any first part is a fair sample.
    """

    def __init__(self, dataset: Path, source: str, rows_per_micro_batch: int) -> None:
        """Raises KitaeError when the source has no held-out rows."""
        known = heldout_sources(dataset)
        if source not in known:
            raise KitaeError(f'there is no held-out text of "{source}"', cure=did_you_mean(source, known), where=str(dataset))
        self._collate, plan = _collator(dataset, f"heldout/{DatasetFacts.read(dataset).sources.index(source)}")
        self._each, self.num_rows = rows_per_micro_batch, plan.num_rows
        self._order = Permutation(plan.num_rows, key("heldout"))

    def __len__(self) -> int:
        return (self.num_rows + self._each - 1) // self._each

    def __iter__(self) -> Iterator[Batch]:
        for number in range(len(self)):
            first = number * self._each
            rows = np.arange(first, min(first + self._each, self.num_rows))
            yield self._collate(self._order(rows), step=0, micro=number)
