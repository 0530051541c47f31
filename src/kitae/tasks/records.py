"""The table of built-in tasks, and the reading of a task's examples into train, validation and test."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.extensions import extension, names
from kitae.core.paths import locate
from kitae.tasks.config import Parts, Split, TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.formats import check_format, read_examples
from kitae.tasks.kinds import kind_of, metric_of, options_of
from kitae.tasks.remarks import labels_in, remarks
from kitae.tasks.unlabelled import read_submission
from kitae.tensor.random import numpy_generator

log = logging.getLogger(__name__)

GROUP = "kitae.tasks"
"""Entry points of installed packages: a name and a `TaskConfig`."""

# A task is one record here, in a recipe's [task.NAME] table (there like one of kitae.tasks.presets, or all its own), or in an
# installed package.
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
class TaskData:
    """The examples of a task. `leaked` counts the test texts that also stand, letter by letter, in train or validation."""

    config: TaskConfig

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...]
    leaked: int
    remarks: tuple[str, ...] = ()
    """What looks wrong in the labels."""

    @property
    def learned(self) -> tuple[Example, ...]:
        """The training examples as they are learnt: where the task says so, after them each pair the other way round."""
        if not self.config.both_orders:
            return self.train
        swapped = (replace(one, id=f"{one.id}/swapped", text=one.second or "", second=one.text) for one in self.train)
        return (*self.train, *swapped)


def find(name: str, own: Mapping[str, TaskConfig] | None = None) -> TaskConfig:
    """A task by name: of the recipe's `own`, built-in, or of an installed package. Raises KitaeError when there is none."""
    found = (own or {}).get(name) or TASKS.get(name) or extension(GROUP, name, TaskConfig, key="task")
    if found is None:
        raise KitaeError(f'there is no task "{name}"', cure=did_you_mean(name, [*(own or {}), *TASKS, *names(GROUP)]))
    return found


def check_task(config: TaskConfig, metric: str = "") -> None:
    """Raise KitaeError for what is wrong in a task's settings, as far as that can be said without reading its files.

    `metric` is what its trials are asked to be judged by.
    """
    options_of(config)
    metric_of(config, metric)
    for file in config.files:
        check_format(locate(file), config)


def load(config: TaskConfig) -> TaskData:
    """Read and split a task's examples; pure function of the files' contents and the settings.

    Raises KitaeError naming file and line for a missing column, an empty text or label, a repeated id, an unknown label,
    or a label that only the test examples have.
    """
    if config.parts is not None:
        train, validation, test = _by_column(config, config.parts)
    elif config.split is not None:
        shares = (config.split.train, config.split.validation, config.split.test)
        train, validation, test = _divide(_read(config, config.path), shares, seed=config.split_seed)
    else:
        train, test = _read(config, config.train), _read(config, config.test)
        validation = _read(config, config.validation)
    if not validation and config.split is None:
        shares = (1 - config.validation_share, config.validation_share, 0.0)
        train, validation, _ = _divide(train, shares, seed=config.split_seed)
    for name, part in (("training", train), ("validation", validation), ("test", test)):
        if not part:
            raise KitaeError(f"the task {config.name} has no {name} examples", cure="give more examples or a larger share")
    _check_ids((*train, *validation, *test), by_file=config.id is None)
    labels = config.labels or kind_of(config).labels(train, options_of(config))
    _check_gold(config, labels, (*train, *validation), test)
    if config.limit is not None:
        share = min(1.0, config.limit / (len(train) + len(validation) + len(test)))
        train, validation, test = (_thin(part, share) for part in (train, validation, test))
    found = remarks(labels, train, (*validation, *test))
    for remark in found:
        log.warning("task %s: %s", config.name, remark)
    known = {example.texts for example in (*train, *validation)}
    leaked = sum(example.texts in known for example in test)
    if leaked:
        log.warning("task %s: %d of %d test texts also stand in the training or validation examples", config.name, leaked, len(test))
    return TaskData(
        config=config,
        train=tuple(train),
        validation=tuple(validation),
        test=tuple(test),
        labels=labels,
        leaked=leaked,
        remarks=tuple(found),
    )


