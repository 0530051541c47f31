"""The table of built-in tasks, and the reading of a task's examples into train, validation and test."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.paths import locate
from kitae.tasks.config import Split, TaskConfig
from kitae.tensor.random import numpy_generator
from kitae.text.tables import need_column, need_text, read_rows

log = logging.getLogger(__name__)

# A task is one record here, in a recipe's [task.NAME] table or in an installed package.
TASKS: dict[str, TaskConfig] = {
    "sample-topics": TaskConfig(
        name="sample-topics",
        path=("sample:topics",),
        split=Split(train=0.6, validation=0.15, test=0.25),
        id="id",
        licence="CC0-1.0",
        citation="Written for kitae.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Example:
    """One labelled text; `where` is its file and line."""

    id: str
    text: str
    label: str
    where: str


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """The examples of a task. `leaked` counts the test texts that also stand, letter by letter, in train or validation."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...]
    leaked: int

    def numbers(self, examples: Iterable[Example]) -> list[int]:
        """The labels of examples as places in `labels`."""
        place = {label: i for i, label in enumerate(self.labels)}
        return [place[example.label] for example in examples]


def find(name: str) -> TaskConfig:
    """A built-in task by name. Raises KitaeError when there is none."""
    if name not in TASKS:
        raise KitaeError(f'there is no task "{name}"', cure=did_you_mean(name, TASKS))
    return TASKS[name]


def load(config: TaskConfig) -> TaskData:
    """Read and split a task's examples; pure function of the files' contents and the settings.

    Raises KitaeError naming file and line for a missing column, an empty text or label, a repeated id, an unknown label,
    or a label that only the test examples have.
    """
    if config.split is not None:
        shares = (config.split.train, config.split.validation, config.split.test)
        train, validation, test = _divide(_read(config, config.path), shares, seed=config.split_seed)
    else:
        train, test = _read(config, config.train), _read(config, config.test)
        if config.validation:
            validation = _read(config, config.validation)
        else:
            shares = (1 - config.validation_share, config.validation_share, 0.0)
            train, validation, _ = _divide(train, shares, seed=config.split_seed)
    for name, part in (("training", train), ("validation", validation), ("test", test)):
        if not part:
            raise KitaeError(f"the task {config.name} has no {name} examples", cure="give more examples or a larger share")
    _check_ids((*train, *validation, *test), by_file=config.id is None)
    labels = config.labels or tuple(sorted({example.label for example in train}))
    _check_labels(config, labels, (*train, *validation), test)
    if config.limit is not None:
        share = min(1.0, config.limit / (len(train) + len(validation) + len(test)))
        train, validation, test = (_thin(part, share) for part in (train, validation, test))
    known = {example.text for example in (*train, *validation)}
    leaked = sum(example.text in known for example in test)
    if leaked:
        log.warning("task %s: %d of %d test texts also stand in the training or validation examples", config.name, leaked, len(test))
    return TaskData(train=tuple(train), validation=tuple(validation), test=tuple(test), labels=labels, leaked=leaked)


def read_all(config: TaskConfig) -> list[Example]:
    """Every example of a task in the order of its files, whichever way they are split. Raises KitaeError as `load` does for a bad line."""
    return _read(config, config.files)


def _read(config: TaskConfig, files: Sequence[str]) -> list[Example]:
    examples = []
    for file in files:
        path = locate(file)
        for number, row in read_rows(path, format=config.format):
            where = f"{path}, line {number}"
            parts = [need_text(row, column, where).strip() for column in config.text]
            text = "\n".join(part for part in parts if part)
            label = need_column(row, config.label, where).strip()
            if not text or not label:
                raise KitaeError(f"the {'label' if text else 'text'} is empty", cure="fill it in or remove the line", where=where)
            name = need_column(row, config.id, where) if config.id else f"{path.name}:{number}"
            examples.append(Example(id=name, text=text, label=label, where=where))
    return examples


def _divide(
    examples: list[Example], shares: tuple[float, float, float], *, seed: int
) -> tuple[list[Example], list[Example], list[Example]]:
    """Cut each label's examples, shuffled, by the shares; the order of the lines in the file plays no part.

    Every label has at least one training example, and one for validation when it has three examples or more.
    """
    by_label: dict[str, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda example: (example.id, example.where)):
        by_label[example.label].append(example)
    parts: tuple[list[Example], list[Example], list[Example]] = ([], [], [])
    for label in sorted(by_label):
        group = by_label[label]
        order = numpy_generator(seed, "split", label).permutation(len(group))
        first = max(1, round(len(group) * shares[0]))
        second = first + max(1 if len(group) >= 3 else 0, round(len(group) * (shares[0] + shares[1])) - first)
        third = max(second, round(len(group) * sum(shares)))
        for part, start, end in zip(parts, (0, first, second), (first, second, third), strict=True):
            part.extend(group[i] for i in order[start:end])
    return parts


def _thin(examples: list[Example], share: float) -> list[Example]:
    keep = max(1, int(len(examples) * share))
    return [examples[i * len(examples) // keep] for i in range(keep)]


def _check_ids(examples: Sequence[Example], *, by_file: bool) -> None:
    seen: dict[str, str] = {}
    for example in examples:
        if example.id in seen:
            cure = "give the files different names, or name an id column" if by_file else "give every example an id of its own"
            raise KitaeError(f'the id "{example.id}" occurs twice, first in {seen[example.id]}', cure=cure, where=example.where)
        seen[example.id] = example.where


def _check_labels(config: TaskConfig, labels: tuple[str, ...], learned: Sequence[Example], test: Sequence[Example]) -> None:
    if len(labels) < 2:
        raise KitaeError(f"the task {config.name} has one label only: {labels[0]}", cure="give examples of at least two labels")
    for example in (*learned, *test):
        if example.label in labels:
            continue
        if config.labels:
            raise KitaeError(
                f'the label "{example.label}" is not one of `labels`', cure=did_you_mean(example.label, labels), where=example.where
            )
        kind = "test" if example in test else "validation"
        raise KitaeError(
            f'the label "{example.label}" occurs in the {kind} examples but never in the training examples',
            cure="add training examples of it, correct it, or remove it from the task",
            where=example.where,
        )
