"""Validation of a trial after every epoch: which weights are kept, and whether it has collapsed."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kitae.procedures.classifier import ClassifierPredict
from kitae.tasks.batches import Encoded
from kitae.tasks.classification import Classification
from kitae.tasks.metrics import Metric, scores
from kitae.train.monitor import read_metrics

log = logging.getLogger(__name__)
CURE = "try fp32, a lower learning rate, or more epochs"


class Collapsed(Exception):
    """Ends a training in which nothing is learnt; raised and caught within a trial."""


class Judge:
    """Scores validation after every epoch, on a copy in fp32; keeps the weights of the first best epoch."""

    def __init__(
        self,
        module: Classification,
        texts: Sequence[Encoded],
        truth: NDArray[np.int64],
        *,
        metric: Metric,
        predict: ClassifierPredict,
        limit: int | None,
        folder: Path,
    ) -> None:
        """`limit`: so many collapsed epochs in a row are borne. `folder` is where the training writes its records."""
        self._module, self._texts, self._truth = module, texts, truth
        self._metric, self._predict = metric, predict
        self._limit, self._folder = limit, folder
        self._best: dict[str, Tensor] = {}
        self._constant, self._row = 0, 0
        self._stopped = ""
        self.curve: list[dict[str, float]] = []
        self.chosen: dict[str, float] = {}

    def __call__(self, learner: Classification, step: int, steps_per_epoch: int) -> dict[str, float]:
        """Score the weights that the learner has after this many steps, which are whole epochs. Raises Collapsed beyond the limit."""
        self._module.load_state_dict(learner.state_dict())
        probabilities = self._predict(self._module, self._texts)
        predicted = probabilities.argmax(1)
        epoch = step // steps_per_epoch
        likelihood = probabilities[np.arange(len(predicted)), self._truth]
        found = scores(self._truth, predicted, labels=len(self._module.labels))
        found["loss"] = float(-np.log(np.maximum(likelihood, 1e-12)).mean())
        if not self.chosen or found[self._metric] > self.chosen[self._metric]:
            self.chosen = {"epoch": float(epoch)} | found
            self._best = {name: tensor.detach().clone() for name, tensor in self._module.state_dict().items()}
        self.curve.append({"epoch": float(epoch)} | found)
        self._watch(epoch, steps_per_epoch, constant=len(set(predicted.tolist())) == 1 and len(set(self._truth.tolist())) > 1)
        return found

    def best(self) -> Classification:
        """The module with the chosen weights."""
        self._module.load_state_dict(self._best)
        return self._module

    def collapse(self, *, epochs: int) -> list[str]:
        """A warning when the trial was stopped, or every epoch gave every validation text the same label."""
        text = self._stopped
        if not text and self._constant == len(self.curve):
            text = f"collapsed: one label for every validation text in all {epochs} epochs; {CURE}"
        if text:
            log.warning("%s", text)
        return [text] if text else []

    def _watch(self, epoch: int, steps_per_epoch: int, *, constant: bool) -> None:
        self._constant += constant
        if self._limit is None:
            return
        zero = epoch in zero_epochs(self._folder, steps_per_epoch)
        self._row = self._row + 1 if constant or zero else 0
        if self._row > self._limit:
            what = "the training loss was exactly 0" if zero else "every validation text got the same label"
            self._stopped = f"collapsed: stopped after epoch {epoch}, the last of {self._row} in a row in which {what}; {CURE}"
            raise Collapsed


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
