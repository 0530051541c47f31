"""A downstream probe: now and then a copy of the weights that are being pre-trained is fine-tuned on a small task and scored on its
validation texts. Neither weights nor randomness of the training are touched, and the task's test texts are never looked at.

Every seed is a trial of its own, dealt to the ranks; results are files in the run's folder, for which the others wait without a
collective, so that nothing times out. A probe that was made is not made again when the training goes on from an earlier step.
"""

import gc
import json
import logging
import os
import shutil
import signal
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, ValidationInfo, field_validator

from kitae.core.artifact import content_hash, digest_json
from kitae.core.config import Config
from kitae.core.errors import KitaeError, Stopped
from kitae.core.paths import locate
from kitae.core.recipe import validate
from kitae.models.folder import Part
from kitae.objectives.protocol import Objective
from kitae.procedures.trials import Start, TrialConfig, length_of, tune
from kitae.tasks.config import TaskConfig
from kitae.tasks.records import find, load
from kitae.tensor.random import key
from kitae.tensor.world import World
from kitae.tokenization.tokenizer import Tokenizer

log = logging.getLogger(__name__)
FOLDER = "probes"
OWN = ("epochs", "metric", "device", "deterministic", "fair")
"""Settings of a trial that a probe or the training sets."""
POLL = 0.2  # seconds
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class ProbeConfig(Config):
    """What a copy of the weights is tried on while they are pre-trained; how often says `train.probe_every`. A result without
    `patience` is recorded and decides nothing."""

    task: str | TaskConfig
    """The name of a [task.NAME] table or of a built-in task. List it in `decontaminate` too. Its test texts are not used."""
    seeds: Annotated[int, Field(ge=1)] = 1
    """Trials of every probe, of which the mean counts; several processes share them out."""
    epochs: Annotated[int, Field(ge=1)] = 3
    """Passes over the task's training texts; the best one counts."""
    metric: str = "accuracy"
    """The validation score that decides."""
    finetune: dict[str, object] = Field(default_factory=dict)
    """Overrides of [finetune]'s fields: learning_rate, batch, max_length, ..."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """End the training when so many probes in a row bring no better score. A resumed training decides the same."""
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """With `patience`: a score counts as better when it is by more than this."""

    @field_validator("finetune")
    @classmethod
    def _of_trials(cls, given: dict[str, object], info: ValidationInfo) -> dict[str, object]:
        taken = next((name for name in given if name in OWN), None)
        if taken is not None:
            raise ValueError(f"{taken} is not set here: the probe has its own, or it is the training's")
        try:
            validate(TrialConfig, given, "")
        except KitaeError as error:
            raise ValueError(error.args[0]) from error
        return given

    @field_validator("gain")
    @classmethod
    def _no_dead_gain(cls, gain: float, info: ValidationInfo) -> float:
        if gain and info.data.get("patience") is None:
            raise ValueError("gain needs a patience")
        return gain

    @property
    def chosen(self) -> TaskConfig:
        """The task's definition. Raises KitaeError for the name of no built-in one."""
        return find(self.task) if isinstance(self.task, str) else self.task

    def trial(self, *, device: str, deterministic: bool) -> TrialConfig:
        """The settings of its trials."""
        own = {"epochs": self.epochs, "metric": self.metric, "device": device, "deterministic": deterministic}
        return TrialConfig.model_validate({**self.finetune, **own})


