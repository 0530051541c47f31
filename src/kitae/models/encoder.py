"""What every family's encoder is to the rest of kitae: a config under Hugging Face's names, and ids -> hidden states.

Shapes: B rows, L positions, D hidden size, E embedding size, V vocabulary, W distinct words of a micro-batch, C characters of a word.
"""

import abc
import collections
from collections.abc import Iterator, Mapping
from typing import Literal, Self

import torch
from pydantic import ConfigDict, Field, model_validator
from torch import Tensor, nn

from kitae.core.config import Config
from kitae.models.attention import Kind, choose
from kitae.models.gdes import DisentangledTable
from kitae.tensor.batch import Layout, Texts

Act = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]
"""Activations of feed-forward parts (kitae.models.layers.ACTIVATIONS)."""


class EncoderConfig(Config):
    """Numbers of an encoder. A family's subclass has Hugging Face's field names, so that config.json maps by identity.

    The upper bounds are beyond any model: they refuse nonsense before memory is asked for it.
    """

    model_config = ConfigDict(protected_namespaces=(), allow_inf_nan=False)

    model_type: str
    """Family; it decides the form of the heads and the names of the weights."""
    vocab_size: int = Field(ge=1, le=10_000_000)
    """Number of tokens."""
    hidden_size: int = Field(768, ge=1, le=65_536)
    """Width of the hidden states."""
    num_hidden_layers: int = Field(12, ge=0, le=1_000)
    """Number of blocks."""
    num_attention_heads: int = Field(12, ge=1, le=65_536)
    """Number of heads; divides hidden_size."""
    intermediate_size: int = Field(3072, ge=1, le=1_000_000)
    """Width inside the feed-forward part of a block."""
    max_position_embeddings: int = Field(512, ge=1, le=10_000_000)
    """Longest piece, in tokens with the special ones."""
    initializer_range: float = Field(0.02, gt=0)
    """Standard deviation of new weights (truncated at two of them)."""
    pad_token_id: int = Field(0, ge=0, le=10_000_000)
    """Id of [PAD]; as an input it gives the token table no gradient."""
    tie_word_embeddings: bool = True
    """Whether a masked language model predicts through its token table, or through an output table of its own."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}")
        if self.pad_token_id >= self.vocab_size:
            raise ValueError(f"pad_token_id {self.pad_token_id} is none of the {self.vocab_size} tokens")
        return self

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings."""
        return self.hidden_size

    @property
    def segment_kinds(self) -> int:
        """How many kinds of segments the model tells apart; 0 or 1 = none."""
        return 0

    @property
    def word_characters(self) -> int:
        """Characters of a word's row, for families that read characters; 0 in all others."""
        return 0

    @property
    def positions(self) -> int:
        """Longest piece that the model takes, in tokens with the special ones."""
        return self.max_position_embeddings

    @property
    @abc.abstractmethod
    def head_dropout(self) -> float:
        """Dropout rate of a classification head."""

    @property
    def pooling(self) -> Literal["cls", "mean"]:
        """What a sequence head reads of a text: the state of its first position, or the mean of all."""
        return "cls"

    @classmethod
    def room(cls, length: int, pad_token_id: int, word_bytes: int = 0) -> dict[str, object]:
        """The fields that make room for pieces of `length` tokens, of `word_bytes` characters each where they are words, in a new model."""
        del pad_token_id, word_bytes  # only families that count positions from the one, or read the other, need them
        return {"max_position_embeddings": length}

    @classmethod
    def adapted(cls, raw: Mapping[str, object]) -> dict[str, object]:
        """The JSON of a config.json with fields of older versions turned into those of this one."""
        return dict(raw)

    def huggingface(self) -> dict[str, object]:
        """The fields as transformers 4.57 and 5 read them."""
        return self.model_dump()

    def padded(self, pad_token_id: int) -> Self:
        """The same with the [PAD] of a tokenizer."""
        return self.model_copy(update={"pad_token_id": pad_token_id})


class PostNormConfig(EncoderConfig):
    """Numbers of an encoder with BERT's blocks and embeddings, whatever its attention: the families from before ModernBERT."""

    hidden_act: Act = "gelu"
    """Activation of the feed-forward part; gelu is the exact one, by erf."""
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)
    """Dropout on hidden states."""
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1)
    """Dropout on attention probabilities."""
    type_vocab_size: int = Field(2, ge=0)
    """Number of segment kinds; 0 leaves the segment table out."""
    layer_norm_eps: float = Field(1e-12, gt=0)
    """Epsilon of every LayerNorm."""
    embedding_size: int | None = Field(None, ge=1, le=65_536)
    """Width of the embeddings; None = hidden_size."""

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings, filled in."""
        return self.embedding_size or self.hidden_size

    @property
    def segment_kinds(self) -> int:
        """How many kinds of segments there are."""
        return self.type_vocab_size


class Encoder(nn.Module, abc.ABC):
    """Ids -> hidden states, no head. The token table is `embed.token`, the repeated layers are `blocks`."""

    embed: nn.Module
    blocks: nn.ModuleList

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.compiled = False
        """Set by `compile_blocks`."""
        self.recomputes = False
        """Set by `checkpoint_blocks`."""
        self.kind: Kind | None = None
        """Attention path; None lets every batch choose (tests set it)."""

    @abc.abstractmethod
    def states(self, texts: Texts) -> Iterator[Tensor]:
        """x_BLD before the first block and after each: num_hidden_layers + 1 tensors, of which the last is what heads get.

        Padding positions hold numbers without meaning.
        """

    def forward(self, texts: Texts) -> Tensor:
        """Hidden states x_BLD of the last layer."""
        return collections.deque(self.states(texts), maxlen=1)[0]

    def hidden_states(self, texts: Texts) -> list[Tensor]:
        """All of `states`, as Hugging Face returns them."""
        return list(self.states(texts))

    @property
    def table_VE(self) -> Tensor | None:
        """The token table, which a tied head uses as its output table; None in families that have none."""
        token = getattr(self.embed, "token", None)
        return token.weight if isinstance(token, nn.Embedding | DisentangledTable) else None

    def compile_blocks(self, *, graphs: bool = False) -> None:
        """Compile every block in place (torch.compile); costs about 40 seconds at the first batch. `graphs`: see `compile_options`."""
        self.compiled = True
        for block in self.blocks:
            block.compile(options=compile_options(graphs=graphs))

    def checkpoint_blocks(self) -> None:
        """Keep nothing of the inside of a block for the backward pass (`kitae.models.recompute`)."""
        self.recomputes = True

    def chosen(self, layout: Layout, dtype: torch.dtype) -> Kind:
        """The attention path of a batch."""
        length, head_size = layout.pieces_BL.shape[1], self.config.hidden_size // self.config.num_attention_heads
        device = layout.pieces_BL.device
        return self.kind or choose(
            device.type,
            length=length,
            head_size=head_size,
            dtype=dtype,
            compiled=self.compiled,
            capability=torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0),
        )


def compile_options(*, graphs: bool) -> dict[str, bool]:
    """How blocks are compiled: they drop the same elements as plain ones on CUDA too; with `graphs` CUDA replays their kernels."""
    return {"fallback_random": True, "triton.cudagraphs": graphs}


def working_dtype(x: Tensor) -> torch.dtype:
    """The dtype that matrix products with `x` work in: autocast's, when it is on."""
    return torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
