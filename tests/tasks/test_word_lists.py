"""Words and tags as JSON lists, by name or by number: what they hold, and what is wrong in them by file and line."""

import json
from pathlib import Path

import pytest

from kitae.core.errors import KitaeError
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.records import load, read_all

NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
LAYOUT = {"text": "tokens", "label": "ner_tags"}
LINES = [
    {"id": "7", "tokens": ["Abe", "Shinzo", "in", "Kyoto"], "ner_tags": ["B-PER", "I-PER", "O", "B-LOC"], "domain": "news"},
    {"id": "8", "tokens": ["New York", "\u3000", "rains"], "ner_tags": ["B-LOC", "O", "O"], "domain": "mail"},
]


def words(example: Example) -> list[str]:
    return [example.text[start:end] for start, end in example.words]


def task(path: Path, **more: object) -> TaskConfig:
    return TaskConfig.model_validate({"name": "t", "kind": "tagging", "train": [str(path)], "test": [str(path)], **LAYOUT, **more})


def read(path: Path, rows: object, **more: object) -> list[Example]:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows) if isinstance(rows, list) else str(rows)
    path.write_text(lines, encoding="utf-8")
    found = read_all(task(path, **more))
    return found[: len(found) // 2]


def numbered() -> list[dict[str, object]]:
    return [{**row, "ner_tags": [NAMES.index(tag) for tag in row["ner_tags"]]} for row in LINES]  # type: ignore[union-attr]


def test_names_and_numbers_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    named = read(path, LINES, id="id", slices=["domain"])
    assert [words(one) for one in named] == [row["tokens"] for row in LINES], "also words with blanks in them, and those that are blanks"
    assert [one.text for one in named] == ["Abe Shinzo in Kyoto", "New York \u3000 rains"]
    assert [one.gold for one in named] == [tuple(row["ner_tags"]) for row in LINES]
    assert [(one.id, one.slices) for one in named] == [("7", {"domain": "news"}), ("8", {"domain": "mail"})]
    assert read(path, numbered(), id="id", slices=["domain"], kind_config={"names": NAMES}) == named
    joined = read(path, LINES, format_config={"join": ""})[0]
    assert (joined.text, words(joined)) == ("AbeShinzoinKyoto", LINES[0]["tokens"])
    document = read(tmp_path / "all.json", json.dumps({"data": numbered()}), format="json", format_config={"records": "data"},
                    kind_config={"names": NAMES})  # fmt: skip
    assert [(one.words, one.gold) for one in document] == [(one.words, one.gold) for one in named]


def test_plain_tags_spans_and_the_classes_of_a_task(tmp_path: Path) -> None:
    plain = read(tmp_path / "x.jsonl", [{"tokens": ["a", "b"], "pos": [1, 0]}], label="pos",
                 kind_config={"scheme": "none", "names": ["NOUN", "VERB"]})  # fmt: skip
    assert plain[0].gold == ("VERB", "NOUN")
    spans = read(tmp_path / "x.jsonl", LINES, kind_config={"untokenised": True})[0]
    assert (spans.words, [(one.start, one.end, one.label) for one in spans.gold]) == ((), [(0, 10, "PER"), (14, 19, "LOC")])  # type: ignore[union-attr]
    own = {"train": (), "test": (), "split": {"train": 0.5, "validation": 0.2, "test": 0.3}}
    read(tmp_path / "x.jsonl", LINES * 5)
    pool = TaskConfig.model_validate({**dict(task(tmp_path / "x.jsonl")), "path": [str(tmp_path / "x.jsonl")], **own})
    assert load(pool).labels == ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")


def test_hidden_tags_files_without_tags_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [{"tokens": ["a", "b"], "ner_tags": [-1, -1]}, {"tokens": ["c"], "ner_tags": [0]}]
    assert [one.gold for one in read(path, rows, hidden=["-1"], kind_config={"names": NAMES})] == [None, ("O",)]
    bare = read(path, [{"tokens": ["a", "b"]}], label="")
    assert [(words(one), one.gold) for one in bare] == [(["a", "b"], None)]
    kept = read(path, [{"tokens": [], "ner_tags": []}, *LINES], format_config={"skip_empty": True})
    assert len(kept) == len(LINES)


@pytest.mark.parametrize(
    ("row", "more", "message"),
    [
        ({"tokens": ["a", "b"], "ner_tags": ["O"]}, {}, "1 tags for 2 words"),
        ({"tokens": [], "ner_tags": []}, {}, "the text is empty"),
        ({"tokens": ["a", ""], "ner_tags": ["O", "O"]}, {}, 'word 2 of "tokens" is empty'),
        ({"tokens": ["a", 3], "ner_tags": ["O", "O"]}, {}, 'word 2 of "tokens" is 3'),
        ({"tokens": ["a", "b"], "ner_tags": ["O", ""]}, {}, "tag 2 is empty"),
        ({"tokens": ["a", "b"], "ner_tags": [0, 1]}, {}, "tag 1 is the number 0: name them in the order of their numbers: kind_config"),
        ({"tokens": ["a"], "ner_tags": [5]}, {"names": NAMES}, "tag 1 is the number 5, which has no name: .* has 5: 0 to 4"),
        ({"tokens": ["a"], "ner_tags": [-100]}, {"names": NAMES}, "tag 1 is the number -100, which has no name"),
        (
            {"tokens": ["a"], "ner_tags": ["B-PRE"]},
            {"names": NAMES},
            'tag 1, "B-PRE", is not among kind_config.names: did you mean "B-PER"',
        ),
        ({"tokens": ["a"], "ner_tags": ["NN"]}, {}, 'the tag "NN" is neither "O" nor like "B-CLASS"'),
        ({"tokens": ["a"], "ner_tags": [{"start": 0}]}, {}, "the label is no list of tags"),
        ({"tokens": ["a"], "ner_tags": [True]}, {"names": NAMES}, "the label is no list of tags"),
        ({"tokens": ["a"], "tags": ["O"]}, {}, 'there is no column "ner_tags": the columns are tokens, tags'),
        ({"words": ["a"], "ner_tags": ["O"]}, {}, 'there is no column "tokens": the columns are words, ner_tags'),
    ],
)
def test_bad_lines_are_named(row: dict[str, object], more: dict[str, object], message: str, tmp_path: Path) -> None:
    good = {"tokens": ["x"], "ner_tags": ["O"]}
    with pytest.raises(KitaeError, match=message) as caught:
        read(tmp_path / "x.jsonl", [good, row], kind_config=more)
    assert caught.value.where == f"{tmp_path / 'x.jsonl'}, line 2"
    assert "\n" not in caught.value.what
