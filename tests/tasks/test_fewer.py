"""Fewer labelled examples: nested, mixed as the whole is, and the same whatever the order of the lines."""

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from kitae.core.errors import KitaeError
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.fewer import fewer, nested
from kitae.tasks.records import TaskData
from kitae.tasks.shift import shifted

SHARES = {"a": 60, "b": 30, "c": 9, "d": 1}
POOL = [Example(id=f"{label}{i}", text=f"text {label}{i}", gold=label, where="") for label, size in SHARES.items() for i in range(size)]


def data(name: str, labels: tuple[str, ...], *, kind: str = "classification") -> TaskData:
    parts = {
        part: tuple(Example(id=f"{part}{label}", text=f"{name} {part} {label}", gold=label, where=f"{name} {part}") for label in labels)
        for part in ("train", "validation", "test")
    }
    return TaskData(config=TaskConfig(name=name, kind=kind, train=("-",), test=("-",)), labels=labels, leaked=0, **parts)


def test_every_beginning_is_part_of_the_next_and_has_the_shares_of_the_whole() -> None:
    drawn = [nested(POOL, count, seed=3) for count in range(1, 101)]
    for smaller, larger in pairwise(drawn):
        assert larger[: len(smaller)] == smaller
    for count in (10, 30, 50, 100):
        counted = Counter(str(example.gold) for example in drawn[count - 1])
        for label, size in SHARES.items():
            assert counted[label] >= 1
            assert abs(counted[label] - max(1.0, size * count / 100)) <= 1.5, (count, label)
    assert Counter(e.id for e in drawn[-1]) == Counter(e.id for e in POOL)


def test_fewer_examples_than_labels_take_the_most_frequent_labels() -> None:
    assert [example.gold for example in nested(POOL, 3, seed=1)] == ["a", "b", "c"]


def test_the_seed_decides_the_draw_and_the_order_of_the_lines_does_not() -> None:
    mixed = random.Random(0).sample(POOL, len(POOL))
    assert nested(mixed, 20, seed=3) == nested(POOL, 20, seed=3)
    assert nested(POOL, 20, seed=4) != nested(POOL, 20, seed=3)


def test_examples_without_a_label_each_are_one_group_and_a_large_count_takes_all() -> None:
    spans = [Example(id=str(i), text="x", gold=("O", "O"), where="") for i in range(20)]
    assert len({example.id for example in nested(spans, 7, seed=1)}) == 7
    whole = data("t", ("a", "b"))
    assert sorted(e.id for e in fewer(whole, 50, seed=1).train) == sorted(e.id for e in whole.train)
    assert fewer(whole, 1, seed=1).test == whole.test


def test_a_shift_learns_from_one_task_and_is_scored_on_another() -> None:
    source, target = data("news", ("a", "b", "c")), data("mail", ("b", "c"))
    found = shifted(source, target)
    assert (found.train, found.validation, found.test) == (source.train, source.validation, target.test)
    assert found.labels == ("a", "b", "c")
    assert found.config.name == "mail"
    assert found.leaked == 0
    copied = replace(target, test=(*target.test, replace(source.train[0], id="copy")))
    assert shifted(source, copied).leaked == 1


def test_a_shift_to_labels_that_were_never_learnt_is_refused_with_their_place() -> None:
    with pytest.raises(KitaeError, match='the label "d" is not one of') as caught:
        shifted(data("news", ("a", "b")), data("mail", ("a", "d")))
    assert caught.value.where == "mail test"
    assert "news has a, b" in caught.value.cure
