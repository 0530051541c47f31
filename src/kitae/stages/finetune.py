"""Encoder + task -> Trial. One node is one task, one encoder and one seed; nodes are independent of each other."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from kitae.core.artifact import Inputs, Out
from kitae.core.config import LATER
from kitae.core.errors import KitaeError
from kitae.core.paths import locate
from kitae.procedures.baselines import BASELINES
from kitae.procedures.given import score_given
from kitae.procedures.outcome import Outcome, uncleaned, write
from kitae.procedures.sweep import Tried, best, read, table
from kitae.procedures.task_trial import TaskTrial, begin, examples_of, files_of, licence, start_folder, trial_seed
from kitae.procedures.trials import TrialConfig, run_trial
from kitae.tasks.records import TaskData

VERSION = 2
SWEEP = "sweep/"
"""What the roles of parents that are candidates of a sweep begin with."""


class FinetuneSettings(TrialConfig):
    """How to fine-tune; what all trials of a recipe share."""


class FinetuneConfig(TaskTrial):
    """One trial."""

    trained: Annotated[bool, LATER] = False
    """Score the model in `start` as it is, with its head, without training."""


def sources(config: FinetuneConfig) -> tuple[str, ...]:
    """The files of the tasks and the start folder."""
    return files_of(config)


def run(config: FinetuneConfig, inputs: Inputs, out: Out) -> None:
    """Write results.json and predictions.jsonl; for an encoder also model/ and metrics.jsonl.

    Parents whose roles begin with "sweep/" are the candidates that the settings are chosen from.
    """
    name = config.task.name
    start = locate(config.start) if config.start else inputs.get("start")
    warnings = [] if start is None or config.encoder in (*BASELINES, "random") else uncleaned(start, name)
    if warnings and config.fair:
        cure = f'add decontaminate = ["{name}"] to its table and make the encoder again, or set finetune.fair = false'
        raise KitaeError(warnings[0], cure=cure, where=f"[finetune] {config.encoder}")
    data = examples_of(config, inputs)
    if config.label_count is not None and config.label_count > len(data.train):
        warnings.append(f"label_counts names {config.label_count}, but there are {len(data.train)} training examples: all were used")
    tried = [one for role, folder in inputs.parents.items() if role.startswith(SWEEP) for one in read(folder)]
    outcome = _outcome(config, data, inputs, out, tried)
    source = "" if config.learn_from is None else config.learn_from.name
    outcome = replace(outcome, warnings=[*data.remarks, *outcome.warnings, *warnings], source=source, sweep=table(tried))
    results = write(outcome, data, out.path, metric=config.metric, encoder=config.encoder, seed=config.seed)
    out.counts.update({"examples": results.examples, "scores": results.scores, "chosen": results.chosen})
    if results.warnings:
        out.counts["warnings"] = results.warnings
    out.licences.extend(licence(task) for task in (config.task, config.learn_from) if task is not None)


def _outcome(config: FinetuneConfig, data: TaskData, inputs: Inputs, out: Out, tried: list[Tried]) -> Outcome:
    if config.encoder in BASELINES:
        return BASELINES[config.encoder](data, config.metric)
    if config.trained:
        return score_given(data, start_folder(config.encoder, config.start, inputs), config)
    start, trial = begin(config, inputs)
    if tried:
        taken = best(tried)
        trial = trial.model_copy(update={"learning_rate": taken.learning_rate, "epochs": taken.epochs})
    title = f"{config.task.name} {Path(config.encoder).name} {config.seed}"
    outcome = run_trial(data, start, trial, seed=trial_seed(config, inputs), folder=out.path, title=title)
    if not tried:
        return outcome
    chosen = {"learning_rate": trial.learning_rate, "epochs": float(trial.epochs)}
    return replace(outcome, chosen=outcome.chosen | chosen)
