"""The Livedoor paper's protocol beside the fair one: the best epoch by the test set, five runs, their mean and the best of them.

A trial records what its weights said of the test examples after every epoch; nothing that it chooses looks at that. Here the labels
come in, after everything is chosen, and it is counted how much such a choice adds.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from kitae.core.config import Config
from kitae.core.score import Score
from kitae.report.tables import Table


class PublishedTrial(Config):
    """A trial scored on the test set after every epoch."""

    scores: list[float]
    """The metric on the test examples, one per epoch."""
    epoch: int
    """The first best of them, counted from 1: chosen on the test set."""
    score: float
    """Its test score."""


class Published(Config):
    """An encoder under both protocols. Scores are shares between 0 and 1, or whatever the metric is."""

    encoder: str
    """Its name in the recipe."""
    runs: int
    """Seeds."""
    mean: float
    """As published: the mean over the runs of the best test score of any epoch."""
    maximum: float
    """As published: the best of the runs."""
    fair: Score
    """The epoch chosen on validation, with its interval."""
    epoch_adds: float
    """`mean` - `fair`: what choosing the epoch on the test set adds."""
    run_adds: float
    """`maximum` - `mean`: what reporting the best run adds."""
    epochs: list[list[int]]
    """Of every run the epoch that the test set chooses, and the one that validation chooses."""

    def sentence(self, name: str) -> str:
        """What the protocol as published hides, in points (hundredths). `name`: how the encoder is called."""
        fair, runs = self.fair, f"{self.runs} runs"
        return (
            f"{name}: as published {100 * self.mean:.1f} on the average of {runs} and {100 * self.maximum:.1f} at best; fair "
            f"{100 * fair.value:.1f} (95 % {100 * fair.low:.1f} to {100 * fair.high:.1f}). Choosing the epoch on the test set adds "
            f"{100 * self.epoch_adds:.1f} points, reporting the best run {100 * self.run_adds:.1f} more; neither would new texts give."
        )


def published(encoder: str, trials: Sequence[tuple[PublishedTrial, Mapping[str, float]]], fair: Score) -> Published:
    """Both protocols of one encoder. `trials`: what the test set said of each run, and what validation chose in it (with "epoch")."""
    best = [trial.score for trial, _ in trials]
    return Published(
        encoder=encoder,
        runs=len(trials),
        mean=fmean(best),
        maximum=max(best),
        fair=fair,
        epoch_adds=fmean(best) - fair.value,
        run_adds=max(best) - fmean(best),
        epochs=[[trial.epoch, int(chosen["epoch"])] for trial, chosen in trials],
    )


def of_epochs(scores: Sequence[float]) -> PublishedTrial:
    """A trial's test scores after each epoch, and the first best of them."""
    epoch = max(range(len(scores)), key=lambda i: scores[i])
    return PublishedTrial(scores=list(scores), epoch=epoch + 1, score=scores[epoch])


def table(found: Sequence[Published], metric: str, names: Mapping[str, str]) -> Table:
    """Both protocols side by side. `names`: how encoders are called."""
    return Table(
        title=f"As published (epoch chosen on the test set) and fair (epoch chosen on validation): {metric.replace('_', ' ')}",
        columns=("encoder", "runs", "published mean", "published max", "fair", "95 % low", "95 % high", "epoch adds", "best run adds"),
        rows=[
            (names[one.encoder], one.runs, one.mean, one.maximum, one.fair.value, one.fair.low, one.fair.high, one.epoch_adds, one.run_adds)
            for one in found
        ],
    )
