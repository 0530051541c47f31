"""All trials of a task side by side: every seed, their spread, intervals, and which encoder is better than which."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import numpy as np

from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.core.score import Score
from kitae.procedures.outcome import Trial, read
from kitae.report.tables import Table
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Gold
from kitae.tasks.kinds import kind_of, metric_of
from kitae.tasks.metrics import confusion
from kitae.tasks.statistics import Comparison, Replicates, spread


class EncoderResult(Config):
    """One encoder over its seeds. Scores are shares between 0 and 1."""

    encoder: str
    """Its name in the recipe."""
    seeds: dict[str, dict[str, float]]
    """Every seed's scores by metric."""
    spread: dict[str, dict[str, float | None]]
    """Per metric: mean, median, sd, min, max over the seeds, and the t-interval of the mean (low, high)."""
    score: Score
    """The metric's mean over the seeds with its 95 % interval over test items and seeds."""
    confusion: list[list[int]]
    """True label (row) by predicted label (column), added up over the seeds; empty for kinds without one label each."""
    seconds: dict[str, float]
    """Mean seconds of training and of prediction of one trial."""
    warnings: list[str]
    """What looked wrong in any of its trials."""


class TaskResult(Config):
    """The content of an evaluation's results.json."""

    task: str
    """Name of the task."""
    kind: str
    """What it predicts."""
    metric: str
    """What intervals and comparisons are about."""
    labels: tuple[str, ...]
    """Label names in the order of the confusion matrices."""
    examples: dict[str, int]
    """How many examples train, validation and test have; "leaked" counts test texts that also stand in the others."""
    encoders: list[EncoderResult]
    """In the order of the recipe's `compare`."""
    comparisons: list[dict[str, str | float]]
    """Every pair: a, b, difference (a - b), low, high, p, verdict on a."""
    verdicts: list[str]
    """The comparisons as sentences."""


def compare(folders: Sequence[Path], *, task: TaskConfig, metric: str, samples: int, seed: int) -> TaskResult:
    """Read the trials and compare their encoders, in the order of the folders; test examples with hidden labels are left out.

    Raises KitaeError when there are none, or they were not scored on the same test examples.
    """
    groups: dict[str, list[Trial]] = {}
    for folder in folders:
        trial = read(folder)
        groups.setdefault(trial.results.encoder, []).append(trial)
    if not groups:
        raise KitaeError(f"the task {task.name} has no trials to compare", cure="name encoders in finetune.compare")
    first = next(iter(groups.values()))[0]
    for name, trials in groups.items():
        for trial in trials:
            if list(trial.ids) != list(first.ids) or list(trial.golds) != list(first.golds):
                what = f"the trials of {name} and {first.results.encoder} were scored on different test examples"
                raise KitaeError(what, cure="run the trials again", where=f"task {task.name}")
    kind, name = kind_of(task), metric_of(task, metric)
    judged, labels = kind.metrics[name], first.results.labels
    items = {encoder: [judged.items(*_known(trial), labels) for trial in trials] for encoder, trials in groups.items()}
    replicates = Replicates(judged, items, samples=samples, seed=seed)
    comparisons = [replicates.compare(a, b) for b, a in combinations(groups, 2)]
    return TaskResult(
        task=task.name,
        kind=task.kind,
        metric=name,
        labels=labels,
        examples=first.results.examples,
        encoders=[_encoder(name, trials, replicates.interval(name)) for name, trials in groups.items()],
        comparisons=[asdict(comparison) for comparison in comparisons],
        verdicts=[sentence(comparison) for comparison in comparisons],
    )


def _known(trial: Trial) -> tuple[list[Gold | None], list[Gold]]:
    pairs = [(gold, found.value) for gold, found in zip(trial.golds, trial.predicted, strict=True) if gold is not None]
    return [gold for gold, _ in pairs], [value for _, value in pairs]


