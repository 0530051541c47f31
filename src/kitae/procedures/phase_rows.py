"""The rows of every phase of a pre-training: packed where the dataset has none of their length, and dealt in order."""

import shutil
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.data.repack import identity, is_repacked, repack
from kitae.data.sampler import DatasetFacts, Sampler
from kitae.objectives.protocol import Objective
from kitae.procedures.heldout import HeldoutMeter
from kitae.tensor.world import World, ranks
from kitae.train.phases import Phase
from kitae.train.schedule import steps_of

FOLDER = ".rows"
"""Below the run's: rows of other lengths than the dataset's, for as long as it trains."""
_EVERY = 0.2


@dataclass(frozen=True, kw_only=True)
class PhaseRows:
    """One phase with its data."""

    phase: Phase
    plans: Path
    """Where SPLIT/plan lie: the dataset, or a packing of its text in rows of another length."""
    batches: Sampler
    steps: int
    """Updates; 0 for a wall-clock length."""

    @property
    def tokens(self) -> float:
        """Real tokens that its steps see, as they are on the average of all rows."""
        return self.steps * self.phase.rows * self.batches.tokens_per_epoch / self.batches.rows_per_epoch


def pack(phases: Sequence[Phase], dataset: Path, run: Path, *, seed: int) -> dict[int, Path]:
    """For every length of rows the folder with the plans; made below `run` when the dataset's rows have another length.

    The first rank makes them, the others wait on the shared file system: call it outside of a process group, which has a time-out.
    `seed` is the recipe's. Raises KitaeError when the disk is full.
    """
    own = DatasetFacts.read(dataset).max_length
    plans = {own: dataset}
    for length in sorted({phase.max_length for phase in phases} - {own}):
        plans[length] = run / FOLDER / str(length)
        wanted = identity(dataset, length, seed)
        if ranks()[0] == 0 and not is_repacked(plans[length], wanted):
            repack(dataset, length, plans[length], seed=seed)
        while not is_repacked(plans[length], wanted):
            time.sleep(_EVERY)
    return plans


def unpack(run: Path) -> None:
    """Remove what `pack` made, when the training is complete."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)


def deal(phases: Sequence[Phase], dataset: Path, plans: Mapping[int, Path], *, seed: int) -> tuple[PhaseRows, ...]:
    """Rows for every phase. Phases with rows of one length and the same sources take them one behind the other, so that none comes twice
    before all came once.

    Raises KitaeError when there are no rows, or a phase names an unknown source.
    """
    found: list[PhaseRows] = []
    taken: dict[object, int] = {}
    for number, phase in enumerate(phases):
        try:
            batches = Sampler(
                dataset,
                rows_per_step=phase.rows,
                rows_per_micro_batch=phase.micro_rows,
                seed=seed,
                sources=phase.sources,
                plans=plans[phase.max_length],
                first_row=taken.get(phase.same_rows, 0),
            )
        except KitaeError as error:
            where = f"train.phases.{number}" if len(phases) > 1 else error.where
            raise KitaeError(error.what, cure=error.cure, where=where) from error
        steps = 0 if phase.config.budget is not None else steps_of(phase.config.length, phase.config, batches)
        taken[phase.same_rows] = taken.get(phase.same_rows, 0) + steps * phase.rows
        found.append(PhaseRows(phase=phase, plans=plans[phase.max_length], batches=batches, steps=steps))
    return tuple(found)


class PhasedHeldout:
    """Measures held-out text in rows of the length of the phase that the last step was in: those of a dataset of that length."""

    def __init__(self, objective: Objective, dataset: Path, dealt: Sequence[PhaseRows], *, world: World, rows: int) -> None:
        """At most `rows` rows of every source are measured."""
        meters = {plans: HeldoutMeter(objective, dataset, world=world, rows=rows, plans=plans) for plans in {one.plans for one in dealt}}
        self._meters = [meters[one.plans] for one in dealt]
        self._ends = list(accumulate(one.steps for one in dealt[:-1]))

    def __call__(self, step: int) -> dict[str, float]:
        """Scores after `step` steps; see HeldoutMeter."""
        return self._meters[bisect_left(self._ends, step)](step)
