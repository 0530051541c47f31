"""One example of a task: its texts and what is to be predicted of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, order=True)
class Span:
    """A labelled stretch of characters [start, end) of the example's text: an entity."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, kw_only=True, order=True)
class Answer:
    """An answer in the context (the example's second text): where it starts, in characters, and its letters.

    `start` is -1 where only the letters are known.
    """

    start: int
    text: str


Gold = str | int | float | tuple[str, ...] | tuple[Span, ...] | tuple[Answer, ...]
"""What is to be predicted, and what is: a label; the place of the right choice; a number; several labels, or a tag for each word;
entities; answers that all count as right (predicted: the one given; none at all where there is no answer)."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One example. `where` is its file and line, as an error names it."""

    id: str
    """Unique within the task."""
    text: str
    """The text; of pairs the first, of questions the question."""
    second: str | None = None
    """The second text of a pair; the context of a question whose answer is looked for in it."""
    choices: tuple[str, ...] = ()
    """The answers to choose from."""
    words: tuple[tuple[int, int], ...] = ()
    """[start, end) in characters of the words of `text`, where the file gives words; tags then are one per word."""
    gold: Gold | None
    """None: hidden (a test set without labels)."""
    slices: Mapping[str, str] = field(default_factory=dict)
    """What errors are counted by beside length and label: {"domain": "mail"}."""
    group: str = ""
    """Examples of one group (a document) are never divided between training, validation and test."""
    part: str = ""
    """What its file says of the split it belongs to, where the task asks for that."""
    where: str

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text of it."""
        return (self.text, *(() if self.second is None else (self.second,)), *self.choices)


def to_json(gold: Gold | None) -> object:
    """As a value of JSON."""
    if isinstance(gold, tuple):
        return [vars(item) if isinstance(item, Span | Answer) else item for item in gold]
    return gold


def from_json(value: object) -> Gold | None:
    """What `to_json` made. Raises ValueError when it is nothing of the kind."""
    if value is None or isinstance(value, str | int | float):
        return value
    if not isinstance(value, Sequence):
        raise ValueError(f"{value!r} is no label")
    if all(isinstance(item, str) for item in value):
        return tuple(value)
    made = [Span(**item) if "label" in item else Answer(**item) for item in value]
    return tuple(made)  # type: ignore[return-value]  # all of one class, as they were written
