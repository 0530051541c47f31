"""Files of questions: the published ones, and what is wrong with others, named with file and question."""

import io
import json
import logging
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kitae.core.errors import KitaeError
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Answer, Example
from kitae.tasks.formats import read_examples
from kitae.tasks.kinds import kind_of, options_of
from kitae.tasks.presets.questions import PRESETS
from kitae.tasks.presets.table import task_like
from kitae.tasks.readers.places import nearest
from kitae.tasks.records import load


def task(format: str, **more: Any) -> TaskConfig:
    return TaskConfig(name="t", kind="span", format=format, train=("-",), test=("-",), **more)


def read(path: Path, format: str = "squad", **more: Any) -> list[Example]:
    return list(read_examples(path, task(format, **more)))


@pytest.mark.parametrize(
    ("file", "count", "impossible"),
    [
        ("squad/squad1.1-devarticles-train.json.xz", 4439, 0),
        ("squad/squad1.1-devarticles-valid.json.xz", 1787, 0),
        ("squad/squad1.1-trainsubset-4330.json.xz", 4330, 0),
        ("squad/squad2.0-devarticles.json.xz", 4096, 2070),
        ("jglue/jsquad-v1.3/valid-v1.3.json.xz", 4442, 0),
        ("jaquad/dev.tar.xz", 3939, 0),
        ("medical_en/covidqa_dev.json.xz", 1068, 0),
    ],
)
def test_published_files(shared: Path, file: str, count: int, impossible: int) -> None:
    config = task("squad", kind_config={"unanswerable": bool(impossible)})
    found = list(read_examples(shared / file, config))
    assert len(found) == len({example.id for example in found}) == count
    assert sum(not example.gold for example in found) == impossible
    for example in found:
        kind_of(config).check(example, (), options_of(config))  # every answer stands where it is said to


def test_what_the_published_files_say_beside(shared: Path) -> None:
    jaquad = read(shared / "jaquad" / "dev.tar.xz", slices=("question_type", "title"))[0]
    assert jaquad.slices == {"question_type": "Syntactic variation", "title": "東大寺の仏像"}
    assert jaquad.where.endswith("dev.tar.xz, member data/dev/jaquad_dev_0000.json, question de-000-00-000")
    jsquad = read(shared / "jglue" / "jsquad-v1.3" / "valid-v1.3.json.xz")[0]
    assert (jsquad.second or "").startswith("梅雨 [SEP] 梅雨")
    assert max(len(example.second or "") for example in read(shared / "medical_en" / "covidqa_dev.json.xz")) == 67322


def test_mrqa_of_the_shared_task(shared: Path) -> None:
    found = read(shared / "mrqa" / "NewsQA_sample.jsonl", "mrqa")
    assert len(found) == 17
    assert found[0].id == "849240180c584f71bc56c0c92c5df5fd"
    assert found[0].gold == (Answer(start=1152, text="three different videos"),)
    for example in found:
        assert example.gold
        kind_of(task("mrqa")).check(example, (), options_of(task("mrqa")))


def test_a_preset_finds_folders_that_are_packed(shared: Path) -> None:
    config = task_like("jaquad", shared / "jaquad")
    assert config.files == tuple(str(shared / "jaquad" / f"{part}.tar.xz") for part in ("train", "dev"))
    assert all(Path(file).is_file() for file in config.files)


def test_every_preset_is_a_task() -> None:
    for name in PRESETS:
        config = task_like(name, "somewhere", name="t")
        options_of(config)
        assert config.metric in kind_of(config).metrics or not config.metric


CONTEXT = "京都は日本の都市。 Kyoto is a city, Kyoto."


def question(**changes: Any) -> dict[str, Any]:
    made = {"id": "q1", "question": "Where?", "answers": [{"text": "Kyoto", "answer_start": 10}], **changes}
    return {key: value for key, value in made.items() if value is not ...}


def squad(folder: Path, *questions: Any, context: Any = CONTEXT, encoding: str = "utf-8") -> Path:
    path = folder / "data.json"
    value = {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]}
    path.write_text(json.dumps(value, ensure_ascii=False), encoding=encoding)
    return path


