"""BERT (Devlin et al. 2019) and ELECTRA (Clark et al. 2020): one post-norm encoder; ELECTRA may have narrower embeddings.

Shapes: B rows, L positions, D hidden size, E embedding size, V vocabulary, N heads.
"""

from collections.abc import Callable, Iterator
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from kitae.models.attention import AttentionPlan, attend, make_plan
from kitae.models.convert import Rows, State
from kitae.models.encoder import Encoder, EncoderConfig, PostNormConfig, working_dtype
from kitae.models.family import Family, Head, HeadForm
from kitae.models.forms import DECODER, JOINT, VOCABULARY, choice_form, sequence_form, span_form, tied_to, token_form
from kitae.models.heads import MlmHead, OrderHead, PretrainingHead, RtdHead, SequenceHead
from kitae.models.layers import ACTIVATIONS, activated_linear, dropout, dropout_add, lookup, segment_rows
from kitae.models.recompute import through
from kitae.tensor.batch import Texts

NARROW = ("electra", "electric")
"""Families whose embeddings may be narrower than their states."""


class BertFields(PostNormConfig):
    """Numbers of every encoder with BERT's attention, under Hugging Face's field names; only ELECTRA has embeddings of another width."""

    classifier_dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout in the classification head; None = hidden_dropout_prob."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.model_type not in NARROW and self.embedding_width != self.hidden_size:
            raise ValueError(f"embedding_size {self.embedding_size} differs from hidden_size {self.hidden_size}: only ELECTRA can do that")
        return self

    @property
    def first_position(self) -> int:
        """Row of the position table that the first token of a piece takes."""
        return 0

    @property
    def head_dropout(self) -> float:
        """Dropout rate of a classification head."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    def huggingface(self) -> dict[str, object]:
        """The fields as transformers reads them. A model without segments is written with one kind of segment of zeros."""
        raw = self.model_dump() | {"type_vocab_size": max(1, self.type_vocab_size), "embedding_size": self.embedding_width}
        if self.model_type not in NARROW:
            del raw["embedding_size"]
        return raw


class BertConfig(BertFields):
    """Numbers of a BERT or ELECTRA encoder."""

    model_type: Literal["bert", "electra"] = "bert"


class Embeddings(nn.Module):
    """Token + position + segment -> LayerNorm -> dropout. ELECTRA's two halves share this module as a whole."""

    def __init__(self, config: BertFields) -> None:
        super().__init__()
        width = config.embedding_width
        self.rate, self.padding, self.first = config.hidden_dropout_prob, config.pad_token_id, config.first_position
        self.token = nn.Embedding(config.vocab_size, width)
        self.position = nn.Embedding(config.max_position_embeddings, width)
        self.segment = nn.Embedding(config.type_vocab_size, width) if config.type_vocab_size else None
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, ids_BL: Tensor, positions_BL: Tensor, segments_BL: Tensor | None = None) -> Tensor:
        """Embed ids; returns x_BLE. Without segments, or in a model that knows one kind, every token is of kind 0."""
        x_BLE = lookup(ids_BL, self.token.weight, self.padding)
        if self.segment is not None:
            x_BLE = x_BLE + segment_rows(segments_BL, self.segment.weight)
        x_BLE = x_BLE + lookup(positions_BL + self.first, self.position.weight)
        return dropout(self.norm(x_BLE), self.rate, self.training)


class Block(nn.Module):
    """Attention, then feed-forward; dropout, residual and LayerNorm after each (post-norm)."""

    def __init__(self, config: BertFields) -> None:
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
        fed = activated_linear(self.up(x_BLD), self.down, self.activation)
        return self.mlp_norm(dropout_add(fed, x_BLD, self.rate, self.training))


