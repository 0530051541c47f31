"""A number per text or pair of texts.

Shapes: N texts.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator
from torch import Tensor
from torch.nn import functional as F

from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.models.compose import Classifier
from kitae.models.family import Model
from kitae.tasks.correlations import PEARSON, PEARSON_AND_SPEARMAN, SPEARMAN, mean_squared_error
from kitae.tasks.examples import Example, Gold
from kitae.tasks.kind import Feature, Predicted, Raw
from kitae.tasks.metrics import Range
from kitae.tasks.sentences import SentenceKind, SentenceLearner
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss, Term

TERM = "regression"
ALIKE = 1e-4
"""Predictions that differ by less than this share of the largest say the same."""


def _ordered(value: tuple[float, float] | None) -> tuple[float, float] | None:
    if value is not None and value[0] >= value[1]:
        raise ValueError(f"the lowest value {value[0]} is not below the highest {value[1]}")
    return value


class RegressionConfig(Config):
    """Which numbers there are, and how they are scaled for learning."""

    bounds: Annotated[tuple[float, float] | None, AfterValidator(_ordered)] = None
    """The lowest and the highest number that there can be ([0, 5] of STS-B); others are errors. Absent: any number."""
    scaling: Literal["range", "spread", "none"] = "range"
    """What is learnt instead of the number itself: "range" puts `bounds`, or the smallest and largest training number, at 0 and 1, as
    ELECTRA does with STS-B; "spread" puts the mean at 0 and the standard deviation at 1, which bears outliers; "none" leaves it."""


class Regression(SentenceLearner):
    """Mean squared error of the scaled number of each text; what it says is in the numbers' own unit."""

    def __init__(self, classifier: Classifier, *, offset: float = 0.0, scale: float = 1.0) -> None:
        """A number is `offset + scale * output`; both travel with the weights."""
        super().__init__(classifier)
        self.offset: Tensor
        self.scale: Tensor
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float64))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64))

    def counts(self, batch: Batch) -> dict[str, int]:
        """How many texts are predicted."""
        return {TERM: batch.targets["numbers"].numel()}

    def forward(self, batch: Batch) -> Loss:
        """One term: the summed squares of the differences, as scaled."""
        numbers_N = ((batch.targets["numbers"] - self.offset) / self.scale).float()
        outputs_N = self.outputs(batch).squeeze(1).float()[: len(numbers_N)]
        total = F.mse_loss(outputs_N, numbers_N, reduction="sum")
        return Loss(terms=(Term(name=TERM, sum=total, count=len(numbers_N)),))

    def raw(self, batch: Batch) -> Sequence[Tensor]:
        """The number [1] of every text."""
        return (self.offset + self.scale * self.outputs(batch).double()).float().unbind(0)


class RegressionKind(SentenceKind[RegressionConfig]):
    """Texts or pairs of texts with a number each: similarity, price, grade. See ClassificationKind for labels."""

    name = "regression"
    line = "a number per text or pair of texts"
    options = RegressionConfig
    metrics = {metric.name: metric for metric in (PEARSON, SPEARMAN, PEARSON_AND_SPEARMAN)}

    def outputs(self, labels: Sequence[str], options: RegressionConfig) -> int:
        """See Kind."""
        return 1

    def labels(self, examples: Sequence[Example], options: RegressionConfig) -> tuple[str, ...]:
        """None."""
        return ()

    def check(self, example: Example, labels: Sequence[str], options: RegressionConfig) -> None:
        """See Kind."""
        if labels:
            raise KitaeError("a regression has no labels", cure="leave `labels` out", where=example.where)
        if not isinstance(example.gold, int | float):
            raise KitaeError(f'"{example.gold}" is no number', cure="give a reader that makes numbers", where=example.where)
        if options.bounds is not None and not options.bounds[0] <= example.gold <= options.bounds[1]:
            what = f"{example.gold} lies outside bounds = [{options.bounds[0]}, {options.bounds[1]}]"
            raise KitaeError(what, cure="correct the number or the bounds", where=example.where)

    def gold(self, cell: str, where: str, options: RegressionConfig) -> Gold:
        """See Kind."""
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise KitaeError(f'"{cell}" is no number', cure="correct the line", where=where)
        return number

    def values(self, gold: Gold, labels: Sequence[str]) -> dict[str, NDArray[Any]]:
        """See SentenceKind."""
        return {"numbers": np.asarray([gold], np.float64)}

    def learner(self, model: Model, labels: Sequence[str], options: RegressionConfig, train: Sequence[Example]) -> Regression:
        """See Kind. Raises KitaeError when all training numbers are the same."""
        assert isinstance(model, Classifier), "the head says what the model is"
        offset, scale = _scale([float(example.gold) for example in train if isinstance(example.gold, int | float)], options)
        return Regression(model, offset=offset, scale=scale)

    def decode(
        self,
        example: Example,
        features: Sequence[Feature],
        raws: Sequence[Raw],
        labels: Sequence[str],
        options: RegressionConfig,
        tuned: Mapping[str, float],
    ) -> Predicted:
        """The number; it may lie outside of the bounds."""
        return Predicted(value=float(raws[0][0]))

    def scores(self, examples: Sequence[Example], predicted: Sequence[Predicted], labels: Sequence[str]) -> dict[str, float]:
        """Every metric, and "mse", the mean squared error in the square of the numbers' unit."""
        error = mean_squared_error([example.gold for example in examples], [one.value for one in predicted])
        return {**super().scores(examples, predicted, labels), "mse": error}

    def within(self, score: str) -> Range:
        """See Kind; an error is never below 0."""
        return Range(lowest=0.0) if score == "mse" else super().within(score)

    def loss(self, example: Example, predicted: Predicted, labels: Sequence[str]) -> float:
        """The squared error."""
        return mean_squared_error([example.gold], [predicted.value])

    def constant(self, predicted: Sequence[Predicted]) -> bool:
        """Whether all numbers are nearly the same."""
        values = [one.value for one in predicted if isinstance(one.value, int | float)]
        return max(values) - min(values) <= ALIKE * max(abs(value) for value in values)


def _scale(numbers: Sequence[float], options: RegressionConfig) -> tuple[float, float]:
    """(offset, scale): what is taken off a number, and by what the rest is divided, to be learnt."""
    if options.scaling == "none" or not numbers:
        return 0.0, 1.0
    if min(numbers) == max(numbers):
        raise KitaeError(f"every training number is {numbers[0]}", cure="give examples with different numbers", where="kind regression")
    if options.scaling == "spread":
        return float(np.mean(numbers)), float(np.std(numbers))
    low, high = options.bounds or (min(numbers), max(numbers))
    return low, high - low
