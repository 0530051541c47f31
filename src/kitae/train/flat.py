"""Weights and gradients of a module in flat tensors: one master copy of all, one gradient buffer, working copies in half precision."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kitae.core.errors import KitaeError

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
    """Where one parameter lies in the flat tensors."""

    name: str
    parameter: nn.Parameter
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
        return {slot.name: flat[slot.start - self.start : slot.end - self.start].view(slot.parameter.shape) for slot in self.slots}


class FlatWeights:
    """Re-binds a module's trained weights to flat storage in the working precision.

    In fp32 and fp64 the weights are the masters. In bf16 and fp16 they are copies, written anew from fp32 masters by `publish`, and
    gradients are added up in fp32. Frozen parameters keep exact copies for saving.
    """

    def __init__(self, module: nn.Module, keys: Mapping[str, Key], device: torch.device, precision: str) -> None:
        """`keys` of the trained parameters by name; every other parameter of the module is frozen."""
        self.work_dtype = DTYPES[precision]
        self.dtype = torch.float64 if precision == "fp64" else torch.float32
        named = dict(module.named_parameters())
        self.fixed = {name: p for name, p in named.items() if name not in keys}
        self.frozen = {name: p.detach().to(device, self.dtype).clone() for name, p in self.fixed.items()}
        self.spans: list[Span] = []
        end = 0
        for key in sorted(set(keys.values()), reverse=True):
            first, slots = end, []
            for name, parameter in named.items():
                if name in keys and keys[name] == key:
                    slots.append(Slot(name=name, parameter=parameter, start=end, end=end + parameter.numel()))
                    end += -(-parameter.numel() // ALIGN) * ALIGN
            self.spans.append(Span(key=key, start=first, end=end, slots=tuple(slots)))
        self.slots = [slot for span in self.spans for slot in span.slots]
        self.master = torch.zeros(end, dtype=self.dtype, device=device)
        self.grad = torch.zeros_like(self.master)
        for slot in self.slots:
            self.master[slot.start : slot.end] = slot.parameter.detach().reshape(-1).to(device, self.dtype)
        module.to(device=device, dtype=self.work_dtype)
        self.work = self.master if self.work_dtype == self.dtype else self.master.to(self.work_dtype)
        self._collectors = [_Collector(self.grad[slot.start : slot.end]) for slot in self.slots]
        self._hooks = []
        for slot, collector in zip(self.slots, self._collectors, strict=True):
            slot.parameter.data = self.work[slot.start : slot.end].view(slot.parameter.shape)
            slot.parameter.grad = None
            self._hooks.append(slot.parameter.register_post_accumulate_grad_hook(collector))

    def start_gradient(self) -> None:
        """Begin a new sum of gradients; every backward pass until `gradient` adds to it."""
        for collector in self._collectors:
            collector.empty = True

    def gradient(self) -> Tensor:
        """The flat sum since `start_gradient`; weights without a gradient count as zero."""
        for collector in self._collectors:
            if collector.empty:
                collector.place.zero_()
        return self.grad

    def publish(self) -> None:
        """Write the working copies anew from the masters."""
        if self.work is not self.master:
            self.work.copy_(self.master)

    def weights(self) -> dict[str, Tensor]:
        """Exact weights by parameter name, shaped; views of the masters."""
        return self.named(self.master) | self.frozen

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


class _Collector:
    """Puts a parameter's gradient in its place in the flat buffer as soon as it is complete, and frees it."""

    def __init__(self, place: Tensor) -> None:
        self.place, self.empty = place, True

    def __call__(self, parameter: Tensor) -> None:
        if parameter.grad is None:
            return
        found = parameter.grad.reshape(-1)
        if self.empty:  # a copy is a quarter of clearing and adding in mixed precision
            self.place.copy_(found)
            self.empty = False
        else:
            self.place.add_(found)
        parameter.grad = None
