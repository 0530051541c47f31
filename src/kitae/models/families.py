"""The table of model families, and how a model with new weights is built.

To add a family: one file with config, encoder and its Family record, one row in FAMILIES, one row in tests/models/model_pairs.py.
"""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn

from kitae.core.errors import KitaeError, did_you_mean
from kitae.models.bert import BERT, ELECTRA
from kitae.models.character_bert import CHARACTER_BERT
from kitae.models.compose import Classifier, Discriminator, MaskedLm, PretrainingLm
from kitae.models.deberta_family import DEBERTA, DEBERTA_V2
from kitae.models.encoder import EncoderConfig
from kitae.models.family import COMPOSED, Family, Head, Model
from kitae.models.modernbert import MODERNBERT
from kitae.models.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA
from kitae.models.towers import ELECTRIC

FAMILIES: Mapping[str, Family] = {
    "bert": BERT,
    "electra": ELECTRA,
    "electric": ELECTRIC,
    "character_bert": CHARACTER_BERT,
    "deberta": DEBERTA,
    "deberta-v2": DEBERTA_V2,
    "modernbert": MODERNBERT,
    "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA,
    "camembert": CAMEMBERT,
}
AnyModel = TypeVar("AnyModel", bound=nn.Module)


def family_of(name: str, *, where: str = "") -> Family:
    """The family of a model_type. Raises KitaeError for one that we do not have."""
    if name not in FAMILIES:
        raise KitaeError(f'model_type "{name}" is not supported', cure=did_you_mean(name, FAMILIES), where=where)
    return FAMILIES[name]


def bare(config: EncoderConfig, head: Head, *, num_labels: int = 2, dropout: float | None = None) -> Model:
    """A model without weights (on the meta device); `dropout` None takes the config's rate of the head.

    Raises KitaeError when the family has no such head.
    """
    family = FAMILIES[config.model_type]
    form = family.heads.get(head)
    if form is None or form.make is None:
        raise KitaeError(f"{family.title} has no head of the kind {head}", cure=f"known are {', '.join(family.heads)}")
    rate = form.rate(config) if dropout is None else dropout
    with torch.device("meta"):
        return COMPOSED[head](family.encoder(config), form.make(config, num_labels=num_labels, rate=rate))


def build_masked_lm(config: EncoderConfig, generator: torch.Generator | None = None) -> MaskedLm:
    """A masked language model with new weights, drawn from `generator` (None: always the same ones)."""
    model = bare(config, "mlm")
    assert isinstance(model, MaskedLm)
    return _initialized(model, config, generator)


def build_pretraining_lm(config: EncoderConfig, generator: torch.Generator | None = None) -> PretrainingLm:
    """A masked language model that also judges pairs, with new weights, drawn from `generator` (None: always the same ones)."""
    model = bare(config, "pretraining")
    assert isinstance(model, PretrainingLm)
    return _initialized(model, config, generator)


def build_discriminator(config: EncoderConfig, generator: torch.Generator | None = None) -> Discriminator:
    """A discriminator with new weights, drawn from `generator` (None: always the same ones)."""
    model = bare(config, "rtd")
    assert isinstance(model, Discriminator)
    return _initialized(model, config, generator)


def build_classifier(
    config: EncoderConfig, num_labels: int, dropout: float | None = None, generator: torch.Generator | None = None
) -> Classifier:
    """A classifier with new weights; `dropout` None takes the config's rate of the head."""
    model = bare(config, "sequence", num_labels=num_labels, dropout=dropout)
    assert isinstance(model, Classifier)
    return _initialized(model, config, generator)


def build_headed(
    config: EncoderConfig, head: Head, *, num_labels: int = 2, dropout: float | None = None, generator: torch.Generator | None = None
) -> Model:
    """A model of any head with new weights; `dropout` None takes the config's rate of the head. Raises KitaeError as `bare` does."""
    return _initialized(bare(config, head, num_labels=num_labels, dropout=dropout), config, generator)


def _initialized(model: AnyModel, config: EncoderConfig, generator: torch.Generator | None) -> AnyModel:
    """Matrices and tables from a normal distribution cut at two standard deviations, biases 0, LayerNorm 1 (BERT's rule).

    A module with a method `initialize(generator)` sets its own parameters and those below it.
    """
    generator = generator or torch.Generator().manual_seed(0)
    model.to_empty(device="cpu")
    with torch.no_grad():
        _initialize(model, config.initializer_range, generator)
    return model


def _initialize(module: nn.Module, deviation: float, generator: torch.Generator) -> None:
    own = getattr(module, "initialize", None)
    if own is not None:
        own(generator)
        return
    for name, parameter in module.named_parameters(recurse=False):
        if isinstance(module, nn.LayerNorm):
            parameter.fill_(1.0 if name == "weight" else 0.0)
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            nn.init.trunc_normal_(parameter, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)
    for child in module.children():
        _initialize(child, deviation, generator)
