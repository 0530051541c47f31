"""Validation of a trial after every epoch: which weights are kept, whether it goes on, and whether it has collapsed."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from kitae.procedures.finetuned import Finetuned
from kitae.procedures.validation import validated
from kitae.tasks.examples import Example, Gold
from kitae.tasks.kind import Feature, Learner
from kitae.train.monitor import read_metrics

log = logging.getLogger(__name__)
CURE = "try fp32, a lower learning rate, or more epochs"


class Ended(Exception):
    """Ends a training before its last epoch: nothing is learnt, or nothing better has come; raised and caught within a trial."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """Examples with their features, to predict again and again."""

    examples: Sequence[Example]
    features: Sequence[Sequence[Feature]]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a training ends early: so many epochs in a row that have collapsed, or that are not better, are borne (None: all)."""

    collapsed: int | None
    patience: int | None


class Judge:
    """Scores validation after every epoch, on a copy in fp32; keeps the weights of the first best epoch."""

    def __init__(self, model: Finetuned, validation: Held, *, metric: str, limits: Limits, folder: Path, test: Held | None = None) -> None:
        """`folder` is where the training writes its records. What is said of `test` is kept of every epoch; its labels are not read."""
        self._model, self._examples, self._features = model, validation.examples, validation.features
        self._metric, self._limits, self._folder, self._test = metric, limits, folder, test
        self._best: dict[str, Tensor] = {}
        self._tuned: dict[str, float] = {}
        self._constant, self._row = 0, 0
        self._stopped = ""
        self.curve: list[dict[str, float]] = []
        self.chosen: dict[str, float] = {}
        self.tested: list[list[Gold]] = []
        self.seconds = 0.0
        """What predicting `test` took."""

    def __call__(self, learner: Learner, step: int, steps_per_epoch: int) -> dict[str, float]:
        """Score the weights that the learner has after this many steps, which are whole epochs. Raises Ended beyond a limit."""
        model, examples = self._model, self._examples
        model.learner.load_state_dict(learner.state_dict())
        said = validated(model, examples, self._features)
        found, tuned, epoch = said.scores, said.tuned, step // steps_per_epoch
        if not self.chosen or found[self._metric] > self.chosen[self._metric]:
            self.chosen = {"epoch": float(epoch)} | found | {f"tuned/{name}": value for name, value in tuned.items()}
            self._best = {name: tensor.detach().clone() for name, tensor in model.learner.state_dict().items()}
            self._tuned = tuned
        self.curve.append({"epoch": float(epoch)} | found)
        if self._test is not None:
            self._predict(self._test, tuned)
        self._watch(epoch, steps_per_epoch, constant=said.constant)
        return found

    def _predict(self, test: Held, tuned: dict[str, float]) -> None:
        begun = time.perf_counter()
        predicted = self._model.with_tuned(tuned).of(test.examples, test.features)
        self.tested.append([one.value for one in predicted])
        self.seconds += time.perf_counter() - begun

    def best(self) -> Finetuned:
        """The model with the chosen weights and their thresholds."""
        self._model.learner.load_state_dict(self._best)
        return self._model.with_tuned(self._tuned)

    def collapse(self) -> list[str]:
        """A warning when the trial was stopped, or every epoch gave every validation text the same label."""
        text = self._stopped
        if not text and self._constant == len(self.curve):
            text = f"collapsed: one label for every validation text in all {len(self.curve)} epochs; {CURE}"
        if text:
            log.warning("%s", text)
        return [text] if text else []

    def _watch(self, epoch: int, steps_per_epoch: int, *, constant: bool) -> None:
        self._constant += constant
        if self._limits.collapsed is not None:
            zero = epoch in zero_epochs(self._folder, steps_per_epoch)
            self._row = self._row + 1 if constant or zero else 0
            if self._row > self._limits.collapsed:
                what = "the training loss was exactly 0" if zero else "every validation text got the same label"
                self._stopped = f"collapsed: stopped after epoch {epoch}, the last of {self._row} in a row in which {what}; {CURE}"
                raise Ended
        if self._limits.patience is not None and epoch - self.chosen["epoch"] >= self._limits.patience:
            raise Ended


def zero_epochs(folder: Path, steps_per_epoch: int) -> list[int]:
    """The epochs whose training loss was exactly 0, as far as it was recorded."""
    losses: dict[int, set[float]] = {}
    for record in read_metrics(folder):
        if record["kind"] == "train" and "loss" in record:
            epoch = (int(str(record["step"])) - 1) // steps_per_epoch + 1
            losses.setdefault(epoch, set()).add(float(str(record["loss"])))
    return [epoch for epoch, found in losses.items() if found == {0.0}]


def zero_loss(folder: Path, steps_per_epoch: int) -> list[str]:
    """A warning when the training loss of a whole epoch was exactly 0."""
    epochs = [str(epoch) for epoch in zero_epochs(folder, steps_per_epoch)]
    if not epochs:
        return []
    text = f"zero loss: nothing was left to learn in epoch {', '.join(epochs)}; look at the labels, or try fp32 and a lower learning rate"
    log.warning("%s", text)
    return [text]
