"""Heads of BERT and ELECTRA. They return logits; what they mean and cost is the objective's or the task's business.

Shapes: N gathered positions or texts, D hidden size, E embedding size, V vocabulary, C labels, B rows, L positions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kitae.models.bert import BertConfig
from kitae.models.layers import ACTIVATIONS, dropout


class MlmHead(nn.Module):
    """Hidden states -> vocabulary: dense, activation, LayerNorm, then the token table (tied, given at the call) and a bias."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.embedding_width)
        self.norm = nn.LayerNorm(config.embedding_width, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        # Hugging Face's ELECTRA generator takes gelu whatever hidden_act says; BERT takes hidden_act.
        self.activation = ACTIVATIONS["gelu" if config.model_type == "electra" else config.hidden_act]

    def transform(self, x_ND: Tensor) -> Tensor:
        """All but the vocabulary product; returns x_NE."""
        return self.norm(self.activation(self.dense(x_ND)))

    def forward(self, x_ND: Tensor, table_VE: Tensor) -> Tensor:
        """logits_NV of positions gathered beforehand; `table_VE` is the encoder's token table."""
        return F.linear(self.transform(x_ND), table_VE, self.bias)


class RtdHead(nn.Module):
    """Replaced token detection: dense, activation, one number per position (positive = replaced)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, 1)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x_BLD: Tensor) -> Tensor:
        """logits_BL."""
        return self.out(self.activation(self.dense(x_BLD))).squeeze(-1)


class SequenceHead(nn.Module):
    """One vector per text ([CLS]) -> labels.

    BERT: dense, tanh (the pooler), dropout, out. ELECTRA: dropout, dense, gelu, dropout, out.
    """

    def __init__(self, config: BertConfig, *, num_labels: int, rate: float) -> None:
        super().__init__()
        self.electra = config.model_type == "electra"
        self.rate = rate
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, num_labels)

    def forward(self, x_ND: Tensor) -> Tensor:
        """logits_NC."""
        if self.electra:
            x_ND = F.gelu(self.dense(dropout(x_ND, self.rate, self.training)))
        else:
            x_ND = torch.tanh(self.dense(x_ND))
        return self.out(dropout(x_ND, self.rate, self.training))
