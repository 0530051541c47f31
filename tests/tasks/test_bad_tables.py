"""Bad tables of labelled examples: every mistake is one line that names file and line; nothing is guessed silently."""

import json
from pathlib import Path

import pytest

from kitae.core.errors import KitaeError
from kitae.tasks.config import TaskConfig
from kitae.tasks.presets.table import task_like
from kitae.tasks.records import TaskData, load

GOOD = [("a", "x", "one"), ("b", "y", "two"), ("c", "x", "three"), ("d", "y", "four"), ("e", "x", "five"), ("f", "y", "six")]
HEADER = "id\tlabel\ttext\n"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def table(rows: list[tuple[str, ...]], header: str = HEADER) -> str:
    return header + "".join("\t".join(row) + "\n" for row in rows)


def task(folder: Path, test: str | bytes, *, ending: str = "tsv", **own: object) -> TaskData:
    """The good rows to learn from, and `test` to be scored on."""
    train = write(folder / "train.tsv", table([(f"t{row[0]}", *row[1:]) for row in GOOD]))
    path = write(folder / f"test.{ending}", test)
    given = {"name": "t", "train": str(train), "test": str(path), "id": "id", "validation_share": 0.34, **own}
    return load(TaskConfig.model_validate(given))


def refused(message: str, line: str, folder: Path, test: str | bytes, **own: object) -> None:
    with pytest.raises(KitaeError, match=message) as caught:
        task(folder, test, **own)
    assert caught.value.where.endswith(line), caught.value.where
    assert "\n" not in caught.value.what + caught.value.cure
    assert len(str(caught.value)) < 1000
    assert caught.value.cure


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("g", "", "seven"), "the label is empty"),
        (("g", "  ", "seven"), "the label is empty"),
        (("g", "z", "seven"), '"z" occurs in the test examples but never in the training'),
        (("g", "x", ""), "the text is empty"),
        (("g", "x", " \u3000 "), "the text is empty"),
        (("a", "x", "seven"), 'the id "a" occurs twice, first in .*test.tsv, line 2'),
        (("g", "x"), "this row has 2 columns, the header has 3"),
        (("g", "x", "seven", "eight"), "this row has 4 columns, the header has 3"),
    ],
)
def test_rows(row: tuple[str, ...], message: str, tmp_path: Path) -> None:
    refused(message, "test.tsv, line 8", tmp_path, table([*GOOD, row]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "g", "text": "seven"}, 'no column "label": the columns are id, text'),
        ({"id": "g", "text": "seven", "label": None}, "the label is empty"),
        ({"id": "g", "text": None, "label": "x"}, "the text is empty"),
        ({"id": "g", "text": 7, "label": "x"}, 'the column "text" holds a number, not a text'),
        ({"id": "g", "text": ["seven"], "label": "x"}, 'the column "text" holds a list'),
        ({"id": "g", "text": "seven", "label": ["x"]}, 'the column "label" holds a list'),
        (["g", "seven", "x"], "a JSON list, not an object"),
    ],
)
def test_json_lines(row: object, message: str, tmp_path: Path) -> None:
    good = [{"id": name, "label": label, "text": text} for name, label, text in GOOD]
    refused(message, "test.jsonl, line 7", tmp_path, "\n".join(json.dumps(one) for one in (*good, row)), ending="jsonl")


@pytest.mark.parametrize(
    ("content", "message", "line"),
    [
        (table(GOOD, "id\tlable\ttext\n"), 'no column "label": the columns are id, lable, text', "test.tsv, line 2"),
        (table(GOOD, "id\tlabel\tlabel\n"), 'the header names "label" twice', "test.tsv, line 1"),
        (table(GOOD, HEADER.replace("\t", ";")), "this row has 3 columns, the header has 1", "test.tsv, line 2"),
        (HEADER, "the table has no rows", "test.tsv"),
        ("", "the file is empty", "test.tsv"),
        (table(GOOD).encode("utf-16"), "it looks like UTF-16", "test.tsv"),
        ((HEADER + "a\tx\t本日は晴天なり、明日も晴れるでしょう。\n").encode("cp932"), "it looks like", "test.tsv"),
        (table(GOOD).encode() + b"g\tx\tse\0ven\n", "NUL byte", "test.tsv"),
    ],
)
def test_whole_files(content: str | bytes, message: str, line: str, tmp_path: Path) -> None:
    refused(message, line, tmp_path, content)


def test_marks_and_line_ends_are_no_mistakes(tmp_path: Path) -> None:
    plain = task(tmp_path, table(GOOD))
    for content in (table(GOOD).replace("\n", "\r\n"), table(GOOD).replace("\n", "\r"), "\ufeff" + table(GOOD)):
        assert task(tmp_path, content).test == plain.test


@pytest.mark.parametrize("ending", ["tsv", "csv"])
def test_a_million_columns(ending: str, tmp_path: Path) -> None:
    sign = "\t" if ending == "tsv" else ","
    names = sign.join(map(str, range(1_000_000)))
    refused("there are 1,000,000 columns", f"test.{ending}, line 1", tmp_path, f"{names}\n{names}\n", ending=ending)
    header = HEADER.replace("\t", sign)
    refused("this row has 1000000 columns, the header has 3", "line 2", tmp_path, f"{header}{names}\n", ending=ending)
    bare = {"format_config": {"header": False}, "text": "2", "label": "1", "id": "0"}
    path = write(tmp_path / f"bare.{ending}", f"{names}\n")
    with pytest.raises(KitaeError, match="there are 1,000,000 columns"):
        load(TaskConfig.model_validate({"name": "t", "train": str(path), "test": str(path), **bare}))


