"""The records of DeBERTa's two families: names of weights on disk, heads, and what of a config.json can be followed."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor, nn

from kitae.models.convert import Rows, State
from kitae.models.deberta import WIDE_ACTIVATIONS, DebertaEncoder, body_flops
from kitae.models.deberta_config import DebertaConfig, DebertaV2Config, DisentangledConfig
from kitae.models.deberta_heads import DebertaRtdHead, EnhancedMaskHead
from kitae.models.encoder import EncoderConfig
from kitae.models.family import Family, Head, HeadForm
from kitae.models.forms import DECODER, JOINT, VOCABULARY, choice_form, hidden_rate, sequence_form, span_form, tied_to, token_form
from kitae.models.heads import MlmHead, SequenceHead
from kitae.models.layers import ACTIVATIONS

log = logging.getLogger(__name__)
LAYER = "deberta.encoder.layer.{}"
ATTENTION = f"{LAYER}.attention.self"
POSITIONS = "deberta.embeddings.position_embeddings.weight"
DECODER_POSITIONS = "lm_predictions.position_embeddings.weight"
"""Our name on the way to and from a folder for the decoder's table, which Microsoft's weights have under that of BERT's positions."""
MICROSOFT = {
    "lm_predictions.lm_head.dense.": "cls.predictions.transform.dense.",
    "lm_predictions.lm_head.LayerNorm.": "cls.predictions.transform.LayerNorm.",
    "lm_predictions.lm_head.bias": "cls.predictions.bias",
}
"""Microsoft's names of the vocabulary head (legacy = false) and transformers' older ones, which the key table has."""

UNUSED = ("cls.predictions.", "mask_predictions.")
"""Heads of pre-training, which Microsoft's folders hold beside the encoder."""
WIDTHS: Mapping[str, tuple[object, ...]] = {
    "attention_head_size": ("hidden_size / num_attention_heads",),
    "pooler_hidden_size": ("hidden_size",),
}
"""Keys that `adapted` leaves when they are not what follows from others."""
POOLED: Rows = (("head.dense", "pooler.dense"), ("head.out", "classifier"))
COMMON: Rows = (
    ("encoder.embed.token", "deberta.embeddings.word_embeddings"),
    ("encoder.embed.position", "deberta.embeddings.position_embeddings"),
    ("encoder.embed.segment", "deberta.embeddings.token_type_embeddings"),
    ("encoder.project", "deberta.embeddings.embed_proj"),
    ("encoder.embed_norm", "deberta.embeddings.LayerNorm"),
    ("encoder.relative", "deberta.encoder.rel_embeddings"),
    ("encoder.blocks.{}.out", f"{LAYER}.attention.output.dense"),
    ("encoder.blocks.{}.attn_norm", f"{LAYER}.attention.output.LayerNorm"),
    ("encoder.blocks.{}.up", f"{LAYER}.intermediate.dense"),
    ("encoder.blocks.{}.down", f"{LAYER}.output.dense"),
    ("encoder.blocks.{}.mlp_norm", f"{LAYER}.output.LayerNorm"),
    ("head.position", DECODER_POSITIONS.removesuffix(".weight")),
)
FIRST: Rows = (
    ("encoder.blocks.{}.attention.qkv", f"{ATTENTION}.in_proj"),
    ("encoder.blocks.{}.attention.query_bias", f"{ATTENTION}.q_bias"),
    ("encoder.blocks.{}.attention.value_bias", f"{ATTENTION}.v_bias"),
    ("encoder.blocks.{}.attention.pos_key", f"{ATTENTION}.pos_proj"),
    ("encoder.blocks.{}.attention.pos_query", f"{ATTENTION}.pos_q_proj"),
)
SECOND: Rows = (
    ("encoder.blocks.{}.attention.qkv", tuple(f"{ATTENTION}.{name}_proj" for name in ("query", "key", "value"))),
    ("encoder.blocks.{}.attention.pos_key", f"{ATTENTION}.pos_key_proj"),
    ("encoder.blocks.{}.attention.pos_query", f"{ATTENTION}.pos_query_proj"),
    ("encoder.relative_norm", "deberta.encoder.LayerNorm"),
    ("encoder.conv.kernel", "deberta.encoder.conv.conv"),
    ("encoder.conv.norm", "deberta.encoder.conv.LayerNorm"),
)


def _mlm_head(config: EncoderConfig, *, num_labels: int, rate: float) -> nn.Module:
    assert isinstance(config, DisentangledConfig)
    del num_labels, rate
    if config.enhanced_mask_decoder:
        return EnhancedMaskHead(config)
    return MlmHead(config, activation=ACTIVATIONS[config.hidden_act], eps=config.layer_norm_eps)


def _rtd_head(config: EncoderConfig, *, num_labels: int, rate: float) -> nn.Module:
    assert isinstance(config, DisentangledConfig)
    del num_labels, rate
    return DebertaRtdHead(config)


def _context_head(config: EncoderConfig, *, num_labels: int, rate: float) -> nn.Module:
    assert isinstance(config, DisentangledConfig)
    activation = WIDE_ACTIVATIONS[config.pooler_hidden_act]
    return SequenceHead(config, activation=activation, num_labels=num_labels, rate=rate, early_rate=config.pooler_dropout)


