"""Says that a training is slower than its estimate promised, and why, by what was measured and nothing else."""

import logging
import os
import resource
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from kitae.core.runtime import cores
from kitae.train.promise import Promise

log = logging.getLogger(__name__)
SLOW, WELL = 0.7, 0.8
"""Below this share of the promise it is said; above that one it may be said again."""
ROUGH = 0.5
"""An estimate from FLOPs and a usual MFU may be wrong by a factor of two: so much of its promise counts."""
INTERVALS = 3
"""Log lines whose median counts, so that one slow moment says nothing."""
NVIDIA = ("clocks.sm", "clocks.max.sm", "clocks_event_reasons.active", "utilization.gpu")
LOWERED = {0x4: "power", 0x8: "hardware", 0x20: "heat", 0x40: "heat", 0x80: "power"}
"""Reasons for lower clocks that are faults (NVML's bits); idling and settings of the user are none."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Counters of the process and its machine, which only grow; differences are what happened in between."""

    moment: float
    """Seconds."""
    queued: float
    """Seconds that the main thread was ready to run and others had the processor."""
    ran: float
    """Seconds that it ran."""
    throttled: float
    """Seconds that the processes of this control group were held back."""
    swapped: int
    """Pages that were read back from the disk for this process."""
    compiled: int
    """Graphs that torch.compile made."""

    @classmethod
    def now(cls) -> "Evidence":
        """The counters of this moment; 0 where the system does not say."""
        ran, queued = _numbers(Path("/proc/self/schedstat"))[:2] or (0, 0)
        held = dict(line.split()[:2] for line in _text(Path("/sys/fs/cgroup/cpu.stat")).splitlines())
        dynamo = sys.modules.get("torch._dynamo.utils")  # there only when something is compiled
        return cls(
            moment=time.monotonic(),
            queued=queued / 1e9,
            ran=ran / 1e9,
            throttled=int(held.get("throttled_usec", "0")) / 1e6,
            swapped=resource.getrusage(resource.RUSAGE_SELF).ru_majflt,
            compiled=int(dynamo.counters["stats"]["unique_graphs"]) if dynamo is not None else 0,
        )

    def since(self, then: "Evidence") -> "Evidence":
        """What happened between `then` and this moment."""
        return Evidence(
            moment=self.moment - then.moment,
            queued=self.queued - then.queued,
            ran=self.ran - then.ran,
            throttled=self.throttled - then.throttled,
            swapped=self.swapped - then.swapped,
            compiled=self.compiled - then.compiled,
        )


class Watch:
    """Compares every reading of the speed with the promise; the first after a start, with compilation and warm-up in it, does not count."""

    def __init__(self, promise: Promise | None, device: torch.device) -> None:
        self._promise, self._device = promise, device
        self._speeds: deque[float] = deque(maxlen=INTERVALS)
        self._before: list[Evidence] = []
        self._slow = False

    def look(self, reading: Mapping[str, float]) -> dict[str, float]:
        """Take one reading; returns what is to be recorded of it. A warning is written when the training becomes slow."""
        if self._promise is None:
            return {}
        wanted = self._promise.tokens_per_second
        self._before = [*self._before, Evidence.now()][-INTERVALS - 1 :]
        share = reading["tokens_per_second"] / wanted
        if len(self._before) > 1:
            self._speeds.append(share)
        usual = statistics.median(self._speeds) if len(self._speeds) == INTERVALS else 1.0
        trust = 1.0 if self._promise.source == "probe" else ROUGH
        if usual < trust * SLOW and not self._slow:
            why = causes(self._before[-1].since(self._before[0]), reading) + gpu_causes(self._device)
            log.warning(
                "%s tokens/s are %.0f %% of the %s that were estimated: %s",
                f"{reading['tokens_per_second']:,.0f}",
                100 * usual,
                f"{wanted:,.0f}",
                "; ".join(why) or "no cause was measured (other settings, or another machine, than the estimate's?)",
            )
        self._slow = usual < trust * (WELL if self._slow else SLOW)
        return {"promise_share": share}


def causes(seen: Evidence, reading: Mapping[str, float]) -> list[str]:
    """What was measured that takes speed away, the largest share of the time first."""
    seconds = max(seen.moment, 1e-9)
    found: list[tuple[float, str]] = []
    waiting = reading.get("waiting_share", 0.0)
    if waiting > 0.1:
        found.append((waiting, f"{100 * waiting:.0f} % of the time it waits for data"))
    queued = seen.queued / max(seen.queued + seen.ran, 1e-9)
    if queued > 0.1:
        loads = f"load average {os.getloadavg()[0]:.1f} on {cores()} cores"
        found.append((queued, f"{100 * queued:.0f} % of the time others have its processor ({loads})"))
    if seen.throttled > 0.1 * seconds:
        found.append((seen.throttled / seconds, "its control group is held back by a limit on processor time"))
    if seen.swapped > 10 * seconds:
        pages = seen.swapped / seconds
        found.append((pages / 1000, f"it reads {pages:.0f} pages a second back from the disk (memory is short)"))
    if seen.compiled:
        found.append((seen.compiled / 10, f"torch.compile made {seen.compiled} graphs anew"))
    padding = reading.get("padding_share", 0.0)
    if padding > 0.2:
        found.append((padding, f"{100 * padding:.0f} % of the positions are padding"))
    return [text for _, text in sorted(found, reverse=True)]


def gpu_causes(device: torch.device) -> list[str]:
    """The same of a GPU, as nvidia-smi says now; empty without one."""
    if device.type != "cuda":
        return []
    which = f"--id={torch.cuda.get_device_properties(device).uuid}"
    state = _nvidia(which, f"--query-gpu={','.join(NVIDIA)}")
    others = [line for line in _nvidia(which, "--query-compute-apps=pid").split() if line != str(os.getpid())]
    return gpu_state(state, len(others))


def gpu_state(answer: str, others: int) -> list[str]:
    """What nvidia-smi's line of NVIDIA's fields tells, with so many processes beside this one on the device."""
    fields = [field.strip().split(" ")[0] for field in answer.split(",")]
    found = [f"{others} other processes use the GPU"] if others else []
    if len(fields) != len(NVIDIA):
        return found
    try:
        clock, most, reasons = float(fields[0]), float(fields[1]), int(fields[2], 16)
    except ValueError:  # "[N/A]", as of shares of a GPU
        return found
    why = sorted({word for bit, word in LOWERED.items() if reasons & bit})
    if why and clock < 0.9 * most:
        found.append(f"the GPU runs at {clock:.0f} of {most:.0f} MHz ({', '.join(why)})")
    return found


def _nvidia(*options: str) -> str:
    try:
        command = ["nvidia-smi", *options, "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


def _numbers(path: Path) -> list[int]:
    return [int(word) for word in _text(path).split()]
