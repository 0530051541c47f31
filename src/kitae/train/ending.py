"""Whether a training ends before its length: its held-out loss has become flat."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.tensor.world import World
from kitae.train.config import FlatConfig
from kitae.train.monitor import Monitor
from kitae.train.schedule import Timetable


def is_flat(config: FlatConfig, first: float, losses: Sequence[float]) -> bool:
    """Whether the best loss is below the first, from before the training, by the share `drop`, and none of the last `patience` ones
    below the best one before them by `share`."""
    before, recent = losses[: -config.patience], losses[-config.patience :]
    return bool(before) and min(losses) <= first * (1 - config.drop) and min(recent) > min(before) * (1 - config.share)


def ends(config: FlatConfig | None, times: Timetable, step: int, *, monitor: Monitor | None, world: World, folder: Path) -> bool:
    """Whether the training ends after `step`: a function of what `monitor`, on the first rank, measured so far, which every rank learns.

    Raises KitaeError when nothing measures the loss that it waits for.
    """
    if config is None or not step or step % times.flat:
        return False
    losses = _losses(config.loss, times, step, monitor.evaluated if monitor is not None else {})
    counted = [loss for number, loss in losses.items() if number]
    flat = 0 in losses and is_flat(config, losses[0], counted)
    absent = monitor is not None and 0 not in losses
    answer = world.sum_numbers({"flat": float(flat), "absent": float(absent)})
    if answer["absent"]:
        raise KitaeError(
            f'until_flat waits for the held-out loss "{config.loss}", which nothing measures',
            cure="set corpus.holdout, name another loss, or remove until_flat",
            where=str(folder),
        )
    return bool(answer["flat"])


def _losses(name: str, times: Timetable, step: int, measured: Mapping[int, Mapping[str, float]]) -> dict[int, float]:
    """The mean over the sources by step: before the first step, and at every measurement that counts."""
    counted = [number for number in range(times.flat, step + 1, times.flat) if number >= times.warmup]
    found = {n: [v for key, v in measured.get(n, {}).items() if _is_of_a_source(key, name)] for n in [0, *counted]}
    return {number: sum(values) / len(values) for number, values in found.items() if values}


def _is_of_a_source(key: str, name: str) -> bool:
    """Whether this is the score of one source; "heldout/NAME" is that of all of them together, and a probe's is of no text."""
    return key.rpartition("/")[2] == name and key != f"heldout/{name}" and not key.startswith("probe/")
