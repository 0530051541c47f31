"""One label per text, or per pair of texts.

Shapes: N texts, C labels.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from kitae.core.config import Config
from kitae.core.errors import KitaeError, did_you_mean
from kitae.models.compose import Classifier
from kitae.models.family import Model
from kitae.tasks.examples import Example, Gold
from kitae.tasks.kind import Feature, Predicted, Raw
from kitae.tasks.metrics import ACCURACY, ACCURACY_AND_F1, F1, MACRO_F1, MCC, MICRO_F1
from kitae.tasks.sentences import SentenceKind, SentenceLearner, probabilities, surprise
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss, Term

TERM = "classification"
UNITS = 1 << 20
"""The largest class weight in the whole units that weights are counted in, so that a weighted count is a whole number like any other."""


class ClassificationConfig(Config):
    """How a classification is learnt."""

    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    """How much the texts of each label count in the loss: "balanced" (the rarer, the more: N / (C N_label), as in scikit-learn), or a
    table of weights by label, 1 where it is silent. The loss is the weighted mean, as torch's cross_entropy."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all labels evenly (Szegedy et al., 2016), as torch's cross_entropy."""
    positive: str = ""
    """Of two labels the one that `f1` is about; it stands last among the labels. Absent: the last one."""


class Classification(SentenceLearner):
    """Cross-entropy of the label of each text (Devlin et al., 2019, section 3.2)."""

    def __init__(self, classifier: Classifier, *, units: Sequence[int] | None = None, smoothing: float = 0.0) -> None:
        """`units`: how much the texts of each label count, in whole numbers; absent: every text counts 1."""
        super().__init__(classifier)
        self.smoothing = smoothing
        self._units = None if units is None else np.asarray(units, np.int64)
        weights = None if units is None else torch.as_tensor(units, dtype=torch.float32)
        self.weights_C: Tensor | None
        self.register_buffer("weights_C", weights, persistent=False)  # what is learnt from, not what is learnt

    def counts(self, batch: Batch) -> dict[str, int]:
        """How many texts are predicted, or the sum of their weights."""
        return {TERM: self._count(batch.targets["labels"])}

    def forward(self, batch: Batch) -> Loss:
        """One term: the summed cross-entropy in nats. Without labels it is a zero that has a gradient."""
        labels_N = batch.targets["labels"]
        logits_NC = self.outputs(batch).float()[: len(labels_N)]
        total = F.cross_entropy(logits_NC, labels_N, weight=self.weights_C, label_smoothing=self.smoothing, reduction="sum")
        return Loss(terms=(Term(name=TERM, sum=total, count=self._count(labels_N)),))

    def _count(self, labels_N: Tensor) -> int:
        return labels_N.numel() if self._units is None else int(self._units[labels_N.cpu().numpy()].sum())


class ClassificationKind(SentenceKind[ClassificationConfig]):
    """Texts or pairs of texts with one label each. See MultiLabelKind for several labels, RegressionKind for a number."""

    name = "classification"
    line = "one label per text or pair of texts"
    options = ClassificationConfig
    metrics = {metric.name: metric for metric in (ACCURACY, MACRO_F1, MICRO_F1, MCC, F1, ACCURACY_AND_F1)}

    def outputs(self, labels: Sequence[str], options: ClassificationConfig) -> int:
        """See Kind."""
        return len(labels)

    def labels(self, examples: Sequence[Example], options: ClassificationConfig) -> tuple[str, ...]:
        """See Kind; the positive label, where one is named, comes last."""
        found = {str(example.gold) for example in examples if example.gold is not None}
        if options.positive and options.positive not in found:
            what = f'positive = "{options.positive}" is no label of the training examples'
            raise KitaeError(what, cure=did_you_mean(options.positive, found), where="kind_config")
        return (*sorted(found - {options.positive}), *((options.positive,) if options.positive else ()))

    def check(self, example: Example, labels: Sequence[str], options: ClassificationConfig) -> None:
        """See Kind."""
        if options.positive and labels[-1] != options.positive:
            cure = f'put "{options.positive}" last, or name "{labels[-1]}"'
            raise KitaeError(f'positive = "{options.positive}" is not the last of `labels`', cure=cure, where="kind_config")
        if example.gold not in labels:
            cure = did_you_mean(str(example.gold), labels)
            raise KitaeError(f'the label "{example.gold}" is not one of `labels`', cure=cure, where=example.where)

    def gold(self, cell: str, where: str, options: ClassificationConfig) -> Gold:
        """See Kind."""
        if not cell:
            raise KitaeError("the label is empty", cure="fill it in or remove the line", where=where)
        return cell

    def values(self, gold: Gold, labels: Sequence[str]) -> dict[str, NDArray[Any]]:
        """See SentenceKind."""
        return {"labels": np.asarray([labels.index(str(gold))])}

    def learner(self, model: Model, labels: Sequence[str], options: ClassificationConfig, train: Sequence[Example]) -> Classification:
        """See Kind."""
        assert isinstance(model, Classifier), "the head says what the model is"
        units = _units([str(example.gold) for example in train], labels, options.class_weights) if train else None
        return Classification(model, units=units, smoothing=options.label_smoothing)

    def decode(
        self,
        example: Example,
        features: Sequence[Feature],
        raws: Sequence[Raw],
        labels: Sequence[str],
        options: ClassificationConfig,
        tuned: Mapping[str, float],
    ) -> Predicted:
        """The likeliest label; "probabilities" of all, in their order."""
        return Predicted(value=labels[int(raws[0].argmax())], more=probabilities(raws[0]))

    def scores(self, examples: Sequence[Example], predicted: Sequence[Predicted], labels: Sequence[str]) -> dict[str, float]:
        """Every metric; those of a positive label where there are two labels."""
        found = super().scores(examples, predicted, labels)
        return found if len(labels) == 2 else {name: score for name, score in found.items() if name not in (F1.name, ACCURACY_AND_F1.name)}

    def loss(self, example: Example, predicted: Predicted, labels: Sequence[str]) -> float:
        """Minus the logarithm of the true label's probability."""
        return surprise(predicted, labels.index(str(example.gold)))


def _units(golds: Sequence[str], labels: Sequence[str], wanted: str | Mapping[str, float] | None) -> list[int] | None:
    """The weight of each label in whole units, the largest being UNITS; None where all count alike."""
    if wanted is None:
        return None
    if isinstance(wanted, Mapping):
        unknown = next((label for label in wanted if label not in labels), None)
        if unknown is not None:
            raise KitaeError(f'class_weights names "{unknown}", which is no label', cure=did_you_mean(unknown, labels), where="kind_config")
        weights = [wanted.get(label, 1.0) for label in labels]
    else:
        weights = [len(golds) / (len(labels) * max(golds.count(label), 1)) for label in labels]
    return [max(1, round(weight / max(weights) * UNITS)) for weight in weights]
