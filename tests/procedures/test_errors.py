"""Errors by class equal scikit-learn's, slices divide the examples, the worst stand first, and texts stay out where they are private."""

import dataclasses
from pathlib import Path

import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from test_comparison import TASK, trial
from tiny_trials import LABELS, task

from kitae.procedures.errors import Errors, error_tables, errors
from kitae.procedures.slices import slices
from kitae.procedures.trial_set import TrialSet, read_trials
from kitae.tasks.examples import Answer, Example, Gold, Span
from kitae.tasks.marks import marks, shown

DOMAINS = ("mail", "news")
NAMES = {"a": "a", "b": "runs/b"}


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> TrialSet:
    folder, data = tmp_path_factory.mktemp("trials"), task(test=200)
    test = tuple(dataclasses.replace(example, slices={"domain": DOMAINS[i % 2]}) for i, example in enumerate(data.test))
    folders = [trial(folder, data, encoder=encoder, seed=seed, right=0.7) for encoder in ("a", "b") for seed in (1, 2, 3)]
    return read_trials(folders, TASK, test)


@pytest.fixture(scope="module")
def found(trials: TrialSet) -> Errors:
    return errors(trials, worst=50, texts=True, seed=1)


def values(trials: TrialSet, encoder: str) -> list[list[Gold]]:
    return [[one.value for one in seed] for seed in trials.predicted[encoder]]


def test_classes_are_scikit_learns_over_all_seeds(trials: TrialSet, found: Errors) -> None:
    golds = [example.gold for example in trials.examples] * 3
    predicted = [value for seed in values(trials, "b") for value in seed]
    theirs = precision_recall_fscore_support(golds, predicted, labels=list(LABELS))
    rows = found.encoders[1].classes
    assert [row.name for row in rows] == list(LABELS)
    for row, precision, recall, f1, support in zip(rows, *theirs, strict=True):
        assert (row.precision, row.recall, row.f1, row.gold) == pytest.approx((precision, recall, f1, support))


def test_slices_divide_the_examples_and_are_scored_over_the_seeds(trials: TrialSet, found: Errors) -> None:
    by: dict[str, int] = {}
    for row in found.encoders[0].slices:
        by[row.slice] = by.get(row.slice, 0) + row.examples
        assert row.low <= row.score <= row.high
    assert by == {"length": 200, "label": 200, "domain": 200}
    mail = next(row for row in found.encoders[0].slices if row.value == "mail")
    golds = [example.gold for example in trials.examples][::2]
    assert mail.score == pytest.approx(sum(accuracy_score(golds, seed[::2]) for seed in values(trials, "a")) / 3)
    lengths = [row.value for row in found.encoders[0].slices if row.slice == "length"]
    assert len(lengths) == 4
    assert [int(value.split(" to ")[1]) for value in lengths] == sorted(int(value.split(" to ")[1]) for value in lengths)


def test_a_planted_difference_between_domains_is_seen(tmp_path: Path) -> None:
    data = task(test=200)
    test = tuple(dataclasses.replace(example, slices={"domain": DOMAINS[i % 2]}) for i, example in enumerate(data.test))
    path = trial(tmp_path, data, encoder="a", seed=1, right=1.0)
    lines = path.joinpath("predictions.jsonl").read_text(encoding="utf-8").splitlines()
    turned = [line if i % 2 else line.replace('"predicted": "law"', '"predicted": "sea"') for i, line in enumerate(lines)]
    path.joinpath("predictions.jsonl").write_text("\n".join(turned), encoding="utf-8")
    rows = {row.value: row for row in errors(read_trials([path], TASK, test), worst=5, texts=True, seed=1).encoders[0].slices}
    assert rows["mail"].high < rows["news"].low
    assert rows["law"].score < rows["art"].score


def test_the_worst_have_the_least_probable_truth(trials: TrialSet, found: Errors) -> None:
    worst = found.encoders[0].worst
    assert len(worst) == 50
    assert [row.error for row in worst] == sorted((row.error for row in worst), reverse=True)
    first = worst[0]
    place = next(i for i, example in enumerate(trials.examples) if example.id == first.id)
    example = trials.examples[place]
    wrong = sum(seed[place] != example.gold for seed in values(trials, "a"))
    assert (first.wrong, first.gold, first.text, first.where) == (wrong, example.gold, example.text, example.where)
    assert first.wrong == 3
    assert first.predicted != first.gold
    losses = [trials.kind.loss(example, seed[place], trials.first.labels) for seed in trials.predicted["a"]]
    assert first.error == pytest.approx(sum(loss for loss in losses if loss is not None) / 3)


