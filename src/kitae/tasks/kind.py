"""What a kind of task is: how examples become features, what is learnt from them, what is predicted, and how it is scored.

To add a kind: one file with a subclass of `Kind` and its learner, one row in `kitae.tasks.kinds`, or an entry point `kitae.kinds` of an
installed package that names an instance (docs/add-a-task.md).
"""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from kitae.core.config import Config
from kitae.models.family import Head, Model
from kitae.tasks.encoded import Encoded
from kitae.tasks.examples import Example, Gold
from kitae.tasks.metrics import Metric, Range
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss
from kitae.tokenization.tokenizer import Tokenizer

Raw = NDArray[np.float32]
"""What a learner says of one feature: logits, in a shape of the kind's own."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What a model sees at once of an example: one text, a window of a long one, or the texts of all choices.

    In a batch, `values[name]` of the features are joined along the first axis as targets[name]; `places[name]` become positions in the
    flattened rows, joined likewise, and targets["name/count"] says how many are each feature's. targets["cls"] are the positions of the
    texts' [CLS], targets["texts"] how many texts each feature has.
    """

    texts: tuple[Encoded, ...]
    values: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What is to be learnt; absent where the example's gold is hidden or not asked for."""
    places: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """Positions in the (only) text that the head looks at."""
    offsets: NDArray[np.int64] | None = None
    """[tokens, 2] characters of the example's text that each token covers, for kinds that answer with places; (0, 0) at others."""

    @property
    def tokens(self) -> int:
        """Of all its texts."""
        return sum(len(text.ids) for text in self.texts)


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What is predicted of an example: a value of the same form as its gold, and whatever else the kind tells (values of JSON)."""

    value: Gold
    more: Mapping[str, object] = field(default_factory=dict)
    """"probabilities", "nbest", ..."""


class Learner(nn.Module, abc.ABC):
    """A model with its loss: the loop's module of fine-tuning. `encoder` is the model of kitae.models, encoder and head."""

    encoder: Model
    described: Mapping[str, object] = {}
    """The content of model.json, set by whoever trains it."""

    def describe(self) -> dict[str, object]:
        """The content of model.json."""
        return dict(self.described)

    def prepare(self, batch: Batch, seed: int) -> Batch:
        """Nothing is drawn: the batch holds its labels."""
        del seed
        return batch

    @abc.abstractmethod
    def counts(self, batch: Batch) -> dict[str, int]:
        """Per term of the loss how many predictions it is a sum over."""

    @abc.abstractmethod
    def forward(self, batch: Batch) -> Loss:
        """The summed loss. A batch without examples has targets without rows, and gives a zero that has a gradient."""

    @abc.abstractmethod
    def raw(self, batch: Batch) -> Sequence[Tensor]:
        """Of every feature of the batch its logits, in their order."""


Options = TypeVar("Options", bound=Config)


class Kind(abc.ABC, Generic[Options]):
    """A kind of task. Its methods are pure functions of their arguments."""

    name: str
    """As written in a recipe."""
    line: str
    """What it predicts, in one line."""
    options: type[Options]
    """The settings that tasks of this kind have of their own: [task.NAME.kind_config]."""
    metrics: Mapping[str, Metric]
    """By name; the first one chooses the epoch unless the recipe names another."""
    lists: bool = False
    """Whether a JSON file may give the gold as a list, which `gold` then gets as JSON."""
    words: bool = False
    """Whether a JSON file may give the text as a list of words, to each of which a tag belongs."""

    @abc.abstractmethod
    def head(self, options: Options) -> Head:
        """The head that is put on the encoder."""

    @abc.abstractmethod
    def outputs(self, labels: Sequence[str], options: Options) -> int:
        """How many outputs the head has (`num_labels`)."""

    @abc.abstractmethod
    def labels(self, examples: Sequence[Example], options: Options) -> tuple[str, ...]:
        """The labels that occur in training examples, sorted; () for kinds without labels."""

    @abc.abstractmethod
    def check(self, example: Example, labels: Sequence[str], options: Options) -> None:
        """Raise KitaeError (with the example's `where`) for gold that is not of this kind or not among the labels. Gold is not None."""

    def canonical(self, example: Example, options: Options) -> Example:
        """An example as it was read in the one form that the kind works with. Raises KitaeError for gold that has no such form."""
        del options
        return example

    @abc.abstractmethod
    def gold(self, cell: str, where: str, options: Options) -> Gold:
        """The gold that a cell of a table holds. Raises KitaeError for one that is none."""

    @abc.abstractmethod
    def features(
        self, example: Example, tokenizer: Tokenizer, labels: Sequence[str], options: Options, *, max_length: int, learn: bool
    ) -> list[Feature]:
        """What the model sees of an example; `learn` adds the values to learn, of examples whose gold is known."""

    @abc.abstractmethod
    def learner(self, model: Model, labels: Sequence[str], options: Options, train: Sequence[Example]) -> Learner:
        """A learner of the model. `train` are the training examples (for class weights); none for one that only predicts."""

    @abc.abstractmethod
    def decode(
        self,
        example: Example,
        features: Sequence[Feature],
        raws: Sequence[Raw],
        labels: Sequence[str],
        options: Options,
        tuned: Mapping[str, float],
    ) -> Predicted:
        """What the model's logits of an example's features say. `tuned` is what `tune` chose, {} before."""

    def tune(self, examples: Sequence[Example], predicted: Sequence[Predicted], options: Options) -> dict[str, float]:
        """Thresholds chosen on validation predictions (decoded without any); they travel with the model. Most kinds have none."""
        del examples, predicted, options
        return {}

    def scores(self, examples: Sequence[Example], predicted: Sequence[Predicted], labels: Sequence[str]) -> dict[str, float]:
        """Every metric of predictions, and what else the kind reports."""
        golds, values = [example.gold for example in examples], [one.value for one in predicted]
        return {name: metric.score(golds, values, labels) for name, metric in self.metrics.items()}

    def within(self, score: str) -> Range:
        """What a score of `scores` can be; one without a metric of its name, or before its "/", may be anything."""
        metric = self.metrics.get(score.partition("/")[0])
        return Range() if metric is None else metric.within

    def remarks(self, features: Sequence[Sequence[Feature]]) -> list[str]:
        """Warnings about what is to be learnt, by the features of every training example: gold that the tokens cannot give exactly."""
        del features
        return []

    def files(self, examples: Sequence[Example], predicted: Sequence[Predicted]) -> dict[str, object]:
        """Predictions of test examples in the kind's official form: name of a JSON file and its content. Most kinds have none."""
        del examples, predicted
        return {}

    def loss(self, example: Example, predicted: Predicted, labels: Sequence[str]) -> float | None:
        """How wrong a prediction is (in nats where it has probabilities); None where the kind cannot say."""
        del example, predicted, labels
        return None

    def constant(self, predicted: Sequence[Predicted]) -> bool:
        """Whether all predictions say the same, as those of a model that learnt nothing do."""
        return len({one.value for one in predicted}) == 1
