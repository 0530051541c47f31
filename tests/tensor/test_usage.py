"""The peak of memory."""

import sys

import pytest
import torch

from kitae.tensor.usage import peak_memory, restart_peak

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="peaks can be forgotten on Linux only")
def test_a_peak_counts_from_where_it_was_restarted() -> None:
    base = restart_peak(CPU)
    held = torch.ones(64 << 20)  # 256 MiB
    del held
    assert 200e6 < peak_memory(CPU, base) < 400e6
    base = restart_peak(CPU)
    assert peak_memory(CPU, base) < 100e6  # the one before is forgotten
