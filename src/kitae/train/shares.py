"""Which process computes which micro-batches of a step. Micro-batches are dealt whole, and what is in them hangs on nobody's share."""

import json
import logging
import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.tensor.world import World
from kitae.train.parallel_config import ParallelConfig

log = logging.getLogger(__name__)
WHERE = "train.shares"
RECORD = "shares.json"
PASSES = 3
"""Micro-batches that every process is timed with, for shares = "auto"; one more comes before, because the first is slower."""


@dataclass(frozen=True)
class Shares:
    """The dealing of micro-batches to `size` ranks: in turn, or in proportion to `weights`, one per rank.

    Weights that add up to a step's number of micro-batches are dealt exactly; a batch that still grows is dealt as they say as nearly
    as whole micro-batches allow. A rank may get none.
    """

    size: int
    weights: tuple[int, ...] = ()

    def of(self, rank: int, number: int) -> range:
        """Numbers of the micro-batches of this rank, of a step with `number` of them; together the ranks have each once."""
        if not self.weights:
            return range(rank, number, self.size)
        first = sum(self.weights[:rank])
        whole = sum(self.weights)
        return range(first * number // whole, (first + self.weights[rank]) * number // whole)

    def most(self, number: int) -> int:
        """The most micro-batches that any rank has, of a step with `number` of them."""
        return max(len(self.of(rank, number)) for rank in range(self.size))


def check_shares(config: ParallelConfig, rows: int, micro: int) -> None:
    """Raise KitaeError unless the settings' shares are whole micro-batches of `micro` rows that come to a batch of `rows`."""
    if config.shares is None or config.shares == "auto":
        return
    numbers = list(config.shares.values() if isinstance(config.shares, dict) else config.shares)
    if sum(numbers) != rows:
        raise KitaeError(
            f"shares come to {sum(numbers)} rows, but batch = {rows} rows",
            cure=f'change them, or set batch = "{sum(numbers)} rows"',
            where=WHERE,
        )
    for name, share in zip(_names(config), numbers, strict=True):
        if share % micro:
            below, common = share // micro * micro, math.gcd(*numbers)
            sizes = ", ".join(str(size) for size in range(common, 0, -1) if common % size == 0)
            raise KitaeError(
                f"the share of {name}, {share} rows, is no whole number of micro-batches of {micro} rows",
                cure=f"take {below} or {below + micro} rows there, or for all of these shares a micro_batch of {sizes} rows",
                where=WHERE,
            )


def _names(config: ParallelConfig) -> list[str]:
    if isinstance(config.shares, dict):
        return [f"machine {name}" if name.isdecimal() else name for name in config.shares]
    return [f"rank {rank}" for rank in range(len(config.shares or ()))]


def dealt(config: ParallelConfig, micro_rows: int, world: World) -> Shares:
    """The dealing that the settings say (other than "auto") for this world.

    Raises KitaeError when they are for other processes than these.
    """
    if config.shares is None or config.shares == "auto" or world.size == 1:
        return Shares(world.size)
    if isinstance(config.shares, dict):
        return Shares(world.size, _of_machines(config.shares, micro_rows, world))
    if len(config.shares) != world.size:
        raise KitaeError(
            f"shares are for {len(config.shares)} processes, but {world.size} take part",
            cure="name the rows of each, or remove shares: what is learnt stays the same",
            where=WHERE,
        )
    return Shares(world.size, tuple(share // micro_rows for share in config.shares))


def _of_machines(shares: dict[str, int], micro_rows: int, world: World) -> tuple[int, ...]:
    """Micro-batches of every rank: those of its machine, dealt to the machine's ranks as evenly as possible."""
    numbered = "0" in shares
    places = [str(number) for number in world.nodes] if numbered else list(world.hosts)
    absent, strange = set(shares) - set(places), set(places) - set(shares)
    if strange or (absent and numbered):
        known = f"machines {', '.join(sorted(set(places)))}" if numbered else ", ".join(sorted(set(places)))
        raise KitaeError(
            f"shares are for {', '.join(shares)}, but {known} take part",
            cure="name the rows of each, or remove shares: what is learnt stays the same",
            where=WHERE,
        )
    if absent:
        log.warning("%s does not take part: the others compute its share in proportion to theirs", ", ".join(sorted(absent)))
    together, seen = Counter(places), Counter[str]()
    weights: list[int] = []
    for place in places:
        whole, rest = divmod(shares[place] // micro_rows, together[place])
        weights.append(whole + (seen[place] < rest))
        seen[place] += 1
    return tuple(weights)


def balanced(seconds: Sequence[float], number: int) -> tuple[int, ...]:
    """How many of `number` micro-batches each rank gets that all are done soonest, when one takes each so many seconds.

    One after the other goes to whoever would be done with it first; of equals to the lowest rank.
    """
    given = [0] * len(seconds)
    for _ in range(number):
        rank = min(range(len(seconds)), key=lambda rank: ((given[rank] + 1) * seconds[rank], rank))
        given[rank] += 1
    return tuple(given)


def measured(rehearse: Callable[[], None], number: int, world: World, folder: Path) -> Shares:
    """The dealing of `number` micro-batches by which all ranks are done soonest, from the time that `rehearse` (one of them) takes each.

    A resumed training of the same machines deals as recorded in `folder`, so that it adds up in the same order.
    """
    layout = {"hosts": list(world.hosts), "micro_batches": number}
    known = _recorded(folder, layout) if world.main else None
    told = world.sum_numbers({f"{rank}": float(known[rank]) if known else 0.0 for rank in range(world.size)})
    if sum(told.values()):
        return Shares(world.size, tuple(int(told[f"{rank}"]) for rank in range(world.size)))
    took = world.sum_numbers({f"{rank}": _time(rehearse) if rank == world.rank else 0.0 for rank in range(world.size)})
    seconds = [took[f"{rank}"] for rank in range(world.size)]
    weights = balanced(seconds, number)
    if world.main:
        log.info(
            "a micro-batch takes %s s: shares of %s micro-batches", _listed(f"{one:.3g}" for one in seconds), _listed(map(str, weights))
        )
        temporary = folder / f".{RECORD}.part"
        temporary.write_text(json.dumps(layout | {"weights": weights, "seconds": seconds}), encoding="utf-8")
        os.replace(temporary, folder / RECORD)
    return Shares(world.size, weights)


def _time(rehearse: Callable[[], None]) -> float:
    times = []
    for _ in range(PASSES + 1):
        start = time.perf_counter()
        rehearse()
        times.append(time.perf_counter() - start)
    return max(statistics.median(times[1:]), 1e-9)


def _recorded(folder: Path, layout: dict[str, object]) -> list[int] | None:
    """What these machines were given before; None when they were not measured yet, or the record is damaged."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        weights = [int(one) for one in found["weights"]]
        same = all(found[name] == value for name, value in layout.items())
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return weights if same and len(weights) == len(found["hosts"]) and sum(weights) == layout["micro_batches"] else None


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(texts)
