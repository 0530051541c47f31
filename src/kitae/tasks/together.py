"""Several tasks at once: one encoder, a head for each, and micro-batches of one task each (Liu et al., 2019, MT-DNN).

Shapes: R rounds, M micro-batches of a round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kitae.tasks.batches import assemble
from kitae.tasks.kind import Feature, Learner
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss, Term
from kitae.tensor.random import numpy_generator

TERM = "together"
Sampling = Literal["proportional", "square root", "annealed", "uniform"]
"""How often a task's turn comes, by the number of its examples n: as n, as n**0.5, as n**a where a falls from 1 to 0.2 in the course of the
training (Stickland and Murray, 2019), or as often as every other's."""
LAST = 0.2
"""The exponent at the end of "annealed"."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What is learnt of one task."""

    name: str
    features: Sequence[Feature]
    epochs: int
    """How often its examples would be seen if it were learnt alone."""


class Together(nn.Module):
    """Learners that share one encoder: the loss of a step is the mean of its micro-batches' own losses, by their numbers of examples."""

    def __init__(self, learners: Mapping[str, Learner]) -> None:
        """The first one's encoder becomes that of all; each has one of the same numbers."""
        super().__init__()
        self.learners = nn.ModuleList(learners.values())
        self._of = dict(zip(learners, self.learners, strict=True))
        shared = next(iter(learners.values())).encoder.encoder
        for learner in learners.values():
            learner.encoder.encoder = shared

    def describe(self) -> dict[str, object]:
        """No folder holds such a model: every task's is saved by itself."""
        return {name: learner.describe() for name, learner in self._of.items() if isinstance(learner, Learner)}

    def prepare(self, batch: Batch, seed: int) -> Batch:
        """As the task's learner does it."""
        return self._learner(batch).prepare(batch, seed)

    def counts(self, batch: Batch) -> dict[str, int]:
        """How many examples (windows, of long ones) the batch has."""
        return {TERM: len(batch.targets["texts"])}

    def forward(self, batch: Batch) -> Loss:
        """One term: the task's own loss, times the number of examples."""
        learner, count = self._learner(batch), len(batch.targets["texts"])
        own = learner(batch).total(learner.counts(batch))
        return Loss(terms=(Term(name=TERM, sum=own * count, count=count),))

    def _learner(self, batch: Batch) -> Learner:
        found = next(learner for name, learner in self._of.items() if _mark(name) in batch.targets)
        assert isinstance(found, Learner), "it was given as one"
        return found


class TogetherBatches:
    """The lessons as the loop's batches: every micro-batch is of one task. Its steps make rounds; validation follows each.

    There are as many steps as the tasks' epochs come to, were they learnt one after the other, in as many rounds as the longest has epochs.
    "proportional" shows every task its examples so often as alone, the others show the small ones oftener and the large ones more seldom.
    Which task a micro-batch is of and which examples it has are pure functions of (seed, step, micro).
    """

    def __init__(self, lessons: Sequence[Lesson], *, batch: int, micro_batch: int, pad: int, sampling: Sampling, seed: int) -> None:
        self._lessons, self._pad, self._seed = lessons, pad, seed
        micro_batch = min(micro_batch, batch)
        self.rows_per_step, self.micro_batches_per_step = batch, -(-batch // micro_batch)
        self.rounds = max(lesson.epochs for lesson in lessons)
        amounts = [lesson.epochs * len(lesson.features) for lesson in lessons]
        self.steps_per_round = -(-sum(-(-amount // batch) for amount in amounts) // self.rounds)
        self._turns = deal(
            amounts, rounds=self.rounds, size=self.steps_per_round * self.micro_batches_per_step, sampling=sampling, seed=seed
        ).flatten()
        sizes = np.full(self.micro_batches_per_step, micro_batch)
        sizes[-1] = batch - micro_batch * (self.micro_batches_per_step - 1)
        self._sizes = np.tile(sizes, self.rounds * self.steps_per_round)
        self._begins = np.zeros_like(self._sizes)
        for number in range(len(lessons)):
            turns = self._turns == number
            self._begins[turns] = self._sizes[turns].cumsum() - self._sizes[turns]
        self._orders: dict[tuple[int, int], NDArray[np.int64]] = {}
        self.rows_per_epoch = sum(len(lesson.features) for lesson in lessons)
        tokens = sum(feature.tokens for lesson in lessons for feature in lesson.features)
        self.tokens_per_step = round(batch * tokens / self.rows_per_epoch)

    def examples(self, step: int, micro: int) -> tuple[str, list[int]]:
        """The task of a micro-batch and the numbers of its features: the next ones of the task, which begins anew in another order."""
        turn = step * self.micro_batches_per_step + micro
        number, begin = int(self._turns[turn]), int(self._begins[turn])
        places = (divmod(place, len(self._lessons[number].features)) for place in range(begin, begin + int(self._sizes[turn])))
        return self._lessons[number].name, [int(self._order(number, epoch)[place]) for epoch, place in places]

    def micro(self, step: int, micro: int) -> Batch:
        """Pure function of (seed, step, micro)."""
        name, chosen = self.examples(step, micro)
        features = next(lesson.features for lesson in self._lessons if lesson.name == name)
        made = assemble([features[i] for i in chosen], pad=self._pad, numbers=chosen, step=step, micro=micro)
        return made.replace(targets={**made.targets, _mark(name): torch.empty(0)})

    def shown(self) -> dict[str, float]:
        """How many epochs of each task the whole training has."""
        of = {lesson.name: self._sizes[self._turns == number].sum() / len(lesson.features) for number, lesson in enumerate(self._lessons)}
        return {name: float(epochs) for name, epochs in of.items()}

    def _order(self, number: int, epoch: int) -> NDArray[np.int64]:
        known = self._orders  # replaced as a whole: several threads may ask
        if (number, epoch) not in known:
            lesson = self._lessons[number]
            order = numpy_generator(self._seed, "examples", lesson.name, epoch).permutation(len(lesson.features))
            kept = {place: made for place, made in known.items() if place[0] != number or place[1] == epoch - 1}
            known = self._orders = {**kept, (number, epoch): order}
        return known[number, epoch]


def deal(amounts: Sequence[int], *, rounds: int, size: int, sampling: Sampling, seed: int) -> NDArray[np.int64]:
    """[R, M]: which task's turn each micro-batch is. `amounts`: examples that each task is to show, of which its share follows.

    Shares are kept over all rounds as nearly as whole micro-batches allow; within a round the order is drawn.
    """
    due = np.zeros(len(amounts))
    made = np.empty((rounds, size), np.int64)
    for number in range(rounds):
        share = np.asarray(amounts, np.float64) ** exponent(sampling, number, rounds)
        due += size * share / share.sum()
        turns = []
        for _ in range(size):
            turns.append(int(due.argmax()))
            due[turns[-1]] -= 1
        made[number] = numpy_generator(seed, "tasks", number).permutation(turns)
    return made


def exponent(sampling: Sampling, number: int, rounds: int) -> float:
    """Of the number of examples, in a round (from 0)."""
    if sampling == "annealed":
        return 1.0 - (1.0 - LAST) * number / max(rounds - 1, 1)
    return {"proportional": 1.0, "square root": 0.5, "uniform": 0.0}[sampling]


def _mark(name: str) -> str:
    """The target that says which task a batch is of."""
    return f"task/{name}"
