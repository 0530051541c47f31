"""What a model says of one example, in a form for people and programs: a class for every kind of task, as rows of a table and as JSON."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kitae.report.tables import neutral
from kitae.tasks.examples import Example, to_json
from kitae.tasks.kind import Predicted


class Answer(Protocol):
    """What a model says of one example."""

    def rows(self) -> Iterator[list[str]]:
        """The cells behind line and id, under the model's header: one row, or several."""

    def json(self) -> dict[str, object]:
        """The keys behind line and id."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """The likeliest label of a text or pair, and the probability of every label."""

    label: str
    probabilities: Mapping[str, float]

    def rows(self) -> Iterator[list[str]]:
        """One row."""
        yield [neutral(self.label), *_shown(self.probabilities.values())]

    def json(self) -> dict[str, object]:
        """See Answer."""
        return {"label": self.label, "probabilities": {label: round(share, 6) for label, share in self.probabilities.items()}}


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Those labels of a text that hold, none or several, and the probability of each label by itself."""

    labels: tuple[str, ...]
    probabilities: Mapping[str, float]

    def rows(self) -> Iterator[list[str]]:
        """One row; the labels are joined by a bar."""
        yield [neutral("|".join(self.labels)), *_shown(self.probabilities.values())]

    def json(self) -> dict[str, object]:
        """See Answer."""
        return {"labels": list(self.labels), "probabilities": {label: round(share, 6) for label, share in self.probabilities.items()}}


@dataclass(frozen=True, kw_only=True)
class Number:
    """The number that is said of a text or pair, in the unit of the training examples."""

    value: float

    def rows(self) -> Iterator[list[str]]:
        """One row."""
        yield [f"{self.value:.6g}"]

    def json(self) -> dict[str, object]:
        """See Answer."""
        return {"value": float(f"{self.value:.6g}")}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which choice is right, counted from 0, and the probability of every one."""

    choice: int
    text: str
    probabilities: tuple[float, ...]

    def rows(self) -> Iterator[list[str]]:
        """One row; the probabilities are joined by a blank, because examples may differ in the number of their choices."""
        yield [str(self.choice), neutral(self.text), " ".join(_shown(self.probabilities))]

    def json(self) -> dict[str, object]:
        """See Answer."""
        return {"choice": self.choice, "text": self.text, "probabilities": [round(share, 6) for share in self.probabilities]}


@dataclass(frozen=True, kw_only=True)
class Entity:
    """A stretch of a text, text[start:end], and its label."""

    start: int
    end: int
    label: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Entities:
    """The labelled stretches of a text, from left to right."""

    entities: tuple[Entity, ...]

    def rows(self) -> Iterator[list[str]]:
        """A row for each; one of empty cells where there is none."""
        for found in self.entities:
            yield [str(found.start), str(found.end), neutral(found.label), neutral(found.text)]
        if not self.entities:
            yield ["", "", "", ""]

    def json(self) -> dict[str, object]:
        """See Answer."""
        return {"entities": [vars(found) for found in self.entities]}


@dataclass(frozen=True, kw_only=True)
class Tags:
    """A tag for every word of a text."""

    words: tuple[Entity, ...]

    def rows(self) -> Iterator[list[str]]:
        """A row for each word."""
        for found in self.words:
            yield [str(found.start), str(found.end), neutral(found.label), neutral(found.text)]

    def json(self) -> dict[str, object]:
        """See Answer."""
        return {"words": [vars(found) for found in self.words]}


@dataclass(frozen=True, kw_only=True)
class Found:
    """The answer of a question, context[start:end]; "" and no places where the context holds none."""

    answer: str
    start: int | None
    end: int | None
    more: Mapping[str, object] = field(default_factory=dict)
    """Scores and the runners-up, as the kind tells them."""

    def rows(self) -> Iterator[list[str]]:
        """One row."""
        yield [neutral(self.answer), *("" if place is None else str(place) for place in (self.start, self.end))]

    def json(self) -> dict[str, object]:
        """See Answer."""
        return {"answer": self.answer, "start": self.start, "end": self.end, **self.more}


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a kind of task says that an installed package brings."""

    value: object
    more: Mapping[str, object] = field(default_factory=dict)

    def rows(self) -> Iterator[list[str]]:
        """One row."""
        yield [neutral(str(self.value))]

    def json(self) -> dict[str, object]:
        """See Answer."""
        return {"value": self.value, **self.more}


@dataclass(frozen=True, kw_only=True)
class Form:
    """How the predictions of a kind of task become answers."""

    header: Callable[[Sequence[str]], tuple[str, ...]]
    """The cells of an answer's rows, for these labels."""
    make: Callable[[Example, Predicted, Sequence[str]], Answer]
    exact: bool = False
    """Whether an answer names places in the texts, which then are taken with the blanks around them."""


def _label(example: Example, found: Predicted, labels: Sequence[str]) -> Label:
    return Label(label=str(found.value), probabilities=_by_label(found, labels))


def _said(example: Example, found: Predicted, labels: Sequence[str]) -> Said:
    return Said(value=to_json(found.value), more=found.more)


def _by_label(found: Predicted, labels: Sequence[str]) -> dict[str, float]:
    shares = found.more["probabilities"]
    assert isinstance(shares, Sequence), "a number for every label"
    return dict(zip(labels, shares, strict=True))


def _with_probabilities(name: str) -> Callable[[Sequence[str]], tuple[str, ...]]:
    return lambda labels: (name, *(neutral(f"p({label})") for label in labels))


FORMS: Mapping[str, Form] = {
    "classification": Form(header=_with_probabilities("label"), make=_label),
}
"""By the name of the kind."""
OTHER = Form(header=lambda labels: ("value",), make=_said)


def form_of(kind: str) -> Form:
    """The form of a kind of task; that of `Said` for one of an installed package."""
    return FORMS.get(kind, OTHER)


def _shown(shares: Iterable[float]) -> list[str]:
    return [f"{share:.6f}" for share in shares]
