"""Where encoders err: by class, by slice of the test examples, and on which examples most."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from kitae.core.config import Config
from kitae.core.score import Score
from kitae.procedures.slices import Slice, slices
from kitae.procedures.trial_set import TrialSet
from kitae.report.tables import Table
from kitae.tasks.examples import Example
from kitae.tasks.kind import Predicted
from kitae.tasks.marks import marks, shown
from kitae.tasks.metrics import Floats
from kitae.tasks.statistics import Replicates

SAMPLES = 1000
"""Draws for the interval of a slice."""


class ClassErrors(Config):
    """What an encoder makes of one class: a label, a class of entities, a tag. Counts are of all seeds together."""

    name: str
    """The class."""
    gold: int
    """How many there are."""
    predicted: int
    """How many were predicted."""
    right: int
    """How many of the predicted ones are there (entities: at the same place)."""
    precision: float
    """right / predicted; 0 of none."""
    recall: float
    """right / gold; 0 of none."""
    f1: float
    """The harmonic mean of the two."""


class SliceErrors(Config):
    """The score on a part of the test examples."""

    slice: str
    """"length" (characters), "label", "gold" (of numbers), or a column of the task's `slices`."""
    value: str
    """Which part."""
    examples: int
    """How many test examples it has."""
    score: float
    """The metric, mean over the seeds."""
    low: float
    """Lower end of its 95 % interval over examples and seeds."""
    high: float
    """Upper end."""
    error: float
    """Mean error of an example: see WorstExample."""


class WorstExample(Config):
    """An example that an encoder gets most wrong."""

    id: str
    """Its id."""
    where: str
    """Its file and line."""
    error: float
    """Mean over the seeds of the kind's loss: minus the logarithm of the probability of the truth, of a number the squared distance. Of
    kinds without one: 1 - the metric of this example alone."""
    wrong: int | None
    """How many seeds get it wrong; None where the kind has no metric that says so."""
    gold: str
    """What is right."""
    predicted: str
    """What most seeds say (of equally many, the first)."""
    text: str = ""
    """Its text; empty where texts are left out."""
    second: str = ""
    """Its second text."""


class EncoderErrors(Config):
    """The errors of one encoder over its seeds."""

    encoder: str
    """Its name in the recipe."""
    classes: list[ClassErrors]
    """By class, in the order of the task's labels; none of numbers."""
    slices: list[SliceErrors]
    """By slice."""
    worst: list[WorstExample]
    """The worst first."""


class Errors(Config):
    """The content of errors.json."""

    task: str
    """Name of the task."""
    metric: str
    """What slices are scored by."""
    seeds: dict[str, int]
    """How many seeds of each encoder were counted."""
    encoders: list[EncoderErrors]
    """In the order of the recipe's `compare`."""


def errors(found: TrialSet, *, worst: int, texts: bool, seed: int) -> Errors:
    """Everything above of every encoder. `worst` examples of each are named, with their texts if `texts`."""
    items, decided = found.items(), found.decided()
    wrongness = {name: _wrongness(found, name, of) for name, of in items.items()}
    scored = _scored(found, items, wrongness, seed=seed)
    made = []
    for name, seeds in found.predicted.items():
        wrong = None if decided is None else np.sum([one[:, 0] == 0 for one in decided[name]], axis=0).tolist()
        named = _worst(found, seeds, wrongness[name].mean(0), wrong=wrong, count=worst, texts=texts)
        made.append(EncoderErrors(encoder=name, classes=_classes(found, seeds), slices=scored[name], worst=named))
    seeds_of = {name: len(seeds) for name, seeds in found.predicted.items()}
    return Errors(task=found.first.task, metric=found.metric.name, seeds=seeds_of, encoders=made)


def _classes(found: TrialSet, seeds: Sequence[Sequence[Predicted]]) -> list[ClassErrors]:
    gold: Counter[str] = Counter()
    guessed: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for predicted in seeds:
        for example, one in zip(found.examples, predicted, strict=True):
            assert example.gold is not None, "examples without gold are left out"
            there, said = marks(example, example.gold), marks(example, one.value)
            gold.update(name for name, *_ in there)
            guessed.update(name for name, *_ in said)
            right.update(name for name, *_ in there & said)
    order = {label: i for i, label in enumerate(found.labels)}
    names = sorted({*gold, *guessed}, key=lambda name: (order.get(name, len(order)), name))
    return [
        ClassErrors(
            name=name,
            gold=gold[name],
            predicted=guessed[name],
            right=right[name],
            precision=right[name] / guessed[name] if guessed[name] else 0.0,
            recall=right[name] / gold[name] if gold[name] else 0.0,
            f1=2 * right[name] / (gold[name] + guessed[name]),
        )
        for name in names
    ]


