"""Reading and splitting a task; bad input is named with file and line."""

import json
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from kitae.core.errors import KitaeError
from kitae.tasks.config import TaskConfig
from kitae.tasks.records import TASKS, TaskData, find, load


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows(counts: dict[str, int], start: int = 0) -> list[dict[str, object]]:
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [{"id": f"n{start + i}", "text": f"text {start + i}", "label": label} for i, label in enumerate(labels)]


def pool(path: Path, **changes: object) -> TaskConfig:
    return TaskConfig.model_validate(
        {"name": "t", "path": str(path), "split": {"train": 0.08, "validation": 0.02, "test": 0.9}, "id": "id", **changes}
    )


def ids(data: TaskData) -> tuple[set[str], set[str], set[str]]:
    return tuple({example.id for example in part} for part in (data.train, data.validation, data.test))  # type: ignore[return-value]


def test_split_is_stratified_disjoint_complete_and_seeded(tmp_path: Path) -> None:
    table = rows({"a": 300, "b": 100, "c": 40})
    write(tmp_path / "x.jsonl", table)
    data = load(pool(tmp_path / "x.jsonl"))
    train, validation, test = ids(data)
    assert len(train | validation | test) == len(train) + len(validation) + len(test) == 440
    assert Counter(example.gold for example in data.train) == {"a": 24, "b": 8, "c": 3}
    assert Counter(example.gold for example in data.validation) == {"a": 6, "b": 2, "c": 1}
    assert data.labels == ("a", "b", "c")
    other = load(pool(tmp_path / "x.jsonl", split_seed=2))
    assert ids(other)[0] != train
    write(tmp_path / "x.jsonl", table[::-1])
    assert ids(load(pool(tmp_path / "x.jsonl"))) == (train, validation, test), "the order of the lines must not matter"


def test_several_files_share_the_pool_and_columns_are_joined(tmp_path: Path) -> None:
    for number in (0, 1):
        table = [{**row, "title": f"T{row['id']}"} for row in rows({"a": 30, "b": 30}, start=60 * number)]
        write(tmp_path / f"{number}.jsonl", table)
    config = TaskConfig.model_validate(
        {
            "name": "t",
            "path": [str(tmp_path / "0.jsonl"), str(tmp_path / "1.jsonl")],
            "split": {"train": 0.5, "validation": 0.1, "test": 0.3},
            "text": ["title", "text"],
        }
    )
    data = load(config)
    assert len(data.train) + len(data.validation) + len(data.test) == round(0.9 * 120)
    example = data.train[0]
    title, text = example.text.split("\n")
    assert title == "Tn" + text.split()[1]
    assert example.id.startswith(("0.jsonl:", "1.jsonl:"))


def test_given_files_and_validation_share(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", rows({"a": 40, "b": 20}))
    test = write(tmp_path / "test.jsonl", rows({"a": 4, "b": 2}, start=100))
    data = load(TaskConfig(name="t", train=(train,), test=(test,), validation_share=0.2))
    assert Counter(example.gold for example in data.validation) == {"a": 8, "b": 4}
    assert len(data.train) == 48
    assert len(data.test) == 6
    assert data.leaked == 0


def test_limit_keeps_labels_and_counts(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", rows({"a": 300, "b": 100}))
    data = load(pool(tmp_path / "x.jsonl", limit=100, split={"train": 0.5, "validation": 0.1, "test": 0.4}))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [50, 10, 40]
    assert Counter(example.gold for example in data.train)["b"] in range(11, 15)


def test_texts_in_both_train_and_test_are_counted(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", rows({"a": 40, "b": 20}))
    test = write(tmp_path / "test.jsonl", [{"id": "z", "text": "text 3", "label": "a"}, {"id": "y", "text": "new", "label": "b"}])
    assert load(TaskConfig(name="t", train=(train,), test=(test,))).leaked == 1


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ({"id": "x", "text": "t", "label": "new"}, 'label "new" occurs in the test examples but never in the training'),
        ({"id": "x", "text": " \n", "label": "a"}, "text is empty"),
        ({"id": "x", "text": "t", "label": ""}, "label is empty"),
        ({"id": "x", "text": "t"}, 'no column "label"'),
        ({"id": "n100", "text": "t", "label": "a"}, '"n100" occurs twice'),
    ],
)
def test_bad_rows_are_named_with_file_and_line(tmp_path: Path, broken: dict[str, object], what: str) -> None:
    train = write(tmp_path / "train.jsonl", rows({"a": 10, "b": 10}))
    test = write(tmp_path / "test.jsonl", [*rows({"a": 2, "b": 1}, start=100), broken])
    with pytest.raises(KitaeError) as raised:
        load(TaskConfig(name="t", train=(train,), test=(test,), id="id"))
    assert what in str(raised.value)
    assert "test.jsonl, line 4" in raised.value.where


def test_fixed_labels_refuse_others_with_a_suggestion(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", rows({"sport": 10, "sprot": 5, "art": 10}))
    with pytest.raises(KitaeError, match='did you mean "sport"'):
        load(pool(tmp_path / "x.jsonl", labels=("sport", "art")))


def test_one_label_and_missing_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", rows({"a": 30}))
    with pytest.raises(KitaeError, match="one label only"):
        load(pool(tmp_path / "x.jsonl"))
    with pytest.raises(KitaeError, match=r"absent\.jsonl"):
        load(pool(tmp_path / "absent.jsonl"))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"path": "x"},
        {"path": "x", "split": {"train": 0.8, "validation": 0.2, "test": 0.2}},
        {"train": "x"},
        {"train": "x", "test": "y", "path": "z", "split": {"train": 0.5, "validation": 0.1, "test": 0.4}},
        {"train": "x", "test": "y", "validation_share": 1.0},
    ],
)
def test_contradictory_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TaskConfig.model_validate({"name": "t", **wrong})


def test_paths_stay_out_of_the_fingerprint_and_the_split_is_in_it() -> None:
    config = find("sample-topics")
    assert "path" not in config.semantic()
    assert config.semantic()["split"] == {"train": 0.6, "validation": 0.15, "test": 0.25}
    with pytest.raises(KitaeError, match="did you mean"):
        find("sample-topic")


@pytest.mark.parametrize("name", sorted(TASKS))
def test_built_in_tasks_load(name: str) -> None:
    data = load(TASKS[name])
    assert len(data.labels) >= 4
    assert min(len(data.train), len(data.validation), len(data.test)) >= 40
