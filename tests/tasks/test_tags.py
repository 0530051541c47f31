"""Tags and the entities that they spell, against the published rules of conlleval written out line by line."""

import itertools

import numpy as np
import pytest
import seqeval.metrics as seqeval
from hypothesis import given
from hypothesis import strategies as st

from kitae.tasks.entities import CLASS_F1, F1, PRECISION, RECALL, TAG_ACCURACY, class_scores
from kitae.tasks.examples import Gold, Span
from kitae.tasks.tags import Chunk, Scheme, chunks_of, classes_of, legal, outputs, parse, plain, scheme_of, tags_of

CLASSES = ("PER", "geo-loc", "人名")
TAGS = ("O", *(f"{prefix}-{label}" for label in CLASSES for prefix in "BIESLU"))
NO_BILOU = tuple(tag for tag in TAGS if tag[0] not in "LU")


def conlleval(tags: list[str]) -> set[tuple[int, int, str]]:
    """endOfChunk and startOfChunk as the shared task's perl script has them, with seqeval's lines for E and S."""
    found: set[tuple[int, int, str]] = set()
    start, prev, prev_type = 0, "O", ""
    for i, whole in enumerate([*tags, "O"]):
        tag, _, kind = whole.partition("-")
        tag = {"L": "E", "U": "S"}.get(tag, tag)
        end = prev in ("E", "S") or (prev in ("B", "I") and tag in ("B", "S", "O"))
        end = end or (prev != "O" and prev_type != kind)
        begin = tag in ("B", "S") or (prev in ("E", "S", "O") and tag in ("E", "I"))
        begin = begin or (tag != "O" and prev_type != kind)
        if end and prev != "O":
            found.add((start, i, prev_type))
        if begin:
            start = i
        prev, prev_type = tag, kind
    return found


@given(st.lists(st.lists(st.tuples(*2 * [st.sampled_from(NO_BILOU)]), max_size=8), min_size=1, max_size=5))
def test_scores_are_those_of_seqeval(sentences: list[list[tuple[str, str]]]) -> None:
    """Its default mode, of whatever the tags are; BILOU it does not read."""
    golds, values = ([[pair[side] for pair in sentence] for sentence in sentences] for side in (0, 1))
    given: tuple[list[Gold], list[Gold], tuple[str, ...]] = [*map(tuple, golds)], [*map(tuple, values)], outputs(CLASSES, "bio")
    for metric, theirs in ((PRECISION, seqeval.precision_score), (RECALL, seqeval.recall_score), (F1, seqeval.f1_score)):
        assert metric.score(*given) == pytest.approx(theirs(golds, values, zero_division=0))
    if any(golds):
        assert TAG_ACCURACY.score(*given) == pytest.approx(seqeval.accuracy_score(golds, values))
    if any(tag != "O" for tags in (*golds, *values) for tag in tags):
        report = seqeval.classification_report(golds, values, output_dict=True, zero_division=0)
        assert class_scores(*given) == {f"f1/{name}": pytest.approx(report[name]["f1-score"]) for name in sorted(CLASSES) if name in report}
        assert CLASS_F1.score(*given) == pytest.approx(report["macro avg"]["f1-score"])


@given(st.lists(st.sampled_from(TAGS), max_size=12))
def test_entities_are_those_of_conlleval(tags: list[str]) -> None:
    found = chunks_of(tags)
    assert {tuple(chunk) for chunk in found} == conlleval(tags)
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))


