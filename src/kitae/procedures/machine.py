"""What a training is estimated for: the [plan] table of a recipe, and the devices that it names or that are there."""

import functools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, field_validator

from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.core.runtime import cores
from kitae.tensor.devices import GIB, Precision, devices_named, peak_flops
from kitae.tensor.world import ranks

LONGEST_PROBE = 60.0
"""Seconds that a probe may take."""
USUAL: Mapping[str, Mapping[int, float]] = {
    "cuda": {64: 0.01, 256: 0.16, 768: 0.33, 1024: 0.38},
    "cpu": {64: 0.35, 192: 0.5, 256: 0.58, 768: 0.65},
}
"""MFU by hidden size as it was measured, not compiled and with full batches: on an H200 (docs/log.md), and on a CPU core."""
ROOM = 0.92
"""Share of a device's memory that a training can fill: the rest is CUDA's own, and lost between blocks."""


class PlanConfig(Config):
    """What `kitae plan` estimates for. None of it changes what is trained."""

    device: str = "auto"
    """"auto": what this machine has; else a device that need not be there, and how many: "H200x8", "A100-80GB", "cpu"."""
    mfu: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the device's peak that training reaches. Default: what is usual for the model's width; the table says which."""
    price_per_hour: Annotated[float, Field(ge=0)] | None = None
    """Of one device, in any currency; the plan then says what every training costs."""
    sizes: tuple[str, ...] = ()
    """Sizes of the model to show side by side: ["small", "base", "large"], names of presets, or your own [presets]."""
    probe: bool | float = False
    """Measure real steps on this machine's device, in a process of their own: true, or for how many seconds in all (60 at most)."""

    @field_validator("probe")
    @classmethod
    def _short(cls, value: bool | float) -> bool | float:
        if not isinstance(value, bool) and not 1 <= value <= LONGEST_PROBE:
            raise ValueError(f"a probe takes 1 to {LONGEST_PROBE:.0f} seconds: write true, or a number of seconds in between")
        return value

    @property
    def probe_seconds(self) -> float:
        """For all trainings together; 0 = none."""
        return (LONGEST_PROBE if self.probe else 0.0) if isinstance(self.probe, bool) else self.probe


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Devices that train together, one process each."""

    unit: str
    """What one of them is called."""
    kind: Literal["cpu", "cuda"]
    count: int
    memory: float
    """Bytes of each that a training may have."""
    here: bool
    """Whether this machine has them, so that steps can be measured."""
    table: str = ""
    """The name of a device that is not here."""

    @property
    def name(self) -> str:
        """With their number."""
        return f"{self.count} x {self.unit}" if self.count > 1 else self.unit

    def peak(self, precision: Precision) -> float:
        """FLOPs a second of one device; of what is here and in no table it is measured once."""
        if self.table:
            return devices_named(self.table)[0].flops(precision)
        return _peak_here(self.kind, precision)

    def lacks(self, precision: Precision) -> bool:
        """Whether the device is known to have no units for this precision."""
        return bool(self.table) and precision not in devices_named(self.table)[0].teraflops

    def usual_mfu(self, width: int) -> float:
        """What is usual for a hidden size."""
        known = USUAL[self.kind]
        return float(np.interp(math.log(width), [math.log(size) for size in known], list(known.values())))


@functools.cache
def _peak_here(kind: str, precision: Precision) -> float:
    return peak_flops(torch.device(kind), precision, seconds=0.2)


def machine(device: str, asked: Literal["auto", "cpu", "cuda"] = "auto") -> Machine:
    """The devices of `plan.device`; "auto" follows a training's own setting `asked`. Raises KitaeError for an unknown name."""
    count = ranks()[1]
    if device.lower() not in ("auto", "cpu"):
        try:
            known, count = devices_named(device)
        except KitaeError as error:
            raise KitaeError(f'plan.device = "{device}": {error.what}', cure=error.cure, where="table [plan]") from error
        return Machine(unit=known.name, kind="cuda", count=count, memory=ROOM * known.memory, here=False, table=device)
    if device.lower() == "auto" and asked != "cpu" and torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        return Machine(unit=found.name, kind="cuda", count=count, memory=ROOM * found.total_memory, here=True)
    threads = torch.get_num_threads()
    unit = f"this machine's CPU ({threads} thread{'s' if threads > 1 else ''})"
    return Machine(unit=unit, kind="cpu", count=count, memory=free_memory() / count, here=True)


def free_memory() -> float:
    """Bytes that new processes can have; of a system that does not say it, all."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if hasattr(os, "sysconf") else 2 * GIB * cores()
