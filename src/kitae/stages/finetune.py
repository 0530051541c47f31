"""Encoder + task -> Trial. One node is one task, one encoder and one seed; nodes are independent of each other."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kitae.core.artifact import Inputs, Out
from kitae.core.errors import KitaeError
from kitae.core.paths import locate
from kitae.procedures.baselines import BASELINES
from kitae.procedures.outcome import Outcome, uncleaned, write
from kitae.procedures.trials import TrialConfig, read_start, run_trial
from kitae.tasks.config import TaskConfig
from kitae.tasks.records import TaskData, load
from kitae.tensor.random import key

VERSION = 2


class FinetuneSettings(TrialConfig):
    """How to fine-tune; what all trials of a recipe share."""


class FinetuneConfig(FinetuneSettings):
    """One trial."""

    task: TaskConfig
    """The labelled examples."""
    encoder: str
    """"random" (the start's architecture with new weights), "majority", "tfidf", or the name of what is fine-tuned."""
    seed: int
    """Seed of the new weights, of the order of the examples and of dropout."""
    start: str | None = None
    """A Hugging Face folder or checkpoint outside the recipe; absent: the stage that the graph gives."""


def sources(config: FinetuneConfig) -> tuple[str, ...]:
    """The task's files and the start folder."""
    return (*config.task.files, *((config.start,) if config.start else ()))


def run(config: FinetuneConfig, inputs: Inputs, out: Out) -> None:
    """Write results.json and predictions.jsonl; for an encoder also model/ and metrics.jsonl."""
    name = config.task.name
    start = locate(config.start) if config.start else inputs.get("start")
    warnings = [] if start is None or config.encoder in (*BASELINES, "random") else uncleaned(start, name)
    if warnings and config.fair:
        cure = f'add decontaminate = ["{name}"] to its table and make the encoder again, or set finetune.fair = false'
        raise KitaeError(warnings[0], cure=cure, where=f"[finetune] {config.encoder}")
    data = load(config.task)
    outcome = _outcome(config, data, inputs, out)
    outcome = replace(outcome, warnings=[*data.remarks, *outcome.warnings, *warnings])
    results = write(outcome, data, out.path, metric=config.metric, encoder=config.encoder, seed=config.seed)
    out.counts.update({"examples": results.examples, "scores": results.scores, "chosen": results.chosen})
    if outcome.warnings:
        out.counts["warnings"] = outcome.warnings
    out.licences.append(licence(config.task))


def licence(task: TaskConfig) -> dict[str, str]:
    """The task's row among the licences of an artifact."""
    return {"name": task.name, "licence": task.licence or "not stated", "source": task.citation or ", ".join(task.files)}


def _outcome(config: FinetuneConfig, data: TaskData, inputs: Inputs, out: Out) -> Outcome:
    if config.encoder in BASELINES:
        return BASELINES[config.encoder](data, config.metric)
    folder = locate(config.start) if config.start else inputs.get("start")
    if folder is None:
        raise KitaeError(f'the encoder "{config.encoder}" has no folder to start from', cure="give `start`, the folder of an encoder")
    start = read_start(folder, fresh=config.encoder == "random")
    settings: Mapping[str, object] = {name: getattr(config, name) for name in TrialConfig.model_fields}
    seed = key(inputs.seed, "trial", config.seed)
    title = f"{config.task.name} {Path(config.encoder).name} {config.seed}"
    trial = TrialConfig.model_validate(settings)
    return run_trial(data, start, trial, seed=seed, folder=out.path, title=title)