def test_private_texts_are_left_out_everywhere(trials: TrialSet) -> None:
    private = errors(trials, worst=10, texts=False, seed=1)
    said = private.model_dump_json() + str([table.rows for table in error_tables(private, NAMES).values()])
    assert not [example.id for example in trials.examples if example.text in said]
    assert private.encoders[0].worst[0].gold in LABELS
    assert errors(trials, worst=0, texts=True, seed=1).encoders[0].worst == []
    assert "worst" not in error_tables(errors(trials, worst=0, texts=True, seed=1), NAMES)


def test_tables_name_every_encoder(found: Errors) -> None:
    made = error_tables(found, NAMES)
    assert list(made) == ["classes", "slices", "worst"]
    assert len(made["classes"].rows) == 6
    assert made["worst"].rows[0][4] == "3 of 3"
    first, part, worst = (getattr(found.encoders[1], name)[0] for name in ("classes", "slices", "worst"))
    row = ("runs/b", first.name, first.gold, first.predicted, first.right, first.precision, first.recall, first.f1)
    assert made["classes"].rows[3] == row
    assert made["slices"].rows[1] == (part.slice, part.value, part.examples, "runs/b", part.score, part.low, part.high, part.error)
    row = ("runs/b", 1, worst.id, worst.error, f"{worst.wrong} of 3", worst.gold, worst.predicted, worst.text, "", worst.where)
    assert made["worst"].rows[50] == row
    for name, column in (("classes", 0), ("slices", 3), ("worst", 0)):
        assert {row[column] for row in made[name].rows} == set(NAMES.values())


TEXT = "Anna saw Kyoto"
WORDS = ((0, 4), (5, 8), (9, 14))
QUESTION = Example(id="q", text="Who?", second="Anna saw Kyoto.", gold=(Answer(start=0, text="Anna"),), where="f")


@pytest.mark.parametrize(
    ("example", "gold", "wanted", "said", "private"),
    [
        (Example(id="a", text=TEXT, gold="x", where=""), "x", {("x", 0, 0)}, "x", "x"),
        (Example(id="b", text=TEXT, gold=("x", "y"), where=""), ("x", "y"), {("x", 0, 0), ("y", 0, 0)}, "x y", "x y"),
        (Example(id="c", text=TEXT, gold=1.5, where=""), 1.5, set(), "1.5", "1.5"),
        (Example(id="d", text=TEXT, choices=("no", "yes"), gold=1, where=""), 1, {("1", 0, 0)}, "1: yes", "1"),
        (QUESTION, (Answer(start=0, text="Anna"),), {("an answer", 0, 0)}, "Anna", "at 0"),
        (QUESTION, (), {("no answer", 0, 0)}, "no answer", "no answer"),
        (
            Example(id="e", text=TEXT, gold=(), where=""),
            (Span(start=9, end=14, label="PLACE"),),
            {("PLACE", 9, 14)},
            "Kyoto[9-14]/PLACE",
            "[9-14]/PLACE",
        ),
    ],
)
def test_golds_of_every_form_in_pieces_and_in_words(
    example: Example, gold: Gold, wanted: set[tuple[str, int, int]], said: str, private: str
) -> None:
    assert marks(example, gold) == wanted
    assert shown(example, gold, texts=True) == said
    assert shown(example, gold, texts=False) == private


def test_numbers_are_sliced_by_size_and_what_divides_nothing_is_left_out() -> None:
    examples = [Example(id=str(i), text="same", gold=float(i % 10), where="", slices={"one": "x"}) for i in range(40)]
    parts = list(slices(examples))
    assert {part.name for part in parts} == {"gold"}
    assert [part.value for part in parts] == ["0 to 2", "3 to 4", "5 to 7", "8 to 9"]
    assert sum(len(part.inside) for part in parts) == 40
