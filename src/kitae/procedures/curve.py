"""Learning curves: every encoder's score against the number of labelled examples that it learnt from."""

from collections.abc import Sequence

from kitae.core.config import Config
from kitae.procedures.comparison import EncoderResult, TaskResult
from kitae.report.figures import Point as Shown
from kitae.report.figures import curves as draw
from kitae.report.names import short_names
from kitae.report.tables import Table


class Point(Config):
    """One number of examples."""

    examples: int
    """Training examples."""
    value: float
    """The metric's mean over the seeds, each with a draw of its own."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of its 95 % interval."""
    seeds: dict[str, float]
    """Every seed's score."""


class Curve(Config):
    """One encoder."""

    encoder: str
    """Its name in the recipe."""
    points: list[Point]
    """From few examples to many."""


class Curves(Config):
    """The content of a curve's results.json."""

    task: str
    """Name of the task."""
    metric: str
    """What is shown."""
    test: int
    """Test examples; the same for every point."""
    validation: int
    """Validation examples; they do not grow fewer with the training examples."""
    curves: list[Curve]
    """In the order of the recipe's `compare`."""
    within: tuple[float | None, float | None] = (None, None)
    """The lowest and the highest value that the metric can have; null: it has no bound on that side."""

    @property
    def names(self) -> dict[str, str]:
        """How every encoder is called where people read."""
        return short_names([curve.encoder for curve in self.curves])


def curves(results: Sequence[TaskResult]) -> Curves:
    """The comparisons of one task under several numbers of training examples, as curves."""
    ordered = sorted(results, key=lambda result: result.examples["train"])
    names = list(dict.fromkeys(encoder.encoder for result in reversed(ordered) for encoder in result.encoders))
    last = ordered[-1]
    return Curves(
        task=last.task,
        metric=last.metric,
        test=last.examples["test"],
        validation=last.examples["validation"],
        within=last.within,
        curves=[Curve(encoder=name, points=[_point(result, name) for result in ordered if _named(result, name)]) for name in names],
    )


def tables(found: Curves) -> dict[str, Table]:
    """The curves for people (one column per number of examples), and for a plot (one row per point)."""
    counts = sorted({point.examples for curve in found.curves for point in curve.points})
    names = found.names
    shown = [(names[curve.encoder], {point.examples: point for point in curve.points}) for curve in found.curves]
    name = found.metric.replace("_", " ")
    return {
        "curve": Table(
            title=f"{found.task}: {name} by the number of labelled examples (95 % intervals)",
            columns=("encoder", *(f"{count:,}" for count in counts)),
            rows=[(encoder, *(_cell(points.get(count)) for count in counts)) for encoder, points in shown],
        ),
        "points": Table(
            title="Every point",
            columns=("encoder", "examples", "mean", "95 % low", "95 % high", "seeds"),
            rows=[(names[c.encoder], p.examples, p.value, p.low, p.high, len(p.seeds)) for c in found.curves for p in c.points],
        ),
    }


def figure(found: Curves) -> str:
    """The curves as SVG, each point with its interval."""
    names = found.names
    series = {
        names[curve.encoder]: [Shown(count=p.examples, value=p.value, low=p.low, high=p.high) for p in curve.points]
        for curve in found.curves
    }
    return draw(
        f"{found.task}: learning curves, with 95 % intervals",
        series,
        x="labelled examples",
        y=found.metric.replace("_", " "),
        within=found.within,
    )


def _named(result: TaskResult, name: str) -> EncoderResult | None:
    return next((encoder for encoder in result.encoders if encoder.encoder == name), None)


def _point(result: TaskResult, name: str) -> Point:
    encoder = _named(result, name)
    assert encoder is not None, "asked for where it is"
    score = encoder.score
    seeds = {seed: found[result.metric] for seed, found in encoder.seeds.items()}
    return Point(examples=result.examples["train"], value=score.value, low=score.low, high=score.high, seeds=seeds)


def _cell(point: Point | None) -> str:
    return "" if point is None else f"{point.value:.3f} ({point.low:.3f} to {point.high:.3f})"
