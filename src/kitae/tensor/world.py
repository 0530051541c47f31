"""The processes that train together. One process is a world of size one; torchrun's environment makes larger ones."""

import contextlib
import datetime
import gc
import os
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from kitae.core.errors import KitaeError, Stopped

TIMEOUT = datetime.timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class World:
    """Rank and size of this process group, and the device that this process computes on."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Add the tensor up over all ranks, in place; the result is the same bits on every rank."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_numbers(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Add named numbers up over all ranks, in float64; every rank gives the same names."""
        names = sorted(numbers)
        if self.size == 1:  # no way to the device and back
            return {name: float(numbers[name]) for name in names}
        summed = self.sum(torch.tensor([float(numbers[name]) for name in names], dtype=torch.float64, device=self.device))
        return dict(zip(names, summed.tolist(), strict=True))

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()


def ranks() -> tuple[int, int]:
    """(rank, size) as torchrun's environment says; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def session(device: str = "auto") -> Iterator[World]:
    """The process group, for as long as training runs. `device`: "auto" (CUDA when there is one), "cpu" or "cuda".

    Raises KitaeError when CUDA is asked for and absent.
    """
    rank, size = ranks()
    if device == "cuda" and not torch.cuda.is_available():
        raise KitaeError('device = "cuda", but torch sees no CUDA device', cure='set device = "cpu" or "auto", or mend the driver')
    cuda = device != "cpu" and torch.cuda.is_available()
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(place)
    if size == 1:
        yield World(device=place)
        return
    store, rank, size = next(iter(rendezvous("env://", timeout=TIMEOUT)))
    # Every session has keys of its own: a rank that is early must not read the addresses that the last session left there.
    store = dist.PrefixStore(f"session {store.add(f'sessions of rank {rank}', 1)}", store)
    dist.init_process_group("nccl" if cuda else "gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield World(rank=rank, size=size, device=place)
        gc.collect()  # gloo aborts at exit when tensors it knows of outlive the group
        dist.barrier()
    except Stopped as stop:  # every rank stops at the same step: part in good order too
        traceback.clear_frames(stop.__traceback__)
        gc.collect()
        dist.barrier()
        raise
    finally:
        dist.destroy_process_group()
