"""Windows of a long context, and answers as places of their tokens.

Shapes: T tokens of the context, W windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kitae.tasks.examples import Answer


@dataclass(frozen=True, kw_only=True)
class Window:
    """Tokens [start, end) of a context."""

    start: int
    end: int


def windows(count: int, *, room: int, stride: int) -> list[Window]:
    """Windows of at most `room` of `count` tokens, each `stride` tokens behind the one before (BERT's run_squad.py); at least one.

    No token is left out: a stride that is longer than a window is cut to it.
    """
    found = [Window(start=0, end=min(room, count))]
    while found[-1].end < count:
        start = found[-1].start + min(room, stride)
        found.append(Window(start=start, end=min(start + room, count)))
    return found


def most_context(of: Sequence[Window]) -> list[NDArray[np.bool_]]:
    """Of every window's tokens whether they have the most context there: the most tokens on their poorer side (BERT's run_squad.py).

    Each token has it in exactly one window, the first of those that are equal.
    """
    count = of[-1].end
    best, owner = np.full(count, -1.0), np.zeros(count, np.int64)
    for number, window in enumerate(of):
        left = np.arange(window.end - window.start)
        score = np.minimum(left, left[::-1]) + 0.01 * len(left)
        better = score > best[window.start : window.end]
        best[window.start : window.end][better] = score[better]
        owner[window.start : window.end][better] = number
    return [owner[window.start : window.end] == number for number, window in enumerate(of)]


def tokens_of_answer(answer: Answer, places_T2: NDArray[np.int32]) -> tuple[int, int] | None:
    """First and last token that cover a letter of the answer; None when there is none, or when its place is not known."""
    if answer.start < 0:
        return None
    starts, ends = places_T2[:, 0], places_T2[:, 1]
    inside = np.flatnonzero((ends > answer.start) & (starts < answer.start + len(answer.text)) & (ends > starts))
    return (int(inside[0]), int(inside[-1])) if len(inside) else None


def between(context: str, start: int, end: int) -> Answer:
    """The letters [start, end) of the context without white space around them."""
    text = context[start:end]
    stripped = text.strip()
    return Answer(start=start + (len(text) - len(text.lstrip())), text=stripped) if stripped else Answer(start=start, text="")


def falls_on_tokens(answer: Answer, context: str, places_T2: NDArray[np.integer]) -> bool:
    """Whether tokens can say exactly this answer, white space around it aside. The tokens may be in any order, and repeat."""
    starts, ends = places_T2[:, 0], places_T2[:, 1]
    inside = (ends > answer.start) & (starts < answer.start + len(answer.text)) & (ends > starts)
    if answer.start < 0 or not inside.any():
        return False
    said = between(context, int(starts[inside].min()), int(ends[inside].max()))
    return said == between(context, answer.start, answer.start + len(answer.text))
