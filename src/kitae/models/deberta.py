"""DeBERTa (He et al. 2020, arXiv:2006.03654), DeBERTa-v2 and -v3 (arXiv:2111.09543): post-norm, with disentangled attention.

Shapes: B rows, L positions, D hidden size, E embedding size, V vocabulary, P absolute positions, R rows of the table of relative
positions, K width of the convolution, C = 3D.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kitae.models.attention import Kind
from kitae.models.deberta_config import DebertaV2Config, DisentangledConfig
from kitae.models.disentangled import RelativeKind, RelativePlan, attend_relative, choose_relative, make_relative_plan
from kitae.models.encoder import Encoder, EncoderConfig, working_dtype
from kitae.models.layers import ACTIVATIONS, activated_linear, dropout, dropout_add, lookup, segment_rows
from kitae.models.recompute import through
from kitae.tensor.batch import Layout, Texts

WIDE_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {**ACTIVATIONS, "tanh": torch.tanh}
RELATIVE: Mapping[Kind, RelativeKind] = {"block": "block", "spans": "spans", "varlen": "flex", "sdpa": "sdpa", "dense": "dense"}
"""The path of disentangled attention for a path that was set by hand; without one the batch chooses."""
DECODER_STEPS = 2
"""How often the enhanced mask decoder runs the last block (microsoft/DeBERTa, masked_language_model.py)."""


class Embeddings(nn.Module):
    """The tables: token, and position and segment where a model has them. What follows them is the encoder's, so halves can share these."""

    def __init__(self, config: DisentangledConfig) -> None:
        super().__init__()
        width, self.padding = config.embedding_width, config.pad_token_id
        self.token = nn.Embedding(config.vocab_size, width)
        self.position = nn.Embedding(config.max_position_embeddings, width) if config.position_biased_input else None
        self.segment = nn.Embedding(config.type_vocab_size, width) if config.type_vocab_size else None

    def forward(self, ids_BL: Tensor, positions_BL: Tensor, segments_BL: Tensor | None = None) -> Tensor:
        """Embed ids; returns x_BLE. Without segments, or in a model that knows one kind, every token is of kind 0."""
        x_BLE = lookup(ids_BL, self.token.weight, self.padding)
        if self.position is not None:
            x_BLE = x_BLE + lookup(positions_BL, self.position.weight)
        if self.segment is not None:
            x_BLE = x_BLE + segment_rows(segments_BL, self.segment.weight)
        return x_BLE


