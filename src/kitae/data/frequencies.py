"""How frequent every token is in a data set's training text."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kitae.data.shards import Shards

COUNTED = 50_000_000
"""Tokens from the beginning of the training text that are counted."""
AT_ONCE = 1_000_000


def log_frequencies(dataset: Path, vocab_size: int) -> Tensor:
    """Logarithm of every token's share of the training text, fp32 [vocabulary]; tokens that do not occur count a half."""
    shards = Shards(dataset / "train")
    end, counts = min(shards.num_tokens, COUNTED), np.full(vocab_size, 0.5)
    for start in range(0, end, AT_ONCE):
        counts += np.bincount(shards.tokens(start, min(start + AT_ONCE, end)), minlength=vocab_size)
    return torch.from_numpy(np.log(counts / counts.sum())).float()