def test_every_short_sequence_is_read_as_conlleval_reads_it() -> None:
    some = ("O", "B-A", "I-A", "E-A", "S-A", "I-B", "B-B")
    for length in range(5):
        for tags in itertools.product(some, repeat=length):
            assert {tuple(chunk) for chunk in chunks_of(tags)} == conlleval(list(tags)), tags


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["I-PER", "I-PER", "O", "I-LOC"], [(0, 2, "PER"), (3, 4, "LOC")]),  # IOB1, as CoNLL-2003 was published
        (["I-PER", "B-PER", "I-PER"], [(0, 1, "PER"), (1, 3, "PER")]),
        (["B-PER", "I-LOC"], [(0, 1, "PER"), (1, 2, "LOC")]),
        (["B-geo-loc", "I-geo-loc"], [(0, 2, "geo-loc")]),
        (["B-DATE", "L-DATE", "U-ORG"], [(0, 2, "DATE"), (2, 3, "ORG")]),  # BILOU
        (["NOUN", "NOUN", "O"], [(0, 1, "NOUN"), (1, 2, "NOUN")]),
        ([], []),
    ],
)
def test_worked_examples(tags: list[str], expected: list[Chunk]) -> None:
    assert chunks_of(tags) == [Chunk(*chunk) for chunk in expected]


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
@given(st.lists(st.sampled_from(TAGS), max_size=12))
def test_conversion_keeps_the_entities_and_is_legal(scheme: Scheme, tags: list[str]) -> None:
    chunks = chunks_of(tags)
    made = tags_of(chunks, len(tags), scheme)
    assert chunks_of(made) == chunks
    assert tags_of(chunks_of(made), len(tags), scheme) == made
    assert set(made) <= set(outputs(CLASSES, scheme))
    known = outputs(CLASSES, scheme)
    between, first, last = legal(known)
    numbers = [known.index(tag) for tag in made]
    assert all(between[a, b] for a, b in itertools.pairwise(numbers))
    assert not numbers or (first[numbers[0]] and last[numbers[-1]])


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_what_is_legal_is_what_conversion_makes(scheme: Scheme) -> None:
    """A sequence is legal if and only if reading and writing it gives it back."""
    known = outputs(("A", "B"), scheme)
    between, first, last = legal(known)
    for length in range(1, 5):
        for numbers in itertools.product(range(len(known)), repeat=length):
            tags = [known[i] for i in numbers]
            allowed = first[numbers[0]] and last[numbers[-1]] and all(between[a, b] for a, b in itertools.pairwise(numbers))
            assert allowed == (tags_of(chunks_of(tags), length, scheme) == tags), tags


def test_the_scheme_of_a_models_tags_is_found() -> None:
    for scheme in ("bio", "bioes"):
        assert scheme_of(outputs(("A", "B"), scheme)[::-1]) == scheme  # type: ignore[arg-type]
    assert [scheme_of(tags) for tags in (("NOUN", "VERB"), ("O", "B-A"), ("O",), ("O", "I-A", "B-A", "X"))] == ["none"] * 4


def test_plain_tags_may_stand_anywhere() -> None:
    between, first, last = legal(("NOUN", "VERB", "-LRB-"))
    assert between.all()
    assert first.all()
    assert last.all()
    assert plain(["O", "NOUN"])
    assert not plain(TAGS)
    assert parse("-LRB-") == ("", "-LRB-")
    assert parse("X-rest") == ("", "X-rest")
    assert classes_of(("O", "B-b", "I-b", "I-a")) == ("a", "b")


# Golden numbers: seqeval's README (default mode) for the first, counted by hand with conlleval's rules for the rest.
PAIRS: list[tuple[Gold, Gold]] = [
    (("O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"), ("O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O")),
    (("B-PER", "I-PER", "O"), ("B-PER", "I-PER", "O")),
]


def test_golden_numbers_of_seqeval() -> None:
    golds, values = [gold for gold, _ in PAIRS], [value for _, value in PAIRS]
    labels = outputs(("MISC", "PER"), "bio")
    assert [metric.score(golds, values, labels) for metric in (PRECISION, RECALL, F1)] == [0.5, 0.5, 0.5]
    assert TAG_ACCURACY.score(golds, values, labels) == pytest.approx(0.8)
    assert CLASS_F1.score(golds, values, labels) == 0.5
    assert class_scores(golds, values, labels) == {"f1/MISC": 0.0, "f1/PER": 1.0}


