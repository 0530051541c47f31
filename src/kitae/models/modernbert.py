"""ModernBERT (Warner et al. 2024, arXiv:2412.13663): pre-norm, rotary positions, GeGLU, most layers with a sliding window.

Shapes: B rows, L positions, D hidden size, V vocabulary, N gathered positions or texts, C labels.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kitae.models.attention import AttentionPlan, attend, make_plan
from kitae.models.convert import Rows
from kitae.models.encoder import Encoder, EncoderConfig, working_dtype
from kitae.models.family import Family, HeadForm
from kitae.models.forms import JOINT, choice_form, sequence_form, span_form, token_form
from kitae.models.heads import own_table
from kitae.models.layers import ACTIVATIONS, activated_linear, dropout, lookup
from kitae.models.modernbert_config import FIXED, NEUTRAL, ModernBertConfig
from kitae.models.recompute import through
from kitae.models.rotary import Rotation, rotate, rotation
from kitae.tensor.batch import Texts


class Embeddings(nn.Module):
    """Token -> LayerNorm -> dropout; positions come in by rotation."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.rate, self.padding = config.embedding_dropout, config.pad_token_id
        self.token = nn.Embedding(config.vocab_size, config.hidden_size)
        self.norm = _norm(config)

    def forward(self, ids_BL: Tensor) -> Tensor:
        """Embed ids; returns x_BLD."""
        return dropout(self.norm(lookup(ids_BL, self.token.weight, self.padding)), self.rate, self.training)


class Block(nn.Module):
    """LayerNorm, attention, residual; LayerNorm, gated feed-forward, residual (pre-norm). The first block's input is normal already."""

    def __init__(self, config: ModernBertConfig, *, first: bool) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.heads = config.num_attention_heads
        self.attention_rate, self.rate = config.attention_dropout, config.mlp_dropout
        self.activation = ACTIVATIONS[config.hidden_activation]
        self.attn_norm = None if first else _norm(config)
        self.qkv = nn.Linear(width, 3 * width, bias=config.attention_bias)
        self.out = nn.Linear(width, width, bias=config.attention_bias)
        self.mlp_norm = _norm(config)
        self.up = nn.Linear(width, 2 * inner, bias=config.mlp_bias)
        self.down = nn.Linear(inner, width, bias=config.mlp_bias)

    def forward(self, x_BLD: Tensor, plan: AttentionPlan, turn: Rotation) -> Tensor:
        """One layer; returns x_BLD."""
        rate = self.attention_rate if self.training else 0.0
        qkv = self.qkv(x_BLD if self.attn_norm is None else self.attn_norm(x_BLD))
        attended = attend(rotate(qkv, turn, heads=self.heads), plan, heads=self.heads, dropout=rate)
        x_BLD = x_BLD + dropout(self.out(attended), rate, self.training)
        fed = self.up(self.mlp_norm(x_BLD))
        if self.rate and self.training:
            return x_BLD + self.down(dropout(self.gated(fed), self.rate, True))
        return x_BLD + activated_linear(fed, self.down, self.gated)

    def gated(self, x_BLF: Tensor) -> Tensor:
        """The first half of the features, activated, times the second."""
        active, gate = x_BLF.chunk(2, dim=-1)
        return self.activation(active) * gate


class ModernBertEncoder(Encoder):
    """Ids -> hidden states of ModernBERT. Segments are not told apart."""

    config: ModernBertConfig

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__(config)
        self.embed = Embeddings(config)
        self.blocks = nn.ModuleList(Block(config, first=number == 0) for number in range(config.num_hidden_layers))
        self.norm = _norm(config)

    def states(self, texts: Texts) -> Iterator[Tensor]:
        """x_BLD before each block, and the last block's after the final LayerNorm, as transformers 5 gives them."""
        config, layout = self.config, texts.layout
        x_BLD = self.embed(texts.ids_BL)
        dtype = working_dtype(x_BLD)
        kind, head_size = self.chosen(layout, dtype), config.hidden_size // config.num_attention_heads
        forms = {
            number: (
                make_plan(layout, kind=kind, dtype=dtype, window=window),
                rotation(layout.positions_BL, theta=theta, head_size=head_size, dtype=dtype),
            )
            for number, window, theta in ((True, None, config.global_rope_theta), (False, config.window, config.local_rope_theta))
        }
        for number, block in enumerate(self.blocks):
            yield x_BLD
            x_BLD = through(block, x_BLD, *forms[config.is_global(number)], again=self.recomputes)
        yield self.norm(x_BLD)

    def initialize(self, generator: torch.Generator) -> None:
        """New weights; what is added to the residual stream begins smaller the deeper the model is, as transformers does it."""
        deviation, cutoff = self.config.initializer_range, self.config.initializer_cutoff_factor
        _draw(self.embed.token, deviation, cutoff, generator)
        for norm in (self.embed.norm, self.norm):
            norm.reset_parameters()
        for block in self.blocks:
            for norm in (block.attn_norm, block.mlp_norm):
                if norm is not None:
                    norm.reset_parameters()
            for linear in (block.qkv, block.up):
                _draw(linear, deviation, cutoff, generator)
            for linear in (block.out, block.down):
                _draw(linear, _small(self.config), cutoff, generator)


