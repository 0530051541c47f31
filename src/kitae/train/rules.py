"""How weights move along their gradient: one class a rule, over spans of flat weights."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from kitae.train.config import TrainConfig
from kitae.train.flat import FlatWeights, Span

UNCORRECTED = 1e9  # a step number at which beta**step is exactly zero, so that AdamW's bias corrections are exactly one


class Rule(Protocol):
    """One update of the spans that it was made for."""

    def update(self, rate: float, *, unless: Tensor | None) -> None:
        """Move the masters; `rate` is that of a span of scale 1. Nothing moves when the scalar `unless`, on the device, is true: nobody
        waits for it."""

    def state(self) -> dict[str, Tensor]:
        """What must be saved: "KIND.NAME" of every parameter; views."""

    def set_steps(self, steps: int) -> None:
        """Set how many updates were made."""


class AdamW:
    """Loshchilov & Hutter 2019 (arXiv:1711.05101), fused; without bias correction as in ELECTRA's optimization.py."""

    def __init__(self, flat: FlatWeights, spans: Sequence[Span], config: TrainConfig) -> None:
        self._flat, self._corrects = flat, config.bias_correction
        self._scales = [span.key.scale for span in spans]
        groups = []
        for span in spans:
            weights = nn.Parameter(flat.master[span.start : span.end], requires_grad=False)
            weights.grad = flat.grad[span.start : span.end]
            groups.append({"params": [weights], "weight_decay": config.weight_decay if span.key.decays else 0.0})
        self._adam = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=True)
        self._averages = {name: torch.zeros_like(flat.master) for name in ("exp_avg", "exp_avg_sq")}
        for group, span in zip(self._adam.param_groups, spans, strict=True):
            views = {name: average[span.start : span.end] for name, average in self._averages.items()}
            self._adam.state[group["params"][0]] = {"step": torch.zeros((), device=flat.master.device), **views}
        self.set_steps(0)

    def update(self, rate: float, *, unless: Tensor | None) -> None:
        """See `Rule`."""
        if unless is not None:
            self._adam.found_inf = unless.to(torch.float32)  # the fused kernel leaves weights and averages alone
        for group, scale in zip(self._adam.param_groups, self._scales, strict=True):
            group["lr"] = rate * scale
        self._adam.step()

    def state(self) -> dict[str, Tensor]:
        """The running averages by "exp_avg.NAME" and "exp_avg_sq.NAME"."""
        return {f"{kind}.{name}": value for kind, flat in self._averages.items() for name, value in self._flat.named(flat).items()}

    def set_steps(self, steps: int) -> None:
        """See `Rule`; for the bias correction."""
        for state in self._adam.state.values():
            state["step"].fill_(steps if self._corrects else UNCORRECTED)
