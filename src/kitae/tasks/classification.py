"""One label per text, or per pair of texts.

Shapes: N texts, C labels.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kitae.core.config import Config
from kitae.core.errors import KitaeError, did_you_mean
from kitae.models.compose import Classifier
from kitae.models.family import Head, Model
from kitae.tasks.encoded import encode
from kitae.tasks.examples import Example, Gold
from kitae.tasks.kind import Feature, Kind, Learner, Predicted, Raw
from kitae.tasks.metrics import ACCURACY, MACRO_F1, MICRO_F1
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss, Term
from kitae.tokenization.tokenizer import Tokenizer

TERM = "classification"


class ClassificationConfig(Config):
    """How a classification is learnt."""


class Classification(Learner):
    """Cross-entropy of the label of each text (Devlin et al., 2019, section 3.2)."""

    encoder: Classifier

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.encoder = classifier

    def counts(self, batch: Batch) -> dict[str, int]:
        """How many texts are predicted."""
        return {TERM: int(batch.targets["labels"].numel())}

    def forward(self, batch: Batch) -> Loss:
        """One term: the summed cross-entropy in nats. Without labels it is a zero that has a gradient."""
        labels_N = batch.targets["labels"]
        logits_NC = self._logits(batch).float()[: len(labels_N)]
        total = F.cross_entropy(logits_NC, labels_N, reduction="sum")
        return Loss(terms=(Term(name=TERM, sum=total, count=len(logits_NC)),))

    def raw(self, batch: Batch) -> Sequence[Tensor]:
        """Logits [C] of every text."""
        return self._logits(batch).unbind(0)

    def _logits(self, batch: Batch) -> Tensor:
        return self.encoder(batch, batch.targets["cls"])


class ClassificationKind(Kind[ClassificationConfig]):
    """Texts or pairs of texts with one label each."""

    name = "classification"
    line = "one label per text or pair of texts"
    options = ClassificationConfig
    metrics = {metric.name: metric for metric in (ACCURACY, MACRO_F1, MICRO_F1)}

    def head(self, options: ClassificationConfig) -> Head:
        """See Kind."""
        return "sequence"

    def outputs(self, labels: Sequence[str], options: ClassificationConfig) -> int:
        """See Kind."""
        return len(labels)

    def labels(self, examples: Sequence[Example], options: ClassificationConfig) -> tuple[str, ...]:
        """See Kind."""
        return tuple(sorted({str(example.gold) for example in examples if example.gold is not None}))

    def check(self, example: Example, labels: Sequence[str], options: ClassificationConfig) -> None:
        """See Kind."""
        if example.gold not in labels:
            cure = did_you_mean(str(example.gold), labels)
            raise KitaeError(f'the label "{example.gold}" is not one of `labels`', cure=cure, where=example.where)

    def gold(self, cell: str, where: str, options: ClassificationConfig) -> Gold:
        """See Kind."""
        if not cell:
            raise KitaeError("the label is empty", cure="fill it in or remove the line", where=where)
        return cell

    def features(
        self, example: Example, tokenizer: Tokenizer, labels: Sequence[str], options: ClassificationConfig, *, max_length: int, learn: bool
    ) -> list[Feature]:
        """See Kind."""
        text = encode(tokenizer, example.text, max_length=max_length, second=example.second)
        known = learn and example.gold is not None
        return [Feature(texts=(text,), values={"labels": np.asarray([labels.index(str(example.gold))])} if known else {})]

    def learner(self, model: Model, labels: Sequence[str], options: ClassificationConfig, train: Sequence[Example]) -> Classification:
        """See Kind."""
        assert isinstance(model, Classifier), "the head says what the model is"
        return Classification(model)

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
        shares = torch.from_numpy(raws[0]).softmax(-1).tolist()
        return Predicted(value=labels[int(raws[0].argmax())], more={"probabilities": shares})

    def loss(self, example: Example, predicted: Predicted, labels: Sequence[str]) -> float:
        """Minus the logarithm of the true label's probability."""
        shares = predicted.more["probabilities"]
        assert isinstance(shares, list)
        return -math.log(max(shares[labels.index(str(example.gold))], 1e-12))
