"""Small batches and models for the tests of objectives."""

import dataclasses
from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from kitae.models.bert import BertConfig
from kitae.models.presets import Architecture
from kitae.tensor.batch import Batch, Layout
from kitae.tokenization.special import SpecialIds

SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
VOCAB = 60


class Fixed(nn.Module):
    """Gives the same numbers whatever it sees, and remembers what it saw."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__()
        self.numbers = numbers

    def forward(self, *inputs: object) -> Tensor:
        self.seen = inputs[0]
        return self.numbers


def batch(
    rows: Sequence[Sequence[int]], *, length: int, seed: int = 0, vocab: int = VOCAB, step: int = 0, micro: int = 0, word: int = 2
) -> Batch:
    """Rows of pieces with these many tokens (without [CLS] and [SEP]) of random ids; words have 1 to `word` tokens."""
    random = np.random.default_rng(seed)
    ids = np.full((len(rows), length), SPECIAL.pad)
    pieces = np.zeros((len(rows), length), dtype=np.int32)
    positions = np.zeros((len(rows), length), dtype=np.int64)
    words = np.full((len(rows), length), -1, dtype=np.int32)
    for row, sizes in enumerate(rows):
        start, number = 0, -1
        for piece, size in enumerate(sizes, start=1):
            ids[row, start : start + size + 2] = [SPECIAL.cls, *random.integers(5, vocab, size), SPECIAL.sep]
            pieces[row, start : start + size + 2] = piece
            positions[row, start : start + size + 2] = np.arange(size + 2)
            left = 0
            for i in range(size):
                if not left:
                    number, left = number + 1, int(random.integers(1, word + 1))
                left -= 1
                words[row, start + 1 + i] = number
            start += size + 2
    return Batch(
        ids_BL=torch.from_numpy(ids),
        layout=Layout(torch.from_numpy(pieces), torch.from_numpy(positions)),
        words_BL=torch.from_numpy(words),
        rows=torch.arange(len(rows)),
        step=step,
        micro=micro,
    )


def paired(rows: Sequence[Sequence[tuple[int, int, int]]], *, length: int, seed: int = 0, step: int = 0, micro: int = 0) -> Batch:
    """Rows of pairs, each (tokens of A, tokens of B, label); B of 0 tokens is a piece without a second segment or a label."""
    sizes = [[a + b + (b > 0) for a, b, _ in row] for row in rows]
    plain = batch(sizes, length=length, seed=seed, step=step, micro=micro)
    segments = torch.zeros_like(plain.ids_BL)
    places, labels, words = [], [], plain.words_BL.clone()
    for (row, start, end), (a, b, label) in zip(plain.layout.spans(), chain.from_iterable(rows), strict=True):
        if b:
            plain.ids_BL[row, start + 1 + a], words[row, start + 1 + a] = SPECIAL.sep, -1
            segments[row, start + 2 + a : end] = 1
            places.append(row * length + start)
            labels.append(label)
    targets = {"pairs": torch.tensor(places, dtype=torch.int64), "pair_labels": torch.tensor(labels, dtype=torch.int64)}
    return dataclasses.replace(plain, segments_BL=segments, words_BL=words, targets=targets)


def config(family: str, *, hidden: int = 32, dropout: float = 0.0, vocab: int = VOCAB) -> BertConfig:
    """A tiny encoder."""
    return BertConfig(
        model_type="electra" if family == "electra" else "bert",
        vocab_size=vocab,
        hidden_size=hidden,
        embedding_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.1,
    )


def electra(*, dropout: float = 0.0, vocab: int = VOCAB) -> Architecture:
    """Tiny ELECTRA with a narrower generator."""
    wide, narrow = config("electra", hidden=48, dropout=dropout, vocab=vocab), config("electra", hidden=16, dropout=dropout, vocab=vocab)
    return Architecture(family="electra", encoder=wide, generator=narrow)


def bert(*, dropout: float = 0.0, vocab: int = VOCAB) -> Architecture:
    """Tiny BERT."""
    return Architecture(family="bert", encoder=config("bert", dropout=dropout, vocab=vocab))
