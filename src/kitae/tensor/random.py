"""Explicit randomness: every generator is a pure function of named parts, such as (seed, "mask", step, micro-batch)."""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray


def key(*parts: int | str) -> int:
    """A stable number below 2**63 from seeds, names and counters; equal on every machine and version."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_generator(*parts: int | str) -> np.random.Generator:
    """A counter-based NumPy generator (Philox) for these parts."""
    return np.random.Generator(np.random.Philox(key=key(*parts)))


def torch_generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for these parts; its numbers depend on the kind of device."""
    return torch.Generator(device=device).manual_seed(key(*parts))


def seed_dropout(*parts: int | str) -> None:
    """Seed torch's global generators, so that what modules draw (dropout) is a function of these parts.

    As `torch.manual_seed` does, which remembers its caller for every kind of device that is not in use: a millisecond in a deep stack.
    """
    seed = key(*parts)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def mixed(seed: int, *numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """64 pseudo-random bits for every element, a pure function of the seed and of the arrays' numbers there, in their order.

    Each number goes through the finalizer of splitmix64; for as many draws as there are elements, where a generator each costs too much.
    """
    state = np.full(numbers[0].shape, seed, dtype=np.uint64)
    for array in numbers:
        state = (state ^ array.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state
