"""What happens to an update that should not be applied, and how half precision is kept in range."""

from typing import Annotated, Literal

from pydantic import Field

from kitae.core.config import LATER, OPERATIONAL, Config


class SpikeConfig(Config):
    """When a step counts as a spike: OLMo 2's rule (arXiv:2501.00656, section 3.2; SkipStepOptimizer of OLMo-core)."""

    sigma: Annotated[float, Field(gt=0)] = 6.0
    """Loss or norm of the gradient is so many standard deviations above the mean of the window."""
    window: Annotated[int, Field(ge=4, le=100_000)] = 128
    """Steps before this one that are looked at; nothing is a spike until half of them were made. Steps that were skipped as spikes
    count in it, so that a loss that stays high is trained on again; steps that were not finite do not."""


class LossScaleConfig(Config):
    """Dynamic loss scaling of fp16: small gradients would be rounded to zero, so that the loss is multiplied first."""

    initial: Annotated[float, Field(ge=1, le=2.0**32)] = 65536.0
    """The first factor, a power of two. NVIDIA's BERT began with 2**20: a greater one costs a few skipped steps at the beginning."""
    growth_interval: Annotated[int, Field(ge=1)] = 2000
    """After so many steps without an overflow the factor is doubled."""
    backoff: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """What the factor is multiplied by after an overflow, whose step is skipped."""
    least: Annotated[float, Field(gt=0)] = 1.0
    """The factor never falls below this: what still is not finite then is no overflow (see `non_finite`)."""


class SafetyConfig(Config):
    """The part of the settings that says which updates are not applied, and what then happens."""

    non_finite: Annotated[Literal["stop", "skip"], OPERATIONAL] = "stop"
    """What happens when a loss or gradient is not finite, which is never applied: the run stops, or passes over the step and its samples.
    Either way step, weight and rows are named. A run that stopped can be continued with "skip"."""
    non_finite_limit: Annotated[int, OPERATIONAL, Field(ge=1)] = 10
    """With "skip": stop all the same when so many steps in a row were not finite."""
    spikes: Annotated[SpikeConfig | None, LATER] = None
    """Skip updates whose loss or gradient stands out: { sigma = 6, window = 128 }. The same steps are skipped after a resume, and on
    another number of processes."""
    loss_scale: Annotated[LossScaleConfig | None, LATER] = None
    """Of precision = "fp16": { initial = 1048576, growth_interval = 1000 }."""