def mrqa(folder: Path, *questions: Any, context: Any = CONTEXT, header: bool = True) -> Path:
    path = folder / "data.jsonl"
    lines: list[Any] = [{"header": {"dataset": "TriviaQA", "split": "dev"}}] if header else []
    lines.append({"context": context, "context_tokens": [], "qas": list(questions)})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def asked(**changes: Any) -> dict[str, Any]:
    detected = [{"text": "Kyoto", "char_spans": [[10, 14], [27, 31]], "token_spans": [[0, 0]]}]
    made = {"qid": "q1", "question": "Where?", "answers": ["Kyoto", "Kioto"], "detected_answers": detected, **changes}
    return {key: value for key, value in made.items() if value is not ...}


def test_answers_hidden_and_impossible(tmp_path: Path) -> None:
    hidden = question(id="q2", answers=...)
    none = question(id="q3", answers=[], is_impossible=True, plausible_answers=[{"text": "京都", "answer_start": 0}])
    found = read(squad(tmp_path, question(id=7), hidden, none))
    assert [example.id for example in found] == ["7", "q2", "q3"]
    assert [example.gold for example in found] == [(Answer(start=10, text="Kyoto"),), None, ()]
    test = squad(tmp_path, question(answers=[]))
    assert read(test, format_config={"empty_is_hidden": True})[0].gold is None


def test_a_byte_order_mark_is_taken_off_and_folders_are_read(tmp_path: Path) -> None:
    assert len(read(squad(tmp_path, question(), encoding="utf-8-sig"))) == 1
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(3):
        squad(folder, question(id=f"q{number}")).rename(folder / f"s{number}.json")
    (folder / "README.md").write_text("not a shard")
    assert [example.id for example in read(folder)] == ["q0", "q1", "q2"]
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        data = (folder / "s1.json").read_bytes()
        entry = tarfile.TarInfo("x/s1.json")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    assert [example.id for example in read(tmp_path / "all.tar")] == ["q1"]


@pytest.mark.parametrize(
    ("start", "expected"), [(9, 10), (11, 10), (18, 10), (19, 27), (40, 27), (0, 10)]
)  # fmt: skip
def test_the_nearest_place(start: int, expected: int) -> None:
    assert nearest("Kyoto", start, CONTEXT) == expected
    assert nearest("Osaka", start, CONTEXT) is None


def test_answers_are_mended_only_when_asked_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wrong = question(answers=[{"text": "Kyoto", "answer_start": 25}, {"text": "Osaka", "answer_start": 3}])
    lost = question(id="q2", answers=[{"text": "Osaka", "answer_start": 3}])
    path = squad(tmp_path, wrong, lost)
    with caplog.at_level(logging.WARNING):
        found = read(path, format_config={"misplaced": "nearest", "absent": "drop"})
    assert [example.gold for example in found] == [(Answer(start=27, text="Kyoto"),)]
    assert "1 answers moved to their nearest place, 2 left out that stand nowhere in the context, and 1 questions with them" in caplog.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"answers": [{"text": "Kyoto", "answer_start": 11}]}, '"Kyoto" does not stand in the context at character 11 but at 10'),
        ({"answers": [{"text": "Osaka", "answer_start": 11}]}, "nor anywhere else"),
        ({"answers": [{"text": "Kyoto", "answer_start": 10_000}]}, "at character 10000 but at 27"),
        ({"answers": [{"text": "Kyoto", "answer_start": -1}]}, "is -1, not a character's number"),
        ({"answers": [{"text": "Kyoto", "answer_start": "10"}]}, "is '10', not a character's number"),
        ({"answers": [{"text": "Kyoto"}]}, 'there is no "answer_start": the keys are text'),
        ({"answers": [{"text": " ", "answer_start": 9}]}, '"text" is empty'),
        ({"answers": ["Kyoto"]}, "this is a text, not an object"),
        ({"answers": {"text": []}}, '"answers" is an object, not a list'),
        ({"answers": []}, "does not say that it is impossible"),
        ({"answers": [], "is_impossible": False}, "does not say that it is impossible"),
        ({"is_impossible": True}, "is impossible and has answers"),
        ({"is_impossible": "no"}, "\"is_impossible\" is 'no'"),
        ({"question": "  "}, '"question" is empty'),
        ({"question": None}, '"question" is null, not a text'),
        ({"question": ...}, 'there is no "question"'),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_question_is_said(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(KitaeError) as caught:
        read(squad(tmp_path, question(**changes)))
    assert f"{tmp_path / 'data.json'}, question q1" in caught.value.where
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text('{"data": [', encoding="utf-8"), "this is not JSON"),
        (lambda path: path.write_text("[1]", encoding="utf-8"), "this is a list, not an object"),
        (lambda path: path.write_text('{"data": []}', encoding="utf-8"), "there is no question in it"),
        (lambda path: path.write_text('{"daat": []}', encoding="utf-8"), 'there is no "data": the keys are daat'),
        (lambda path: path.write_text('{"data": [{"title": "x"}]}', encoding="utf-8"), 'there is no "paragraphs"'),
        (lambda path: path.write_text("[" * 100_000, encoding="utf-8"), "too deeply nested"),
        (lambda path: path.write_bytes("{}".encode("utf-16")), "utf-16"),
        (lambda path: path.write_bytes(b"\xff\xfe\xfd{"), "byte"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: squad(path.parent, question(), context=""), '"context" is empty'),
        (lambda path: squad(path.parent, question(id=None)), '"id" is null, not a name'),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    path = tmp_path / "data.json"
    make(path)
    with pytest.raises(KitaeError) as caught:
        read(path)
    assert str(path) in caught.value.where
    assert said.lower() in str(caught.value).lower()
    assert "\n" not in caught.value.what


