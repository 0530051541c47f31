"""One trial of several tasks at once: one encoder, a head for each task, one training; each task has its own results.

After every round all tasks are validated, and the weights of the first round with the best mean of their metrics are kept.
"""

import logging
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator
from torch import Tensor

from kitae.core.config import Config
from kitae.procedures.finetuned import Finetuned
from kitae.procedures.fitting import device_named
from kitae.procedures.judge import CURE, Ended, zero_loss
from kitae.procedures.outcome import Outcome
from kitae.procedures.trials import Start, TrialConfig, build, encoded, epochs_of, keep, shortened, train_config, unknown_texts
from kitae.procedures.validation import validated
from kitae.tasks.config import TaskConfig
from kitae.tasks.kind import Feature
from kitae.tasks.kinds import metric_of
from kitae.tasks.records import TaskData
from kitae.tasks.together import Lesson, Sampling, Together, TogetherBatches
from kitae.tensor.random import key
from kitae.tensor.world import World
from kitae.train.loop import fit
from kitae.train.monitor import METRICS

log = logging.getLogger(__name__)
OWN = ("epochs", "least_steps", "max_length", "shorten", "dropout", "metric")
"""What each of several tasks has for itself; everything else is said once for the training."""


class Shared(Config):
    """One of the tasks that are learnt together, with the settings that it would have alone."""

    task: TaskConfig
    """The labelled examples."""
    trial: TrialConfig
    """How to fine-tune. `epochs` (and `least_steps`) decide the task's share of the training; `max_length`, `dropout` and `metric` are
    its own; in the rest all tasks agree."""


class TogetherTrial(Config):
    """What is learnt together, and how the tasks take turns."""

    shared: Annotated[tuple[Shared, ...], Field(min_length=2)]
    """The tasks."""
    sampling: Sampling = "proportional"
    """How often a task's turn comes."""

    @model_validator(mode="after")
    def _agree(self) -> "TogetherTrial":
        names = [one.task.name for one in self.shared]
        if len(set(names)) < len(names):
            raise ValueError(f"a task stands twice in {', '.join(names)}")
        first = self.shared[0].trial
        if first.protocol != "fair" or first.stop_collapsed is not None:
            raise ValueError('tasks are learnt together by protocol = "fair" and without stop_collapsed')
        for field in TrialConfig.model_fields:
            said = {one.task.name: getattr(one.trial, field) for one in self.shared}
            if field not in OWN and any(value != getattr(first, field) for value in said.values()):
                shown = ", ".join(f"{value} of {name}" for name, value in said.items())
                raise ValueError(f"tasks that are learnt together have one {field}, and theirs differ ({shown}): say it in [finetune]")
        return self

    @property
    def common(self) -> TrialConfig:
        """The settings of the training."""
        return self.shared[0].trial


@dataclass(frozen=True, kw_only=True)
class Member:
    """One task within a trial."""

    data: TaskData
    model: Finetuned
    """What is learnt."""
    copy: Finetuned
    """What is validated, with weights of its own."""
    features: Mapping[str, list[list[Feature]]]
    """Of train, validation and test."""
    metric: str
    """What it is judged by."""
    encoding: float
    """Seconds that making those of test took."""
    warnings: list[str]
    """What looks wrong before anything is learnt."""

    @property
    def name(self) -> str:
        """Of the task."""
        return self.data.config.name


