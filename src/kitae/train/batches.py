"""What the loop asks of data and of the module that learns. Neither knows the loop."""

from collections.abc import Iterator, Mapping
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kitae.tensor.batch import Batch
from kitae.tensor.groups import ParameterGroup
from kitae.tensor.loss import Loss


class Batches(Protocol):
    """Micro-batches as a pure function of (step, number)."""

    @property
    def micro_batches_per_step(self) -> int:
        """How many micro-batches make a step, over all processes."""

    @property
    def rows_per_step(self) -> int:
        """Rows of one step, for lengths in rows."""

    @property
    def rows_per_epoch(self) -> int:
        """Rows of one pass over the data, for lengths in epochs."""

    @property
    def tokens_per_step(self) -> float:
        """Nominal tokens of one step, for lengths in tokens."""

    def micro(self, step: int, micro: int) -> Batch:
        """Micro-batch number `micro` of step `step`, both from 0."""


@runtime_checkable
class Compilable(Protocol):
    """A part of a learner with repeated layers, each of which is compiled by itself: the rest may have changing shapes."""

    def compile_blocks(self, *, graphs: bool = False) -> None:
        """Compile every repeated layer in place; with CUDA graphs, where shapes repeat."""


@runtime_checkable
class Recomputable(Protocol):
    """A part of a learner with repeated layers whose insides need not be kept for the backward pass."""

    def checkpoint_blocks(self) -> None:
        """From now on keep nothing of the insides of repeated layers."""


@runtime_checkable
class Grouped(Protocol):
    """A learner whose weights may be updated in groups: each is clipped by itself and may have its own learning rate."""

    def groups(self) -> tuple[ParameterGroup, ...]:
        """The groups, which hold every trained weight once; none for one update of all."""


@runtime_checkable
class Costed(Protocol):
    """A learner that knows what its training costs, for MFU."""

    def flops_per_token(self, context: float) -> float:
        """Of forward and backward pass, for a real token that attends to so many positions in the mean."""


@runtime_checkable
class Attended(Protocol):
    """Batches that know how long their texts are."""

    def context(self, step: int) -> float:
        """How many positions a real token of this step attends to, in the mean of the data."""


def arm_blocks(module: nn.Module, *, compiled: bool | Literal["graphs"], recomputed: bool) -> None:
    """Compile the repeated layers of every part that has some, or have them recomputed, in place."""
    if compiled == "graphs":  # the graphs' memory is free again when the learner begins anew, not from layer to layer
        module.register_forward_pre_hook(lambda *_: torch.compiler.cudagraph_mark_step_begin())
    for part in module.modules():
        if compiled and isinstance(part, Compilable):
            part.compile_blocks(graphs=compiled == "graphs")
        if recomputed and isinstance(part, Recomputable):
            part.checkpoint_blocks()


class Learner(Protocol):
    """A torch module that owns its models and knows its loss."""

    def prepare(self, batch: Batch, seed: int) -> Batch:
        """Draw masks and labels: a pure function of (batch, seed), on the CPU. The batch knows its step and how far the training is."""

    def counts(self, batch: Batch) -> dict[str, int]:
        """Of a prepared batch: how many predictions each term of the loss averages over."""

    def __call__(self, batch: Batch) -> Loss:
        """The loss of a prepared batch."""

    def describe(self) -> dict[str, object]:
        """The content of model.json."""

    def train(self, mode: bool = True) -> object:
        """Switch dropout on or off."""

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter once."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Weights by name; shared ones under every name."""
