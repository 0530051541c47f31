"""The heads of tasks as rows of a family's table: one line a head.

transformers names these classes by one pattern, and most families have the same modules under them; a family whose modules differ
gives its own rows and builder.
"""

from collections.abc import Mapping

from torch import nn

from kitae.models.convert import Rows
from kitae.models.encoder import EncoderConfig, PostNormConfig
from kitae.models.family import HeadForm, MakeHead
from kitae.models.heads import SpanHead, TokenHead
from kitae.models.joint import JointSpanHead


def _token_head(config: EncoderConfig, *, num_labels: int, rate: float) -> nn.Module:
    return TokenHead(config, num_labels=num_labels, rate=rate)


def _span_head(config: EncoderConfig, *, num_labels: int, rate: float) -> nn.Module:
    del num_labels, rate
    return SpanHead(config)


def _joint_head(config: EncoderConfig, *, num_labels: int, rate: float) -> nn.Module:
    del num_labels, rate
    return JointSpanHead(config)


def hidden_rate(config: EncoderConfig) -> float:
    """The dropout of a head that takes the hidden states' rate in transformers, whatever the config says of classification heads."""
    assert isinstance(config, PostNormConfig)
    return config.hidden_dropout_prob


def _with_labels(make: MakeHead, number: int) -> MakeHead:
    def made(config: EncoderConfig, *, num_labels: int, rate: float) -> nn.Module:
        del num_labels
        return make(config, num_labels=number, rate=rate)

    return made


VOCABULARY: Rows = (
    ("head.dense", "cls.predictions.transform.dense"),
    ("head.norm", "cls.predictions.transform.LayerNorm"),
    ("head.bias", "cls.predictions.bias"),
)
"""Key table of BERT's vocabulary head, which DeBERTa's older classes have too."""
DECODER = "cls.predictions.decoder"
"""Its output table: a copy of the token table, or one of its own."""


def tied_to(root: str) -> tuple[tuple[str, str], ...]:
    """The copies that a vocabulary head of those names has of the token table and of its own bias."""
    return (
        (f"{DECODER}.weight", f"{root}.embeddings.word_embeddings.weight"),
        (f"{DECODER}.bias", "cls.predictions.bias"),
    )


def sequence_form(family: str, make: MakeHead, rows: Rows, *, unused: tuple[str, ...] = ()) -> HeadForm:
    """Labels of texts; `family` as transformers spells it in class names."""
    return HeadForm(
        title="text classifier",
        architecture=f"{family}ForSequenceClassification",
        auto="AutoModelForSequenceClassification",
        make=make,
        rows=rows,
        unused=unused,
        fixed={"problem_type": ("single_label_classification", "multi_label_classification", "regression", None)},
    )


def token_form(
    family: str, make: MakeHead = _token_head, rows: Rows = (("head.out", "classifier"),), *, unused: tuple[str, ...] = ()
) -> HeadForm:
    """Labels of tokens; `family` as transformers spells it in class names."""
    return HeadForm(
        title="tagger",
        architecture=f"{family}ForTokenClassification",
        auto="AutoModelForTokenClassification",
        make=make,
        rows=rows,
        unused=unused,
    )


def span_form(
    family: str, make: MakeHead = _span_head, rows: Rows = (("head.out", "qa_outputs"),), *, unused: tuple[str, ...] = ()
) -> HeadForm:
    """Start and end of an answer: `make` is asked for two labels."""
    return HeadForm(
        title="answer finder",
        architecture=f"{family}ForQuestionAnswering",
        auto="AutoModelForQuestionAnswering",
        make=_with_labels(make, 2),
        rows=rows,
        unused=unused,
    )


def choice_form(family: str, make: MakeHead, rows: Rows, *, fixed: Mapping[str, tuple[object, ...]] | None = None) -> HeadForm:
    """One number for every choice of a question: `make` builds a head of texts, which is asked for one label."""
    return HeadForm(
        title="multiple-choice model",
        architecture=f"{family}ForMultipleChoice",
        auto="AutoModelForMultipleChoice",
        make=_with_labels(make, 1),
        rows=rows,
        fixed=fixed or {},
    )


JOINT = HeadForm(title="answer finder with a joint start and end", make=_joint_head)
"""ELECTRA's head of questions (kitae.models.joint); transformers has no class for it."""
