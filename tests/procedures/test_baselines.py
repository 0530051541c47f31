"""The baselines are what their names say for every form of gold, and choose on validation only."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from tiny_trials import LABELS, relabelled, task

from kitae.core.errors import KitaeError
from kitae.procedures.baselines import _majority, majority, tfidf
from kitae.procedures.linear import STRENGTHS, rotation
from kitae.procedures.outcome import Outcome
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Answer, Example, Gold, Span
from kitae.tasks.kinds import kind_of, options_of
from kitae.tasks.metrics import places
from kitae.tasks.records import TaskData


def shares(outcome: Outcome) -> np.ndarray:
    return np.asarray([found.more["probabilities"] for found in outcome.predicted])


def right(outcome: Outcome, data: TaskData) -> float:
    return float(np.mean([found.value == example.gold for found, example in zip(outcome.predicted, data.test, strict=True)]))


def test_majority_gives_the_most_frequent_training_label() -> None:
    data = task(train=30)
    data = dataclasses.replace(data, train=tuple(e for e in data.train if e.gold != "art" or int(e.id[5:]) < 10))
    share = Counter(e.gold for e in data.train)
    outcome = majority(data, "accuracy")
    assert shares(outcome).shape == (60, 3)
    assert shares(outcome)[0].tolist() == pytest.approx([share[label] / len(data.train) for label in LABELS])
    assert outcome.predicted[7].value == share.most_common(1)[0][0]


def test_tfidf_learns_words_and_ignores_test_labels() -> None:
    data = task()
    outcome = tfidf(data, "accuracy")
    assert right(outcome, data) >= 0.8
    assert shares(outcome).sum(1) == pytest.approx(1)
    assert [point["C"] for point in outcome.curve] == list(STRENGTHS)
    best = max(point["accuracy"] for point in outcome.curve)
    assert outcome.chosen == next(point for point in outcome.curve if point["accuracy"] == best)
    other = tfidf(dataclasses.replace(data, test=relabelled(data.test, 2)), "accuracy")
    assert np.array_equal(shares(other), shares(outcome))
    assert other.chosen == outcome.chosen
    assert right(tfidf(dataclasses.replace(data, train=relabelled(data.train, 1)), "accuracy"), data) <= 0.55


def test_rotated_coordinates_give_scikit_learns_model() -> None:
    data = task(train=60)
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3))
    features, truth = vectorizer.fit_transform([e.text for e in data.train]), places([e.gold for e in data.train], data.labels)
    held, turn = vectorizer.transform([e.text for e in data.test]), rotation(features)
    assert turn(features).shape[1] <= 60 < features.shape[1]
    plain, turned = (LogisticRegression(C=10, tol=1e-9, max_iter=5000).fit(x, truth) for x in (features, turn(features)))
    assert np.abs(plain.predict_proba(held) - turned.predict_proba(turn(held))).max() < 1e-5


def paired(part: Sequence[Example]) -> tuple[Example, ...]:
    """Pairs that say "same" when the second text repeats words of the first."""
    others = [*part[1:], part[0]]
    return tuple(
        dataclasses.replace(e, second=" ".join(e.text.split()[::-1]) if i % 2 else other.text, gold="same" if i % 2 else "other")
        for i, (e, other) in enumerate(zip(part, others, strict=True))
    )


def test_tfidf_sees_what_the_texts_of_a_pair_share() -> None:
    data = task()
    parts = {name: paired(getattr(data, name)) for name in ("train", "validation", "test")}
    data = dataclasses.replace(data, labels=("other", "same"), **parts)
    assert right(tfidf(data, "accuracy"), data) >= 0.9


def of_kind(kind: str, golds: Callable[[Example], Gold], *, words: bool = False, choices: bool = False) -> TaskData:
    """The task of tiny_trials with other gold, which follows from the text."""
    data = task()

    def changed(example: Example) -> Example:
        places = [match.span() for match in re.finditer(r"\S+", example.text)]
        more = {"words": tuple(places) if words else (), "choices": ("w0 w1 w2", "w3 w4 w5", "w6 w7 w8") if choices else ()}
        example = dataclasses.replace(example, **more)
        return dataclasses.replace(example, gold=golds(example))

    parts = {name: tuple(changed(example) for example in getattr(data, name)) for name in ("train", "validation", "test")}
    config = TaskConfig(name="t", kind=kind, train=("-",), test=("-",), kind_config={"scheme": "none"} if words else {})
    labels = kind_of(config).labels(parts["train"], options_of(config))
    return dataclasses.replace(data, config=config, labels=labels, **parts)


def tag(word: str) -> str:
    """Every ninth word has a meaning of its own for the tags."""
    return "rare" if int(word[1:]) % 9 == 0 else "usual"


FORMS = {
    "regression": of_kind("regression", lambda e: float(e.text.count("w1 ") + 2 * e.text.count("w2 "))),
    "multilabel": of_kind("multilabel", lambda e: tuple(label for label in LABELS if label == e.gold or f"w{len(label)}9 " in e.text)),
    "choice": of_kind("choice", lambda e: LABELS.index(str(e.gold)), choices=True),
    "tagging": of_kind("tagging", lambda e: tuple(tag(e.text[a:b]) for a, b in e.words), words=True),
}


@pytest.mark.parametrize("kind", list(FORMS))
def test_every_form_of_gold_has_both_baselines(kind: str) -> None:
    """Predictions of the gold's form; the linear model is better than what is most frequent, and neither looks at test labels."""
    data = FORMS[kind]
    name = next(iter(kind_of(data.config).metrics))
    scores = {}
    for baseline in (majority, tfidf):
        outcome = baseline(data, "")
        found = kind_of(data.config).scores(data.test, outcome.predicted, data.labels)
        assert [type(one.value) for one in outcome.predicted] == [type(example.gold) for example in data.test]
        assert name in outcome.chosen
        losses = [kind_of(data.config).loss(e, one, data.labels) for e, one in zip(data.test, outcome.predicted, strict=True)]
        assert all(loss is None or np.isfinite(loss) for loss in losses), "the worst examples are found by it"
        hidden = tuple(dataclasses.replace(example, gold=data.test[0].gold) for example in data.test)
        if kind != "tagging":  # a tag for each word: another example's are not of its length
            assert [one.value for one in baseline(dataclasses.replace(data, test=hidden), "").predicted] == [
                one.value for one in outcome.predicted
            ]
        scores[baseline] = found[name]
    assert scores[tfidf] > scores[majority] if kind != "tagging" else scores[majority] == scores[tfidf] == 1.0


