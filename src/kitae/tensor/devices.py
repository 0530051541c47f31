"""What devices can do at most: FLOPs a second of matrix products and memory, for estimates and for MFU.

GPUs by a table, in the makers' numbers without sparsity; a CPU (and a GPU that the table does not know) by measuring a product.
"""

import itertools
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from kitae.core.errors import KitaeError, did_you_mean

Precision = Literal["fp64", "fp32", "bf16", "fp16"]
DTYPES: Mapping[Precision, torch.dtype] = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
TERA, GIB = 1e12, 2**30
SIDE = 1024
"""Of the square matrices whose product is measured on a CPU; a GPU needs eight times as much to be busy."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A kind of GPU."""

    name: str
    """As a recipe writes it: "A100-80GB", "H200"."""
    teraflops: Mapping[Precision, float]
    """Dense matrix products: bf16 and fp16 on tensor cores, added up in fp32; fp32 without TF32, which kitae leaves off. What it has no
    units for is left out (bf16 before Ampere)."""
    memory_gib: float
    """What CUDA reports (`total_memory`), a little below the advertised number."""
    words: tuple[str, ...]
    """All of them stand in the name that CUDA reports."""
    also: tuple[str, ...] = field(default=())
    """Shorter names for the same."""

    @property
    def memory(self) -> float:
        """In bytes."""
        return self.memory_gib * GIB

    def flops(self, precision: Precision) -> float:
        """Peak FLOPs a second. Where a GPU has no units for a half precision, it computes at the speed of fp32 at best."""
        return self.teraflops.get(precision, self.teraflops["fp32"]) * TERA


def _gpu(name: str, half: float, single: float, double: float, gib: float, words: str, also: str = "", *, bf16: bool = True) -> Device:
    """A row of the table: teraflops in half, single and double precision, memory; `words` and `also` are separated by commas."""
    peaks: dict[Precision, float] = {"fp64": double, "fp32": single, "fp16": half}
    if bf16:
        peaks["bf16"] = half
    names = tuple(filter(None, also.split(",")))
    return Device(name=name, teraflops=peaks, memory_gib=gib, words=tuple(words.split(",")), also=names)


# Sources: NVIDIA's data sheets of each card (half of what is given "with sparsity"); for GeForce, RTX A6000 and RTX 6000 Ada the
# white papers of the architectures (GA102 2.1, Ada 2.1, RTX Blackwell 1.1), their rows "with FP32 accumulate".
_TABLE = (
    _gpu("T4", 65, 8.1, 0.25, 14.5, "T4", bf16=False),
    _gpu("V100-16GB", 125, 15.7, 7.8, 15.7, "V100", "V100", bf16=False),
    _gpu("V100-32GB", 125, 15.7, 7.8, 31.7, "V100,32GB", bf16=False),
    _gpu("A10", 125, 31.2, 0.98, 22.0, "A10"),
    _gpu("A10G", 70, 31.2, 0.98, 22.0, "A10G"),
    _gpu("A30", 165, 10.3, 10.3, 23.5, "A30"),
    _gpu("A40", 149.7, 37.4, 0.58, 44.4, "A40"),
    _gpu("A100-40GB", 312, 19.5, 19.5, 39.4, "A100"),
    _gpu("A100-80GB", 312, 19.5, 19.5, 79.1, "A100,80GB", "A100"),
    _gpu("RTX 3090", 71, 35.6, 0.56, 23.6, "RTX,3090"),
    _gpu("RTX A6000", 154.8, 38.7, 0.6, 47.4, "RTX,A6000", "A6000"),
    _gpu("RTX 4090", 165.2, 82.6, 1.3, 23.5, "RTX,4090"),
    _gpu("RTX 6000 Ada", 364.2, 91.1, 1.4, 47.4, "RTX,6000,ADA"),
    _gpu("RTX 5090", 209.5, 104.8, 1.6, 31.3, "RTX,5090"),
    _gpu("L4", 121, 30.3, 0.47, 22.0, "L4"),
    _gpu("L40", 181, 90.5, 1.4, 44.4, "L40"),
    _gpu("L40S", 362, 91.6, 1.4, 44.4, "L40S"),
    _gpu("H100-PCIe", 756, 51, 51, 79.1, "H100,PCIE"),
    _gpu("H100-NVL", 835, 60, 60, 93.0, "H100,NVL"),
    _gpu("H100-SXM", 989, 67, 67, 79.1, "H100", "H100"),
    _gpu("H200", 989, 67, 67, 139.8, "H200"),
    _gpu("GH200", 989, 67, 67, 94.5, "GH200"),
    _gpu("B200", 2250, 75, 37, 178.3, "B200"),
)
DEVICES: Mapping[str, Device] = {device.name: device for device in _TABLE}
"""By name."""
OTHERS = frozenset(("LAPTOP", "MAX", "TI", "D", "MIG", "MOBILE", "SUPER"))
"""Words of CUDA's names that make another, slower or smaller device of the same number."""


def device_named(name: str) -> Device:
    """The row of a name, whatever its case, blanks and hyphens. Raises KitaeError for one that the table does not have."""
    wanted = _plain(name)
    for device in _TABLE:
        if wanted in map(_plain, (device.name, *device.also)):
            return device
    cure = did_you_mean(name, [*DEVICES, *(short for device in _TABLE for short in device.also)])
    raise KitaeError(f'there is no device "{name}"', cure=cure)


def devices_named(text: str) -> tuple[Device, int]:
    """A device and how many of them: "H200x8", "A100-80GB". Raises KitaeError for an unknown one, or none at all."""
    many = re.fullmatch(r"(.+?)\s?[xX](\d+)", text.strip())
    try:
        return device_named(text), 1
    except KitaeError:
        if many is None:
            raise
    if int(many[2]) < 1:
        raise KitaeError(f'"{text}" are no devices', cure="write 1 or more behind the x")
    return device_named(many[1]), int(many[2])


def device_of(cuda_name: str) -> Device | None:
    """The row of a name that CUDA reports ("NVIDIA A100-SXM4-80GB"); None for a device that the table does not have."""
    words = set(re.split(r"[^A-Z0-9]+", cuda_name.upper()))
    fitting = [device for device in _TABLE if words.issuperset(device.words)]
    if not fitting or words & OTHERS:
        return None
    return max(fitting, key=lambda device: len(device.words))


def peak_flops(device: torch.device, precision: Precision, *, seconds: float = 0.5) -> float:
    """Peak FLOPs a second of a device of this machine: by the table, else by measuring a product for about so many seconds (CPU: of this
    process's threads)."""
    if device.type == "cuda":
        known = device_of(torch.cuda.get_device_name(device))
        if known is not None:
            return known.flops(precision)
    return measured_peak(device, precision, seconds=seconds)


def measured_peak(device: torch.device, precision: Precision, *, seconds: float) -> float:
    """FLOPs a second of the fastest product of two square matrices within about so many seconds (at least three of them).

    A CPU is measured in fp32 for fp16: torch multiplies fp16 there forty times slower, and four products took 15 seconds.
    """
    if device.type == "cpu" and precision == "fp16":
        precision = "fp32"
    side = SIDE if device.type == "cpu" else 8 * SIDE
    left, right = (torch.randn(side, side, device=device).to(DTYPES[precision]) for _ in range(2))
    out = left @ right
    best, end = 0.0, time.perf_counter() + seconds
    for number in itertools.count():
        if number >= 3 and time.perf_counter() >= end:
            return best
        _wait(device)
        begun = time.perf_counter()
        torch.mm(left, right, out=out)
        _wait(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - begun))
    raise AssertionError("the count has no end")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
