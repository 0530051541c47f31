"""Which kernels torch may choose."""

import contextlib
import os
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def reproducible(wanted: bool) -> Iterator[None]:
    """Within, torch chooses only reproducible kernels, if that is wanted; otherwise it is as it was before."""
    if not wanted:
        yield
        return
    before, fill = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # it would fill every new tensor first
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = fill
