"""The optimizer of one module: flat weights, clipping, and the rule that moves them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kitae.core.errors import KitaeError
from kitae.tensor.groups import ParameterGroup
from kitae.tensor.world import World
from kitae.train.config import TrainConfig
from kitae.train.flat import FlatWeights, Key, Span, Weights, fill
from kitae.train.freezing import freeze
from kitae.train.lamb import Lamb
from kitae.train.layers import hidden_matrix, layer_scales
from kitae.train.muon import Muon
from kitae.train.rules import AdamW, Rule
from kitae.train.sharded import ShardedWeights


def _keys(trained: Mapping[str, nn.Parameter], config: TrainConfig, groups: Sequence[ParameterGroup]) -> dict[str, Key]:
    scales = layer_scales(trained, config.layer_decay, electra=config.electra_layer_decay)
    hidden = {name: config.optimizer == "muon" and hidden_matrix(name, p.shape) for name, p in trained.items()}
    if not groups:
        return {name: Key(0, p.ndim > 1, scales[name], hidden[name]) for name, p in trained.items()}
    keys: dict[str, Key] = {}
    for number, group in enumerate(groups):
        factor = 1.0 if group.learning_rate is None else group.learning_rate / config.learning_rate
        for name in sorted(group.parameters & trained.keys()):
            assert name not in keys, f"{name} belongs to two groups"
            keys[name] = Key(-number, trained[name].ndim > 1, factor * scales[name], hidden[name])
    assert keys.keys() == trained.keys(), "groups hold all weights"
    return keys


def _rules(flat: Weights, config: TrainConfig) -> tuple[Rule, ...]:
    """The rules of these settings, which together move every span once."""
    if config.optimizer == "lamb":
        return (Lamb(flat, flat.spans, config),)
    hidden: list[Span] = [span for span in flat.spans if span.key.hidden]
    rest = [span for span in flat.spans if not span.key.hidden]
    if config.optimizer == "muon" and not hidden:
        cure = 'set optimizer = "adamw", or leave some layers free'
        raise KitaeError('optimizer = "muon" is for the matrices of layers, but none is trained', cure=cure)
    adam: tuple[Rule, ...] = (AdamW(flat, rest, config),) if rest else ()
    return (Muon(flat, hidden, config), *adam) if hidden else adam


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What a checkpoint holds of weights and rules, whole."""

    weights: Mapping[str, Tensor]
    """As `Optimizer.weights`."""
    state: Mapping[str, Tensor]
    """As `Optimizer.state`."""
    apart: bool
    """Whether these are copies, which the next step does not change."""


class Optimizer:
    """Moves the weights of one module, which it re-binds to flat storage (`FlatWeights`). Vectors (norms, biases) get no weight decay."""

    def __init__(
        self,
        module: nn.Module,
        config: TrainConfig,
        device: torch.device,
        *,
        groups: Sequence[ParameterGroup] = (),
        world: World | None = None,
    ) -> None:
        """`groups` are updated apart from each other (two-optimizer training); without any, all weights are one. The processes of
        `world`, on the device, train together; None is one process."""
        self.config = config
        freeze(module, config.freeze)
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not trained:
            raise KitaeError("every weight is frozen: there is nothing to train", cure="leave some layers free")
        keys = _keys(trained, config, groups)
        self.flat: Weights = (
            ShardedWeights(module, keys, world, config)
            if config.parallel == "fsdp2" and world is not None and world.size > 1
            else FlatWeights(module, keys, device, config.precision)
        )
        self.rules = _rules(self.flat, config)
        self._group_names = {name: group.name for group in groups for name in group.parameters}
        orders = sorted({span.key.order for span in self.flat.spans}, reverse=True)
        own = [[span for span in self.flat.spans if span.key.order == order] for order in orders]
        self._clipped = [(spans[0].start, spans[-1].end) for spans in own]  # where each group begins and ends

    def start_gradient(self) -> None:
        """Begin a new sum of gradients; every backward pass until `gradient` adds to it."""
        self.flat.start_gradient()

    def gradient(self) -> Tensor:
        """The flat sum since `start_gradient`, which `clip` and `step` use; weights without a gradient count as zero."""
        return self.flat.gradient()

    def not_finite(self) -> list[str]:
        """Names of the weights whose gradient is not finite, in the order of the flat tensors. Waits for the device."""
        return self.flat.not_finite()

    def group(self, name: str) -> str:
        """What messages call the group that a weight is updated with."""
        own = self._group_names.get(name)
        return f'the group "{own}"' if own is not None else "the one group of all weights"

    def clip(self) -> Tensor:
        """Scale each group's gradient to the largest allowed norm; returns the norm of all before, a scalar on the device that nobody
        has waited for. Infinite or nan when a gradient is not finite."""
        norms = [self._clip(self.flat.grad[start:end]) for start, end in self._clipped]
        return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))

    def _clip(self, grad: Tensor) -> Tensor:
        norm = self.flat.norm(grad)
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
        """Exact weights by parameter name, shaped, as far as they lie here; views of the masters."""
        return self.flat.weights()

    def state(self) -> dict[str, Tensor]:
        """What the rules must have saved, by "KIND.NAME"; views."""
        return {name: value for rule in self.rules for name, value in rule.state().items()}

    def gathered(self) -> Gathered:
        """Everything that must be saved, whole, on the first process; all processes call it. Views where nothing is divided."""
        weights, state = self.flat.gathered(self.weights()), self.flat.gathered(self.state())
        return Gathered(weights=weights, state=state, apart=self.flat.in_step)

    def load(self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor], steps: int) -> None:
        """Take masters and averages of a checkpoint. Raises KitaeError when names, shapes or the rule differ; nothing is taken then of
        another rule's."""
        wanted = self.state()
        mine, theirs = ({name.partition(".")[0] for name in kept} for kept in (wanted, state))
        if mine != theirs:
            what = f"the checkpoint holds the optimizer's {_listed(theirs)}, but {self.config.optimizer} keeps {_listed(mine)}"
            raise KitaeError(what, cure="restore the setting optimizer, or choose a new output")
        if odd := sorted(state.keys() - wanted.keys()):
            raise KitaeError(f"the checkpoint has optimizer state of {odd[0]}, which is not trained here", cure="choose a new output")
        self.flat.load(weights)
        fill(wanted, {name: self.flat.cut(name.partition(".")[2], whole) for name, whole in state.items()}, "optimizer state")
        for rule in self.rules:
            rule.set_steps(steps)

    def close(self) -> None:
        """Take the hooks off the module. Its weights stay where they are."""
        self.flat.close()


def _listed(kinds: Iterable[str]) -> str:
    return ", ".join(sorted(kinds)) or "nothing"
