"""All trials of a task, read back beside the test examples that they predicted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kitae.core.errors import KitaeError
from kitae.procedures.outcome import Trial, TrialResults, read
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.kind import Kind, Predicted
from kitae.tasks.kinds import kind_of, metric_of
from kitae.tasks.mcnemar import right_or_wrong
from kitae.tasks.metrics import Floats, Metric


@dataclass(frozen=True, kw_only=True)
class TrialSet:
    """The trials of a task, by encoder; their predictions as far as the test examples' golds are known."""

    kind: Kind[Any]
    metric: Metric
    """What the encoders are compared by."""
    examples: Sequence[Example]
    """The test examples whose gold is known."""
    results: Mapping[str, Sequence[TrialResults]]
    """encoder -> of every seed its results."""
    predicted: Mapping[str, Sequence[Sequence[Predicted]]]
    """encoder -> of every seed one prediction per example."""

    @property
    def first(self) -> TrialResults:
        """The results of the first trial, which says what all have in common."""
        return next(iter(self.results.values()))[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """Of all trials; in a shift of domain some have learnt more labels than others."""
        return tuple(dict.fromkeys(label for results in self.results.values() for label in results[0].labels))

    def items(self, metric: Metric | None = None) -> dict[str, list[Floats]]:
        """The items [N, K] of every encoder's seeds, of the metric unless another one is named."""
        golds, of, labels = [example.gold for example in self.examples], (metric or self.metric).items, self.labels
        return {name: [of(golds, [one.value for one in seed], labels) for seed in seeds] for name, seeds in self.predicted.items()}

    def decided(self) -> dict[str, list[Floats]] | None:
        """The items of the first metric that says right or wrong of an example (the compared one before the others), if there is one."""
        for metric in (self.metric, *self.kind.metrics.values()):
            found = self.items(metric)
            if right_or_wrong([one for seeds in found.values() for one in seeds]):
                return found
        return None


def read_trials(folders: Sequence[Path], task: TaskConfig, examples: Sequence[Example], *, metric: str = "") -> TrialSet:
    """The trials in the order of the folders; `examples` are the task's test examples.

    Raises KitaeError when there are no trials, or they were not scored on the same examples, or not on these.
    """
    groups: dict[str, list[Trial]] = {}
    for folder in folders:
        trial = read(folder)
        groups.setdefault(trial.results.encoder, []).append(trial)
    if not groups:
        raise KitaeError(f"the task {task.name} has no trials to compare", cure="name encoders in finetune.compare")
    first = next(iter(groups.values()))[0]
    where = f"task {task.name}"
    for name, trials in groups.items():
        for trial in trials:
            if list(trial.ids) != list(first.ids) or list(trial.golds) != list(first.golds):
                what = f"the trials of {name} and {first.results.encoder} were scored on different test examples"
                raise KitaeError(what, cure="run the trials again", where=where)
    of = {example.id: example for example in examples}
    strange = next((number for number in first.ids if number not in of), None)
    if strange is not None:
        raise KitaeError(f'the trials were scored on "{strange}", which is no test example now', cure="run the trials again", where=where)
    kind, known = kind_of(task), [i for i, gold in enumerate(first.golds) if gold is not None]
    return TrialSet(
        kind=kind,
        metric=kind.metrics[metric_of(task, metric)],
        examples=[replace(of[first.ids[i]], gold=first.golds[i]) for i in known],
        results={name: [trial.results for trial in trials] for name, trials in groups.items()},
        predicted={name: [[trial.predicted[i] for i in known] for trial in trials] for name, trials in groups.items()},
    )
