"""transformers as the oracle: tiny random models of every head, and what ours must equal.

To add a family: a row in ORACLES, and its heads' classes in CLASSES. The tests of parity and of folders then cover it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import transformers
from deberta_oracle import unround
from hypothesis import strategies as st
from model_layouts import padded
from torch import Tensor, nn
from transformers.models.modernbert import modeling_modernbert

from kitae.models import layers
from kitae.models.families import FAMILIES
from kitae.models.folder import Part, load, read_parts
from kitae.tensor.batch import Layout

_HEADS = {
    "mlm": "MaskedLM",
    "sequence": "SequenceClassification",
    "token": "TokenClassification",
    "span": "QuestionAnswering",
    "choice": "MultipleChoice",
}


def classes(family: str, name: str, *heads: str) -> dict[tuple[str, str], type]:
    """The classes of a family's heads; `name` as transformers spells it."""
    return {(family, head): getattr(transformers, f"{name}For{_HEADS[head]}") for head in heads or _HEADS}


CLASSES = {
    **classes("bert", "Bert"),
    **classes("electra", "Electra"),
    ("electra", "rtd"): transformers.ElectraForPreTraining,
    **classes("roberta", "Roberta"),
    **classes("xlm-roberta", "XLMRoberta", "mlm"),
    **classes("camembert", "Camembert", "mlm"),
    **classes("deberta", "Deberta", "mlm", "sequence", "token", "span"),
    **classes("deberta-v2", "DebertaV2"),
    **classes("modernbert", "ModernBert"),
}
TINY = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "pad_token_id": 0,
}
LENGTH = 40
"""Longest piece of a tiny model."""
TEXTS = ("sequence", "choice")
"""Heads that give one row of logits per text, and not per position."""
BERTS = {
    "tie_word_embeddings": st.booleans(),
    "hidden_act": st.sampled_from(["gelu", "gelu_new", "relu"]),
    "layer_norm_eps": st.sampled_from([1e-12, 1e-5, 1e-2]),
    "type_vocab_size": st.integers(1, 3),
}
DEBERTA = {"relative_attention": True, "pos_att_type": "c2p|p2c", "type_vocab_size": 2}
DEBERTAS = {
    "hidden_act": st.sampled_from(["gelu", "gelu_new", "relu"]),
    "layer_norm_eps": st.sampled_from([1e-7, 1e-5, 1e-2]),
    "type_vocab_size": st.integers(0, 3),
    "pos_att_type": st.sampled_from([["c2p"], ["p2c"], "p2c|c2p", [], None]),
    "max_relative_positions": st.sampled_from([-1, 1, 4, 16]),
    "position_biased_input": st.booleans(),
    "pooler_hidden_act": st.sampled_from(["gelu", "tanh"]),
    "legacy": st.booleans(),
}
DEBERTAS_V2 = {
    **DEBERTAS,
    "position_buckets": st.sampled_from([-1, 2, 4, 6]),
    "max_relative_positions": st.sampled_from([-1, 8, 12, 30]),
    "norm_rel_ebd": st.sampled_from(["none", "layer_norm"]),
    "share_att_key": st.booleans(),
    "conv_kernel_size": st.sampled_from([0, 1, 3, 5]),
    "conv_act": st.sampled_from(["gelu", "tanh"]),
}
RELATIVE = ("block", "spans", "dense")
unround()
ROBERTA = {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """What transformers calls a family's config, and what the generic tests have to know of the family."""

    config: type
    fields: Mapping[str, object] = field(default_factory=dict)
    """Fields that make it tiny beside TINY."""
    odd: Mapping[str, st.SearchStrategy] = field(default_factory=dict)
    """Fields that the test of odd numbers draws beside those that all families have."""
    sizes: tuple[int, ...] = (1, 3, 8)
    """Odd sizes of an attention head."""
    autocast: bool = True
    """Whether transformers' code runs under autocast."""
    layers: int = 0
    """Fewest blocks that transformers' code can do with."""
    paths: tuple[str, ...] = ("block", "spans", "sdpa", "dense")
    """The attention paths that run on a CPU; all give the same numbers."""
    slow: tuple[str, ...] = ("block", "spans")
    """Those of `paths` of which the gradients are compared."""
    pads: tuple[int, ...] = (0, 6)
    """Ids of [PAD] that may stand inside a text; none where transformers counts positions around it."""


ORACLES = {
    "bert": Oracle(config=transformers.BertConfig, odd=BERTS),
    "electra": Oracle(
        config=transformers.ElectraConfig, fields={"embedding_size": 24}, odd={**BERTS, "embedding_size": st.sampled_from([3, 5, 8, 16])}
    ),
    "roberta": Oracle(config=transformers.RobertaConfig, fields=ROBERTA, odd=BERTS, pads=()),
    "xlm-roberta": Oracle(config=transformers.XLMRobertaConfig, fields=ROBERTA, odd=BERTS, pads=()),
    "camembert": Oracle(config=transformers.CamembertConfig, fields=ROBERTA, odd=BERTS, pads=()),
    "deberta": Oracle(config=transformers.DebertaConfig, fields=DEBERTA, odd=DEBERTAS, autocast=False, paths=RELATIVE, slow=RELATIVE),
    "deberta-v2": Oracle(
        config=transformers.DebertaV2Config,
        fields=DEBERTA
        | {
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "conv_kernel_size": 3,
            "conv_act": "gelu",
            "position_biased_input": False,
        },
        odd=DEBERTAS_V2,
        layers=1,
        paths=RELATIVE,
        slow=RELATIVE,
    ),
    "modernbert": Oracle(
        config=transformers.ModernBertConfig,
        fields={"local_attention": 8, "pad_token_id": 0, **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))},
        odd={
            "local_attention": st.sampled_from([2, 4, 16]),
            "global_attn_every_n_layers": st.integers(1, 3),
            "classifier_pooling": st.sampled_from(["cls", "mean"]),
            "norm_eps": st.sampled_from([1e-12, 1e-5, 1e-2]),
            "tie_word_embeddings": st.booleans(),
        },
        sizes=(2, 4, 8),
        layers=1,
    ),
}
FIRST = {family: next(head for name, head in CLASSES if name == family) for family in ORACLES}
"""A head of every family."""