def test_ids_that_repeat_are_named(tmp_path: Path) -> None:
    train = squad(tmp_path, *(question(id=f"q{number}") for number in range(20)), question(id="q3"))
    config = TaskConfig(name="t", kind="span", format="squad", train=(str(train),), validation=("-",), test=("-",))
    config = config.model_copy(update={"validation": config.train, "test": config.train})
    with pytest.raises(KitaeError, match='the id "q3" occurs twice') as caught:
        load(config)
    assert caught.value.where == f"{train}, question q3"


def test_questions_of_one_context_stay_together(tmp_path: Path) -> None:
    for number in range(12):
        made = [question(id=f"{number}q{other}") for other in range(5)]
        squad(tmp_path, *made, context=f"{CONTEXT} {number}").rename(tmp_path / f"s{number}.json")
    config = TaskConfig.model_validate(
        {"name": "t", "kind": "span", "format": "squad", "path": str(tmp_path), "split": {"train": 0.5, "validation": 0.25, "test": 0.25}}
    )
    data = load(config)
    contexts = [{example.second for example in part} for part in (data.train, data.validation, data.test)]
    assert [len(some) for some in contexts] == [6, 3, 3]
    assert len(set.union(*contexts)) == 12


def test_mrqa_answers_are_those_that_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = [{"text": "city", "char_spans": [[21, 24]]}, {"text": "Kyoto", "char_spans": [[27, 31]]}]
    hidden = asked(qid="q3", answers=..., detected_answers=...)
    with caplog.at_level(logging.WARNING):
        found = read(mrqa(tmp_path, asked(), asked(qid="q2", detected_answers=other), hidden), "mrqa", slices=("dataset",))
    assert found[0].gold == (Answer(start=10, text="Kyoto"), Answer(start=-1, text="Kioto"))
    assert found[1].gold == (Answer(start=27, text="Kyoto"), Answer(start=-1, text="Kioto"))
    assert found[2].gold is None
    assert found[0].slices == {"dataset": "TriviaQA"}
    assert "1 detected answers left out that equal none of the answers" in caplog.text
    assert len(read(mrqa(tmp_path, asked(detected_answers=[]), header=False), "mrqa")) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"detected_answers": [{"text": "Kyoto", "char_spans": [[11, 15]]}]}, "at character 11 but at 10"),
        ({"detected_answers": [{"text": "Kyoto", "char_spans": []}]}, "does not begin with [start, end]"),
        ({"detected_answers": [{"text": "Kyoto", "char_spans": [["x", 3]]}]}, "is 'x', not a character's number"),
        ({"answers": []}, '"answers" is not a list of texts'),
        ({"answers": [""]}, '"answers" is not a list of texts'),
        ({"question": ""}, '"question" is empty'),
    ],
)
def test_what_is_wrong_with_mrqa_is_said(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = mrqa(tmp_path, asked(**changes))
    with pytest.raises(KitaeError) as caught:
        read(path, "mrqa")
    assert caught.value.where == f"{path}, line 2, question q1"
    assert said in str(caught.value)


def test_broken_lines_of_mrqa_are_named(tmp_path: Path) -> None:
    path = mrqa(tmp_path, asked())
    path.write_text(path.read_text(encoding="utf-8") + "{oops\n", encoding="utf-8")
    with pytest.raises(KitaeError, match="this line is not JSON") as caught:
        read(path, "mrqa")
    assert caught.value.where == f"{path}, line 3"
