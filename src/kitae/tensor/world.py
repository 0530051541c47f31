"""The processes that train together. One process is a world of size one; torchrun, Slurm or mpirun make larger ones."""

import contextlib
import datetime
import functools
import gc
import json
import re
import socket
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from kitae.core.errors import KitaeError, Stopped
from kitae.core.launch import AGENT, Launch, launch
from kitae.tensor.watch import CURE, SLOW, Watch, exchanging

TIMEOUT = datetime.timedelta(minutes=10)
HANG_LIMIT = 600.0
"""Seconds that one operation of a process may take."""
LINGER = 1.0
"""Seconds in which a first process that failed still answers the others, when they met in it."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Rank and size of this process group, and the device that this process computes on."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    hosts: tuple[str, ...] = ("",)
    """Of every rank: the name of its machine."""
    nodes: tuple[int, ...] = (0,)
    """Of every rank: the number of its machine, as the launcher counts, or else in the order of the ranks."""
    watch: Watch | None = field(default=None, compare=False, repr=False)
    """Names processes that hang; one process has none."""

    @property
    def main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Add the tensor up over all ranks, in place; the result is the same bits on every rank."""
        if self.size > 1:
            with self.waiting("all-reduce"):
                dist.all_reduce(tensor)
        return tensor

    def sum_numbers(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Add named numbers up over all ranks, in float64; every rank gives the same names. From host to host: no device is waited for."""
        names = sorted(numbers)
        if self.size == 1:
            return {name: float(numbers[name]) for name in names}
        mine = torch.tensor([float(numbers[name]) for name in names], dtype=torch.float64)
        with self.waiting("all-reduce"):
            dist.all_reduce(mine)
            return dict(zip(names, mine.tolist(), strict=True))

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            with self.waiting("barrier"):
                dist.barrier()

    def doing(self, operation: str, step: int = -1, *, slow: bool = False) -> None:
        """Tell the watch what this process does from now on: progress within the limit for processes that hang, ten times as long for
        what is `slow`."""
        if self.watch is not None:
            self.watch.doing(operation, step, slow=slow)

    def waiting(self, operation: str) -> contextlib.AbstractContextManager[None]:
        """Within, this process waits for others, as the watch sees it."""
        return contextlib.nullcontext() if self.watch is None else self.watch.waiting(operation)


def ranks() -> tuple[int, int]:
    """(rank, size) as the launcher's environment says; (0, 1) without one."""
    place = launch()
    return place.rank, place.size


@contextlib.contextmanager
def session(device: str = "auto", *, hang_limit: float = HANG_LIMIT) -> Iterator[World]:
    """The process group, for as long as training runs. `device`: "auto" (CUDA when there is one), "cpu" or "cuda".

    A process that does one thing for longer than `hang_limit` seconds is named, and all processes end (watch.py). When one fails, the
    others are told why. Raises KitaeError when CUDA is asked for and absent, and when another process failed or was lost.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise KitaeError('device = "cuda", but torch sees no CUDA device', cure='set device = "cpu" or "auto", or mend the driver')
    own = launch()
    cuda = device != "cpu" and torch.cuda.is_available()
    place = torch.device("cuda", own.local_rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(place)
    if own.size == 1:
        yield World(device=place, hosts=(socket.gethostname(),))
        return
    store = _meet(own)
    # Every session has keys of its own: a rank that is early must not read the addresses that the last session left there.
    store = dist.PrefixStore(f"session {store.add(f'sessions of rank {own.rank}', 1)}", store)
    hosts, nodes = _places(own, store)
    watch = Watch(store, rank=own.rank, hosts=hosts, limit=hang_limit)
    patience = max(TIMEOUT, datetime.timedelta(seconds=2 * SLOW * hang_limit))  # the watch knows better who is late, and why
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", store=store, rank=own.rank, world_size=own.size, timeout=patience)
    watch.start()
    try:
        yield World(rank=own.rank, size=own.size, device=place, hosts=hosts, nodes=nodes, watch=watch)
        _part(watch)
    except Stopped as stop:  # every rank stops at the same step: part in good order too
        traceback.clear_frames(stop.__traceback__)
        _part(watch)
        raise
    except RuntimeError as error:
        if watch.now.waiting or exchanging(_innermost(error)):  # with processes that are there no more
            raise _lost(watch, error) from error
        watch.fail(f"{type(error).__name__}: {error}")
        raise
    except BaseException as error:
        watch.fail(error.what if isinstance(error, KitaeError) else f"{type(error).__name__}: {error}")
        raise
    finally:
        failed = not watch.closed
        watch.close()
        dist.destroy_process_group()
        if failed and own.main and own.address != AGENT:
            time.sleep(LINGER)


def _part(watch: Watch) -> None:
    """Leave together: gloo aborts at exit when tensors that it knows of outlive the group."""
    gc.collect()
    watch.close()
    dist.barrier()


def _innermost(error: BaseException) -> FrameType | None:
    """Where it was raised."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return None if last is None else last.tb_frame


def _lost(watch: Watch, error: RuntimeError) -> KitaeError:
    """What to say when a collective operation broke off: mostly another process ended, and may have said why."""
    words = re.sub(r"^\[[^\]]*\]\s*", "", str(error)).partition(". ")[0].partition("\n")[0]  # gloo's begin with a line of its source
    return KitaeError(watch.blame() or f"another process was lost, as {watch.now.place} shows ({words})", cure=CURE)


@functools.cache
def _meet(own: Launch) -> dist.Store:
    """Where the processes of this launch meet: one place for all sessions of a process, because a second one could not listen there."""
    if own.address == AGENT:
        store, _, _ = next(iter(rendezvous("env://", timeout=TIMEOUT)))
        return store
    try:
        return dist.TCPStore(own.address, own.port, own.size, is_master=own.main, timeout=TIMEOUT, wait_for_workers=False)
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        cure = "see that all processes run and reach that address, or set MASTER_ADDR and MASTER_PORT"
        raise KitaeError(f"the processes could not meet at {own.address}, port {own.port}", cure=cure) from error


def _places(own: Launch, store: dist.Store) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """(host, number of the machine) of every rank."""
    store.set(f"place {own.rank}", json.dumps([socket.gethostname(), own.node]))
    told = [json.loads(text) for text in store.multi_get([f"place {rank}" for rank in range(own.size)])]
    hosts = tuple(host for host, _ in told)
    if all(node for _, node in told):
        return hosts, tuple(int(node) for _, node in told)
    order = list(dict.fromkeys(hosts))
    return hosts, tuple(order.index(host) for host in hosts)
