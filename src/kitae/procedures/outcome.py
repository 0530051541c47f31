"""What a trial comes to: the predictions of every test item, how the choice was made, and the files that hold both."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kitae.core.artifact import MANIFEST, read_manifest
from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.core.score import Score
from kitae.procedures.published import PublishedTrial, of_epochs
from kitae.procedures.silent import said_of
from kitae.tasks.examples import Gold, from_json, to_json
from kitae.tasks.kind import Predicted
from kitae.tasks.kinds import kind_of, metric_of
from kitae.tasks.metrics import Metric
from kitae.tasks.records import TaskData
from kitae.tasks.statistics import bootstrap

RESULTS, PREDICTIONS = "results.json", "predictions.jsonl"
CONSTANT = "majority"
"""The baseline that says one thing only, as it should."""


class TrialResults(Config):
    """The content of a trial's results.json."""

    task: str
    """Name of the task."""
    kind: str
    """What it predicts."""
    metric: str
    """What chose the epoch, and what encoders are compared by."""
    encoder: str
    """What was fine-tuned, or the baseline's name."""
    seed: int
    """The trial's seed."""
    labels: tuple[str, ...]
    """Label names."""
    examples: dict[str, int]
    """How many examples train, validation and test have, and how many test texts also stand in the others ("leaked")."""
    scores: dict[str, float]
    """Scores on the test examples whose label is known; none where all are hidden."""
    score: Score | None
    """The metric with its 95 % interval over the test examples."""
    chosen: dict[str, float]
    """What validation chose: the epoch or setting, and its validation scores."""
    curve: list[dict[str, float]]
    """Validation scores of every candidate, in order."""
    warnings: list[str]
    """What looked wrong."""
    seconds: dict[str, float]
    """Time of training and of prediction."""
    source: str = ""
    """The task whose examples were learnt from and chosen on, where it is another one."""
    sweep: list[dict[str, float]] = []
    """Every candidate of a sweep with its mean validation score ("score"); the first best one was taken."""
    published: PublishedTrial | None = None
    """What comes out where the test set chooses the epoch, if that was asked for; nothing above hangs on it."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The test predictions of one model that validation chose, one per test example."""

    predicted: Sequence[Predicted]
    chosen: dict[str, float]
    curve: list[dict[str, float]]
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    tested: Sequence[Sequence[Gold]] = ()
    """What was predicted of the test examples after every epoch, where the protocol asks for it."""
    source: str = ""
    """The task that was learnt from, where it is another one."""
    sweep: list[dict[str, float]] = field(default_factory=list)
    """Every candidate of a sweep with its validation score."""


def uncleaned(start: Path, task: str) -> list[str]:
    """A warning for each corpus in the lineage of an encoder's folder that was not de-contaminated against the task.

    The encoder may have learnt texts that it is scored on. A folder from outside tells nothing of its texts.
    """
    lineage = read_manifest(start).facts.get("lineage") if (start / MANIFEST).is_file() else None
    found = []
    for name, entry in (lineage if isinstance(lineage, dict) else {}).items():
        if entry.get("stage") == "corpus" and task not in entry["config"].get("decontaminate", ()):
            found.append(f"{name}, which it learnt from, was not de-contaminated against {task}: scores may be too high")
    return found


def write(outcome: Outcome, data: TaskData, folder: Path, *, metric: str, encoder: str, seed: int) -> TrialResults:
    """Score the predictions and write results.json and predictions.jsonl; test labels are looked at here and nowhere before."""
    kind, name = kind_of(data.config), metric_of(data.config, metric)
    known = [(example, found) for example, found in zip(data.test, outcome.predicted, strict=True) if example.gold is not None]
    examples, predicted = [example for example, _ in known], [found for _, found in known]
    golds, values = [example.gold for example in examples], [found.value for found in predicted]
    judged = kind.metrics[name]
    results = TrialResults(
        task=data.config.name,
        kind=data.config.kind,
        metric=name,
        encoder=encoder,
        seed=seed,
        labels=data.labels,
        examples={"train": len(data.train), "validation": len(data.validation), "test": len(data.test), "leaked": data.leaked},
        scores=kind.scores(examples, predicted, data.labels) if known else {},
        score=bootstrap(judged, judged.items(golds, values, data.labels)) if known else None,
        chosen=outcome.chosen,
        curve=outcome.curve,
        warnings=[*outcome.warnings, *([] if encoder == CONSTANT else said_of(kind, data, outcome.predicted))],
        seconds=outcome.seconds,
        source=outcome.source,
        sweep=outcome.sweep,
        published=_published(outcome, data, judged) if known and outcome.tested else None,
    )
    (folder / RESULTS).write_text(results.model_dump_json(indent=1), encoding="utf-8")
    with (folder / PREDICTIONS).open("w", encoding="utf-8") as file:
        for example, found in zip(data.test, outcome.predicted, strict=True):
            line = {"id": example.id, "gold": to_json(example.gold), "predicted": to_json(found.value), **_rounded(found.more)}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return results


def _published(outcome: Outcome, data: TaskData, metric: Metric) -> PublishedTrial:
    known = [i for i, example in enumerate(data.test) if example.gold is not None]
    golds = [data.test[i].gold for i in known]
    return of_epochs([metric.score(golds, [values[i] for i in known], data.labels) for values in outcome.tested])


def _rounded(more: Mapping[str, object]) -> dict[str, object]:
    return {name: _six(value) for name, value in more.items()}


def _six(value: object) -> object:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, list | tuple):
        return [_six(item) for item in value]
    return {key: _six(item) for key, item in value.items()} if isinstance(value, dict) else value


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial read back: golds and predictions of the test examples, in the order of `ids`."""

    results: TrialResults
    ids: Sequence[str]
    golds: Sequence[Gold | None]
    predicted: Sequence[Predicted]


def read(folder: Path) -> Trial:
    """A trial's results and predictions. Raises KitaeError when a file is absent or damaged."""
    try:
        results = TrialResults.model_validate_json((folder / RESULTS).read_bytes())
        lines = [json.loads(line) for line in (folder / PREDICTIONS).read_text(encoding="utf-8").splitlines()]
        golds = [from_json(line.pop("gold")) for line in lines]
        ids = [line.pop("id") for line in lines]
        values = [from_json(line.pop("predicted")) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KitaeError(f"the trial cannot be read: {error}", cure="remove its folder and run again", where=str(folder)) from error
    predicted = [Predicted(value=value, more=line) for value, line in zip(values, lines, strict=True) if value is not None]
    return Trial(results=results, ids=ids, golds=golds, predicted=predicted)
