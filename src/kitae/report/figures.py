"""Figures as SVG: times as box plots, scores by the number of training examples as curves. The numbers come from JSON of artifacts.

A box is the middle half of the values with the median as a line (quartiles interpolated, as numpy's); whiskers end at the farthest
values within 1.5 box heights of it (Tukey, 1977); every value is a dot. Fewer than five values, which is what a box tells, have no box: a
line from the least to the greatest one, and their median.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kitae.report.svg import COLORS, DASHES, FAINT, Canvas, Scale, number, shortened, spanning, width_of

ROW, PANEL, GAP = 30.0, 300.0, 30.0
TOP, BOTTOM = 56.0, 58.0
NAMES = 300.0
"""Most room for a name."""
HIGH, APART = 400.0, 15.0
"""Least height of a figure of curves, and of the name of one."""
BOXED = 5
"""Values of which a box is drawn."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel of box plots: what is measured (with its unit), and the values of every group."""

    title: str
    groups: Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A score after learning from so many examples, with its interval."""

    count: int
    value: float
    low: float
    high: float


def box_plots(title: str, panels: Sequence[Panel]) -> str:
    """Panels side by side, their groups in rows, in the order of the first panel. Positive values far apart stand on a logarithmic axis.

    Groups without values are left empty. Raises ValueError when no panel has any value.
    """
    names = list(panels[0].groups)
    if not any(len(values) for panel in panels for values in panel.groups.values()):
        raise ValueError("there is nothing to draw")
    left = left_of(names)
    width = left + len(panels) * (PANEL + GAP)
    canvas = Canvas(width=width, height=TOP + len(names) * ROW + BOTTOM)
    canvas.text(12, 22, shortened(title, width - 24, 14), size=14)
    for row, name in enumerate(names):
        canvas.text(left - 10, _middle(row) + 4, shortened(name, left - 20), anchor="end")
    for place, panel in enumerate(panels):
        _panel(canvas, panel, names, left + place * (PANEL + GAP))
    boxed = any(len(values) >= BOXED for panel in panels for values in panel.groups.values())
    legend = "dots: trials; bar: their median" + ("; box: the middle half of them; ring: far from it" if boxed else "")
    canvas.text(12, canvas.height - 10, legend, size=10)
    return canvas.svg(title)


def left_of(names: Sequence[str]) -> float:
    """Where the first panel begins: right of all names, or of as much of them as has room."""
    return 20.0 + min(max(width_of(name) for name in names), NAMES)


def _middle(row: int) -> float:
    return TOP + (row + 0.5) * ROW


def _panel(canvas: Canvas, panel: Panel, names: Sequence[str], left: float) -> None:
    floor = TOP + len(names) * ROW
    canvas.text(left + PANEL / 2, TOP - 10, panel.title, anchor="middle")
    every = [value for values in panel.groups.values() for value in values]
    if every:
        log = min(every) > 0 and max(every) > 20 * min(every)
        scale = spanning(every, left, left + PANEL, log=log, zero=not log and min(every) >= 0)
        for tick in scale.ticks():
            canvas.line(scale(tick), TOP, scale(tick), floor, color=FAINT)
            canvas.text(scale(tick), floor + 16, number(tick), anchor="middle", size=10)
        if log:
            canvas.text(left + PANEL, floor + 32, "logarithmic", anchor="end", size=10)
        for row, name in enumerate(names):
            if len(panel.groups.get(name, ())):
                _box(canvas, scale, panel.groups[name], _middle(row), COLORS[row % len(COLORS)])
    canvas.line(left, TOP, left, floor)
    canvas.line(left, floor, left + PANEL, floor)


def _box(canvas: Canvas, scale: Scale, values: Sequence[float], y: float, color: str) -> None:
    first, median, third = (float(value) for value in np.quantile(values, (0.25, 0.5, 0.75)))
    near = [value for value in values if first - 1.5 * (third - first) <= value <= third + 1.5 * (third - first)]
    half = ROW * 0.3
    boxed = len(values) >= BOXED
    if not boxed and len(values) > 1:
        near = list(values)
        canvas.line(scale(min(values)), y, scale(max(values)), y, color=color)
    if boxed:
        canvas.line(scale(min(near)), y, scale(first), y, color=color)
        canvas.line(scale(third), y, scale(max(near)), y, color=color)
        for end in (min(near), max(near)):
            canvas.line(scale(end), y - half / 2, scale(end), y + half / 2, color=color)
        canvas.box(scale(first), y - half, max(scale(third) - scale(first), 0.5), 2 * half, color=color)
    if len(values) > 1:
        canvas.line(scale(median), y - half, scale(median), y + half, color=color, width=2.5)
    for place, value in enumerate(values):
        aside = ((place + 1) % 3 - 1) * half * 0.45 if boxed else 0.0  # the first one stands in the middle
        canvas.dot(scale(value), y + aside, color=color, radius=2, filled=value in near)


def curves(
    title: str,
    series: Mapping[str, Sequence[Point]],
    *,
    x: str,
    y: str,
    within: tuple[float | None, float | None] = (None, None),
) -> str:
    """Scores by number of examples, on a logarithmic axis where all are above 0, with their intervals as bars.

    Series stand a little beside each other, so that bars do not hide each other; a point alone is a dot. The axis shows nothing that lies
    not `within` what a score can be. Raises ValueError when there is no point.
    """
    points = [point for line in series.values() for point in line]
    if not points:
        raise ValueError("there is nothing to draw")
    names = list(series)
    label = min(max(width_of(name) for name in names), NAMES)
    left, right, top = 64.0, 64.0 + 460.0, TOP + 10
    floor = max(HIGH - 54.0, top + APART * len(names))
    sample = 30.0 if len(names) > len(COLORS) else 0.0  # of lines that share a color
    canvas = Canvas(width=right + 34 + sample + label, height=floor + 54.0)
    canvas.text(12, 22, shortened(title, canvas.width - 24, 14), size=14)
    counts = sorted({point.count for point in points})
    across = spanning(counts, left, right, log=counts[0] > 0)
    up = spanning([value for point in points for value in (point.low, point.high)], floor, top, within=within)
    for tick in up.ticks():
        canvas.line(left, up(tick), right, up(tick), color=FAINT)
        canvas.text(left - 6, up(tick) + 4, number(tick), anchor="end", size=10)
    canvas.line(left, top, left, floor)
    canvas.line(left, floor, right, floor)
    _counts(canvas, across, counts, floor)
    canvas.text((left + right) / 2, floor + 40, x, anchor="middle")
    canvas.text(12, top - 10, shortened(y, right - 12, 11), size=11)
    step = min([4.0, *(0.7 * (across(b) - across(a)) / len(names) for a, b in pairwise(counts))])
    for place, name in enumerate(names):
        _curve(canvas, across, up, series[name], place=place, aside=step * (place - (len(names) - 1) / 2))
    ends = {name: up(max(line, key=lambda point: point.count).value) for name, line in series.items() if line}
    for name, height in _spread(ends, top, floor).items():
        color, dash = _look(names.index(name))
        if sample:
            canvas.path([(right + 14, height), (right + 8 + sample, height)], color=color, dash=dash)
        canvas.text(right + 14 + sample, height + 4, shortened(name, label + 4), color=color)
    return canvas.svg(title)


def _counts(canvas: Canvas, across: Scale, counts: Sequence[int], floor: float) -> None:
    """A tick at every number of examples, and its label where there is room; the greatest number has it first."""
    taken = float("inf")
    for count in reversed(counts):
        at, said = across(count), number(count)
        canvas.line(at, floor, at, floor + 4)
        if at + width_of(said, 10) / 2 < taken - 4:
            canvas.text(at, floor + 16, said, anchor="middle", size=10)
            taken = at - width_of(said, 10) / 2


def _curve(canvas: Canvas, across: Scale, up: Scale, line: Sequence[Point], *, place: int, aside: float) -> None:
    color, dash = _look(place)
    ordered = sorted(line, key=lambda point: point.count)
    places = [(across(point.count) + aside, up(point.value)) for point in ordered]
    if len(ordered) > 1:
        canvas.path(places, color=color, dash=dash)
    for point, (x, y) in zip(ordered, places, strict=True):
        canvas.line(x, up(point.low), x, up(point.high), color=color, width=1.2)
        for end in (point.low, point.high):
            canvas.line(x - 2.5, up(end), x + 2.5, up(end), color=color, width=1.2)
        canvas.dot(x, y, color=color)


def _look(place: int) -> tuple[str, str]:
    """Color and dashes of a line."""
    return COLORS[place % len(COLORS)], DASHES[place // len(COLORS) % len(DASHES)]


def _spread(places: Mapping[str, float], top: float, floor: float, apart: float = APART) -> dict[str, float]:
    """Heights of labels close to their places, but never on each other."""
    made: dict[str, float] = {}
    last = top - apart
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        last = made[name] = max(place, last + apart)
    over = last - max(floor, top + apart * (len(made) - 1))
    limit = last - max(over, 0.0)
    for name in sorted(made, key=lambda name: -made[name]):
        made[name] = min(made[name], limit)
        limit = made[name] - apart
    return made
