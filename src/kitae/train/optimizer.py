"""AdamW over flat tensors: one master copy of all weights, one gradient buffer, one fused update per group.

Loshchilov & Hutter 2019 (arXiv:1711.05101); without bias correction as in ELECTRA's optimization.py.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kitae.core.errors import KitaeError
from kitae.tensor.groups import ParameterGroup
from kitae.train.config import TrainConfig

ALIGN = 16  # elements: every weight starts on a cache line
UNCORRECTED = 1e9  # a step number at which beta**step is exactly zero, so that AdamW's bias corrections are exactly one
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}
_LAYER = re.compile(r"\bblocks\.(\d+)\.")
_EMBEDDINGS = re.compile(r"\b(embed|embed_norm|project|relative|relative_norm|conv)\.")


_Key = tuple[int, bool, float]
"""(minus the number of the group, whether it decays, factor of the rate): weights with one key lie side by side."""


@dataclass(frozen=True, kw_only=True)
class _Slot:
    """Where one parameter lies in the flat tensors."""

    name: str
    parameter: nn.Parameter
    start: int
    end: int


def layer_scales(names: Mapping[str, torch.Size], decay: float) -> dict[str, float]:
    """Factor of the learning rate per parameter: 1 for heads, decay for the top layer, then decay per layer down to the embeddings.

    Layers are recognised by `blocks.N.` in the name; embeddings by `embed.` and `project.`, in DeBERTa also by what turns positions and
    neighbours into states beside the blocks.
    """
    depth = 1 + max((int(match[1]) for name in names if (match := _LAYER.search(name))), default=-1)

    def below_head(name: str) -> int:
        match = _LAYER.search(name)
        return depth - int(match[1]) if match else depth + 1 if _EMBEDDINGS.search(name) else 0

    return {name: decay ** below_head(name) for name in names}


def _keys(trained: Mapping[str, nn.Parameter], config: TrainConfig, groups: Sequence[ParameterGroup]) -> dict[str, _Key]:
    scales = layer_scales({name: p.shape for name, p in trained.items()}, config.layer_decay)
    if not groups:
        return {name: (0, p.ndim > 1, scales[name]) for name, p in trained.items()}
    keys: dict[str, _Key] = {}
    for number, group in enumerate(groups):
        factor = 1.0 if group.learning_rate is None else group.learning_rate / config.learning_rate
        for name in sorted(group.parameters & trained.keys()):
            assert name not in keys, f"{name} belongs to two groups"
            keys[name] = (-number, trained[name].ndim > 1, factor * scales[name])
    assert keys.keys() == trained.keys(), "groups hold all weights"
    return keys


class FlatAdamW:
    """The optimizer of one module. It re-binds the module's weights to flat storage in the working precision.

    In fp32 and fp64 the weights are the masters. In bf16 they are copies, written anew from fp32 masters after every update,
    and gradients are added up in fp32. Vectors (norms, biases) get no weight decay. Frozen parameters keep exact copies for saving.
    """

    def __init__(self, module: nn.Module, config: TrainConfig, device: torch.device, *, groups: Sequence[ParameterGroup] = ()) -> None:
        """`groups` are updated apart from each other (two-optimizer training); without any, all weights are one."""
        self.config = config
        self.work_dtype = DTYPES[config.precision]
        self.dtype = torch.float64 if config.precision == "fp64" else torch.float32
        named = dict(module.named_parameters())
        self.fixed = {name: p for name, p in named.items() if not p.requires_grad}
        self.frozen = {name: p.detach().to(device, self.dtype).clone() for name, p in self.fixed.items()}
        trained = {name: p for name, p in named.items() if p.requires_grad}
        if not trained:
            raise KitaeError("every weight is frozen: there is nothing to train", cure="leave some layers free")
        keys = _keys(trained, config, groups)
        self.slots: list[_Slot] = []
        spans: list[tuple[int, int, _Key]] = []
        end = 0
        for key in sorted(set(keys.values()), reverse=True):
            first = end
            for name, parameter in trained.items():
                if keys[name] == key:
                    self.slots.append(_Slot(name=name, parameter=parameter, start=end, end=end + parameter.numel()))
                    end += -(-parameter.numel() // ALIGN) * ALIGN
            spans.append((first, end, key))
        numbers = sorted({number for _, _, (number, _, _) in spans}, reverse=True)
        own = [[(first, last) for first, last, key in spans if key[0] == number] for number in numbers]
        self._clipped = [(found[0][0], found[-1][1]) for found in own]  # where each group begins and ends
        self.master = torch.zeros(end, dtype=self.dtype, device=device)
        self.grad = torch.zeros_like(self.master)
        for slot in self.slots:
            self.master[slot.start : slot.end] = slot.parameter.detach().reshape(-1).to(device, self.dtype)
        module.to(device=device, dtype=self.work_dtype)
        self._bind()
        self._make_adam(spans)

    def _bind(self) -> None:
        same = self.work_dtype == self.dtype
        self.work = self.master if same else self.master.to(self.work_dtype)
        self._collectors = [_Collector(self.grad[slot.start : slot.end]) for slot in self.slots]
        self._hooks = []
        for slot, collector in zip(self.slots, self._collectors, strict=True):
            slot.parameter.data = self.work[slot.start : slot.end].view(slot.parameter.shape)
            slot.parameter.grad = None
            self._hooks.append(slot.parameter.register_post_accumulate_grad_hook(collector))

    def _make_adam(self, spans: list[tuple[int, int, _Key]]) -> None:
        config, groups = self.config, []
        self.scales = [scale for _, _, (_, _, scale) in spans]
        for start, end, (_, decays, _) in spans:
            flat = nn.Parameter(self.master[start:end], requires_grad=False)
            flat.grad = self.grad[start:end]
            groups.append({"params": [flat], "weight_decay": config.weight_decay if decays else 0.0})
        self.adam = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=True)
        self.averages = {name: torch.zeros_like(self.master) for name in ("exp_avg", "exp_avg_sq")}
        for group, (start, end, _) in zip(self.adam.param_groups, spans, strict=True):
            views = {name: flat[start:end] for name, flat in self.averages.items()}
            self.adam.state[group["params"][0]] = {"step": torch.zeros((), device=self.master.device), **views}
        self.set_steps(0)

    def set_steps(self, steps: int) -> None:
        """Set how many updates were made, for the bias correction."""
        for state in self.adam.state.values():
            state["step"].fill_(steps if self.config.bias_correction else UNCORRECTED)

    def start_gradient(self) -> None:
        """Begin a new sum of gradients; every backward pass until `gradient` adds to it."""
        for collector in self._collectors:
            collector.empty = True

    def gradient(self) -> Tensor:
        """The flat sum since `start_gradient`, which `clip` and `step` use; weights without a gradient count as zero."""
        for collector in self._collectors:
            if collector.empty:
                collector.place.zero_()
        return self.grad

    def clip(self) -> Tensor:
        """Scale each group's gradient to the largest allowed norm; returns the norm of all before, a scalar on the device that nobody
        has waited for. Infinite or nan when a gradient is not finite."""
        norms = [self._clip(self.grad[start:end]) for start, end in self._clipped]
        return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))

    def _clip(self, grad: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(grad)
        if self.config.clip is None:
            return norm
        if norm.device.type != "cpu":
            grad.mul_((self.config.clip / (norm + 1e-6)).clamp(max=1.0))
        elif float(norm) > self.config.clip:
            grad.mul_(self.config.clip / (float(norm) + 1e-6))
        return norm

    def step(self, rate: float, *, unless: Tensor | None = None) -> None:
        """One update with this learning rate; none when the scalar `unless` on the device is true, of which nobody needs to know yet."""
        if unless is not None:
            self.adam.found_inf = unless.to(torch.float32)  # the fused kernel leaves weights and averages alone
        for group, scale in zip(self.adam.param_groups, self.scales, strict=True):
            group["lr"] = rate * scale
        self.adam.step()
        if self.work is not self.master:
            self.work.copy_(self.master)

    def weights(self) -> dict[str, Tensor]:
        """Exact weights by parameter name, shaped; views of the masters."""
        return self._named(self.master) | self.frozen

    def state(self) -> dict[str, Tensor]:
        """The running averages by "exp_avg.NAME" and "exp_avg_sq.NAME"; views."""
        return {f"{kind}.{name}": value for kind, flat in self.averages.items() for name, value in self._named(flat).items()}

    def load(self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor], steps: int) -> None:
        """Take masters and averages of a checkpoint. Raises KitaeError when names or shapes differ."""
        for wanted, given, what in ((self.weights(), weights, "weights"), (self.state(), state, "optimizer state")):
            differing = sorted(name for name in wanted if name not in given or given[name].shape != wanted[name].shape)
            if differing:
                raise KitaeError(f"the {what} of the checkpoint do not fit this model: {differing[0]} differs", cure="choose a new output")
            for name, tensor in wanted.items():
                tensor.copy_(given[name])
        for name, parameter in self.fixed.items():
            parameter.data.copy_(self.frozen[name])
        if self.work is not self.master:
            self.work.copy_(self.master)
        self.set_steps(steps)

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        return {slot.name: flat[slot.start : slot.end].view(slot.parameter.shape) for slot in self.slots}

    def close(self) -> None:
        """Take the hooks off the module. Its weights stay where they are."""
        for hook in self._hooks:
            hook.remove()


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