class Prediction(nn.Module):
    """What both heads begin with: dense, activation, LayerNorm."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.config = config
        self.activation = ACTIVATIONS[config.classifier_activation]
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.classifier_bias)
        self.norm = _norm(config)

    def transform(self, x_ND: Tensor) -> Tensor:
        """The same width, x_ND."""
        return self.norm(self.activation(self.dense(x_ND)))

    def initialize(self, generator: torch.Generator) -> None:
        """New weights, as transformers draws them."""
        _draw(self.dense, _small(self.config), self.config.initializer_cutoff_factor, generator)
        self.norm.reset_parameters()


class ModernBertMlmHead(Prediction):
    """Hidden states -> vocabulary, through the token table (given at the call) or a table of its own, and a bias."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.decoder_bias else None
        self.table = own_table(config)

    def forward(self, x_ND: Tensor, table_VE: Tensor) -> Tensor:
        """logits_NV of positions gathered beforehand."""
        return F.linear(self.transform(x_ND), table_VE if self.table is None else self.table, self.bias)

    def initialize(self, generator: torch.Generator) -> None:
        """New weights, as transformers draws them."""
        super().initialize(generator)
        if self.table is not None:
            _truncated(self.table, _small(self.config), self.config.initializer_cutoff_factor, generator)
        if self.bias is not None:
            self.bias.zero_()


class ModernBertSequenceHead(Prediction):
    """One vector per text -> labels."""

    def __init__(self, config: ModernBertConfig, *, num_labels: int, rate: float) -> None:
        super().__init__(config)
        self.rate = rate
        self.out = nn.Linear(config.hidden_size, num_labels)

    def forward(self, x_ND: Tensor) -> Tensor:
        """logits_NC."""
        return self.out(dropout(self.transform(x_ND), self.rate, self.training))

    def initialize(self, generator: torch.Generator) -> None:
        """New weights, as transformers draws them."""
        super().initialize(generator)
        _draw(self.out, self.config.hidden_size**-0.5, self.config.initializer_cutoff_factor, generator)


def _norm(config: ModernBertConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)


def _small(config: ModernBertConfig) -> float:
    return config.initializer_range / math.sqrt(2.0 * max(1, config.num_hidden_layers))


def _draw(module: nn.Module, deviation: float, cutoff: float, generator: torch.Generator) -> None:
    assert isinstance(module, nn.Linear | nn.Embedding)
    _truncated(module.weight, deviation, cutoff, generator)
    if isinstance(module, nn.Linear) and module.bias is not None:
        module.bias.zero_()


def _truncated(weight: Tensor, deviation: float, cutoff: float, generator: torch.Generator) -> None:
    nn.init.trunc_normal_(weight, std=deviation, a=-cutoff * deviation, b=cutoff * deviation, generator=generator)


def body_flops(config: EncoderConfig, length: float) -> float:
    """Training FLOPs per real token of blocks and attention; a layer with a window attends to at most local_attention + 1 positions."""
    assert isinstance(config, ModernBertConfig)
    hidden, layers = config.hidden_size, config.num_hidden_layers
    whole = sum(config.is_global(number) for number in range(layers))
    attended = whole * length + (layers - whole) * min(2 * config.window + 1, length)
    return 6 * layers * (4 * hidden**2 + 3 * hidden * config.intermediate_size) + 12 * hidden * attended


def _mlm_head(config: EncoderConfig, *, num_labels: int, rate: float) -> ModernBertMlmHead:
    assert isinstance(config, ModernBertConfig)
    del num_labels, rate
    return ModernBertMlmHead(config)


def _sequence_head(config: EncoderConfig, *, num_labels: int, rate: float) -> ModernBertSequenceHead:
    assert isinstance(config, ModernBertConfig)
    return ModernBertSequenceHead(config, num_labels=num_labels, rate=rate)


_ROWS: Rows = (
    ("encoder.embed.token", "model.embeddings.tok_embeddings"),
    ("encoder.embed.norm", "model.embeddings.norm"),
    ("encoder.blocks.{}.attn_norm", "model.layers.{}.attn_norm"),
    ("encoder.blocks.{}.qkv", "model.layers.{}.attn.Wqkv"),
    ("encoder.blocks.{}.out", "model.layers.{}.attn.Wo"),
    ("encoder.blocks.{}.mlp_norm", "model.layers.{}.mlp_norm"),
    ("encoder.blocks.{}.up", "model.layers.{}.mlp.Wi"),
    ("encoder.blocks.{}.down", "model.layers.{}.mlp.Wo"),
    ("encoder.norm", "model.final_norm"),
)
_PREDICTION: Rows = (("head.dense", "head.dense"), ("head.norm", "head.norm"))
_CLASSIFIER: Rows = (*_PREDICTION, ("head.out", "classifier"))

MODERNBERT = Family(
    title="ModernBERT",
    config=ModernBertConfig,
    encoder=ModernBertEncoder,
    root="model",
    rows=_ROWS,
    flops=body_flops,
    bodies=("embeddings.", "layers.", "final_norm."),
    defaults={
        "vocab_size": 50368,
        "intermediate_size": 1152,
        "num_hidden_layers": 22,
        "max_position_embeddings": 8192,
    },
    fixed=FIXED,
    neutral=NEUTRAL,
    heads={
        "mlm": HeadForm(
            title="masked language model",
            architecture="ModernBertForMaskedLM",
            auto="AutoModelForMaskedLM",
            make=_mlm_head,
            rows=(*_PREDICTION, ("head.bias", "decoder.bias")),
            tied=(("decoder.weight", "model.embeddings.tok_embeddings.weight"),),
            output="decoder",
        ),
        "sequence": sequence_form("ModernBert", _sequence_head, _CLASSIFIER),
        "token": token_form("ModernBert", _sequence_head, _CLASSIFIER),
        "span": span_form("ModernBert", _sequence_head, _CLASSIFIER),
        "choice": choice_form("ModernBert", _sequence_head, _CLASSIFIER),
        "joint": JOINT,
        "none": HeadForm(title="encoder", architecture="ModernBertModel", auto="AutoModel"),
    },
)
