"""Encoder + task -> what validation says of a candidate's settings. One node is one candidate and seed, or one search by optuna.

No test example is read into a candidate: what is chosen cannot hang on it.
"""

from dataclasses import replace
from pathlib import Path

from kitae.core.artifact import Inputs, Out
from kitae.procedures.sweep import Candidate, Search, SweepConfig, Tried, table, write
from kitae.procedures.task_trial import TaskTrial, begin, examples_of, files_of, trial_seed
from kitae.procedures.trials import Start, TrialConfig, tune
from kitae.tasks.kinds import metric_of
from kitae.tasks.records import TaskData
from kitae.tensor.random import key

VERSION = 1


class CandidateConfig(TaskTrial):
    """One candidate: its learning rate and epochs are those of the trial."""

    search: SweepConfig | None = None
    """What optuna looks through, where it does; then `seeds` are those that a candidate is judged by."""
    seeds: tuple[int, ...] = ()
    """Of a search; else `seed` is the only one."""


def sources(config: CandidateConfig) -> tuple[str, ...]:
    """The files of the tasks and the start folder."""
    return files_of(config)


def run(config: CandidateConfig, inputs: Inputs, out: Out) -> None:
    """Write sweep.json."""
    start, trial = begin(config, inputs)
    if config.search is None:
        candidate = Candidate(learning_rate=config.learning_rate, epochs=config.epochs)
        tried = [_try(candidate, config, start, trial, inputs, out)]
    else:
        tried = []
        search = Search(config.search, key(inputs.seed, "search", config.seed))
        for candidate, mark in search:
            found = [_try(candidate, config.model_copy(update={"seed": seed}), start, trial, inputs, out) for seed in config.seeds]
            search.tell(mark, sum(one.score for one in found) / len(found))
            tried += found
    write(tried, out.path)
    out.counts["tried"] = table(tried)


def _try(candidate: Candidate, config: CandidateConfig, start: Start, trial: TrialConfig, inputs: Inputs, out: Out) -> Tried:
    data: TaskData = replace(examples_of(config, inputs), test=())
    settings = trial.model_copy(update={"learning_rate": candidate.learning_rate, "epochs": candidate.epochs, "protocol": "fair"})
    title = f"{config.task.name} {Path(config.encoder).name} {candidate.name} {config.seed}"
    tuned = tune(data, start, settings, seed=trial_seed(config, inputs), folder=out.path, title=title)
    metric = metric_of(config.task, config.metric)
    return Tried(candidate=candidate, seed=config.seed, metric=metric, score=tuned.chosen[metric], chosen=tuned.chosen)
