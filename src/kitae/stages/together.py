"""Encoder + tasks -> one trial of all of them at once. One node is a group of tasks, one encoder and one seed.

Below the node's folder each task has one of its own, which looks like that of a trial of the task alone.
"""

from dataclasses import replace
from pathlib import Path

from kitae.core.artifact import Inputs, Out
from kitae.core.errors import KitaeError
from kitae.procedures.outcome import uncleaned, write
from kitae.procedures.task_trial import TaskTrial, licence, start_folder
from kitae.procedures.together import TogetherTrial, run_together
from kitae.procedures.trials import read_start
from kitae.tasks.records import load
from kitae.tensor.random import key

VERSION = 1


class TogetherConfig(TogetherTrial):
    """One trial of several tasks."""

    encoder: str
    """"random" (the start's architecture with new weights), or the name of what is fine-tuned."""
    seed: int
    """Seed of the new weights, of the tasks' turns, of the order of the examples and of dropout."""
    start: str | None = None
    """A Hugging Face folder or checkpoint outside the recipe; absent: the stage that the graph gives."""

    @property
    def alone(self) -> tuple[TaskTrial, ...]:
        """The trials that the tasks would have alone, for checks and estimates."""
        what = {"encoder": self.encoder, "seed": self.seed, "start": self.start}
        return tuple(TaskTrial.model_validate({**dict(one.trial), **what, "task": one.task}) for one in self.shared)


def sources(config: TogetherConfig) -> tuple[str, ...]:
    """The files of the tasks and the start folder."""
    return (*(file for one in config.shared for file in one.task.files), *((config.start,) if config.start else ()))


def run(config: TogetherConfig, inputs: Inputs, out: Out) -> None:
    """Write metrics.jsonl, and of every task TASK/results.json, TASK/predictions.jsonl and TASK/model/."""
    folder = start_folder(config.encoder, config.start, inputs)
    names = [one.task.name for one in config.shared]
    uncleared = {name: [] if config.encoder == "random" else uncleaned(folder, name) for name in names}
    wrong = next((name for name, warnings in uncleared.items() if warnings), None)
    if wrong is not None and config.common.fair:
        cure = f'add decontaminate = ["{wrong}"] to its table and make the encoder again, or set finetune.fair = false'
        raise KitaeError(uncleared[wrong][0], cure=cure, where=f"[finetune] {config.encoder}")
    tasks = [load(one.task) for one in config.shared]
    start = read_start(folder, fresh=config.encoder == "random")
    title = f"{'+'.join(names)} {Path(config.encoder).name} {config.seed}"
    found = run_together(tasks, start, config, seed=key(inputs.seed, "trial", config.seed), folder=out.path, title=title)
    counts: dict[str, object] = {}
    for data, one in zip(tasks, config.shared, strict=True):
        name, outcome = data.config.name, found[data.config.name]
        outcome = replace(outcome, warnings=[*outcome.warnings, *uncleared[name]])
        encoder = f"{config.encoder} with {', '.join(other for other in names if other != name)}"
        results = write(outcome, data, out.path / name, metric=one.trial.metric, encoder=encoder, seed=config.seed)
        counts[name] = {"examples": results.examples, "scores": results.scores, "chosen": results.chosen, "warnings": outcome.warnings}
        out.licences.append(licence(one.task))
    out.counts["tasks"] = counts