class Projections(nn.Module):
    """Queries, keys and values of v2 and v3, and the same of relative positions."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        width, terms = config.hidden_size, config.pos_att_type
        self.terms, self.shared = terms, config.share_att_key
        self.qkv = nn.Linear(width, 3 * width)
        self.pos_key = nn.Linear(width, width) if "c2p" in terms and not self.shared else None
        self.pos_query = nn.Linear(width, width) if "p2c" in terms and not self.shared else None

    def forward(self, x_BLD: Tensor, query_BLD: Tensor | None) -> Tensor:
        """qkv_BLC; queries from `query_BLD` when it is given."""
        return _project(x_BLD, query_BLD, self.qkv.weight, self.qkv.bias)

    def positions(self, table_RD: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """(keys_RD, queries_RD) of relative positions; None for a term that scores do not have."""
        width = table_RD.shape[1]
        if self.shared:
            weights, biases = self.qkv.weight.split(width), self.qkv.bias.split(width)
            key = F.linear(table_RD, weights[1], biases[1]) if "c2p" in self.terms else None
            return key, F.linear(table_RD, weights[0], biases[0]) if "p2c" in self.terms else None
        return None if self.pos_key is None else self.pos_key(table_RD), None if self.pos_query is None else self.pos_query(table_RD)


class FirstProjections(nn.Module):
    """The same of v1, whose keys have no bias (in disentangled attention one would not cancel out), nor those of positions."""

    def __init__(self, config: DisentangledConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.query_bias = nn.Parameter(torch.zeros(width))
        self.value_bias = nn.Parameter(torch.zeros(width))
        self.pos_key = nn.Linear(width, width, bias=False) if "c2p" in config.pos_att_type else None
        self.pos_query = nn.Linear(width, width) if "p2c" in config.pos_att_type else None

    def forward(self, x_BLD: Tensor, query_BLD: Tensor | None) -> Tensor:
        """qkv_BLC; queries from `query_BLD` when it is given."""
        bias_C = torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])
        return _project(x_BLD, query_BLD, self.qkv.weight, bias_C)

    def positions(self, table_RD: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """(keys_RD, queries_RD) of relative positions; None for a term that scores do not have."""
        return None if self.pos_key is None else self.pos_key(table_RD), None if self.pos_query is None else self.pos_query(table_RD)


def _project(x_BLD: Tensor, query_BLD: Tensor | None, weight_CD: Tensor, bias_C: Tensor) -> Tensor:
    if query_BLD is None:
        return F.linear(x_BLD, weight_CD, bias_C)
    width = x_BLD.shape[-1]
    asked = F.linear(query_BLD, weight_CD[:width], bias_C[:width])
    return torch.cat([asked, F.linear(x_BLD, weight_CD[width:], bias_C[width:])], dim=-1)


class Block(nn.Module):
    """Disentangled attention, then feed-forward; dropout, residual and LayerNorm after each (post-norm)."""

    def __init__(self, config: DisentangledConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.rate, self.attention_rate = config.hidden_dropout_prob, config.attention_probs_dropout_prob
        self.activation = ACTIVATIONS[config.hidden_act]
        self.attention = Projections(config) if isinstance(config, DebertaV2Config) else FirstProjections(config)
        self.out = nn.Linear(width, width)
        self.attn_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.up = nn.Linear(width, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, width)
        self.mlp_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, x_BLD: Tensor, table_RD: Tensor | None, plan: RelativePlan, query_BLD: Tensor | None = None) -> Tensor:
        """One layer; returns x_BLD. With `query_BLD` (the decoder's) it is what asks, and what the attended is added to."""
        key_RD, query_RD = None, None
        if table_RD is not None:
            key_RD, query_RD = self.attention.positions(dropout(table_RD, self.rate, self.training))
        rate = self.attention_rate if self.training else 0.0
        qkv_BLC = self.attention(x_BLD, query_BLD)
        attended = attend_relative(qkv_BLC, key_RD, query_RD, plan, heads=self.heads, dropout=rate)
        residual = x_BLD if query_BLD is None else query_BLD
        x_BLD = self.attn_norm(dropout_add(self.out(attended), residual, self.rate, self.training))
        fed = activated_linear(self.up(x_BLD), self.down, self.activation)
        return self.mlp_norm(dropout_add(fed, x_BLD, self.rate, self.training))


class Convolution(nn.Module):
    """The n-gram layer of v2: a convolution of the embeddings, added to what the first block returns, then LayerNorm."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        width, self.width = config.hidden_size, config.conv_kernel_size
        self.kernel = nn.Conv1d(width, width, self.width, groups=config.conv_groups)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.rate, self.activation = config.hidden_dropout_prob, WIDE_ACTIVATIONS[config.conv_act]

    def forward(self, embedded_BLD: Tensor, x_BLD: Tensor, layout: Layout) -> Tensor:
        """x_BLD. Beyond the ends of a piece there are zeros, as if it stood alone."""
        out_BLD = dropout(self.convolve(embedded_BLD, layout.pieces_BL), self.rate, self.training)
        return self.norm(x_BLD + self.activation(out_BLD))

    def convolve(self, x_BLD: Tensor, pieces_BL: Tensor) -> Tensor:
        """One matrix product of the K shifted copies, each without what belongs to another piece."""
        half, (b, length, width) = self.width // 2, x_BLD.shape
        around = F.pad(x_BLD, (0, 0, half, half))
        owners = F.pad(pieces_BL, (half, half), value=-1)
        copies = []
        for first in range(self.width):
            here = slice(first, first + length)
            copies.append(around[:, here] * (owners[:, here] == pieces_BL)[..., None])
        weight, groups = self.kernel.weight, self.kernel.groups
        if groups == 1:
            return F.linear(torch.cat(copies, dim=-1), weight.transpose(1, 2).reshape(width, -1), self.kernel.bias)
        grouped = torch.stack(copies, dim=2).view(b, length, self.width, groups, width // groups)
        kernel = weight.view(groups, width // groups, width // groups, self.width)
        return torch.einsum("blkgi,goik->blgo", grouped, kernel).reshape(b, length, width) + self.kernel.bias


@dataclass(frozen=True, kw_only=True)
class _Around:
    """What every block needs beside its states."""

    table_RD: Tensor | None
    plan: RelativePlan
    layout: Layout


class DebertaEncoder(Encoder):
    """Ids -> hidden states of all versions of DeBERTa."""

    config: DisentangledConfig

    def __init__(self, config: DisentangledConfig) -> None:
        super().__init__(config)
        hidden, width, eps = config.hidden_size, config.embedding_width, config.layer_norm_eps
        self.embed = Embeddings(config)
        self.project = nn.Linear(width, hidden, bias=False) if width != hidden else None
        self.embed_norm = nn.LayerNorm(hidden, eps=eps)
        self.relative = nn.Embedding(2 * config.span, hidden) if config.relative_attention else None
        newer = config if isinstance(config, DebertaV2Config) else None
        self.relative_norm = nn.LayerNorm(hidden, eps=eps) if newer and newer.norm_rel_ebd == "layer_norm" else None
        self.conv = Convolution(newer) if newer and newer.conv_kernel_size else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))

    def states(self, texts: Texts) -> Iterator[Tensor]:
        """x_BLD before the first block and after each."""
        x_BLD, around = self._start(texts)
        yield x_BLD
        yield from self._through(self.blocks, x_BLD, around)

    def decoded(self, texts: Texts, position_PD: Tensor) -> Tensor:
        """x_BLD of the enhanced mask decoder (He et al. 2020, section 3.2; microsoft/DeBERTa's `emd_context_layer`).

        The last block is run twice. What asks are the states before it, plus absolute positions, then what the first run returned; what
        is attended to are the states before it both times.
        """
        x_BLD, around = self._start(texts)
        *earlier, last = self.blocks
        for state in self._through(earlier, x_BLD, around):
            x_BLD = state
        query_BLD = x_BLD + lookup(texts.layout.positions_BL, position_PD)
        for _ in range(DECODER_STEPS):
            query_BLD = through(last, x_BLD, around.table_RD, around.plan, query_BLD, again=self.recomputes)
        return query_BLD

    def _start(self, texts: Texts) -> tuple[Tensor, _Around]:
        """Embedded ids, and what the blocks need of the batch."""
        config, layout = self.config, texts.layout
        x_BLD = self.embed(texts.ids_BL, layout.positions_BL, texts.segments_BL)
        if self.project is not None:
            x_BLD = self.project(x_BLD)
        x_BLD = dropout(self.embed_norm(x_BLD), config.hidden_dropout_prob, self.training)
        dtype = working_dtype(x_BLD)
        rate = config.attention_probs_dropout_prob if self.training else 0.0
        length, head_size = x_BLD.shape[1], config.hidden_size // config.num_attention_heads
        device = x_BLD.device.type
        chosen = choose_relative(device, length=length, head_size=head_size, dtype=dtype, dropout=rate, compiled=self.compiled)
        kind = chosen if self.kind is None else RELATIVE[self.kind]
        plan = make_relative_plan(layout, kind=kind, dtype=dtype, buckets=config.buckets, max_distance=config.reach)
        table_RD = None if self.relative is None else self.relative.weight
        if table_RD is not None and self.relative_norm is not None:
            table_RD = self.relative_norm(table_RD)
        return x_BLD, _Around(table_RD=table_RD, plan=plan, layout=layout)

    def _through(self, blocks: Iterable[nn.Module], x_BLD: Tensor, around: _Around) -> Iterator[Tensor]:
        """x_BLD after each block, from the first on."""
        embedded_BLD = x_BLD
        for number, block in enumerate(blocks):
            x_BLD = through(block, x_BLD, around.table_RD, around.plan, again=self.recomputes)
            if number == 0 and self.conv is not None:
                x_BLD = self.conv(embedded_BLD, x_BLD, around.layout)
            yield x_BLD


def body_flops(config: EncoderConfig, length: float) -> float:
    """Training FLOPs per real token of the blocks (matrix products only, forward + backward), the convolution and decoder left out.

    Beside BERT's: every query and key times the table of relative positions, and in every row the projections of that table.
    """
    assert isinstance(config, DisentangledConfig)
    hidden, layers, terms = config.hidden_size, config.num_hidden_layers, len(config.pos_att_type)
    blocks = layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    project = config.embedding_width * hidden if config.embedding_width != hidden else 0
    relative = 12 * terms * layers * config.span * (hidden + hidden**2 / length)
    return 6 * (blocks + project) + 12 * layers * hidden * length + relative