def test_a_hundred_thousand_keys_of_json(tmp_path: Path) -> None:
    row = json.dumps({f"key {i} {'x' * 90}": "" for i in range(100_000)})
    refused("the columns are key 0 x+.*, key 19 x+.* and 99,980 more", "line 1", tmp_path, row, ending="jsonl", id=None)


def test_second_texts_and_choices(tmp_path: Path) -> None:
    pair = {"id": "a", "text": "q", "second": " ", "label": "0", "choices": ["yes", ""]}
    path = write(tmp_path / "x.jsonl", json.dumps(pair))
    own = {"name": "t", "train": str(path), "test": str(path)}
    for more, message in (
        ({"second": "second"}, "the second text is empty"),
        ({"choices": ["choices[]"], "kind": "choice"}, "the choice is empty"),
    ):
        with pytest.raises(KitaeError, match=message) as caught:
            load(TaskConfig.model_validate({**own, **more}))
        assert caught.value.where.endswith("x.jsonl, line 1")


def test_numbers_and_choices_beyond_their_bounds(tmp_path: Path) -> None:
    (tmp_path / "STS-B").mkdir()
    header, row = "index\tgenre\tsentence1\tsentence2\tscore\n", "{}\tg\tone {}\ttwo\t{}\n"
    good = "".join(row.format(i, i, i % 6) for i in range(10))
    write(tmp_path / "STS-B" / "dev.tsv", header + good)
    for score, message in (("5.2", "5.2"), ("high", "high"), ("", ""), ("nan", "nan")):
        write(tmp_path / "STS-B" / "train.tsv", header + good + row.format(10, 10, score))
        with pytest.raises(KitaeError, match=message) as caught:
            load(task_like("glue/sts-b", tmp_path))
        assert caught.value.where.endswith("train.tsv, line 12")
    question = {"question": "q", "label": 5, **{f"choice{i}": f"c{i}" for i in range(5)}}
    folder = tmp_path / "jcommonsenseqa-v1.3"
    folder.mkdir()
    lines = [json.dumps({**question, "label": i % 5, "question": f"q{i}"}) for i in range(10)]
    for part in ("train", "valid"):
        write(folder / f"{part}-v1.3.json", "\n".join(lines))
    write(folder / "test-v1.3.json", "\n".join([*lines, json.dumps(question)]))
    with pytest.raises(KitaeError, match="5") as caught:
        load(task_like("jglue/jcommonsenseqa", tmp_path))
    assert caught.value.where.endswith("test-v1.3.json, line 11")


def test_hidden_labels_are_hidden_only_where_that_is_said(tmp_path: Path) -> None:
    hidden = table([*GOOD, ("g", "-1", "seven")])
    refused('the label "-1" occurs in the test examples but never', "test.tsv, line 8", tmp_path, hidden)
    assert [one.gold for one in task(tmp_path, hidden, hidden=["-1"]).test] == [*(row[1] for row in GOOD), None]
    for part in ("train", "validation"):
        bad = write(tmp_path / "bad.tsv", table([(f"v{row[0]}", *row[1:]) for row in GOOD] + [("z", "-1", "seven")]))
        with pytest.raises(KitaeError, match="the label is hidden, and this is no test example") as caught:
            task(tmp_path, table(GOOD), hidden=["-1"], **{part: str(bad)})
        assert caught.value.where.endswith("bad.tsv, line 8")


def test_labels_in_one_split_misspelt_or_unlike_in_case_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = ["sport"] * 60 + ["politics"] * 60 + ["sprot"] * 2 + ["Sport"] * 10
    rows = [(f"v{i}", label, f"text {i}") for i, label in enumerate(labels)]
    train = write(tmp_path / "many.tsv", table(rows))
    test = table([("a", "sport", "one"), ("b", "politics", "two"), ("c", "Sport", "three")])
    own = {
        "train": str(train),
        "validation": str(write(tmp_path / "v.tsv", test.replace("\na", "\nA").replace("\nb", "\nB").replace("\nc", "\nC"))),
    }
    found = task(tmp_path, test, **own).remarks
    assert found == (
        f'only training examples have the label "sprot", the first in {train}, line 122',
        f'the labels "Sport", "sport" differ in case or width only, the first in {train}, line 124',
        f'the label "sprot" occurs 2 times, beside 60 of "sport": is it misspelt, in {train}, line 122?',
    )
    assert all(remark in caplog.text for remark in found)
    fixed = {**own, "labels": ["Sport", "politics", "sport", "sprot", "weather"]}
    assert 'no training example has the label "weather"' in task(tmp_path, test, **fixed).remarks
    with pytest.raises(KitaeError, match='"sprot" is not one of `labels`: did you mean "sport"') as caught:
        task(tmp_path, test, **{**own, "labels": ["Sport", "politics", "sport"]})
    assert caught.value.where.endswith("many.tsv, line 122")
