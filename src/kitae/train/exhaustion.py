"""A micro-batch that does not fit into the device's memory: refused, with the largest one that does, found by trying."""

import traceback
from collections.abc import Callable, Sequence

import torch

from kitae.core.errors import KitaeError


def smaller(rows_per_step: int, rows: int) -> list[int]:
    """The sizes of a micro-batch below `rows` that divide a batch, ascending."""
    return [size for size in range(1, rows) if rows_per_step % size == 0]


def too_large(
    error: torch.OutOfMemoryError, rows: int, length: int, sizes: Sequence[int], attempt: Callable[[int], None], device: torch.device
) -> KitaeError:
    """What to say when `rows` rows of `length` positions did not fit. `attempt` makes a forward and backward pass of so many rows; it is
    tried for some of the `sizes`, which ascend, until the largest that fits is known.

    A micro-batch is never cut by itself: it is the atom of randomness, so that another size draws other masks and dropout.
    """
    _forget(error, device)
    fits, low, high = 0, 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        if _fits(sizes[middle], attempt, device):
            fits, low = sizes[middle], middle + 1
        else:
            high = middle
    there = f" of {torch.cuda.get_device_properties(device).total_memory / 2**30:.1f} GiB" if device.type == "cuda" else ""
    again = "activation_checkpointing = true, which changes no result"
    if fits:
        found, cure = f"; {fits} {'row does' if fits == 1 else 'rows do'}", f'set micro_batch = "{fits} rows" in a new output, or {again}'
    else:
        found = f", and neither does one of {sizes[0]}" if sizes else ""
        cure = f"set {again}, or a smaller micro_batch, max_length or model"
    return KitaeError(
        f"a micro-batch of {rows} rows of {length} positions does not fit into the memory{there} of {device}{found}",
        cure=cure,
        where="train.micro_batch",
    )


def _fits(rows: int, attempt: Callable[[int], None], device: torch.device) -> bool:
    try:
        attempt(rows)
    except torch.OutOfMemoryError as error:
        _forget(error, device)
        return False
    return True


def _forget(error: torch.OutOfMemoryError, device: torch.device) -> None:
    """Let go of what the interrupted pass holds."""
    traceback.clear_frames(error.__traceback__)
    if device.type == "cuda":
        torch.cuda.empty_cache()
