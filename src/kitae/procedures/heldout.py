"""Held-out text through an objective: the same rows, masks and samples every time, source by source, dealt to the ranks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from kitae.data.plan import Plan
from kitae.data.sampler import DatasetFacts, Heldout, heldout_sources
from kitae.objectives.protocol import Objective
from kitae.tensor.batch import Batch
from kitae.tensor.random import key
from kitae.tensor.world import World

POSITIONS = 4096
"""Of a batch, whatever the micro-batches of the training are."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """How many rows of a source are measured, and how many there are."""

    measured: int
    all: int


class HeldoutMeter:
    """Called with a step, it measures the objective's present weights; every rank of the world calls it.

    Rows, masks and samples are a function of the dataset and the objective's settings alone: two runs are asked the same, whatever
    their seeds, batches and processes. Scores come back as "heldout/SOURCE/mlm_loss" and so on, and over the predictions of all sources
    together as "heldout/mlm_loss". At most `rows` rows of each source are read.
    """

    def __init__(self, objective: Objective, dataset: Path, *, world: World, rows: int, plans: Path | None = None) -> None:
        """`plans`: the folder of another packing of the same text; see `kitae.data.repack`."""
        self._objective, self._world, self._seed = objective, world, key("heldout")
        length = DatasetFacts.read(dataset).max_length if plans is None else Plan(plans / "train" / "plan").max_length
        each = min(rows, max(1, POSITIONS // length))
        self._sources = {source: Heldout(dataset, source, each, plans) for source in heldout_sources(dataset)}
        self._batches = rows // each
        self.rows = {
            source: Rows(measured=min(each * self._batches, held.num_rows), all=held.num_rows) for source, held in self._sources.items()
        }
        """Of every source."""

    def batches(self, source: str) -> Iterator[Batch]:
        """The rows of a source that are measured, as they are: not masked."""
        return islice(self._sources[source], self._batches)

    def __call__(self, step: int) -> dict[str, float]:
        """Scores of every source and of all, averaged over their predictions. Dropout is off when the caller has set eval()."""
        scores: dict[str, float] = {}
        whole: dict[str, Tensor] = {}
        for source in self._sources:
            stats: dict[str, Tensor] = {}
            for number, batch in enumerate(self.batches(source)):
                mine = number % self._world.size == self._world.rank
                if mine or number == 0:  # a rank without a share still has to know the statistics' shapes
                    _add(stats, {name: value * mine for name, value in self._measure(batch).items()})
            summed = {name: self._world.sum(stats[name]) for name in sorted(stats)}
            _add(whole, summed)
            scores |= {f"heldout/{source}/{name}": value for name, value in self._objective.summarize(summed).items()}
        together = self._objective.summarize(whole) if whole else {}
        return scores | {f"heldout/{name}": value for name, value in together.items()}

    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        return self._objective.measure(self._objective.prepare(batch, self._seed).to(self._world.device))


def _add(sums: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    for name, value in more.items():
        sums[name] = sums.get(name, torch.zeros_like(value)) + value
