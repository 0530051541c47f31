"""Hands the loop the prepared micro-batches of a step, made in the background when the device is not the CPU."""

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from kitae.tensor.batch import Batch
from kitae.tensor.world import World
from kitae.train.batches import Learner
from kitae.train.course import Course, Dealt
from kitae.train.schedule import LAG, Timetable
from kitae.train.shares import Shares

AHEAD = LAG
"""Steps that are prepared before their turn: small steps take less time on a device than their preparation in one thread."""
THREADS = 4


class Feed:
    """Micro-batches of this rank: its share of every step. A rank may get none.

    What it hands over is a pure function of (seed, step), so that working ahead changes nothing.
    """

    def __init__(
        self, batches: Dealt, learner: Learner, *, seed: int, world: World, times: Timetable, shares: Shares | None = None
    ) -> None:
        """Without `shares` micro-batches are dealt in turn."""
        self._learner, self._seed, self._world = learner, seed, world
        self._course, self._times, self.shares = Course(batches, times), times, shares or Shares(world.size)
        background = world.device.type != "cpu"
        threads = max(1, min(THREADS, (os.cpu_count() or 1) // 2))
        self._pool = ThreadPoolExecutor(threads, "prepare", initializer=self._enter) if background else None
        self._ahead: dict[int, list[Future[Batch]]] = {}
        self.waited = 0.0

    def _enter(self) -> None:
        if self._world.device.type == "cuda":  # a thread begins on the first device, and page-locking makes a context there
            torch.cuda.set_device(self._world.device)

    def prepare(self, step: int, micro: int, *, rows: int | None = None) -> Batch:
        """One prepared micro-batch on the CPU, which knows how far the training is; of its first so many rows (see `divisible`)."""
        batch = self._course.micro(step, micro)
        return self._learner.prepare(batch if rows is None else batch.first(rows), self._seed)

    def divisible(self, step: int, micro: int) -> bool:
        """Whether rows of a micro-batch can be taken apart: those with targets of their own (pairs, labels) cannot."""
        return not self._course.micro(step, micro).targets

    def _shipped(self, step: int, micro: int) -> Batch:
        batch = self.prepare(step, micro)
        return batch.pinned() if self._world.device.type == "cuda" else batch

    def of_step(self, step: int) -> int:
        """How many micro-batches a step has, over all ranks."""
        return self._course.count(step)

    def _numbers(self, step: int) -> range:
        return self.shares.of(self._world.rank, self.of_step(step))

    def most(self, step: int) -> int:
        """How many micro-batches of a step the rank with the most of them has: as many rounds as all ranks make together."""
        return self.shares.most(self.of_step(step))

    def take(self, step: int) -> list[Batch]:
        """This rank's share of a step; `waited` adds up the seconds spent here."""
        start = time.perf_counter()
        self._world.doing("preparing data", step)
        if self._pool is None:
            share = [self.prepare(step, micro) for micro in self._numbers(step)]
        else:
            for later in range(step, min(step + 1 + AHEAD, self._times.total)):
                if later not in self._ahead:
                    self._ahead[later] = [self._pool.submit(self._shipped, later, micro) for micro in self._numbers(later)]
            share = [future.result() for future in self._ahead.pop(step)]
        self.waited += time.perf_counter() - start
        return share

    def close(self) -> None:
        """End the background threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
