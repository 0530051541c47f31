"""Saving while training goes on: an exact copy is taken between two steps, and written, sealed and pruned by a thread."""

import contextlib
import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

from kitae.core.artifact import checkpoints
from kitae.core.errors import KitaeError
from kitae.train import checkpoint
from kitae.train.checkpoint import Content, State
from kitae.train.clock import SAVE, Clock
from kitae.train.monitor import Monitor
from kitae.train.optimizer import Gathered

log = logging.getLogger(__name__)


class HostCopies:
    """Copies of tensors in the host's memory, page-locked where they come from a GPU, in buffers that every later copy uses again."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: dict[tuple[str, int], Tensor] = {}
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None

    def take(self, kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors as they are now; of one under several names one copy. On a GPU the copies are complete after `wait`: whatever is
        put on the device's queue afterwards waits for them there, not the host."""
        first: dict[int, int] = {}
        if self._side is not None:
            self._side.wait_stream(torch.cuda.current_stream(self._device))
        with contextlib.nullcontext() if self._side is None else torch.cuda.stream(self._side):
            for number, tensor in enumerate(tensors.values()):
                if first.setdefault(id(tensor), number) == number:
                    self._buffer(kind, number, tensor).copy_(tensor, non_blocking=True)
        if self._side is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._side)
        return {name: self._buffers[kind, first[id(tensor)]] for name, tensor in tensors.items()}

    def wait(self) -> None:
        """Until all copies are complete; any thread may call it."""
        if self._side is not None:
            self._side.synchronize()

    def _buffer(self, kind: str, number: int, tensor: Tensor) -> Tensor:
        key = (kind, number)
        if key not in self._buffers:
            self._buffers[key] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
        return self._buffers[key]


class Saver:
    """Writes the checkpoints of one training, at most one at a time; only the main process has one.

    In the background nothing is kept waiting but by the copy, or by an earlier save that is still under way. A save that fails raises in
    the training's thread, from whichever method is called next.
    """

    def __init__(
        self,
        folder: Path,
        module: nn.Module,
        device: torch.device,
        attach: Mapping[str, Path],
        *,
        clock: Clock,
        monitor: Monitor,
        keep_last: int,
        background: bool,
    ) -> None:
        """`attach` names folders that go into every checkpoint; `clock` is told how long a save takes; its record and that of
        `monitor` are on the disk before a checkpoint is."""
        self._folder, self._module, self._attach, self._keep_last = folder, module, attach, keep_last
        self._clock, self._monitor = clock, monitor
        self._clock.busy = self._busy
        self._copies = HostCopies(device) if background else None
        self._thread = ThreadPoolExecutor(1, "save") if background else None
        self._under_way: Future[None] | None = None
        self._begun = 0.0

    def save(self, state: State, exact: Gathered, *, permanent: frozenset[int]) -> None:
        """Save the checkpoint of `state.step`, with what the optimizer holds then; `permanent` are steps whose checkpoints stay.

        Raises KitaeError when the disk is full, and OSError; in the background from a later call.
        """
        self.wait()
        self._begun = self._clock.now()
        weights, averages = checkpoint.tensors(self._module, exact.weights), exact.state
        if self._copies is not None and not exact.apart:
            weights, averages = self._copies.take("weights", weights), self._copies.take("optimizer", averages)
        content = Content(weights=weights, optimizer=averages, model=self._module.describe(), state=state, permanent=permanent)
        if self._thread is None:
            self._write(content)
        else:
            self._under_way = self._thread.submit(self._write, content)

    def _write(self, content: Content) -> None:
        if self._copies is not None:
            self._copies.wait()
        self._clock.flush()
        self._monitor.flush()
        checkpoint.save(self._folder, content, self._attach)
        checkpoint.prune(self._folder, self._keep_last, content.permanent)
        self._clock.cost(SAVE, self._clock.now() - self._begun)

    def clear(self, step: int, permanent: frozenset[int]) -> None:
        """Remove what an earlier process could not remove any more, once the checkpoint of `step` is known to verify."""
        found = checkpoints(self._folder)
        if found and found[-1].name == checkpoint.name_of(step):  # behind a damaged one the others are needed
            checkpoint.prune(self._folder, self._keep_last, permanent)

    def _busy(self) -> float:
        return self._clock.now() - self._begun if self._under_way is not None and not self._under_way.done() else 0.0

    def check(self) -> None:
        """Raise what a save in the background failed with, without waiting for it."""
        if self._under_way is not None and self._under_way.done():
            self.wait()

    def wait(self) -> None:
        """Until no save is under way. Raises what it failed with."""
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            under_way.result()

    def close(self) -> None:
        """Let a save that is under way come to its end. Its failure is a warning: something else ended the training already."""
        if self._thread is None:
            return
        if self._under_way is not None and (error := self._under_way.exception()) is not None:
            log.warning("the last checkpoint could not be saved: %s", error.what if isinstance(error, KitaeError) else error)
        self._thread.shutdown()
