"""Which updates are applied: decided on the device from loss and gradient, alike on every rank, so that the host never waits for it.

What the decision rests on (a window of losses and norms, the factor of the loss) is saved with a checkpoint: a resumed training
decides the same.
"""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from kitae.core.config import Config
from kitae.train.config import TrainConfig
from kitae.train.safety_config import LossScaleConfig, SpikeConfig

MOST_SCALE = 2.0**32
"""The factor of the loss is not doubled above this."""


class Verdict(IntEnum):
    """What became of a step's update; only the first is applied."""

    APPLIED = 0
    NOT_FINITE = 1
    OVERFLOW = 2
    """A gradient that is not finite while the loss is, and could be scaled down."""
    SPIKE = 3


WHY = {Verdict.NOT_FINITE: "not finite", Verdict.OVERFLOW: "overflow", Verdict.SPIKE: "spike"}
"""What records call it."""


class PolicyState(Config):
    """What a checkpoint keeps of the decisions before it."""

    skipped: int = 0
    """Steps whose update was not applied; the rest of the steps are the optimizer's count."""
    in_a_row: int = 0
    """Of the last steps, how many were not finite."""
    empty: dict[str, int] = {}
    """Steps that predicted nothing, by term of the loss."""
    scale: float | None = None
    """The factor of the loss; None except in fp16."""
    calm: int = 0
    """Steps since the factor changed."""
    seen: int = 0
    """Steps that went into the window."""
    losses: tuple[float, ...] = ()
    """The window, in the order of its places."""
    norms: tuple[float, ...] = ()
    """The same of the gradient's norm."""


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """The decision on one step; scalars on the device."""

    verdict: Tensor
    """float64: a `Verdict`."""
    scale: Tensor
    """float64: what the loss of this step was multiplied by."""

    @property
    def unless(self) -> Tensor:
        """bool: true when the update is not to be applied."""
        return self.verdict != 0


class Policy:
    """Decides one step after another."""

    def __init__(self, config: TrainConfig, device: torch.device, state: PolicyState) -> None:
        self._window = _Window(config.spikes, device, state) if config.spikes is not None else None
        self._scale = _Scale(config.loss_scale or LossScaleConfig(), device, state) if config.precision == "fp16" else None
        self._one = torch.ones((), dtype=torch.float64, device=device)

    @property
    def scale(self) -> Tensor | None:
        """What the next step's loss is multiplied by: a float64 scalar on the device; None when it is not."""
        return None if self._scale is None else self._scale.factor

    def unscale(self, grad: Tensor) -> None:
        """Divide the gradient by the factor of the loss, in place."""
        if self._scale is not None:
            grad.mul_(self._scale.factor.reciprocal().to(grad.dtype))

    def rule(self, sums: Tensor, norm: Tensor) -> Ruling:
        """The decision on a step; the state moves on. sums: float64, of the loss's terms over all ranks, and the loss last; norm: of the
        whole gradient, before clipping."""
        fine = torch.isfinite(sums).all()
        finite = fine & torch.isfinite(norm)
        verdict = torch.where(finite, 0.0, float(Verdict.NOT_FINITE)).to(torch.float64)
        scale = self._one
        if self._scale is not None:
            scale = self._scale.factor
            verdict = torch.where(self._scale.move(fine, finite), float(Verdict.OVERFLOW), verdict)
        if self._window is not None:
            verdict = torch.where(self._window.stands_out(sums[-1], norm.to(torch.float64), finite), float(Verdict.SPIKE), verdict)
        return Ruling(verdict=verdict, scale=scale)

    def forget(self) -> None:
        """Losses and gradients before are no measure of those that come: a phase with other rows begins."""
        if self._window is not None:
            self._window.forget()

    def state(self, *, skipped: int, in_a_row: int, empty: dict[str, int]) -> PolicyState:
        """What a checkpoint keeps, with what the host counts. Waits for the device."""
        kept: dict[str, object] = {} if self._scale is None else self._scale.kept()
        kept |= {} if self._window is None else self._window.kept()
        return PolicyState.model_validate({"skipped": skipped, "in_a_row": in_a_row, "empty": empty, **kept})


class _Scale:
    """The factor of fp16's loss (Micikevicius et al. 2018, arXiv:1710.03740): halved at an overflow, doubled when long without one."""

    def __init__(self, config: LossScaleConfig, device: torch.device, state: PolicyState) -> None:
        self._config = config
        self.factor = torch.full((), config.initial if state.scale is None else state.scale, dtype=torch.float64, device=device)
        self._calm = torch.full((), state.calm, dtype=torch.int64, device=device)

    def move(self, fine: Tensor, finite: Tensor) -> Tensor:
        """Set the next step's factor; whether this one was an overflow. `fine`: the loss is finite; `finite`: the gradient too."""
        overflow = fine & ~finite & (self.factor > self._config.least)
        calm = torch.where(finite, self._calm + 1, torch.zeros_like(self._calm))
        grows = calm >= self._config.growth_interval
        greater = torch.where(grows, (self.factor * 2).clamp(max=MOST_SCALE), self.factor)
        lower = (self.factor * self._config.backoff).clamp(min=self._config.least)
        self.factor = torch.where(overflow, lower, greater)
        self._calm = torch.where(grows, torch.zeros_like(calm), calm)
        return overflow

    def kept(self) -> dict[str, object]:
        return {"scale": float(self.factor), "calm": int(self._calm)}


class _Window:
    """Losses and norms of the last steps, in a ring."""

    def __init__(self, config: SpikeConfig, device: torch.device, state: PolicyState) -> None:
        self._config = config
        self._places = torch.arange(config.window, device=device)
        self._rings = torch.zeros(2, config.window, dtype=torch.float64, device=device)
        self._seen = torch.full((), state.seen, dtype=torch.int64, device=device)
        for ring, values in zip(self._rings, (state.losses, state.norms), strict=True):
            ring[: len(values)] = torch.tensor(values, dtype=torch.float64, device=device)

    def stands_out(self, loss: Tensor, norm: Tensor, finite: Tensor) -> Tensor:
        """Whether one of the two is far above the window before it; what is finite then joins the window."""
        size = self._config.window
        count = self._seen.clamp(max=size)
        filled = self._places < count
        values = torch.stack([loss, norm])
        means = self._rings.sum(dim=1) / count.clamp(min=1)
        squares = ((self._rings - means[:, None]) * filled).square().sum(dim=1)
        limits = means + self._config.sigma * (squares / (count - 1).clamp(min=1)).sqrt()
        spike = finite & (count >= max(2, size // 2)) & (values > limits).any()
        here = (self._places == self._seen % size) & finite
        self._rings = torch.where(here, values[:, None], self._rings)
        self._seen = self._seen + finite.to(torch.int64)
        return spike

    def forget(self) -> None:
        self._rings, self._seen = torch.zeros_like(self._rings), torch.zeros_like(self._seen)

    def kept(self) -> dict[str, object]:
        seen = int(self._seen)
        losses, norms = self._rings[:, : min(seen, self._config.window)].tolist()
        return {"seen": seen, "losses": losses, "norms": norms}