def test_majority_says_the_mean_the_place_and_the_usual_labels() -> None:
    golds = [float(str(example.gold)) for example in FORMS["regression"].train]
    assert majority(FORMS["regression"], "").predicted[0].value == pytest.approx(np.mean(golds))
    assert majority(FORMS["choice"], "").predicted[5].value == 0, "all places are as frequent; the first counts"
    several = majority(FORMS["multilabel"], "")
    assert several.predicted[0].value == (), "no label has more than half of the examples"
    assert max(several.predicted[0].more["probabilities"]) > 1 / 3  # type: ignore[call-overload]


def test_majority_knows_names_and_words_of_the_training_examples() -> None:
    names = _majority(of_form((Span(start=0, end=2, label="X"),), "ab cd", "cd ab"))
    assert names(example("cd ab xab")).value == (Span(start=3, end=5, label="X"), Span(start=7, end=9, label="X"))
    rare = _majority(of_form((Span(start=0, end=2, label="X"),), "ab ab ab", "cd"))
    assert rare(example("ab")).value == (), "more often none than one"
    assert _majority(of_form((Answer(start=0, text="ab"),), "ab"))(example("ab")).value == ()


def test_tfidf_refuses_places_in_a_text() -> None:
    with pytest.raises(KitaeError, match="finds no places"):
        tfidf(of_form((Span(start=0, end=2, label="X"),), "ab cd"), "")


def example(text: str, gold: Gold | None = None) -> Example:
    return Example(id=text, text=text, gold=gold, where="-")


def of_form(gold: Gold, first: str, *others: str) -> TaskData:
    """A task whose first training example has this gold, and whose others have none of it."""
    train = (example(first, gold), *(example(text, ()) for text in others))
    return dataclasses.replace(task(), train=train)
