"""transformers as the oracle: tiny random models of every head, and what ours must equal."""

from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import nn

from kitae.models.folder import Part, load, read_parts

CLASSES = {
    ("bert", "mlm"): transformers.BertForMaskedLM,
    ("bert", "sequence"): transformers.BertForSequenceClassification,
    ("electra", "mlm"): transformers.ElectraForMaskedLM,
    ("electra", "rtd"): transformers.ElectraForPreTraining,
    ("electra", "sequence"): transformers.ElectraForSequenceClassification,
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
class Pair:
    """Their model, the part read from its folder, and our model, with the same weights."""

    theirs: nn.Module
    part: Part
    ours: nn.Module
    folder: Path


def make(family: str, head: str, folder: Path, *, labels: int = 3, **fields: object) -> Pair:
    """A random model of transformers, written and read back as ours."""
    numbers = {**TINY, **({"embedding_size": 24} if family == "electra" else {}), **fields}
    config = (transformers.BertConfig if family == "bert" else transformers.ElectraConfig)(
        **numbers, id2label={i: f"label {i}" for i in range(labels)}, label2id={f"label {i}": i for i in range(labels)}
    )
    torch.manual_seed(7)
    theirs = CLASSES[family, head](config).eval()
    with torch.no_grad():  # transformers' new biases are 0 and its LayerNorms 1, which would hide a swapped pair
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)
    (part,) = read_parts(folder).values()
    return Pair(theirs=theirs, part=part, ours=load(part), folder=folder)
