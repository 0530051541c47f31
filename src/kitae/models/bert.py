"""BERT (Devlin et al. 2019) and ELECTRA (Clark et al. 2020): one post-norm encoder; ELECTRA may have narrower embeddings.

Shapes: B rows, L positions, D hidden size, E embedding size, V vocabulary, N heads.
"""

from typing import Literal

import torch
from pydantic import ConfigDict, Field, model_validator
from torch import Tensor, nn

from kitae.core.config import Config
from kitae.models.attention import AttentionPlan, Kind, attend, choose, make_plan
from kitae.models.layers import ACTIVATIONS, dropout, dropout_add, lookup
from kitae.tensor.batch import Layout


class BertConfig(Config):
    """Numbers of a BERT or ELECTRA encoder, under Hugging Face's field names."""

    model_config = ConfigDict(protected_namespaces=())

    model_type: Literal["bert", "electra"] = "bert"
    """Family; it decides the form of the heads and the names of the weights."""
    vocab_size: int = Field(ge=1)
    """Number of tokens."""
    hidden_size: int = Field(768, ge=1)
    """Width of the hidden states."""
    num_hidden_layers: int = Field(12, ge=0)
    """Number of blocks."""
    num_attention_heads: int = Field(12, ge=1)
    """Number of heads; divides hidden_size."""
    intermediate_size: int = Field(3072, ge=1)
    """Width inside the feed-forward part of a block."""
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"] = "gelu"
    """Activation of the feed-forward part; gelu is the exact one, by erf."""
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)
    """Dropout on hidden states."""
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1)
    """Dropout on attention probabilities."""
    max_position_embeddings: int = Field(512, ge=1)
    """Longest piece, in tokens with the special ones."""
    type_vocab_size: int = Field(2, ge=0)
    """Number of segment kinds; 0 leaves the segment table out."""
    initializer_range: float = Field(0.02, gt=0)
    """Standard deviation of new weights (truncated at two of them)."""
    layer_norm_eps: float = Field(1e-12, gt=0)
    """Epsilon of every LayerNorm."""
    pad_token_id: int = Field(0, ge=0)
    """Id of [PAD]; as an input it gives the token table no gradient."""
    embedding_size: int | None = Field(None, ge=1)
    """Width of the embeddings; None = hidden_size. Only ELECTRA may differ."""
    classifier_dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout in the classification head; None = hidden_dropout_prob."""

    @model_validator(mode="after")
    def _fits(self) -> "BertConfig":
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}")
        if self.model_type == "bert" and self.embedding_width != self.hidden_size:
            raise ValueError(f"embedding_size {self.embedding_size} differs from hidden_size {self.hidden_size}: only ELECTRA can do that")
        if self.pad_token_id >= self.vocab_size:
            raise ValueError(f"pad_token_id {self.pad_token_id} is none of the {self.vocab_size} tokens")
        return self

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings, filled in."""
        return self.embedding_size or self.hidden_size

    def padded(self, pad_token_id: int) -> "BertConfig":
        """The same with the [PAD] of a tokenizer."""
        return self.model_copy(update={"pad_token_id": pad_token_id})

    @property
    def head_dropout(self) -> float:
        """Dropout rate of a classification head."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout


class Embeddings(nn.Module):
    """Token + position + segment -> LayerNorm -> dropout. ELECTRA's two halves share this module as a whole."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.embedding_width
        self.rate, self.padding = config.hidden_dropout_prob, config.pad_token_id
        self.token = nn.Embedding(config.vocab_size, width)
        self.position = nn.Embedding(config.max_position_embeddings, width)
        self.segment = nn.Embedding(config.type_vocab_size, width) if config.type_vocab_size else None
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, ids_BL: Tensor, positions_BL: Tensor, segments_BL: Tensor | None = None) -> Tensor:
        """Embed ids; returns x_BLE. Without segments every token is of kind 0."""
        x_BLE = lookup(ids_BL, self.token.weight, self.padding)
        if self.segment is not None:
            # One broadcast row instead of B * L equal look-ups: its gradient is then a plain sum.
            x_BLE = x_BLE + (self.segment.weight[0] if segments_BL is None else lookup(segments_BL, self.segment.weight))
        x_BLE = x_BLE + lookup(positions_BL, self.position.weight)
        return dropout(self.norm(x_BLE), self.rate, self.training)


class Block(nn.Module):
    """Attention, then feed-forward; dropout, residual and LayerNorm after each (post-norm)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.rate, self.attention_rate = config.hidden_dropout_prob, config.attention_probs_dropout_prob
        self.activation = ACTIVATIONS[config.hidden_act]
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.attn_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.up = nn.Linear(width, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, width)
        self.mlp_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, x_BLD: Tensor, plan: AttentionPlan) -> Tensor:
        """One layer; returns x_BLD."""
        rate = self.attention_rate if self.training else 0.0
        attended = attend(self.qkv(x_BLD), plan, heads=self.heads, dropout=rate)
        x_BLD = self.attn_norm(dropout_add(self.out(attended), x_BLD, self.rate, self.training))
        fed = self.down(self.activation(self.up(x_BLD)))
        return self.mlp_norm(dropout_add(fed, x_BLD, self.rate, self.training))


class BertEncoder(nn.Module):
    """Ids -> hidden states, no head. `compiled` is set by whoever compiles the blocks."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.compiled = False
        self.kind: Kind | None = None
        """Attention path; None lets every batch choose (tests set it)."""
        self.embed = Embeddings(config)
        self.project = nn.Linear(config.embedding_width, config.hidden_size) if config.embedding_width != config.hidden_size else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))

    def compile_blocks(self) -> None:
        """Compile every block in place (torch.compile); costs about 40 seconds at the first batch."""
        self.compiled = True
        for block in self.blocks:
            block.compile(options={"fallback_random": True})  # drop the same elements as plain blocks on CUDA too

    def forward(self, ids_BL: Tensor, layout: Layout, segments_BL: Tensor | None = None) -> Tensor:
        """Hidden states x_BLD of the last layer. Padding positions hold numbers without meaning."""
        x_BLD, plan = self._start(ids_BL, layout, segments_BL)
        for block in self.blocks:
            x_BLD = block(x_BLD, plan)
        return x_BLD

    def hidden_states(self, ids_BL: Tensor, layout: Layout, segments_BL: Tensor | None = None) -> list[Tensor]:
        """x_BLD before the first block and after each (num_hidden_layers + 1 tensors, as Hugging Face returns them)."""
        x_BLD, plan = self._start(ids_BL, layout, segments_BL)
        states = [x_BLD]
        for block in self.blocks:
            states.append(block(states[-1], plan))
        return states

    def _start(self, ids_BL: Tensor, layout: Layout, segments_BL: Tensor | None) -> tuple[Tensor, AttentionPlan]:
        x_BLD = self.embed(ids_BL, layout.positions_BL, segments_BL)
        if self.project is not None:
            x_BLD = self.project(x_BLD)
        dtype = torch.get_autocast_dtype(x_BLD.device.type) if torch.is_autocast_enabled(x_BLD.device.type) else x_BLD.dtype
        length, head_size = layout.pieces_BL.shape[1], self.config.hidden_size // self.config.num_attention_heads
        device = layout.pieces_BL.device.type
        kind = self.kind or choose(device, length=length, head_size=head_size, dtype=dtype, compiled=self.compiled)
        return x_BLD, make_plan(layout, kind=kind, dtype=dtype)
