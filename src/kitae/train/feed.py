"""Hands the loop the prepared micro-batches of a step, made in the background when the device is not the CPU."""

import time
from concurrent.futures import Future, ThreadPoolExecutor

from kitae.tensor.batch import Batch
from kitae.tensor.world import World
from kitae.train.batches import Batches, Learner


class Feed:
    """Micro-batches of this rank: rank r of n takes numbers r, r + n, ... of every step. A rank may get none.

    What it hands over is a pure function of (seed, step), so that working ahead changes nothing.
    """

    def __init__(self, batches: Batches, learner: Learner, *, seed: int, world: World, total: int) -> None:
        self._batches, self._learner, self._seed, self._world = batches, learner, seed, world
        self._total = total
        self._pool = ThreadPoolExecutor(1, "prepare") if world.device.type != "cpu" else None
        self._ahead: tuple[int, Future[list[Batch]]] | None = None
        self.waited = 0.0

    def prepare(self, step: int, micro: int) -> Batch:
        """One prepared micro-batch on the CPU."""
        return self._learner.prepare(self._batches.micro(step, micro), self._seed)

    def _share(self, step: int) -> list[Batch]:
        numbers = range(self._world.rank, self._batches.micro_batches_per_step, self._world.size)
        return [self.prepare(step, micro) for micro in numbers]

    def take(self, step: int) -> list[Batch]:
        """This rank's share of a step; `waited` adds up the seconds spent here."""
        start = time.perf_counter()
        if self._ahead is not None and self._ahead[0] == step:
            share = self._ahead[1].result()
        else:
            share = self._share(step)
        if self._pool is not None and step + 1 < self._total:
            self._ahead = (step + 1, self._pool.submit(self._share, step + 1))
        self.waited += time.perf_counter() - start
        return share

    def close(self) -> None:
        """End the background thread."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