class BertEncoder(Encoder):
    """Ids -> hidden states of BERT, ELECTRA and RoBERTa."""

    config: BertFields

    def __init__(self, config: BertFields) -> None:
        super().__init__(config)
        self.embed = Embeddings(config)
        self.project = nn.Linear(config.embedding_width, config.hidden_size) if config.embedding_width != config.hidden_size else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))

    def states(self, texts: Texts) -> Iterator[Tensor]:
        """x_BLD before the first block and after each."""
        x_BLD = self.embed(texts.ids_BL, texts.layout.positions_BL, texts.segments_BL)
        if self.project is not None:
            x_BLD = self.project(x_BLD)
        dtype = working_dtype(x_BLD)
        plan = make_plan(texts.layout, kind=self.chosen(texts.layout, dtype), dtype=dtype)
        yield x_BLD
        for block in self.blocks:
            x_BLD = through(block, x_BLD, plan, again=self.recomputes)
            yield x_BLD


def body_flops(config: EncoderConfig, length: float) -> float:
    """Training FLOPs per real token of projection, blocks and attention (docs: matrix products only, forward + backward)."""
    width, hidden, layers = config.embedding_width, config.hidden_size, config.num_hidden_layers
    blocks = layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    project = width * hidden if width != hidden else 0
    return 6 * (blocks + project) + 12 * layers * hidden * length


def mlm_head(config: EncoderConfig, *, num_labels: int, rate: float) -> MlmHead:
    """The vocabulary head of BERT, CharacterBERT and ELECTRA's generator."""
    assert isinstance(config, BertFields)
    del num_labels, rate
    # Hugging Face's ELECTRA generator takes gelu whatever hidden_act says; BERT takes hidden_act.
    activation = ACTIVATIONS["gelu" if config.model_type == "electra" else config.hidden_act]
    return MlmHead(config, activation=activation, eps=config.layer_norm_eps)


def _pretraining_head(config: EncoderConfig, *, num_labels: int, rate: float) -> PretrainingHead:
    return PretrainingHead(mlm_head(config, num_labels=num_labels, rate=rate), OrderHead(config))


def _rtd_head(config: EncoderConfig, *, num_labels: int, rate: float) -> RtdHead:
    assert isinstance(config, BertFields)
    del num_labels, rate
    return RtdHead(config, activation=ACTIVATIONS[config.hidden_act])


def pooled_head(config: EncoderConfig, *, num_labels: int, rate: float) -> SequenceHead:
    """BERT's pooler and a layer over it."""
    return SequenceHead(config, activation=torch.tanh, num_labels=num_labels, rate=rate)


def _electra_head(config: EncoderConfig, *, num_labels: int, rate: float) -> SequenceHead:
    return SequenceHead(config, activation=F.gelu, num_labels=num_labels, rate=rate, early_rate=rate)


def _summary_head(config: EncoderConfig, *, num_labels: int, rate: float) -> SequenceHead:
    return SequenceHead(config, activation=F.gelu, num_labels=num_labels, rate=rate)


def rows_of(root: str, words: Rows = ()) -> Rows:
    """Key table of an encoder; `words` are the rows of what it has in the place of a token table."""
    layer = f"{root}.encoder.layer.{{}}"
    return (
        *(words or (("encoder.embed.token", f"{root}.embeddings.word_embeddings"),)),
        ("encoder.embed.position", f"{root}.embeddings.position_embeddings"),
        ("encoder.embed.segment", f"{root}.embeddings.token_type_embeddings"),
        ("encoder.embed.norm", f"{root}.embeddings.LayerNorm"),
        ("encoder.project", f"{root}.embeddings_project"),
        ("encoder.blocks.{}.qkv", tuple(f"{layer}.attention.self.{name}" for name in ("query", "key", "value"))),
        ("encoder.blocks.{}.out", f"{layer}.attention.output.dense"),
        ("encoder.blocks.{}.attn_norm", f"{layer}.attention.output.LayerNorm"),
        ("encoder.blocks.{}.up", f"{layer}.intermediate.dense"),
        ("encoder.blocks.{}.down", f"{layer}.output.dense"),
        ("encoder.blocks.{}.mlp_norm", f"{layer}.output.LayerNorm"),
    )