def sentence(found: Comparison) -> str:
    """A comparison in plain words, in points (hundredths)."""
    low, high = sorted((abs(found.low), abs(found.high)))
    interval = f"95 % {100 * low:.1f} to {100 * high:.1f}"
    if found.verdict == "better":
        return f"{found.a} beats {found.b} by {100 * found.difference:.1f} points ({interval})"
    if found.verdict == "worse":
        return f"{found.b} beats {found.a} by {-100 * found.difference:.1f} points ({interval})"
    both = f"{100 * found.difference:+.1f} points (95 % {100 * found.low:+.1f} to {100 * found.high:+.1f})"
    return f"{found.a} against {found.b}: no difference shown, {both}"


def tables(result: TaskResult) -> dict[str, Table]:
    """The result as tables, by file name."""
    name, shown = result.metric.replace("_", " "), _shown(result)
    summary = Table(
        title=f"{result.task}: {name} on {result.examples['test']} test texts",
        columns=("encoder", "seeds", "mean", "95 % low", "95 % high", "median", "sd", "min", "max", *_others(result), "train s"),
        rows=[_summary_row(encoder, result) for encoder in result.encoders],
    )
    comparisons = Table(
        title="Pairs of encoders",
        columns=("encoder", "against", "difference", "95 % low", "95 % high", "p", "verdict"),
        rows=[tuple(row[key] for key in ("a", "b", "difference", "low", "high", "p", "verdict")) for row in result.comparisons],
    )
    seeds = Table(
        title="Every seed",
        columns=("encoder", "seed", *(_title(name) for name in shown)),
        rows=[(e.encoder, seed, *(found[name] for name in shown)) for e in result.encoders for seed, found in e.seeds.items()],
    )
    made = {"summary": summary, "comparisons": comparisons, "seeds": seeds}
    for encoder in (encoder for encoder in result.encoders if encoder.confusion):
        made[f"confusion-{_file_name(encoder.encoder)}"] = Table(
            title=f"Confusion of {encoder.encoder}, all seeds (rows: true, columns: predicted)",
            columns=("", *result.labels),
            rows=[(label, *row) for label, row in zip(result.labels, encoder.confusion, strict=True)],
        )
    return made


def _shown(result: TaskResult) -> list[str]:
    """The metrics that tables show: of classification two (the third is the accuracy again), else all."""
    found = list(result.encoders[0].spread)
    return [name for name in found if result.kind != "classification" or name != "micro_f1" or name == result.metric]


def _title(name: str) -> str:
    return name.replace("_f1", " F1").replace("_", " ")


def _others(result: TaskResult) -> tuple[str, ...]:
    return tuple(name.replace("_", " ") for name in _shown(result) if name != result.metric)


def _summary_row(encoder: EncoderResult, result: TaskResult) -> tuple[str | int | float | None, ...]:
    found = encoder.spread[result.metric]
    means = [encoder.spread[name]["mean"] for name in _shown(result) if name != result.metric]
    middle = (found["median"], found["sd"] if len(encoder.seeds) > 1 else None, found["min"], found["max"])
    score = encoder.score
    return (encoder.encoder, len(encoder.seeds), score.value, score.low, score.high, *middle, *means, encoder.seconds.get("train"))


def _encoder(name: str, trials: Sequence[Trial], score: Score) -> EncoderResult:
    results = [trial.results for trial in trials]
    seconds: Mapping[str, list[float]] = {key: [result.seconds.get(key, 0.0) for result in results] for key in ("train", "predict")}
    return EncoderResult(
        encoder=name,
        seeds={str(result.seed): result.scores for result in results},
        spread={metric: asdict(spread([result.scores[metric] for result in results])) for metric in results[0].scores},
        score=score,
        confusion=_confusion(trials),
        seconds={key: float(np.mean(values)) for key, values in seconds.items()},
        warnings=sorted({warning for result in results for warning in result.warnings}),
    )


def _confusion(trials: Sequence[Trial]) -> list[list[int]]:
    if trials[0].results.kind != "classification":
        return []
    return np.sum([confusion(*_known(trial), trial.results.labels) for trial in trials], axis=0).tolist()


def _file_name(encoder: str) -> str:
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in Path(encoder).name)
