"""What the kinds that answer once per text or pair have in common: features, the learner that looks at [CLS], and probabilities.

Shapes: N texts, C outputs.
"""

import abc
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from kitae.models.compose import Classifier
from kitae.models.family import Head
from kitae.tasks.encoded import encode
from kitae.tasks.examples import Example, Gold
from kitae.tasks.kind import Feature, Kind, Learner, Options, Predicted, Raw
from kitae.tensor.batch import Batch
from kitae.tokenization.tokenizer import Tokenizer


class SentenceLearner(Learner):
    """What is learnt of a whole text, from the outputs at its [CLS]; a kind adds `counts` and `forward`."""

    encoder: Classifier

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.encoder = model

    def outputs(self, batch: Batch) -> Tensor:
        """outputs_NC of every text of the batch, also of those of which nothing is to be learnt."""
        return self.encoder(batch, batch.targets["cls"])

    def raw(self, batch: Batch) -> Sequence[Tensor]:
        """Outputs [C] of every text."""
        return self.outputs(batch).unbind(0)


class SentenceKind(Kind[Options]):
    """A kind with one head on each text or pair of texts, which is one feature; its own are what is learnt and what is said."""

    def head(self, options: Options) -> Head:
        """See Kind."""
        return "sequence"

    @abc.abstractmethod
    def values(self, gold: Gold, labels: Sequence[str]) -> Mapping[str, NDArray[Any]]:
        """What is to be learnt of one text (`Feature.values`), a row each."""

    def features(
        self, example: Example, tokenizer: Tokenizer, labels: Sequence[str], options: Options, *, max_length: int, learn: bool
    ) -> list[Feature]:
        """See Kind."""
        text = encode(tokenizer, example.text, max_length=max_length, second=example.second)
        return [Feature(texts=(text,), values=self.values(example.gold, labels) if learn and example.gold is not None else {})]


def probabilities(raw: Raw) -> dict[str, object]:
    """What `Predicted.more` says of one out of several: "probabilities", in the order of the logits."""
    return {"probabilities": torch.from_numpy(raw).softmax(-1).tolist()}


def surprise(predicted: Predicted, true: int) -> float:
    """Minus the logarithm of the probability of the true one."""
    shares = predicted.more["probabilities"]
    assert isinstance(shares, list), "as `probabilities` makes them"
    return -math.log(max(shares[true], 1e-12))
