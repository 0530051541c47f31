"""What a model says of one example, in a form for people and programs: a class for every kind of task, as rows of a table and as JSON."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

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
    """A stretch of a text, text[start:end], with its label."""

    start: int
    end: int
    label: str
    text: str
    score: float
    """The mean probability of its tags."""

    def json(self) -> dict[str, object]:
        """Its fields."""
        return {**vars(self), "score": round(self.score, 6)}


@dataclass(frozen=True, kw_only=True)
class Entities:
    """The entities of a text, from left to right; or all of its words, each with its tag."""

    entities: tuple[Entity, ...]
    words: bool = False
    """Whether they are words, of a model with plain tags such as parts of speech."""
    tags: tuple[str, ...] | None = None
    """The tag of every word, where the text was given as a list of words."""

    def rows(self) -> Iterator[list[str]]:
        """A row for each; one of empty cells where there is none."""
        for found in self.entities:
            yield [str(found.start), str(found.end), neutral(found.label), neutral(found.text), *_shown([found.score])]
        if not self.entities:
            yield [""] * 5

    def json(self) -> dict[str, object]:
        """See Answer."""
        tags = {} if self.tags is None else {"tags": list(self.tags)}
        return {**tags, "words" if self.words else "entities": [found.json() for found in self.entities]}


@dataclass(frozen=True, kw_only=True)
class Runner:
    """One of the best answers to a question, context[start:end]."""

    text: str
    start: int
    end: int
    score: float
    """Its share among the best answers, which add up to 1."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The answer to a question; `text` is "" and the places are None where the context holds none."""

    text: str
    start: int | None
    end: int | None
    score: float
    """Its share among the best answers; of no answer 0."""
    best: tuple[Runner, ...]
    """The best answers, whether or not there is one."""
    null_odds: float | None = None
    """How much speaks for no answer, of models that can say so; above their threshold none is given."""

    def rows(self) -> Iterator[list[str]]:
        """One row."""
        places = ["" if place is None else str(place) for place in (self.start, self.end)]
        yield [neutral(self.text), *places, *_shown([self.score]), *(_shown([self.null_odds]) if self.null_odds is not None else [""])]

    def json(self) -> dict[str, object]:
        """See Answer."""
        best = [{**vars(one), "score": round(one.score, 6)} for one in self.best]
        null = {} if self.null_odds is None else {"null_odds": round(self.null_odds, 6)}
        return {"answer": self.text, "start": self.start, "end": self.end, "score": round(self.score, 6), **null, "best": best}


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


def _labels(example: Example, found: Predicted, labels: Sequence[str]) -> Labels:
    assert isinstance(found.value, tuple), "several labels"
    return Labels(labels=tuple(map(str, found.value)), probabilities=_by_label(found, labels))


def _number(example: Example, found: Predicted, labels: Sequence[str]) -> Number:
    assert isinstance(found.value, int | float), "a number"
    return Number(value=found.value)


def _choice(example: Example, found: Predicted, labels: Sequence[str]) -> Choice:
    assert isinstance(found.value, int), "a place"
    shares = found.more["probabilities"]
    assert isinstance(shares, Sequence), "a number for every choice"
    return Choice(choice=found.value, text=example.choices[found.value], probabilities=tuple(shares))


def _entities(example: Example, found: Predicted, labels: Sequence[str]) -> Entities:
    words = "words" in found.more
    tags = tuple(map(str, found.value)) if example.words and isinstance(found.value, tuple) else None
    return Entities(entities=tuple(Entity(**one) for one in _dicts(found.more["words" if words else "entities"])), words=words, tags=tags)


def _found(example: Example, found: Predicted, labels: Sequence[str]) -> Found:
    best = tuple(
        Runner(text=one["text"], start=one["start"], end=one["end"], score=one["probability"]) for one in _dicts(found.more["nbest"])
    )
    said = found.more.get("null_odds")
    assert said is None or isinstance(said, int | float), "a number"
    odds = None if said is None else float(said)
    if not found.value:
        return Found(text="", start=None, end=None, score=0.0, best=best, null_odds=odds)
    return Found(text=best[0].text, start=best[0].start, end=best[0].end, score=best[0].score, best=best, null_odds=odds)


def _said(example: Example, found: Predicted, labels: Sequence[str]) -> Said:
    return Said(value=to_json(found.value), more=found.more)


def _by_label(found: Predicted, labels: Sequence[str]) -> dict[str, float]:
    shares = found.more["probabilities"]
    assert isinstance(shares, Sequence), "a number for every label"
    return dict(zip(labels, shares, strict=True))


def _dicts(listed: object) -> Sequence[dict[str, Any]]:
    assert isinstance(listed, Sequence), "a list of dictionaries"
    return listed


def _with_probabilities(name: str) -> Callable[[Sequence[str]], tuple[str, ...]]:
    return lambda labels: (name, *(neutral(f"p({label})") for label in labels))


def _always(*names: str) -> Callable[[Sequence[str]], tuple[str, ...]]:
    return lambda labels: names


FORMS: Mapping[str, Form] = {
    "classification": Form(header=_with_probabilities("label"), make=_label),
    "multilabel": Form(header=_with_probabilities("labels"), make=_labels),
    "regression": Form(header=_always("value"), make=_number),
    "choice": Form(header=_always("choice", "text", "probabilities"), make=_choice),
    "tagging": Form(header=_always("start", "end", "label", "text", "score"), make=_entities, exact=True),
    "span": Form(header=_always("answer", "start", "end", "score", "null_odds"), make=_found, exact=True),
}
"""By the name of the kind. To add one: its class of answers above, how it is made, and a row."""
OTHER = Form(header=_always("value"), make=_said)


def form_of(kind: str) -> Form:
    """The form of a kind of task; that of `Said` for one of an installed package."""
    return FORMS.get(kind, OTHER)


def _shown(shares: Iterable[float]) -> list[str]:
    return [f"{share:.6f}" for share in shares]
