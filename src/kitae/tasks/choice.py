"""One of several answers to a question.

Shapes: P choices of all questions, Q questions, C choices of a question.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import StringConstraints
from torch import Tensor
from torch.nn import functional as F

from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.models.compose import MultipleChoice, by_question
from kitae.models.family import Head, Model
from kitae.tasks.encoded import encode
from kitae.tasks.examples import Example, Gold
from kitae.tasks.kind import Feature, Kind, Predicted, Raw
from kitae.tasks.metrics import ACCURACY
from kitae.tasks.sentences import SentenceLearner, probabilities, surprise
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss, Term
from kitae.tokenization.tokenizer import Tokenizer

TERM = "choice"


class ChoiceConfig(Config):
    """How the right choice is written."""

    first: Annotated[str, StringConstraints(pattern="^(0|1|A|a)$")] = "0"
    """What the file calls the first choice: "0", "1", "A" or "a"; the others follow it. Results count from 0."""


class Choice(SentenceLearner):
    """Cross-entropy of the right one of each question's choices, each read as the pair (question, choice) and given one number
    (Radford et al., 2018, section 3.3; transformers' multiple choice)."""

    def counts(self, batch: Batch) -> dict[str, int]:
        """How many questions are answered."""
        return {TERM: batch.targets["right"].numel()}

    def forward(self, batch: Batch) -> Loss:
        """One term: the summed cross-entropy in nats. Without gold it is a zero that has a gradient."""
        right_Q = batch.targets["right"]
        logits_QC = by_question(self.outputs(batch).float(), batch.targets["texts"].tolist())[: len(right_Q)]
        total = F.cross_entropy(logits_QC, right_Q, reduction="sum")
        return Loss(terms=(Term(name=TERM, sum=total, count=len(right_Q)),))

    def raw(self, batch: Batch) -> Sequence[Tensor]:
        """Logits [C] of every question, as many as it has choices."""
        return self.outputs(batch).squeeze(1).split(batch.targets["texts"].tolist())


class ChoiceKind(Kind[ChoiceConfig]):
    """Questions with answers to choose from, as many as each question has; the gold is the place of the right one, from 0."""

    name = "choice"
    line = "one of several answers to a question"
    options = ChoiceConfig
    metrics = {ACCURACY.name: ACCURACY}

    def head(self, options: ChoiceConfig) -> Head:
        """See Kind."""
        return "choice"

    def outputs(self, labels: Sequence[str], options: ChoiceConfig) -> int:
        """See Kind."""
        return 1

    def labels(self, examples: Sequence[Example], options: ChoiceConfig) -> tuple[str, ...]:
        """None."""
        return ()

    def check(self, example: Example, labels: Sequence[str], options: ChoiceConfig) -> None:
        """See Kind."""
        if labels:
            raise KitaeError("choices have no labels", cure="leave `labels` out", where=example.where)
        if not isinstance(example.gold, int) or not 0 <= example.gold < len(example.choices):
            shown = f"{example.gold} (counted from 0)" if isinstance(example.gold, int) else f'"{example.gold}"'
            what = f"the right choice is {shown}, and there are {len(example.choices)}"
            raise KitaeError(what, cure="correct the line, or say what kind_config.first is", where=example.where)

    def gold(self, cell: str, where: str, options: ChoiceConfig) -> Gold:
        """See Kind."""
        if options.first.isdigit():
            place = int(cell) - int(options.first) if cell.isascii() and cell.isdigit() else -1
        else:
            place = ord(cell) - ord(options.first) if len(cell) == 1 else -1
        if place < 0:
            what = f'"{cell}" is no choice: the first one is called "{options.first}"'
            raise KitaeError(what, cure="correct the line, or set kind_config.first", where=where)
        return place

    def features(
        self, example: Example, tokenizer: Tokenizer, labels: Sequence[str], options: ChoiceConfig, *, max_length: int, learn: bool
    ) -> list[Feature]:
        """See Kind. Raises KitaeError for an example that has a second text, or less than two choices."""
        if example.second is not None:
            raise KitaeError("a question with choices has no second text", cure="name both columns in `text`", where=example.where)
        if len(example.choices) < 2:
            raise KitaeError(f"{len(example.choices)} choices are none", cure="name two columns or more in `choices`", where=example.where)
        texts = tuple(encode(tokenizer, example.text, max_length=max_length, second=choice) for choice in example.choices)
        known = learn and example.gold is not None
        return [Feature(texts=texts, values={"right": np.asarray([example.gold], np.int64)} if known else {})]

    def learner(self, model: Model, labels: Sequence[str], options: ChoiceConfig, train: Sequence[Example]) -> Choice:
        """See Kind."""
        assert isinstance(model, MultipleChoice), "the head says what the model is"
        return Choice(model)

    def decode(
        self,
        example: Example,
        features: Sequence[Feature],
        raws: Sequence[Raw],
        labels: Sequence[str],
        options: ChoiceConfig,
        tuned: Mapping[str, float],
    ) -> Predicted:
        """The place of the likeliest choice; "probabilities" of all."""
        return Predicted(value=int(raws[0].argmax()), more=probabilities(raws[0]))

    def loss(self, example: Example, predicted: Predicted, labels: Sequence[str]) -> float:
        """Minus the logarithm of the right choice's probability."""
        assert isinstance(example.gold, int)
        return surprise(predicted, example.gold)
