"""Heads that several families share. They return logits; what they mean and cost is the objective's or the task's business.

Shapes: N gathered positions or texts, D hidden size, E embedding size, V vocabulary, C labels, B rows, L positions.
"""

import abc
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kitae.models.encoder import Encoder, EncoderConfig
from kitae.models.layers import dropout
from kitae.tensor.batch import Layout

Activation = Callable[[Tensor], Tensor]


class Decoder(abc.ABC):
    """A vocabulary head that reads more of an encoder than its last hidden states, as DeBERTa's enhanced mask decoder does."""

    @abc.abstractmethod
    def read(self, encoder: Encoder, ids_BL: Tensor, layout: Layout, segments_BL: Tensor | None) -> Tensor:
        """x_BLD from which tokens are predicted."""


def own_table(config: EncoderConfig) -> nn.Parameter | None:
    """The output table of a vocabulary head that is not tied to the token table; None for one that is."""
    return None if config.tie_word_embeddings else nn.Parameter(torch.empty(config.vocab_size, config.embedding_width))


class MlmHead(nn.Module):
    """Hidden states -> vocabulary: dense, activation, LayerNorm, the token table (given at the call) or one of its own, and a bias."""

    def __init__(self, config: EncoderConfig, *, activation: Activation, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.embedding_width)
        self.norm = nn.LayerNorm(config.embedding_width, eps=eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.table = own_table(config)
        self.activation = activation

    def transform(self, x_ND: Tensor) -> Tensor:
        """All but the vocabulary product; returns x_NE."""
        return self.norm(self.activation(self.dense(x_ND)))

    def forward(self, x_ND: Tensor, table_VE: Tensor | None) -> Tensor:
        """logits_NV of positions gathered beforehand; `table_VE` is the encoder's token table, if it has one."""
        return F.linear(self.transform(x_ND), table_VE if self.table is None else self.table, self.bias)


class RtdHead(nn.Module):
    """Replaced token detection: dense, activation, one number per position (positive = replaced)."""

    def __init__(self, config: EncoderConfig, *, activation: Activation) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, 1)
        self.activation = activation

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        """logits_BL. ELECTRA's head looks at each position alone; others ask the layout where a piece begins."""
        del layout
        return self.out(self.activation(self.dense(x_BLD))).squeeze(-1)


class SequenceHead(nn.Module):
    """One vector per text ([CLS]) -> labels: dense, activation, out; dropout before `out` and, at `early_rate`, before `dense`.

    BERT: tanh (its pooler). ELECTRA: gelu, as much dropout early. RoBERTa: tanh, the same. DeBERTa: its pooler's activation and dropout.
    """

    def __init__(self, config: EncoderConfig, *, activation: Activation, num_labels: int, rate: float, early_rate: float = 0.0) -> None:
        super().__init__()
        self.activation, self.early_rate, self.rate = activation, early_rate, rate
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, num_labels)

    def forward(self, x_ND: Tensor) -> Tensor:
        """logits_NC."""
        x_ND = self.activation(self.dense(dropout(x_ND, self.early_rate, self.training)))
        return self.out(dropout(x_ND, self.rate, self.training))


class TokenHead(nn.Module):
    """Hidden states -> labels of every position: dropout and one layer."""

    def __init__(self, config: EncoderConfig, *, num_labels: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.out = nn.Linear(config.hidden_size, num_labels)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """logits_BLC."""
        return self.out(dropout(x_BLD, self.rate, self.training))


class SpanHead(nn.Module):
    """Hidden states -> where an answer begins and ends, each on its own (BERT on SQuAD): one layer with two outputs."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.out = nn.Linear(config.hidden_size, 2)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """logits_BL2: start and end."""
        return self.out(x_BLD)


class OrderHead(nn.Module):
    """One vector per pair ([CLS]) -> is it as the text says, or not: BERT's pooler (dense, tanh) and two logits (Devlin et al. 2019)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, 2)

    def forward(self, x_PD: Tensor) -> Tensor:
        """logits_P2."""
        return self.out(torch.tanh(self.dense(x_PD)))


class PretrainingHead(nn.Module):
    """A vocabulary head and a head for pairs; see PretrainingLm."""

    def __init__(self, vocabulary: nn.Module, order: OrderHead) -> None:
        super().__init__()
        self.vocabulary, self.order = vocabulary, order
