"""How much memory this process had at most since some moment: of its GPU, or of the machine.

On Linux the pages of files (programs and mapped data) are left out, as far as can be told: the system gives them up when it has to.
"""

import contextlib
import ctypes
import platform
import resource
import sys
from pathlib import Path

import torch

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def restart_peak(device: torch.device) -> float:
    """Forget earlier peaks; the bytes that are in use now, for `peak_memory`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return float(torch.cuda.memory_allocated(device))
    _give_back()  # or what earlier work has left in the heap would be used again unseen
    with contextlib.suppress(OSError):  # where that is forbidden, an earlier peak may hide this one
        FORGET.write_text("5", encoding="ascii")
    return _resident("RssAnon")


def peak_memory(device: torch.device, base: float = 0.0) -> float:
    """Most bytes since `restart_peak`, beyond what it returned."""
    if device.type == "cuda":
        return max(0.0, float(torch.cuda.max_memory_allocated(device)) - base)
    files = _resident("RssFile") if STATUS.is_file() else 0.0  # now; the peak may have had fewer
    return max(0.0, _resident("VmHWM") - files - base)


def memory_now(device: torch.device) -> int:
    """Bytes, files' pages included: the most that was ever allocated on a GPU, or what of this process is resident now."""
    return int(torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmRSS"))


def _give_back() -> None:
    """Return what is free to the system, so that a later peak is its own."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _resident(name: str) -> float:
    """Bytes of this process that lie in memory, as Linux counts them; elsewhere always the most that there were."""
    if STATUS.is_file():
        for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return 1024.0 * int(line.split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most) if sys.platform == "darwin" else 1024.0 * most
