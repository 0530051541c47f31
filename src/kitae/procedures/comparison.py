"""All trials of a task side by side: every seed, their spread, intervals, and which encoder is better than which."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from typing import Annotated

import numpy as np
from pydantic import Field, StringConstraints

from kitae.core.config import Config
from kitae.core.score import Score
from kitae.procedures.published import Published, published
from kitae.procedures.trial_set import TrialSet
from kitae.report.names import short_names
from kitae.tasks.mcnemar import mcnemar
from kitae.tasks.metrics import Floats, confusion
from kitae.tasks.statistics import Comparison, Replicates, spread


class EncoderResult(Config):
    """One encoder over its seeds. Scores are shares between 0 and 1."""

    encoder: str
    """Its name in the recipe."""
    seeds: dict[str, dict[str, float]]
    """Every seed's scores by metric."""
    spread: dict[str, dict[str, float | None]]
    """Per metric that every seed has: mean, median, sd, min, max over the seeds, and the t-interval of the mean (low, high)."""
    score: Score
    """The metric's mean over the seeds with its 95 % interval over test items and seeds."""
    confusion: list[list[int]]
    """True label (row) by predicted label (column), added up over the seeds; empty for kinds without one label each."""
    seconds: dict[str, float]
    """Mean seconds of training and of prediction of one trial."""
    times: dict[str, list[float]]
    """Seconds of training and of prediction of every trial, in the order of the seeds."""
    warnings: list[str]
    """What looked wrong in any of its trials."""


class Quoted(Config):
    """A score that was published elsewhere, to show beside those that were measured here."""

    name: str
    """The system."""
    score: Annotated[float, Field(ge=-1, le=1)]
    """Its score by the metric that the task is judged by, as a share: 0.931 for 93.1 %."""
    source: Annotated[str, StringConstraints(min_length=1)]
    """Where it was published: authors, year, table."""
    url: str = ""
    """Address of the source."""
    task: str = ""
    """Name of the task; needed where the recipe has several."""


class TaskResult(Config):
    """The content of an evaluation's results.json."""

    task: str
    """Name of the task."""
    kind: str
    """What it predicts."""
    metric: str
    """What intervals and comparisons are about."""
    within: tuple[float | None, float | None] = (None, None)
    """The lowest and the highest value that the metric can have; null: it has no bound on that side."""
    labels: tuple[str, ...]
    """Label names in the order of the confusion matrices."""
    examples: dict[str, int]
    """How many examples train, validation and test have; "leaked" counts test texts that also stand in the others, "scored" those whose
    gold is known."""
    encoders: list[EncoderResult]
    """In the order of the recipe's `compare`; none where the gold of every test example is hidden."""
    comparisons: list[dict[str, str | int | float]]
    """Every pair: a, b, difference (a - b), low, high, p, verdict on a; and where examples are right or wrong, McNemar's exact test of the
    votes of each one's seeds: how many examples only a (only_a) and only b (only_b) gets right, and mcnemar_p."""
    verdicts: list[str]
    """The comparisons as sentences, with the encoders' short names."""
    quoted: list[Quoted] = []
    """Scores of other systems, as others published them; in no statistics."""
    published: list[Published] = []
    """What comes out where the test set chooses the epoch, beside the fair result; where that was asked for."""

    @property
    def names(self) -> dict[str, str]:
        """How every encoder is called where people read."""
        return short_names([one.encoder for one in self.encoders], [one.name for one in self.quoted])


def compare(found: TrialSet, *, samples: int, seed: int, quoted: Sequence[Quoted] = ()) -> TaskResult:
    """Compare the encoders of a task's trials. Where the gold of all test examples is hidden, there is nothing to compare."""
    first = found.first
    encoders: list[EncoderResult] = []
    comparisons: list[dict[str, str | int | float]] = []
    verdicts: list[str] = []
    names = short_names(list(found.results), [one.name for one in quoted])  # as TaskResult.names
    if found.examples:
        replicates, decided = Replicates(found.metric, found.items(), samples=samples, seed=seed), found.decided()
        encoders = [_encoder(name, found, replicates.interval(name)) for name in found.results]
        for b, a in combinations(found.results, 2):
            one = replicates.compare(a, b)
            tested = {} if decided is None else _tested(decided[a], decided[b])
            comparisons.append(asdict(one) | tested)
            verdicts.append(sentence(replace(one, a=names[a], b=names[b])))
    return TaskResult(
        task=first.task,
        kind=first.kind,
        metric=found.metric.name,
        within=(found.metric.within.lowest, found.metric.within.highest),
        labels=found.labels,
        examples=first.examples | {"scored": len(found.examples)},
        encoders=encoders,
        comparisons=comparisons,
        verdicts=verdicts,
        quoted=list(quoted),
        published=[told for one in encoders for told in _published(one, found)],
    )


def _published(encoder: EncoderResult, found: TrialSet) -> Iterator[Published]:
    """Both protocols, if all of an encoder's trials were scored after every epoch."""
    results = found.results[encoder.encoder]
    told = [(result.published, result.chosen) for result in results if result.published is not None]
    if len(told) == len(results):
        yield published(encoder.encoder, told, encoder.score)


def _tested(a: Sequence[Floats], b: Sequence[Floats]) -> dict[str, int | float]:
    test = mcnemar(a, b)
    return {"only_a": test.only_a, "only_b": test.only_b, "mcnemar_p": test.p}


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


def _encoder(encoder: str, found: TrialSet, score: Score) -> EncoderResult:
    results = found.results[encoder]
    common = [name for name in results[0].scores if all(name in result.scores for result in results)]
    times = {key: [result.seconds.get(key, 0.0) for result in results] for key in ("train", "predict")}
    return EncoderResult(
        encoder=encoder,
        seeds={str(result.seed): result.scores for result in results},
        spread={name: asdict(spread([result.scores[name] for result in results], found.kind.within(name))) for name in common},
        score=score,
        confusion=_confusion(found, encoder),
        seconds={key: float(np.mean(values)) for key, values in times.items()},
        times=times,
        warnings=sorted({warning for result in results for warning in result.warnings}),
    )


def _confusion(found: TrialSet, name: str) -> list[list[int]]:
    if found.first.kind != "classification":
        return []
    golds, labels = [example.gold for example in found.examples], found.labels
    return np.sum([confusion(golds, [one.value for one in seed], labels) for seed in found.predicted[name]], axis=0).tolist()
