"""What a training was expected to take, written into its folder before the first step, so that what it takes can be held against it."""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from kitae.core.config import Config

ESTIMATE = "estimate.json"


class Memory(Config):
    """Bytes of a device's memory, part by part, at the worst moment of a step."""

    weights: float = Field(ge=0)
    """Masters, and working copies in half precision."""
    gradients: float = Field(ge=0)
    optimizer: float = Field(ge=0)
    """Running averages."""
    activations: float = Field(ge=0)
    """What the backward pass needs of the forward pass, and works with."""
    logits: float = Field(ge=0)
    """Of the vocabulary, with their gradient."""
    saving: float = Field(0.0, ge=0)
    """On a CPU, the copy that checkpoints are written from while training goes on; of a GPU it lies in the host's memory."""

    @property
    def total(self) -> float:
        """All parts."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.saving


class Promise(Config):
    """The speed and the memory that an estimate promised a training."""

    source: Literal["probe", "flops"]
    """How the speed was found: real steps were measured, or FLOPs divided by a device's peak and a stated MFU."""
    device: str
    """What the estimate is for."""
    processes: int = Field(ge=1)
    """Processes that train together, one device each."""
    seconds: float = Field(ge=0)
    """Of all steps; held-out text and checkpoints come on top."""
    tokens_per_second: float = Field(gt=0)
    """Real tokens, padding not counted, over all processes."""
    mfu: float = Field(gt=0)
    """Share of the device's peak that this speed means."""
    memory: Memory
    """Of each device."""


def read_promise(folder: Path) -> Promise | None:
    """The estimate that a training in this folder was started with; None when there is none, or it cannot be read."""
    try:
        return Promise.model_validate_json((folder / ESTIMATE).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def write_promise(folder: Path, promise: Promise) -> None:
    """Keep the estimate of a training, whole or not at all."""
    temporary = folder / f".{ESTIMATE}.part"
    temporary.write_text(json.dumps(promise.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
    temporary.replace(folder / ESTIMATE)
