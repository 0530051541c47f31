"""What the table of families holds of each: names of weights on disk, heads, and what of a config.json can be followed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import nn

from kitae.models.compose import (
    Classifier,
    Discriminator,
    JointSpanFinder,
    MaskedLm,
    MultipleChoice,
    PretrainingLm,
    SpanFinder,
    TokenClassifier,
)
from kitae.models.convert import Rows, State
from kitae.models.encoder import Encoder, EncoderConfig

Head = Literal["mlm", "pretraining", "rtd", "sequence", "token", "span", "choice", "joint", "none"]
Model = MaskedLm | Discriminator | Classifier | TokenClassifier | SpanFinder | MultipleChoice | JointSpanFinder
COMPOSED: Mapping[Head, type[Model]] = {
    "mlm": MaskedLm,
    "pretraining": PretrainingLm,
    "rtd": Discriminator,
    "sequence": Classifier,
    "token": TokenClassifier,
    "span": SpanFinder,
    "choice": MultipleChoice,
    "joint": JointSpanFinder,
}
"""What an encoder and a head of this kind make together."""
LABELLED: frozenset[Head] = frozenset({"sequence", "token"})
"""Heads whose outputs are labels with names."""


class MakeHead(Protocol):
    """Builds a head's module. Heads without labels ignore their number and the rate of dropout."""

    def __call__(self, config: EncoderConfig, *, num_labels: int, rate: float) -> nn.Module:
        """The head for an encoder of these numbers."""


def usual_rate(config: EncoderConfig) -> float:
    """The dropout of most heads: what the config says of its classification head."""
    return config.head_dropout


def _same(state: State, config: EncoderConfig) -> State:
    del config
    return state


def _never(head: Head, config: EncoderConfig) -> bool:
    del head, config
    return False


@dataclass(frozen=True, kw_only=True)
class HeadForm:
    """How an encoder with a certain head is built, and how Hugging Face knows it."""

    title: str
    """What the model is called in a README, behind its family's name."""
    architecture: str = ""
    """Class name in config.json; "" when transformers has none."""
    auto: str = ""
    """The Auto class that loads it; "" when only kitae folders hold such a model."""
    make: MakeHead | None = None
    """Builds the head; None for a bare encoder."""
    rate: Callable[[EncoderConfig], float] = usual_rate
    """Dropout before the last layer, where nobody asks for another."""
    rows: Rows = ()
    """Key table of the head; of a bare encoder a pooler, which may be absent and is only passed on."""
    tied: tuple[tuple[str, str], ...] = ()
    """(copy, original) in Hugging Face's names: the copy is checked on the way in and left out on the way out."""
    output: str = ""
    """Name of the output table of a vocabulary head, which has one of its own where `tie_word_embeddings` is false."""
    unused: tuple[str, ...] = ()
    """Prefixes of weights that older classes save beside the head and that play no part in its logits."""
    fixed: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    """Keys of config.json that change what this head computes, with the values that we can compute."""

    def untied(self, config: EncoderConfig) -> bool:
        """Whether a head of this form has an output table of its own."""
        return bool(self.output) and not config.tie_word_embeddings

    def table(self, config: EncoderConfig) -> Rows:
        """The key table of a head for these numbers."""
        return (*self.rows, ("head.table", f"{self.output}.weight")) if self.untied(config) else self.rows


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family: its config and encoder, Hugging Face's prefix of encoder weights, and its heads."""

    title: str
    """Its name in a README."""
    config: type[EncoderConfig]
    encoder: type[Encoder]
    root: str
    rows: Rows
    heads: Mapping[Head, HeadForm]
    flops: Callable[[EncoderConfig, float], float]
    """Training FLOPs of the body per real token, at an attended length: matrix products, forward + backward."""
    aliases: Mapping[str, Head] = field(default_factory=dict)
    """Further architectures that are read as one of the heads."""
    bodies: tuple[str, ...] = ("embeddings.", "encoder.", "embeddings_project.", "pooler.")
    """How the names of a bare encoder's weights begin when they lack the root."""
    defaults: Mapping[str, object] = field(default_factory=dict)
    """What a key that is absent from config.json means to transformers, where that is not our default."""
    fixed: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    """Keys of config.json that change what the model computes, with the values that we can compute."""
    neutral: frozenset[str] = frozenset()
    """Keys of config.json that change nothing for the heads we have."""
    older_names: Callable[[State], State] = dict
    """Turns names that other classes of the family save into those of the key tables, before the head is looked for."""
    inward: Callable[[State, EncoderConfig], State] = _same
    """What is done to Hugging Face's tensors before their names are translated."""
    outward: Callable[[State, EncoderConfig], State] = _same
    """What is done to tensors in Hugging Face's names before they are written."""
    foreign: Callable[[Head, EncoderConfig], bool] = _never
    """Whether transformers has no class for an encoder with this head: it then reads the folder as an encoder alone."""

    def written_as(self, head: Head, config: EncoderConfig) -> tuple[str, str]:
        """(class in config.json, Auto class that loads it). No class stands in the folder of a head that transformers does not know."""
        if self.foreign(head, config):
            return "", "AutoModel"
        return self.heads[head].architecture, self.heads[head].auto

    def head_of(self, architecture: str) -> Head | None:
        """The head of a Hugging Face class, or None when we have none."""
        return next((head for head, form in self.heads.items() if form.architecture == architecture != ""), self.aliases.get(architecture))