def _scored(
    found: TrialSet, items: Mapping[str, Sequence[Floats]], wrongness: Mapping[str, Floats], *, seed: int
) -> dict[str, list[SliceErrors]]:
    made: dict[str, list[SliceErrors]] = {name: [] for name in items}
    for part in slices(found.examples):
        inside = {name: [one[part.inside] for one in of] for name, of in items.items()}
        replicates = Replicates(found.metric, inside, samples=SAMPLES, seed=seed)
        for name in items:
            error = float(wrongness[name][:, part.inside].mean())
            made[name].append(_slice(part, replicates.interval(name), error))
    return made


def _slice(part: Slice, score: Score, error: float) -> SliceErrors:
    numbers = {"score": score.value, "low": score.low, "high": score.high, "error": error}
    return SliceErrors(slice=part.name, value=part.value, examples=len(part.inside), **numbers)


def _wrongness(found: TrialSet, encoder: str, items: Sequence[Floats]) -> Floats:
    """[seeds, N]: the error of every example."""
    rows = []
    for seed, one in zip(found.predicted[encoder], items, strict=True):
        alone = found.metric.value(one) if found.metric.resampled is None else np.zeros(len(one))
        rows.append(
            [_error(found, found.results[encoder][0].labels, *row) for row in zip(found.examples, seed, alone.tolist(), strict=True)]
        )
    return np.asarray(rows)


def _error(found: TrialSet, labels: Sequence[str], example: Example, predicted: Predicted, alone: float) -> float:
    gold, value = example.gold, predicted.value
    loss = found.kind.loss(example, predicted, labels)
    if loss is not None:
        return loss
    if isinstance(gold, int | float) and isinstance(value, int | float) and not example.choices:
        return abs(gold - value)
    return 0.0 if gold == value else 1 - alone


def _worst(
    found: TrialSet, seeds: Sequence[Sequence[Predicted]], error: Floats, *, wrong: Sequence[int] | None, count: int, texts: bool
) -> list[WorstExample]:
    order = sorted(range(len(error)), key=lambda i: (-error[i], found.examples[i].id))
    made = []
    for i in [i for i in order if error[i] > 0][:count]:
        example = found.examples[i]
        assert example.gold is not None, "examples without gold are left out"
        values = [seed[i].value for seed in seeds]
        made.append(
            WorstExample(
                id=example.id,
                where=example.where,
                error=float(error[i]),
                wrong=None if wrong is None else wrong[i],
                gold=shown(example, example.gold, texts=texts),
                predicted=shown(example, max(values, key=values.count), texts=texts),
                text=example.text if texts else "",
                second=(example.second or " | ".join(example.choices)) if texts else "",
            )
        )
    return made


def error_tables(found: Errors, names: Mapping[str, str]) -> dict[str, Table]:
    """The same as tables, by file name. `names`: how encoders are called."""
    metric = found.metric.replace("_", " ")
    classes = Table(
        title="By class, all seeds together",
        columns=("encoder", "class", "gold", "predicted", "right", "precision", "recall", "F1"),
        rows=[
            (names[one.encoder], row.name, row.gold, row.predicted, row.right, row.precision, row.recall, row.f1)
            for one in found.encoders
            for row in one.classes
        ],
    )
    parts = Table(
        title=f"By slice: {metric}",
        columns=("slice", "value", "examples", "encoder", "mean", "95 % low", "95 % high", "error"),
        rows=[
            (row.slice, row.value, row.examples, names[one.encoder], row.score, row.low, row.high, row.error)
            for place in range(len(found.encoders[0].slices))
            for one in found.encoders
            for row in (one.slices[place],)
        ],
    )
    worst = Table(
        title="The worst examples of each encoder",
        columns=("encoder", "rank", "id", "error", "wrong seeds", "gold", "predicted", "text", "second", "where"),
        rows=[
            (names[one.encoder], rank, row.id, row.error, wrong, row.gold, row.predicted, row.text, row.second, row.where)
            for one in found.encoders
            for rank, row in enumerate(one.worst, start=1)
            for wrong in (_of(row.wrong, found.seeds[one.encoder]),)
        ],
        aside=("where",),
    )
    return {name: table for name, table in (("classes", classes), ("slices", parts), ("worst", worst)) if table.rows}


def _of(wrong: int | None, seeds: int) -> str | None:
    return None if wrong is None else f"{wrong} of {seeds}"