def read_all(config: TaskConfig) -> list[Example]:
    """Every example of a task in the order of its files, whichever way they are split, and those of its submissions.

    Raises KitaeError as `load` does for a bad line.
    """
    labelled = _read(config, (*config.path, *config.train, *config.validation, *config.test))
    return [*labelled, *(example for one in config.submissions.values() for example in read_submission(config, one))]


def _read(config: TaskConfig, files: Sequence[str]) -> list[Example]:
    kind, options = kind_of(config), options_of(config)
    return [kind.canonical(example, options) for file in files for example in read_examples(locate(file), config)]


def _by_column(config: TaskConfig, parts: Parts) -> tuple[list[Example], list[Example], list[Example]]:
    """The pool as its column divides it."""
    pool = _read(config, config.path)
    train, validation, test = ([one for one in pool if one.part in names] for names in (parts.train, parts.validation, parts.test))
    unused = sorted({example.part for example in pool} - {*parts.train, *parts.validation, *parts.test})
    if unused:
        log.warning('task %s: rows whose "%s" is %s belong to no split', config.name, parts.column, ", ".join(unused[:10]))
    return train, validation, test


def _divide(
    examples: list[Example], shares: tuple[float, float, float], *, seed: int
) -> tuple[list[Example], list[Example], list[Example]]:
    """Cut each label's examples, shuffled, by the shares; the order of the lines in the file plays no part.

    Every label has at least one training example, and one for validation when it has three examples or more.
    """
    if any(example.group for example in examples):
        return _divide_groups(examples, shares, seed=seed)
    by_label: dict[str, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda example: (example.id, example.where)):
        by_label[example.gold if isinstance(example.gold, str) else ""].append(example)
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


def _divide_groups(
    examples: list[Example], shares: tuple[float, float, float], *, seed: int
) -> tuple[list[Example], list[Example], list[Example]]:
    """Cut the groups, shuffled, by the shares of the examples. A group with a label that no training example has goes to training."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda example: (example.id, example.where)):
        groups[example.group or f"\0{example.id}"].append(example)
    names = sorted(groups)
    parts: tuple[list[Example], list[Example], list[Example]] = ([], [], [])
    ends = [shares[0] * len(examples), (shares[0] + shares[1]) * len(examples), sum(shares) * len(examples)]
    seen, later = 0.0, []
    for i in numpy_generator(seed, "split", "groups").permutation(len(names)):
        group = groups[names[i]]
        middle = seen + len(group) / 2
        number = next((number for number, end in enumerate(ends) if middle < end), None)
        seen += len(group)
        if number == 0:
            parts[0].extend(group)
        elif number is not None:
            later.append((number, group))
    known = {label for example in parts[0] for label in labels_in(example)}
    for number, group in later:
        new = {label for example in group for label in labels_in(example)} - known
        parts[0 if new else number].extend(group)
        known |= new
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


def _check_gold(config: TaskConfig, labels: tuple[str, ...], learned: Sequence[Example], test: Sequence[Example]) -> None:
    if len(labels) == 1:
        raise KitaeError(f"the task {config.name} has one label only: {labels[0]}", cure="give examples of at least two labels")
    kind, options = kind_of(config), options_of(config)
    hidden = next((example for example in learned if example.gold is None), None)
    if hidden is not None:
        raise KitaeError("the label is hidden, and this is no test example", cure="give labelled examples", where=hidden.where)
    for example in (*learned, *test):
        if example.gold is None:
            continue
        if not config.labels and isinstance(example.gold, str) and example.gold not in labels:
            part = "test" if example in test else "validation"
            raise KitaeError(
                f'the label "{example.gold}" occurs in the {part} examples but never in the training examples',
                cure="add training examples of it, correct it, or remove it from the task",
                where=example.where,
            )
        kind.check(example, labels, options)
