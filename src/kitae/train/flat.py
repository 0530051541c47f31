"""Weights and gradients of a module in flat tensors: one master copy of all, one gradient buffer, working copies in half precision."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from kitae.core.errors import KitaeError
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss
from kitae.tensor.world import World

ALIGN = 16  # elements: every weight starts on a cache line
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}


class Key(NamedTuple):
    """What weights that lie side by side have in common."""

    order: int
    """Minus the number of the group: groups are clipped apart from each other."""
    decays: bool
    """Whether weight decay acts on them."""
    scale: float
    """Factor of the learning rate."""
    hidden: bool = False
    """Whether these are matrices of the layers that a rule of their own moves."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where one parameter, or this process's part of it, lies in the flat tensors."""

    name: str
    parameter: nn.Parameter
    shape: torch.Size
    """Of what lies here; the parameter's, when every process holds all of it."""
    first: int
    """Row of the parameter that comes first here."""
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Span:
    """Where the weights of one key lie."""

    key: Key
    start: int
    end: int
    slots: tuple[Slot, ...]

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """The parts of a tensor as long as this span, by parameter name, shaped."""
        return {slot.name: flat[slot.start - self.start : slot.end - self.start].view(slot.shape) for slot in self.slots}


class Weights(Protocol):
    """What optimizer and loop ask of the trained weights of a module, which lie in flat tensors."""

    work_dtype: torch.dtype
    """Of weights and activations."""
    dtype: torch.dtype
    """Of masters, gradients and averages."""
    spans: list[Span]
    master: Tensor
    """Exact weights; flat."""
    grad: Tensor
    """As flat as the masters."""
    in_step: bool
    """Whether every process must make as many forward and backward passes as the others."""

    @property
    def slots(self) -> Sequence[Slot]:
        """Of all spans, in order."""

    def learner(self, batch: Batch) -> Loss:
        """The loss of a micro-batch, of the module as it is trained."""

    def start_gradient(self) -> None:
        """Begin a new sum of gradients; every backward pass until `gradient` adds to it."""

    def gradient(self) -> Tensor:
        """The flat sum since `start_gradient`; weights without a gradient count as zero."""

    def add_up(self, world: World) -> Tensor:
        """Complete the gradient, which it returns: add what the processes found, each from its share of the step."""

    def not_finite(self) -> list[str]:
        """Names of the weights whose `gradient` is not finite, in the order of the flat tensors. Waits for the device."""

    def norm(self, grad: Tensor) -> Tensor:
        """Of a part of the flat gradient, over all processes: a scalar on the device."""

    def norms(self, found: Tensor, wholes: Tensor, count: int) -> Tensor:
        """Of so many whole weights, or matrices in them, from those of their parts that lie here; `wholes` says of which each is a part."""

    def assembled(self, slot: Slot, part: Tensor) -> Tensor:
        """A whole tensor, shaped like that parameter, from the parts that lie with the processes; all of them call it."""

    def publish(self) -> None:
        """Let the module compute with the masters as they are now."""

    def weights(self) -> dict[str, Tensor]:
        """Exact weights by parameter name, shaped, of what lies here; views."""

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """The part of a whole tensor, shaped like this parameter, that lies here; a view."""

    def gathered(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors from such parts, each named by its parameter or "KIND.PARAMETER", on the first process; nothing on the others.
        All processes call it."""

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take whole masters and frozen weights. Raises KitaeError when names or shapes differ."""

    def whole(self) -> contextlib.AbstractContextManager[None]:
        """While it is open, the module that was given holds all its weights, in the working precision, on every process."""

    def hand_back(self) -> None:
        """Let the module hold them for good, after the last step."""

    def close(self) -> None:
        """Take the hooks off the module."""


class Collector:
    """Puts a parameter's gradient in its place in the flat buffer as soon as it is complete, and frees it."""

    def __init__(self, place: Tensor) -> None:
        self.place, self.empty = place, True

    def __call__(self, parameter: Tensor) -> None:
        if parameter.grad is None:
            return
        here = parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
        found = here.reshape(-1)
        if self.empty:  # a copy is a quarter of clearing and adding in mixed precision
            self.place.copy_(found)
            self.empty = False
        else:
            self.place.add_(found)
        parameter.grad = None

    def finish(self) -> None:
        """A weight without a gradient counts as zero."""
        if self.empty:
            self.place.zero_()


class Collecting:
    """What both forms of flat weights do with gradients."""

    grad: Tensor
    _collectors: list[Collector]

    def start_gradient(self) -> None:
        """Begin a new sum of gradients; every backward pass until `gradient` adds to it."""
        for collector in self._collectors:
            collector.empty = True

    def gradient(self) -> Tensor:
        """The flat sum since `start_gradient`; weights without a gradient count as zero."""
        for collector in self._collectors:
            collector.finish()
        return self.grad


class FlatWeights(Collecting):
    """Re-binds a module's trained weights to flat storage in the working precision.

    In fp32 and fp64 the weights are the masters. In bf16 and fp16 they are copies, written anew from fp32 masters by `publish`, and
    gradients are added up in fp32. Frozen parameters keep exact copies for saving. Every process holds
    all of it.
    """

    in_step = False

    def __init__(self, module: nn.Module, keys: Mapping[str, Key], device: torch.device, precision: str) -> None:
        """`keys` of the trained parameters by name; every other parameter of the module is frozen."""
        self.work_dtype = DTYPES[precision]
        self.dtype = torch.float64 if precision == "fp64" else torch.float32
        self._module: Callable[[Batch], Loss] = module
        named = dict(module.named_parameters())
        self.fixed = {name: p for name, p in named.items() if name not in keys}
        self.frozen = {name: p.detach().to(device, self.dtype).clone() for name, p in self.fixed.items()}
        self.spans = lay_out(named, keys, {name: range(len(p)) for name, p in named.items()})
        self.slots = [slot for span in self.spans for slot in span.slots]
        self.master = torch.zeros(self.spans[-1].end, dtype=self.dtype, device=device)
        self.grad = torch.zeros_like(self.master)
        for slot in self.slots:
            self.master[slot.start : slot.end] = slot.parameter.detach().reshape(-1).to(device, self.dtype)
        module.to(device=device, dtype=self.work_dtype)
        self.work = self.master if self.work_dtype == self.dtype else self.master.to(self.work_dtype)
        self._collectors = [Collector(self.grad[slot.start : slot.end]) for slot in self.slots]
        self._hooks = []
        for slot, collector in zip(self.slots, self._collectors, strict=True):
            slot.parameter.data = self.work[slot.start : slot.end].view(slot.parameter.shape)
            slot.parameter.grad = None
            self._hooks.append(slot.parameter.register_post_accumulate_grad_hook(collector))

    def learner(self, batch: Batch) -> Loss:
        """See `Weights`: the module itself."""
        return self._module(batch)

    def add_up(self, world: World) -> Tensor:
        """Add the gradients of all processes."""
        return world.sum(self.grad)

    def not_finite(self) -> list[str]:
        """See `Weights`: of this process's gradient."""
        return [name for name, grad in self.named(self.gradient()).items() if not bool(torch.isfinite(grad).all())]

    def norm(self, grad: Tensor) -> Tensor:
        """Of a part of the gradient, when it is added up."""
        return torch.linalg.vector_norm(grad)

    def norms(self, found: Tensor, wholes: Tensor, count: int) -> Tensor:
        """See `Weights`: they are whole."""
        del wholes, count
        return found

    def assembled(self, slot: Slot, part: Tensor) -> Tensor:
        """See `Weights`: it is whole."""
        del slot
        return part

    def publish(self) -> None:
        """Write the working copies anew from the masters."""
        if self.work is not self.master:
            self.work.copy_(self.master)

    def weights(self) -> dict[str, Tensor]:
        """Exact weights by parameter name, shaped; views of the masters."""
        return self.named(self.master) | self.frozen

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """See `Weights`: all of it lies here."""
        del name
        return whole

    def gathered(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Weights`: they are whole already."""
        return dict(parts)

    def whole(self) -> contextlib.AbstractContextManager[None]:
        """See `Weights`: it always does."""
        return contextlib.nullcontext()

    def hand_back(self) -> None:
        """See `Weights`: it has them."""

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take the masters and frozen weights of a checkpoint. Raises KitaeError when names or shapes differ."""
        fill(self.weights(), weights, "weights")
        for name, parameter in self.fixed.items():
            parameter.data.copy_(self.frozen[name])
        self.publish()

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """The parts of a tensor as flat as the masters, by parameter name, shaped."""
        return {slot.name: flat[slot.start : slot.end].view(slot.parameter.shape) for slot in self.slots}

    def close(self) -> None:
        """Take the hooks off the module. Its weights stay where they are."""
        for hook in self._hooks:
            hook.remove()


def fill(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], what: str) -> None:
    """Copy tensors of a checkpoint into those that are wanted. Raises KitaeError when names or shapes differ."""
    differing = sorted(name for name in wanted if name not in given or given[name].shape != wanted[name].shape)
    if differing:
        raise KitaeError(f"the {what} of the checkpoint do not fit this model: {differing[0]} differs", cure="choose a new output")
    for name, tensor in wanted.items():
        tensor.copy_(given[name])


def lay_out(parameters: Mapping[str, nn.Parameter], keys: Mapping[str, Key], rows: Mapping[str, range]) -> list[Span]:
    """Places for the parameters that have keys, by the order of their keys; `rows` that are to lie there. At least one has a key."""
    spans: list[Span] = []
    end = 0
    for key in sorted(set(keys.values()), reverse=True):
        first, slots = end, []
        for name, parameter in parameters.items():
            if name in keys and keys[name] == key:
                shape = torch.Size((len(rows[name]), *parameter.shape[1:]))
                row = rows[name].start
                slots.append(Slot(name=name, parameter=parameter, shape=shape, first=row, start=end, end=end + shape.numel()))
                end += -(-shape.numel() // ALIGN) * ALIGN
        spans.append(Span(key=key, start=first, end=end, slots=tuple(slots)))
    return spans