class DownstreamProbe:
    """A `kitae.train.probing.Probe` of an objective's main model: the encoder, or of two halves the discriminator."""

    def __init__(
        self, objective: Objective, config: ProbeConfig, *, tokenizer: Tokenizer, world: World, run: Path, seed: int, deterministic: bool
    ) -> None:
        """`run` is the training's folder, `seed` its seed. Raises KitaeError for a task that cannot be read, or texts that do not fit."""
        self.patience, self.gain = config.patience, config.gain
        task = config.chosen
        self._objective, self._tokenizer, self._world, self._seed = objective, tokenizer, world, seed
        self._name, self._seeds, self._metric = task.name, config.seeds, config.metric
        self.score = f"probe/{task.name}/{config.metric}"
        self._data = replace(load(task), test=())
        self._trial = config.trial(device=world.device.type, deterministic=deterministic)
        self._folder = run / FOLDER
        contents = [content_hash(locate(file)) for file in task.files]
        self._digest = digest_json([config.semantic(), task.semantic(), contents, seed])[:8]
        self._part: Part | None = None
        length_of(self._trial, self._main().config, where="[pretrain.probe.finetune]")
        if world.main:
            self._folder.mkdir(parents=True, exist_ok=True)
            for left in self._folder.glob(".*"):  # of a process that was killed or stopped
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    def take(self) -> None:
        """Copy the present weights, in fp32 on the CPU, where this rank has a trial to make."""
        if self._world.rank < self._seeds:
            part = self._main()
            state = {name: tensor.detach().to("cpu", torch.float32, copy=True) for name, tensor in part.state.items()}
            self._part = replace(part, config=part.config.padded(self._tokenizer.special.pad), state=state)

    def run(self, step: int) -> dict[str, float]:
        """Validation scores of the taken weights as "probe/TASK/accuracy" and so on: means over the seeds of their best epochs."""
        mine = range(self._world.rank, self._seeds, self._world.size)
        stopped = 0
        try:
            for number in mine:
                self._world.doing(f"trial {number} of the probe", step, slow=True)
                self._make(step, number)
        except Stopped as stop:
            stopped = stop.signal
            self._mark(step, self._world.rank).touch()
        self._part = None
        gc.collect()
        if self._world.device.type == "cuda":
            torch.cuda.empty_cache()
        for number in range(self._seeds):
            self._wait(step, number)
        told = self._world.sum_numbers({f"signal {number}": float(stopped == number) for number in SIGNALS})
        asked = next((int(number) for number in SIGNALS if told[f"signal {number}"]), 0)
        if asked:
            raise Stopped(asked, step, saved=False)
        found = [json.loads(self._file(step, number).read_text(encoding="utf-8"))["chosen"] for number in range(self._seeds)]
        scores = {f"probe/{self._name}/{name}": statistics.fmean(one[name] for one in found) for name in found[0]}
        if self._seeds > 1:
            scores[f"{self.score}_sd"] = statistics.stdev(one[self._metric] for one in found)
        log.info("probe of %s after step %d: %s %.4f", self._name, step, self._metric, scores[self.score])
        return scores

    def _main(self) -> Part:
        parts = self._objective.parts()
        return next(parts[name] for name in ("encoder", "discriminator") if name in parts)

    def _make(self, step: int, number: int) -> None:
        target = self._file(step, number)
        if target.is_file():
            return
        assert self._part is not None, "the weights were taken"
        work = self._folder / f".seed-{number}.work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        seed = key(self._seed, "probe", number)  # the same for every step: what differs are the weights
        start = Start(part=self._part, tokenizer=self._tokenizer)
        tuned = tune(self._data, start, self._trial, seed=seed, folder=work, title=f"probe {self._name} {number}")
        result = {"step": step, "chosen": tuned.chosen, "curve": tuned.curve, "warnings": tuned.warnings, "seconds": tuned.seconds}
        temporary = work / "result.json"
        temporary.write_text(json.dumps(result, ensure_ascii=False, indent=1), encoding="utf-8")
        os.replace(temporary, target)
        shutil.rmtree(work)

    def _wait(self, step: int, number: int) -> None:
        """Until a trial is made, or the rank that has to make it was stopped; the launcher ends the waiting when a rank fails."""
        target, mark = self._file(step, number), self._mark(step, number % self._world.size)
        with self._world.waiting(f"trial {number} of the probe"):
            while not target.is_file() and not mark.is_file():
                time.sleep(POLL)

    def _file(self, step: int, number: int) -> Path:
        return self._folder / f"step-{step:08d}-seed-{number}-{self._digest}.json"

    def _mark(self, step: int, rank: int) -> Path:
        return self._folder / f".stopped-{step:08d}-{rank}"


def split(scores: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """(held-out scores, those of probes) of one measurement."""
    probed = {name: value for name, value in scores.items() if name.startswith("probe/")}
    return {name: value for name, value in scores.items() if name not in probed}, probed
