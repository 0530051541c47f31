"""Rows of documents for the tests: padded and packed."""

import torch
from torch import Tensor

from kitae.tensor.batch import Layout


def padded(vocab_size: int, lengths: tuple[int, ...], *, kinds: int = 2, pad: int = 0) -> tuple[Tensor, Tensor, Layout, Tensor]:
    """ids_BL, mask_BL, layout and segments_BL of rows of one document each; [PAD] occurs in no text."""
    generator = torch.Generator().manual_seed(3)
    length = max(lengths)
    mask = torch.arange(length)[None] < torch.tensor(lengths)[:, None]
    ids = torch.randint(5, vocab_size, mask.shape, generator=generator)
    ids = ids.masked_fill(ids == pad, 4).masked_fill(~mask, pad)
    segments = torch.randint(0, max(1, kinds), mask.shape, generator=generator)
    return ids, mask, Layout.padded(mask), segments


def packed(rows: tuple[tuple[int, ...], ...], length: int) -> Layout:
    """A layout with pieces of the given lengths in each row."""
    pieces = torch.zeros(len(rows), length, dtype=torch.int32)
    positions = torch.arange(length).expand(len(rows), length).clone()
    for row, sizes in enumerate(rows):
        start = 0
        for number, size in enumerate(sizes, start=1):
            pieces[row, start : start + size] = number
            positions[row, start : start + size] = torch.arange(size)
            start += size
        positions[row, start:] = 0
    return Layout(pieces, positions)