def with_segments(root: str) -> Callable[[State, EncoderConfig], State]:
    """transformers' classes always have a table of segments: one row of zeros stands for none."""
    name = f"{root}.embeddings.token_type_embeddings.weight"

    def outward(state: State, config: EncoderConfig) -> State:
        return state if name in state else state | {name: torch.zeros(1, config.embedding_width)}

    return outward


def heads_of(root: str, name: str) -> dict[Head, HeadForm]:
    """The heads of BERT's classes: `root` begins the names of an encoder's weights, `name` those of transformers' classes."""
    pooler = ("head.dense", f"{root}.pooler.dense")
    return {
        "pretraining": HeadForm(  # before "mlm", whose weights it has too: a folder that names no class is asked in this order
            title="masked language model with a head for sentence pairs",
            architecture=f"{name}ForPreTraining",
            auto="AutoModelForPreTraining",
            make=_pretraining_head,
            rows=(*VOCABULARY, ("order.dense", pooler[1]), ("order.out", "cls.seq_relationship")),
            tied=tied_to(root),
            output=DECODER,
        ),
        "mlm": HeadForm(
            title="masked language model",
            architecture=f"{name}ForMaskedLM",
            auto="AutoModelForMaskedLM",
            make=mlm_head,
            rows=VOCABULARY,
            tied=tied_to(root),
            output=DECODER,
            unused=(f"{root}.pooler.", "cls.seq_relationship."),
        ),
        "sequence": sequence_form(name, pooled_head, (pooler, ("head.out", "classifier"))),
        "token": token_form(name, unused=(f"{root}.pooler.",)),
        "span": span_form(name, unused=(f"{root}.pooler.",)),
        "choice": choice_form(name, pooled_head, (pooler, ("head.out", "classifier"))),
        "joint": JOINT,
        "none": HeadForm(title="encoder", architecture=f"{name}Model", auto="AutoModel", rows=(pooler,)),
    }


BERT = Family(
    title="BERT",
    config=BertConfig,
    encoder=BertEncoder,
    root="bert",
    rows=rows_of("bert"),
    flops=body_flops,
    outward=with_segments("bert"),
    defaults={"vocab_size": 30522},
    heads=heads_of("bert", "Bert"),
    aliases={"BertLMHeadModel": "mlm"},
)

ELECTRA = Family(
    title="ELECTRA",
    config=BertConfig,
    encoder=BertEncoder,
    root="electra",
    rows=rows_of("electra"),
    flops=body_flops,
    outward=with_segments("electra"),
    defaults={"vocab_size": 30522, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "embedding_size": 128},
    heads={
        "mlm": HeadForm(
            title="generator",
            name="generator",
            architecture="ElectraForMaskedLM",
            auto="AutoModelForMaskedLM",
            make=mlm_head,
            rows=(
                ("head.dense", "generator_predictions.dense"),
                ("head.norm", "generator_predictions.LayerNorm"),
                ("head.bias", "generator_lm_head.bias"),
            ),
            tied=(("generator_lm_head.weight", "electra.embeddings.word_embeddings.weight"),),
            output="generator_lm_head",
        ),
        "rtd": HeadForm(
            title="discriminator",
            name="discriminator",
            architecture="ElectraForPreTraining",
            auto="AutoModelForPreTraining",
            make=_rtd_head,
            rows=(("head.dense", "discriminator_predictions.dense"), ("head.out", "discriminator_predictions.dense_prediction")),
        ),
        "sequence": sequence_form("Electra", _electra_head, (("head.dense", "classifier.dense"), ("head.out", "classifier.out_proj"))),
        "token": token_form("Electra"),
        "span": span_form("Electra"),
        "choice": choice_form(
            "Electra",
            _summary_head,
            (("head.dense", "sequence_summary.summary"), ("head.out", "classifier")),
            fixed={"summary_type": ("first", None), "summary_use_proj": (True, None), "summary_activation": ("gelu",)},
        ),
        "joint": JOINT,
        "none": HeadForm(title="encoder", architecture="ElectraModel", auto="AutoModel"),
    },
)