_rotated_in_single_precision = modeling_modernbert.apply_rotary_pos_emb


def _rotated(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
    """transformers rounds queries and keys of any model to fp32 before it turns them; gradients in fp64 need all their digits."""
    if q.dtype != torch.float64:
        return _rotated_in_single_precision(q, k, cos, sin, unsqueeze_dim)
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    half = modeling_modernbert.rotate_half
    return q * cos + half(q) * sin, k * cos + half(k) * sin


modeling_modernbert.apply_rotary_pos_emb = _rotated


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Their model, the part read from its folder, and our model, with the same weights."""

    theirs: nn.Module
    part: Part
    ours: nn.Module
    folder: Path

    def rows(self, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor, Layout, Tensor | None]:
        """ids_BL, mask_BL, layout and segments_BL (None for models without) of rows of one document each."""
        config = self.part.config
        ids, mask, layout, kinds = padded(config.vocab_size, lengths, pad=config.pad_token_id, kinds=config.segment_kinds)
        return ids, mask, layout, kinds if config.segment_kinds > 1 else None

    def their_logits(self, ids: Tensor, mask: Tensor, kinds: Tensor | None = None) -> Tensor:
        """Logits of their model in the form of ours: of real tokens row by row, or of whole texts."""
        batch = inputs(ids, mask, kinds)
        if self.part.head == "choice":  # one question, of which every row is a choice
            return self.theirs(**{name: tensor[None] for name, tensor in batch.items()}).logits[0, :, None]
        said = self.theirs(**batch)
        if self.part.head == "span":
            return torch.stack([said.start_logits, said.end_logits], dim=-1)[mask]
        return said.logits if self.part.head in TEXTS else said.logits[mask]

    def our_logits(self, ids: Tensor, layout: Layout, kinds: Tensor | None = None) -> Tensor:
        """The same of our model."""
        logits = self.ours(ids, layout, kinds)
        return logits if self.part.head in TEXTS else logits[layout.mask_BL]


def inputs(ids: Tensor, mask: Tensor, kinds: Tensor | None = None) -> dict[str, Tensor]:
    """What models of transformers take."""
    return {"input_ids": ids, "attention_mask": mask.long(), **({} if kinds is None else {"token_type_ids": kinds})}


def make(family: str, head: str, folder: Path, *, labels: int = 3, length: int = LENGTH, **fields: object) -> Pair:
    """A random model of transformers for pieces of `length`, written and read back as ours."""
    oracle = ORACLES[family]
    labels = 2 if head == "span" else labels  # transformers counts start and end as labels
    numbers = {**TINY, **oracle.fields, **fields}
    config = oracle.config(
        **{**FAMILIES[family].config.room(length, numbers["pad_token_id"]), **numbers},
        id2label={i: f"label {i}" for i in range(labels)},
        label2id={f"label {i}": i for i in range(labels)},
    )
    torch.manual_seed(7)
    theirs = CLASSES[family, head](config).eval()
    with torch.no_grad():  # transformers' new biases are 0 and its LayerNorms 1, which would hide a swapped pair
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)
    (part,) = read_parts(folder).values()
    return Pair(theirs=theirs, part=part, ours=load(part), folder=folder)


def dropped(patch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """From now on our models drop nothing, and note the rate and the number of elements of every dropout; in the kind "dense"."""
    seen: list[tuple[float, int]] = []

    def all_kept(count: int, *, rate: float) -> layers.Drops:
        seen.append((rate, count))
        return layers.Drops(drawn=torch.zeros(count, dtype=torch.int8), least=0, factor=1.0)

    patch.setattr(layers, "drop", all_kept)
    return seen


def edit(folder: Path, **changes: object) -> None:
    """Change keys of config.json; None removes one."""
    raw = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))
