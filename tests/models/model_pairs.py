"""transformers as the oracle: tiny random models of every head, and what ours must equal.

To add a family: a row in ORACLES, and its heads' classes in CLASSES.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from transformers.models.modernbert import modeling_modernbert

from kitae.models.folder import Part, load, read_parts

CLASSES = {
    ("bert", "mlm"): transformers.BertForMaskedLM,
    ("bert", "sequence"): transformers.BertForSequenceClassification,
    ("electra", "mlm"): transformers.ElectraForMaskedLM,
    ("electra", "rtd"): transformers.ElectraForPreTraining,
    ("electra", "sequence"): transformers.ElectraForSequenceClassification,
    ("modernbert", "mlm"): transformers.ModernBertForMaskedLM,
    ("modernbert", "sequence"): transformers.ModernBertForSequenceClassification,
}
TINY = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """What transformers calls a family's config, and the fields that make it tiny beside TINY."""

    config: type
    fields: Mapping[str, object] = field(default_factory=dict)
    segments: bool = True
    """Whether its models take token_type_ids."""


ORACLES = {
    "bert": Oracle(config=transformers.BertConfig),
    "electra": Oracle(config=transformers.ElectraConfig, fields={"embedding_size": 24}),
    "modernbert": Oracle(
        config=transformers.ModernBertConfig,
        fields={"local_attention": 8, "pad_token_id": 0, **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))},
        segments=False,
    ),
}


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

    def inputs(self, ids: Tensor, mask: Tensor, kinds: Tensor | None = None) -> dict[str, Tensor]:
        """What their model takes."""
        segments = {} if kinds is None or not ORACLES[self.part.family].segments else {"token_type_ids": kinds}
        return {"input_ids": ids, "attention_mask": mask.long(), **segments}


def make(family: str, head: str, folder: Path, *, labels: int = 3, **fields: object) -> Pair:
    """A random model of transformers, written and read back as ours."""
    oracle = ORACLES[family]
    config = oracle.config(
        **{**TINY, **oracle.fields, **fields},
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
