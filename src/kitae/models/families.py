"""The table of model families, and how a model with new weights is built.

To add a family: one file with config and encoder, one row in FAMILIES, one row in tests/models/test_parity.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import nn

from kitae.core.errors import KitaeError, did_you_mean
from kitae.models.bert import BertConfig, BertEncoder
from kitae.models.compose import Classifier, Discriminator, MaskedLm
from kitae.models.convert import Rows
from kitae.models.heads import MlmHead, RtdHead, SequenceHead

Head = Literal["mlm", "rtd", "sequence", "none"]
Model = MaskedLm | Discriminator | Classifier
AnyModel = TypeVar("AnyModel", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class HeadForm:
    """How Hugging Face knows an encoder with a certain head."""

    architecture: str
    """Class name in config.json."""
    auto: str
    """The Auto class that loads it."""
    rows: Rows = ()
    """Key table of the head."""
    tied: tuple[tuple[str, str], ...] = ()
    """(copy, original) in Hugging Face's names: the copy is checked on the way in and left out on the way out."""
    unused: tuple[str, ...] = ()
    """Prefixes of weights that older classes save beside the head and that play no part in its logits."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family: Hugging Face's model_type, its prefix of encoder weights, and its heads."""

    root: str
    rows: Rows
    heads: Mapping[Head, HeadForm]
    aliases: Mapping[str, Head]
    """Further architectures that are read as one of the heads."""

    def head_of(self, architecture: str) -> Head | None:
        """The head of a Hugging Face class, or None when we have none."""
        return next((head for head, form in self.heads.items() if form.architecture == architecture), self.aliases.get(architecture))


def _encoder_rows(root: str) -> Rows:
    layer = f"{root}.encoder.layer.{{}}"
    return (
        ("encoder.embed.token", f"{root}.embeddings.word_embeddings"),
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


BERT = Family(
    root="bert",
    rows=_encoder_rows("bert"),
    heads={
        "mlm": HeadForm(
            architecture="BertForMaskedLM",
            auto="AutoModelForMaskedLM",
            rows=(
                ("head.dense", "cls.predictions.transform.dense"),
                ("head.norm", "cls.predictions.transform.LayerNorm"),
                ("head.bias", "cls.predictions.bias"),
            ),
            tied=(
                ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
                ("cls.predictions.decoder.bias", "cls.predictions.bias"),
            ),
            unused=("bert.pooler.", "cls.seq_relationship."),
        ),
        "sequence": HeadForm(
            architecture="BertForSequenceClassification",
            auto="AutoModelForSequenceClassification",
            rows=(("head.dense", "bert.pooler.dense"), ("head.out", "classifier")),
        ),
        "none": HeadForm(architecture="BertModel", auto="AutoModel", unused=("bert.pooler.",)),
    },
    aliases={"BertForPreTraining": "mlm", "BertLMHeadModel": "mlm"},
)

ELECTRA = Family(
    root="electra",
    rows=_encoder_rows("electra"),
    heads={
        "mlm": HeadForm(
            architecture="ElectraForMaskedLM",
            auto="AutoModelForMaskedLM",
            rows=(
                ("head.dense", "generator_predictions.dense"),
                ("head.norm", "generator_predictions.LayerNorm"),
                ("head.bias", "generator_lm_head.bias"),
            ),
            tied=(("generator_lm_head.weight", "electra.embeddings.word_embeddings.weight"),),
        ),
        "rtd": HeadForm(
            architecture="ElectraForPreTraining",
            auto="AutoModelForPreTraining",
            rows=(("head.dense", "discriminator_predictions.dense"), ("head.out", "discriminator_predictions.dense_prediction")),
        ),
        "sequence": HeadForm(
            architecture="ElectraForSequenceClassification",
            auto="AutoModelForSequenceClassification",
            rows=(("head.dense", "classifier.dense"), ("head.out", "classifier.out_proj")),
        ),
        "none": HeadForm(architecture="ElectraModel", auto="AutoModel"),
    },
    aliases={},
)

FAMILIES: Mapping[str, Family] = {"bert": BERT, "electra": ELECTRA}


def family_of(name: str, *, where: str = "") -> Family:
    """The family of a model_type. Raises KitaeError for one that we do not have."""
    if name not in FAMILIES:
        raise KitaeError(f'model_type "{name}" is not supported', cure=did_you_mean(name, FAMILIES), where=where)
    return FAMILIES[name]


def masked_lm(config: BertConfig) -> MaskedLm:
    """A masked language model without weights (on the meta device)."""
    with torch.device("meta"):
        return MaskedLm(BertEncoder(config), MlmHead(config))


def discriminator(config: BertConfig) -> Discriminator:
    """A discriminator without weights (on the meta device)."""
    with torch.device("meta"):
        return Discriminator(BertEncoder(config), RtdHead(config))


def classifier(config: BertConfig, num_labels: int, dropout: float | None = None) -> Classifier:
    """A classifier without weights (on the meta device); `dropout` None takes the config's rate of the head."""
    rate = config.head_dropout if dropout is None else dropout
    with torch.device("meta"):
        return Classifier(BertEncoder(config), SequenceHead(config, num_labels=num_labels, rate=rate))


def build_masked_lm(config: BertConfig, generator: torch.Generator | None = None) -> MaskedLm:
    """A masked language model with new weights, drawn from `generator` (None: always the same ones)."""
    return _initialized(masked_lm(config), config, generator)


def build_discriminator(config: BertConfig, generator: torch.Generator | None = None) -> Discriminator:
    """A discriminator with new weights, drawn from `generator` (None: always the same ones)."""
    return _initialized(discriminator(config), config, generator)


def build_classifier(
    config: BertConfig, num_labels: int, dropout: float | None = None, generator: torch.Generator | None = None
) -> Classifier:
    """A classifier with new weights; `dropout` None takes the config's rate of the head."""
    return _initialized(classifier(config, num_labels, dropout), config, generator)


def _initialized(model: AnyModel, config: BertConfig, generator: torch.Generator | None) -> AnyModel:
    """Matrices and tables from a normal distribution cut at two standard deviations, biases 0, LayerNorm 1 (BERT's rule)."""
    generator = generator or torch.Generator().manual_seed(0)
    bound = 2 * config.initializer_range
    model.to_empty(device="cpu")
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if isinstance(module, nn.LayerNorm):
                    parameter.fill_(1.0 if name == "weight" else 0.0)
                elif name == "bias":
                    parameter.zero_()
                else:
                    nn.init.trunc_normal_(parameter, std=config.initializer_range, a=-bound, b=bound, generator=generator)
    return model
