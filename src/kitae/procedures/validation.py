"""What a model says of validation examples: scores, and the thresholds that they choose."""

from collections.abc import Sequence
from dataclasses import dataclass

from kitae.procedures.finetuned import Finetuned
from kitae.tasks.examples import Example
from kitae.tasks.kind import Feature


@dataclass(frozen=True, kw_only=True)
class Validated:
    """A look at validation examples."""

    scores: dict[str, float]
    """By every metric, and the mean "loss" where the kind has one."""
    tuned: dict[str, float]
    """Thresholds with which the scores are those."""
    constant: bool
    """Whether all predictions say the same, where the truth does not."""


def validated(model: Finetuned, examples: Sequence[Example], features: Sequence[Sequence[Feature]]) -> Validated:
    """Predict examples whose features were made before, tune, and score."""
    raws = model.raws(features)
    predicted = model.decoded(examples, features, raws)
    tuned = model.kind.tune(examples, predicted, model.options)
    if tuned:
        predicted = model.with_tuned(tuned).decoded(examples, features, raws)
    found = model.kind.scores(examples, predicted, model.labels)
    losses = [model.kind.loss(example, one, model.labels) for example, one in zip(examples, predicted, strict=True)]
    known = [loss for loss in losses if loss is not None]
    if known:
        found["loss"] = sum(known) / len(known)
    varied = len({example.gold for example in examples}) > 1
    return Validated(scores=found, tuned=tuned, constant=model.kind.constant(predicted) and varied)
