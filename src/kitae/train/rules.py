"""How weights move along their gradient: one class a rule, over spans of flat weights."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from kitae.train.config import TrainConfig
from kitae.train.flat import Span, Weights

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


def by_name(spans: Sequence[Span], kept: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    """What a rule keeps, kind by kind and span by span, as "KIND.NAME" of every parameter; views."""
    return {
        f"{kind}.{name}": value
        for kind, flats in kept.items()
        for span, flat in zip(spans, flats, strict=True)
        for name, value in span.named(flat).items()
    }


def gated(value: float | Tensor, unless: Tensor | None, like: Tensor, *, otherwise: float = 0.0) -> Tensor:
    """`value`, or `otherwise` where the scalar `unless` is true: a scalar of the dtype and on the device of `like`. Nobody waits."""
    chosen = torch.full((), value, dtype=like.dtype, device=like.device) if isinstance(value, float) else value.to(like.dtype)
    return chosen if unless is None else torch.where(unless, torch.full_like(chosen, otherwise), chosen)


class AdamW:
    """Loshchilov & Hutter 2019 (arXiv:1711.05101), fused; without bias correction as in ELECTRA's optimization.py."""

    def __init__(self, flat: Weights, spans: Sequence[Span], config: TrainConfig) -> None:
        self._spans, self._corrects = spans, config.bias_correction
        self._scales = [span.key.scale for span in spans]
        groups = []
        for span in spans:
            weights = nn.Parameter(flat.master[span.start : span.end], requires_grad=False)
            weights.grad = flat.grad[span.start : span.end]
            groups.append({"params": [weights], "weight_decay": config.weight_decay if span.key.decays else 0.0})
        self._adam = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=True)
        self._averages = {
            name: [torch.zeros_like(flat.master[span.start : span.end]) for span in spans] for name in ("exp_avg", "exp_avg_sq")
        }
        for number, group in enumerate(self._adam.param_groups):
            views = {name: averages[number] for name, averages in self._averages.items()}
            self._adam.state[group["params"][0]] = {"step": torch.zeros((), device=flat.master.device), **views}
        self.set_steps(0)

    def update(self, rate: float, *, unless: Tensor | None) -> None:
        """See `Rule`."""
        self._adam.found_inf = None if unless is None else unless.to(torch.float32)  # the kernel leaves weights and averages alone
        for group, scale in zip(self._adam.param_groups, self._scales, strict=True):
            group["lr"] = rate * scale
        self._adam.step()

    def state(self) -> dict[str, Tensor]:
        """The running averages by "exp_avg.NAME" and "exp_avg_sq.NAME"."""
        return by_name(self._spans, self._averages)

    def set_steps(self, steps: int) -> None:
        """See `Rule`; for the bias correction."""
        for state in self._adam.state.values():
            state["step"].fill_(steps if self._corrects else UNCORRECTED)