def _renamed(state: State, names: Mapping[str, str]) -> State:
    """The same tensors with other beginnings of names."""
    out: State = {}
    for name, tensor in state.items():
        old = next((start for start in names if name.startswith(start)), "")
        out[names[old] + name.removeprefix(old) if old else name] = tensor
    return out


def _older_names(state: State) -> State:
    """Folders say `legacy` wrongly or not at all, so the names themselves tell which head they have."""
    return _renamed(state, MICROSOFT)


def _inward(state: State, config: EncoderConfig) -> State:
    assert isinstance(config, DisentangledConfig)
    if config.enhanced_mask_decoder:
        return _renamed(state, {POSITIONS: DECODER_POSITIONS})
    if POSITIONS in state and not config.position_biased_input:
        log.info("%s: not used, because position_biased_input is false", POSITIONS)
        return {name: tensor for name, tensor in state.items() if name != POSITIONS}
    return state


def _outward(state: State, config: EncoderConfig) -> State:
    assert isinstance(config, DisentangledConfig)
    if config.enhanced_mask_decoder:
        state = _renamed(state, {DECODER_POSITIONS: POSITIONS})
    if config.enhanced_mask_decoder or not config.legacy:
        state = _renamed(state, {theirs: ours for ours, theirs in MICROSOFT.items()})
    return state


def _regrouped(state: State, turn: Callable[[Tensor, int], Tensor], heads: int) -> State:
    """v1's stacked projections in another order; one whose shape does not fit is left to the check of shapes."""
    out = dict(state)
    for name, tensor in state.items():
        if name.endswith(".in_proj.weight") and tensor.dim() == 2 and tensor.shape[0] % (3 * heads) == 0:
            out[name] = turn(tensor, heads).reshape(tensor.shape)
    return out


def _first_inward(state: State, config: EncoderConfig) -> State:
    """v1 has query, key and value of one head after the other; ours are all queries, all keys, all values."""

    def turn(tensor: Tensor, heads: int) -> Tensor:
        return tensor.view(heads, 3, -1, tensor.shape[1]).transpose(0, 1)

    return _regrouped(_inward(state, config), turn, config.num_attention_heads)


def _first_outward(state: State, config: EncoderConfig) -> State:
    def turn(tensor: Tensor, heads: int) -> Tensor:
        return tensor.view(3, heads, -1, tensor.shape[1]).transpose(0, 1)

    return _outward(_regrouped(state, turn, config.num_attention_heads), config)


def _foreign(head: Head, config: EncoderConfig) -> bool:
    """The detector of replaced tokens and the enhanced mask decoder have no class in transformers."""
    assert isinstance(config, DisentangledConfig)
    return head == "rtd" or (head == "mlm" and config.enhanced_mask_decoder)


def _heads(name: str) -> Mapping[Head, HeadForm]:
    """The heads of a family whose classes in transformers begin with `name`."""
    return {
        "rtd": HeadForm(
            title="discriminator",
            architecture="",
            auto="AutoModel",
            make=_rtd_head,
            rows=(
                ("head.norm", "mask_predictions.LayerNorm"),
                ("head.dense", "mask_predictions.dense"),
                ("head.out", "mask_predictions.classifier"),
            ),
            unused=("cls.predictions.",),
        ),
        "mlm": HeadForm(
            title="masked language model",
            architecture=f"{name}ForMaskedLM",
            auto="AutoModelForMaskedLM",
            make=_mlm_head,
            rows=VOCABULARY,
            tied=tied_to("deberta"),
            output=DECODER,
            unused=("mask_predictions.",),
        ),
        "sequence": sequence_form(name, _context_head, POOLED, unused=UNUSED),
        "token": replace(token_form(name, unused=UNUSED), rate=hidden_rate),
        "span": span_form(name, unused=UNUSED),
        "choice": choice_form(name, _context_head, POOLED),
        "joint": JOINT,
        "none": HeadForm(
            title="encoder",
            architecture=f"{name}Model",
            auto="AutoModel",
            unused=UNUSED,
        ),
    }


DEBERTA = Family(
    title="DeBERTa",
    config=DebertaConfig,
    encoder=DebertaEncoder,
    root="deberta",
    rows=(*COMMON, *FIRST),
    heads={**_heads("Deberta"), "choice": replace(choice_form("", _context_head, POOLED), architecture="", auto="")},
    flops=body_flops,
    defaults={"vocab_size": 50265},
    fixed={**WIDTHS, "talking_head": (False, None)},
    neutral=frozenset({"padding_idx"}),
    older_names=_older_names,
    inward=_first_inward,
    outward=_first_outward,
    foreign=_foreign,
)
DEBERTA_V2 = Family(
    title="DeBERTa-v2",
    config=DebertaV2Config,
    encoder=DebertaEncoder,
    root="deberta",
    rows=(*COMMON, *SECOND),
    heads=_heads("DebertaV2"),
    flops=body_flops,
    defaults={
        "vocab_size": 128100,
        "hidden_size": 1536,
        "num_hidden_layers": 24,
        "num_attention_heads": 24,
        "intermediate_size": 6144,
    },
    fixed=WIDTHS,
    neutral=frozenset({"padding_idx"}),
    older_names=_older_names,
    inward=_inward,
    outward=_outward,
    foreign=_foreign,
)
