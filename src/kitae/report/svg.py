"""A small canvas that writes SVG: what the figures need of it, and no more. Nothing given as text can break out of its place.

Units are CSS pixels; y grows downwards. Text is set in the viewer's sans-serif face, whose widths are estimated.
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

from kitae.report.tables import printable

SIZE = 12.0
"""Of letters."""
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c8c00")
"""Told apart with color-blind eyes as well (Okabe and Ito, 2008), the yellow darkened for white paper."""
DASHES = ("", "7 3", "2 3")
"""Of lines, once all colors are used."""
FACES = "Helvetica, Arial, 'Hiragino Sans', 'Yu Gothic', Meiryo, 'Noto Sans CJK JP', sans-serif"
INK, FAINT = "#222222", "#dddddd"
Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """Shapes in the order in which they are drawn."""

    width: float
    height: float
    shapes: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, *, color: str = INK, width: float = 1.0) -> None:
        """A straight line."""
        self.shapes.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="{width:g}"/>')

    def path(self, points: Sequence[tuple[float, float]], *, color: str, width: float = 1.8, dash: str = "") -> None:
        """Straight lines from point to point; `dash`: lengths of strokes and gaps."""
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.shapes.append(f'<polyline points="{places}" fill="none" stroke="{color}" stroke-width="{width:g}"{dashed}/>')

    def box(self, x: float, y: float, width: float, height: float, *, color: str, opacity: float = 0.25) -> None:
        """A rectangle with an outline of its own color."""
        self.shapes.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}" fill-opacity="{opacity:g}" '
            f'stroke="{color}" stroke-width="1.2"/>'
        )

    def dot(self, x: float, y: float, *, color: str, radius: float = 2.5, filled: bool = True) -> None:
        """A point, or a small ring."""
        fill = color if filled else "white"
        self.shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{fill}" stroke="{color}" stroke-width="1"/>')

    def text(self, x: float, y: float, said: str, *, anchor: Anchor = "start", size: float = SIZE, color: str = INK) -> None:
        """Text on its baseline."""
        shown = escape(printable(said))
        self.shapes.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}" fill="{color}">{shown}</text>')

    def svg(self, title: str) -> str:
        """The whole picture; `title` is what is read aloud."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:.0f}" height="{self.height:.0f}" '
            f'viewBox="0 0 {self.width:.0f} {self.height:.0f}" font-family="{FACES}" role="img">'
        )
        white = f'<rect x="0" y="0" width="{self.width:.0f}" height="{self.height:.0f}" fill="white"/>'
        return "\n".join([head, f"<title>{escape(printable(title))}</title>", white, *self.shapes, "</svg>"]) + "\n"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From values to pixels, evenly or by the logarithm. `low` < `high`; with `log` both are above 0."""

    low: float
    high: float
    start: float
    """Pixel of `low`."""
    end: float
    """Pixel of `high`."""
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values between `low` and `high`, about four to eight."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            digits = (1,) if len(powers) > 5 else (1, 3) if len(powers) > 2 else (1, 2, 5)
            made = [digit * 10.0**power for power in powers for digit in digits]
        else:
            step = _step(self.high - self.low)
            made = [step * k for k in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]
        return [value for value in made if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)]


def spanning(
    values: Sequence[float],
    start: float,
    end: float,
    *,
    log: bool = False,
    zero: bool = False,
    within: tuple[float | None, float | None] = (None, None),
) -> Scale:
    """A scale that holds all values with some air around them, but none outside `within`; `zero` begins at 0."""
    low, high = min(values), max(values)
    if log:
        air = max((high / low) ** 0.06, 1.1)
        return Scale(low=low / air, high=high * air, start=start, end=end, log=True)
    air = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    (lowest, highest), bottom, top = within, 0.0 if zero else low - air, high + air
    if lowest is not None and low >= lowest:
        bottom = max(bottom, lowest)
    if highest is not None and high <= highest:
        top = min(top, highest)
    return Scale(low=bottom, high=top, start=start, end=end)


def number(value: float) -> str:
    """A tick's label: 0.25, 12, 3,000."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def width_of(text: str, size: float = SIZE) -> float:
    """About how wide a text is: wide characters take a whole em."""
    return size * sum(1.0 if unicodedata.east_asian_width(character) in "WF" else 0.56 for character in text)


def shortened(text: str, room: float, size: float = SIZE) -> str:
    """A text that fits into so many pixels: beginning and end are kept, where names differ."""
    first, last = text, ""
    while first + last and width_of(f"{first}{last}" if first == text else f"{first}...{last}", size) > room:
        if first == text:
            first, last = text[: len(text) // 2], text[len(text) // 2 :]
        elif width_of(first, size) > width_of(last, size):
            first = first[:-1]
        else:
            last = last[1:]
    return text if first == text else f"{first}...{last}"


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that four to eight of them fill the span."""
    rough = span / 6
    power = 10.0 ** math.floor(math.log10(rough))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough * 0.999)