def run_together(
    tasks: Sequence[TaskData], start: Start, config: TogetherTrial, *, seed: int, folder: Path, title: str = "trial"
) -> dict[str, Outcome]:
    """Fine-tune on all tasks, choose on their validation, predict their test examples; `tasks` are those of the config, in its order.

    Writes `folder/metrics.jsonl`, and of every task `folder/TASK/model` and its submissions. Pure function of its arguments (on one
    machine); the labels of test examples are not read. A trial that is stopped starts over.
    """
    common, device = config.common, device_named(config.common.device)
    members = [_member(data, start, one.trial, seed=seed) for data, one in zip(tasks, config.shared, strict=True)]
    learner, copy = (Together({one.name: (one.copy if copied else one.model).learner for one in members}) for copied in (False, True))
    learner.to(device)
    copy.to(device)
    batches = TogetherBatches(
        [_lesson(one, shared.trial) for one, shared in zip(members, config.shared, strict=True)],
        batch=common.batch,
        micro_batch=common.micro_batch or common.batch,
        pad=start.tokenizer.special.pad,
        sampling=config.sampling,
        seed=seed,
    )
    epochs = batches.shown()
    log.info("%s: epochs of each task: %s", title, ", ".join(f"{name} {count:.1f}" for name, count in epochs.items()))
    judge, per_round = TogetherJudge(members, copy, patience=common.patience), batches.steps_per_round
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        work = Path(temporary) / title  # the folder's name is what the progress shows
        try:
            seconds = fit(
                learner,
                batches,
                train_config(common.model_copy(update={"epochs": batches.rounds, "least_steps": None}), per_round),
                work,
                world=World(device=device),
                seed=seed,
                attach={},
                evaluate=lambda step: judge(learner, step // per_round),
            ).seconds
        except Ended:
            seconds = time.perf_counter() - begun
        os.replace(work / METRICS, folder / METRICS)
    judge.restore()
    warnings, shown = zero_loss(folder, per_round), sum(len(one.features["train"]) * epochs[one.name] for one in members)
    found = {}
    for one in members:
        begun = time.perf_counter()
        model = one.copy.with_tuned(judge.tuned[one.name])
        predicted = model.of(one.data.test, one.features["test"])
        spent = one.encoding + time.perf_counter() - begun
        keep(model, one.data, predicted, folder / one.name)
        found[one.name] = Outcome(
            predicted=predicted,
            chosen=judge.chosen[one.name],
            curve=judge.curves[one.name],
            warnings=[*one.warnings, *judge.collapse(one.name), *warnings],
            seconds={"train": seconds * len(one.features["train"]) * epochs[one.name] / shown, "predict": spent},
        )
    return found


class TogetherJudge:
    """Scores the validation examples of all tasks after every round, on a copy in fp32; keeps the weights of the first best round."""

    def __init__(self, members: Sequence[Member], copy: Together, *, patience: int | None) -> None:
        """`copy` is the module of the members' copies; `patience`: so many rounds in a row that are not better are borne."""
        self._members, self._copy, self._patience = members, copy, patience
        self._best: dict[str, Tensor] = {}
        self._highest, self._at = -math.inf, 0
        self._constant = dict.fromkeys((one.name for one in members), 0)
        self.tuned: dict[str, dict[str, float]] = {}
        """Thresholds of every task in the best round."""
        self.chosen: dict[str, dict[str, float]] = {}
        """Scores of every task in the best round."""
        self.curves: dict[str, list[dict[str, float]]] = {one.name: [] for one in members}
        """Scores of every task, round by round."""

    def __call__(self, learner: Together, number: int) -> dict[str, float]:
        """Score the weights that the learner has after this round (from 1): each task's scores, and "mean", by which a round is chosen.

        Raises Ended beyond a limit.
        """
        self._copy.load_state_dict(learner.state_dict())
        found, tuned = {}, {}
        for one in self._members:
            said = validated(one.copy, one.data.validation, one.features["validation"])
            found[one.name], tuned[one.name] = said.scores, said.tuned
            self._constant[one.name] += said.constant
        mean = sum(found[one.name][one.metric] for one in self._members) / len(self._members)
        points = {name: {"epoch": float(number), "together": mean} | scores for name, scores in found.items()}
        for name, point in points.items():
            self.curves[name].append(point)
        if mean > self._highest:
            self._highest, self._at, self.tuned = mean, number, tuned
            of = {name: {f"tuned/{key}": value for key, value in found.items()} for name, found in tuned.items()}
            self.chosen = {name: point | of[name] for name, point in points.items()}
            once = {name for name, _ in (*self._copy.named_parameters(), *self._copy.named_buffers())}
            self._best = {name: tensor.detach().clone() for name, tensor in self._copy.state_dict().items() if name in once}
        if self._patience is not None and number - self._at >= self._patience:
            raise Ended
        return {"together": mean} | {f"{name}/{key}": value for name, scores in found.items() for key, value in scores.items()}

    def restore(self) -> None:
        """Give the copies the weights of the best round."""
        self._copy.load_state_dict(self._best, strict=False)  # shared weights stand there once

    def collapse(self, name: str) -> list[str]:
        """A warning when every round gave every validation text of the task the same label."""
        rounds = len(self.curves[name])
        if self._constant[name] < rounds:
            return []
        text = f"collapsed: one label for every validation text of {name} in all {rounds} rounds; {CURE}"
        log.warning("%s", text)
        return [text]


def _lesson(one: Member, trial: TrialConfig) -> Lesson:
    flat = [feature for some in one.features["train"] for feature in some]
    return Lesson(name=one.name, features=flat, epochs=epochs_of(trial, -(-len(flat) // trial.batch)))


def _member(data: TaskData, start: Start, trial: TrialConfig, *, seed: int) -> Member:
    own = key(seed, "task", data.config.name)
    model, copy = (build(start, data, trial, seed=own) for _ in range(2))
    features, encoding = encoded(model, data)
    warnings = [*shortened(model, trial, data.config.name), *unknown_texts(start.tokenizer, features)]
    warnings += model.kind.remarks(features["train"])
    return Member(
        data=data,
        model=model,
        copy=copy,
        features=features,
        metric=metric_of(data.config, trial.metric),
        encoding=encoding,
        warnings=warnings,
    )
