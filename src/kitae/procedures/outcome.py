"""What a trial comes to: the predictions of every test item, how the choice was made, and the files that hold both."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from kitae.core.artifact import MANIFEST, read_manifest
from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.core.score import Score
from kitae.tasks.metrics import confusion, scores
from kitae.tasks.records import TaskData
from kitae.tasks.statistics import bootstrap

RESULTS, PREDICTIONS = "results.json", "predictions.jsonl"


class TrialResults(Config):
    """The content of a trial's results.json."""

    task: str
    """Name of the task."""
    encoder: str
    """What was fine-tuned, or the baseline's name."""
    seed: int
    """The trial's seed."""
    labels: tuple[str, ...]
    """Label names; a label's number is its place here."""
    examples: dict[str, int]
    """How many examples train, validation and test have, and how many test texts also stand in the others ("leaked")."""
    scores: dict[str, float]
    """Scores on the test examples."""
    accuracy: Score
    """Accuracy with its 95 % interval over the test items."""
    confusion: list[list[int]]
    """True label (row) by predicted label (column)."""
    chosen: dict[str, float]
    """What validation chose: the epoch or setting, and its validation scores."""
    curve: list[dict[str, float]]
    """Validation scores of every candidate, in order."""
    warnings: list[str]
    """What looked wrong."""
    seconds: dict[str, float]
    """Time of training and of prediction."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The test predictions of one model that validation chose. probabilities: [test items, labels]."""

    probabilities: NDArray[np.float64]
    chosen: dict[str, float]
    curve: list[dict[str, float]]
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


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


def write(outcome: Outcome, data: TaskData, folder: Path, *, task: str, encoder: str, seed: int) -> TrialResults:
    """Score the predictions and write results.json and predictions.jsonl; test labels are looked at here and nowhere before."""
    truth, predicted = np.asarray(data.numbers(data.test)), outcome.probabilities.argmax(1)
    results = TrialResults(
        task=task,
        encoder=encoder,
        seed=seed,
        labels=data.labels,
        examples={"train": len(data.train), "validation": len(data.validation), "test": len(data.test), "leaked": data.leaked},
        scores=scores(truth, predicted, labels=len(data.labels)),
        accuracy=bootstrap(truth == predicted),
        confusion=confusion(truth, predicted, labels=len(data.labels)).tolist(),
        chosen=outcome.chosen,
        curve=outcome.curve,
        warnings=outcome.warnings,
        seconds=outcome.seconds,
    )
    (folder / RESULTS).write_text(results.model_dump_json(indent=1), encoding="utf-8")
    with (folder / PREDICTIONS).open("w", encoding="utf-8") as file:
        for example, number, row in zip(data.test, predicted, outcome.probabilities, strict=True):
            line = {
                "id": example.id,
                "label": example.label,
                "predicted": data.labels[number],
                "probabilities": [round(p, 6) for p in row.tolist()],
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return results


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial read back. truth, predicted: label numbers of the test items, in the order of `ids`."""

    results: TrialResults
    ids: Sequence[str]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]


def read(folder: Path) -> Trial:
    """A trial's results and predictions. Raises KitaeError when a file is absent or damaged."""
    try:
        results = TrialResults.model_validate_json((folder / RESULTS).read_bytes())
        lines = [json.loads(line) for line in (folder / PREDICTIONS).read_text(encoding="utf-8").splitlines()]
        place = {label: i for i, label in enumerate(results.labels)}
        numbers = {key: np.asarray([place[line[key]] for line in lines], np.int64) for key in ("label", "predicted")}
        ids = [line["id"] for line in lines]
    except (OSError, ValidationError, json.JSONDecodeError, KeyError) as error:
        raise KitaeError(f"the trial cannot be read: {error}", cure="remove its folder and run again", where=str(folder)) from error
    return Trial(results=results, ids=ids, truth=numbers["label"], predicted=numbers["predicted"])
