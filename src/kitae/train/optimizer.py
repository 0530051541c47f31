"""The optimizer of one module: flat weights, clipping, and the rule that moves them."""

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from kitae.core.errors import KitaeError
from kitae.tensor.groups import ParameterGroup
from kitae.train.config import TrainConfig
from kitae.train.flat import FlatWeights, Key, fill
from kitae.train.rules import AdamW, Rule

_LAYER = re.compile(r"\bblocks\.(\d+)\.")
_EMBEDDINGS = re.compile(r"\b(embed|embed_norm|project|relative|relative_norm|conv)\.")


def layer_scales(names: Iterable[str], decay: float) -> dict[str, float]:
    """Factor of the learning rate per parameter: 1 for heads, decay for the top layer, then decay per layer down to the embeddings.

    Layers are recognised by `blocks.N.` in the name; embeddings by `embed.` and `project.`, in DeBERTa also by what turns positions and
    neighbours into states beside the blocks.
    """
    names = list(names)
    depth = 1 + max((int(match[1]) for name in names if (match := _LAYER.search(name))), default=-1)

    def below_head(name: str) -> int:
        match = _LAYER.search(name)
        return depth - int(match[1]) if match else depth + 1 if _EMBEDDINGS.search(name) else 0

    return {name: decay ** below_head(name) for name in names}


def _keys(trained: Mapping[str, nn.Parameter], config: TrainConfig, groups: Sequence[ParameterGroup]) -> dict[str, Key]:
    scales = layer_scales(trained, config.layer_decay)
    if not groups:
        return {name: Key(0, p.ndim > 1, scales[name]) for name, p in trained.items()}
    keys: dict[str, Key] = {}
    for number, group in enumerate(groups):
        factor = 1.0 if group.learning_rate is None else group.learning_rate / config.learning_rate
        for name in sorted(group.parameters & trained.keys()):
            assert name not in keys, f"{name} belongs to two groups"
            keys[name] = Key(-number, trained[name].ndim > 1, factor * scales[name])
    assert keys.keys() == trained.keys(), "groups hold all weights"
    return keys


class Optimizer:
    """Moves the weights of one module, which it re-binds to flat storage (`FlatWeights`). Vectors (norms, biases) get no weight decay."""

    def __init__(self, module: nn.Module, config: TrainConfig, device: torch.device, *, groups: Sequence[ParameterGroup] = ()) -> None:
        """`groups` are updated apart from each other (two-optimizer training); without any, all weights are one."""
        self.config = config
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not trained:
            raise KitaeError("every weight is frozen: there is nothing to train", cure="leave some layers free")
        self.flat = FlatWeights(module, _keys(trained, config, groups), device, config.precision)
        self.rules: tuple[Rule, ...] = (AdamW(self.flat, self.flat.spans, config),)
        orders = sorted({span.key.order for span in self.flat.spans}, reverse=True)
        own = [[span for span in self.flat.spans if span.key.order == order] for order in orders]
        self._clipped = [(spans[0].start, spans[-1].end) for spans in own]  # where each group begins and ends

    def start_gradient(self) -> None:
        """Begin a new sum of gradients; every backward pass until `gradient` adds to it."""
        self.flat.start_gradient()

    def gradient(self) -> Tensor:
        """The flat sum since `start_gradient`, which `clip` and `step` use; weights without a gradient count as zero."""
        return self.flat.gradient()

    def clip(self) -> Tensor:
        """Scale each group's gradient to the largest allowed norm; returns the norm of all before, a scalar on the device that nobody
        has waited for. Infinite or nan when a gradient is not finite."""
        norms = [self._clip(self.flat.grad[start:end]) for start, end in self._clipped]
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
        for rule in self.rules:
            rule.update(rate, unless=unless)
        self.flat.publish()

    def weights(self) -> dict[str, Tensor]:
        """Exact weights by parameter name, shaped; views of the masters."""
        return self.flat.weights()

    def state(self) -> dict[str, Tensor]:
        """What the rules must have saved, by "KIND.NAME"; views."""
        return {name: value for rule in self.rules for name, value in rule.state().items()}

    def load(self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor], steps: int) -> None:
        """Take masters and averages of a checkpoint. Raises KitaeError when names or shapes differ."""
        self.flat.load(weights)
        fill(self.state(), state, "optimizer state")
        for rule in self.rules:
            rule.set_steps(steps)

    def close(self) -> None:
        """Take the hooks off the module. Its weights stay where they are."""
        self.flat.close()
