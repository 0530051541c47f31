"""The table of kinds of tasks, and those that installed packages add."""

from collections.abc import Mapping
from typing import Any

from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.extensions import extension, names
from kitae.core.recipe import validate
from kitae.tasks.choice import ChoiceKind
from kitae.tasks.classification import ClassificationKind
from kitae.tasks.config import TaskConfig
from kitae.tasks.kind import Kind
from kitae.tasks.multilabel import MultiLabelKind
from kitae.tasks.questions import SpanKind
from kitae.tasks.regression import RegressionKind
from kitae.tasks.tagging import TaggingKind

GROUP = "kitae.kinds"
"""Entry points of installed packages: a name and an instance of `Kind`. They cannot replace a row of KINDS."""
KINDS: Mapping[str, Kind[Any]] = {
    kind.name: kind for kind in (ClassificationKind(), MultiLabelKind(), RegressionKind(), ChoiceKind(), TaggingKind(), SpanKind())
}


def kind_of(task: TaskConfig) -> Kind[Any]:
    """The kind of a task. Raises KitaeError for an unknown one, and for a package's that cannot be used."""
    if task.kind in KINDS:
        return KINDS[task.kind]
    found = extension(GROUP, task.kind, Kind, key="kind")  # type: ignore[type-abstract]  # any instance will do
    if found is None:
        known = [*KINDS, *names(GROUP)]
        raise KitaeError(f'kind = "{task.kind}" is unknown', cure=did_you_mean(task.kind, known), where=f"task {task.name}")
    return found


def options_of(task: TaskConfig) -> Any:
    """The kind's own settings of a task, checked. Raises KitaeError for what the kind does not know."""
    return validate(kind_of(task).options, task.kind_config, f"task {task.name}", "kind_config")


def metric_of(task: TaskConfig, wanted: str = "") -> str:
    """What a task is judged by: the metric asked for, or the task's, or the first of its kind. Raises KitaeError for an unknown one."""
    known = kind_of(task).metrics
    name = wanted or task.metric or next(iter(known))
    if name not in known:
        raise KitaeError(f'{task.kind} has no metric "{name}"', cure=did_you_mean(name, known), where=f"task {task.name}")
    return name