def test_nothing_true_or_nothing_predicted_is_zero() -> None:
    labels = outputs(("A",), "bio")
    for golds, values in (([("O",)], [("O",)]), ([("B-A",)], [("O",)]), ([("O",)], [("B-A",)]), ([()], [()])):
        assert [metric.score(golds, values, labels) for metric in (PRECISION, RECALL, F1, CLASS_F1)] == [0, 0, 0, 0]
    assert TAG_ACCURACY.score([("O",)], [("O",)], labels) == 1
    assert class_scores([("O",)], [("O",)], labels) == {}


def test_spans_count_by_their_places() -> None:
    gold = (Span(start=0, end=2, label="人名"), Span(start=5, end=8, label="地名"))
    value = (Span(start=0, end=2, label="人名"), Span(start=0, end=3, label="人名"), Span(start=5, end=8, label="人名"))
    labels = outputs(("人名", "地名"), "bio")
    scores = [metric.score([gold, ()], [value, ()], labels) for metric in (PRECISION, RECALL, F1, TAG_ACCURACY)]
    assert scores == [pytest.approx(1 / 3), 0.5, pytest.approx(0.4), pytest.approx(2 / 6)]
    assert class_scores([gold], [value], labels) == {"f1/人名": pytest.approx(0.5), "f1/地名": 0.0}


@given(st.lists(st.tuples(st.lists(st.sampled_from(TAGS), max_size=8), st.randoms(use_true_random=False)), min_size=1, max_size=6))
def test_scores_equal_slow_ones_and_add_up(sentences: list[tuple[list[str], object]]) -> None:
    golds: list[Gold] = [tuple(tags) for tags, _ in sentences]
    values: list[Gold] = [tuple(tag if random.random() < 0.7 else random.choice(TAGS) for tag in tags) for tags, random in sentences]  # type: ignore[attr-defined]
    labels = outputs(CLASSES, "bio")
    true = {(n, *chunk) for n, gold in enumerate(golds) for chunk in conlleval(list(gold))}  # type: ignore[arg-type]
    said = {(n, *chunk) for n, value in enumerate(values) for chunk in conlleval(list(value))}  # type: ignore[arg-type]
    hits = len(true & said)
    precision, recall = hits / len(said) if said else 0.0, hits / len(true) if true else 0.0
    assert PRECISION.score(golds, values, labels) == pytest.approx(precision)
    assert RECALL.score(golds, values, labels) == pytest.approx(recall)
    assert F1.score(golds, values, labels) == pytest.approx(2 * precision * recall / (precision + recall) if hits else 0.0)
    by_class = []
    for label in CLASSES:
        a, b = {e for e in true if e[-1] == label}, {e for e in said if e[-1] == label}
        if a or b:
            by_class.append(2 * len(a & b) / (len(a) + len(b)))
    assert CLASS_F1.score(golds, values, labels) == pytest.approx(np.mean(by_class) if by_class else 0.0)
    assert list(class_scores(golds, values, labels).values()) == pytest.approx(
        [
            score
            for label, score in zip(
                [c for c in sorted(CLASSES) if any(e[-1] == c for e in true | said)], by_class_sorted(true, said), strict=True
            )
        ]
    )
    twice = F1.under(F1.items(golds, values, labels), np.full((1, len(golds)), 2.0))
    assert twice[0] == pytest.approx(F1.score(golds, values, labels))


def by_class_sorted(true: set[tuple[int, int, int, str]], said: set[tuple[int, int, int, str]]) -> list[float]:
    """F1 of the classes that occur, by name."""
    found = []
    for label in sorted(CLASSES):
        a, b = {e for e in true if e[-1] == label}, {e for e in said if e[-1] == label}
        if a or b:
            found.append(2 * len(a & b) / (len(a) + len(b)))
    return found
