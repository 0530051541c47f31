"""What is to be predicted comes from files, pipes, strings and mappings, in chunks that never hold back what is there."""

import bz2
import gzip
import io
import json
import lzma
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from kitae.core.errors import KitaeError
from kitae.procedures.answers import Entities, Entity, Label
from kitae.procedures.inputs import CHARACTERS, Item, Reads, example_from, in_chunks, read_source
from kitae.procedures.outputs import check_target, opened
from kitae.tasks.examples import Example

PACKS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
QUESTIONS = Reads(text=("question",), second=("context",), exact=True)
CHOICES = Reads(text=("question",), choices=("a", "b"))


def read(content: str | bytes, name: str, folder: Path, reads: Reads | None = None, **more: str) -> list[Item]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_source(path, reads or Reads(), format=more.get("format"), encoding=more.get("encoding")))


def texts(items: list[Item]) -> list[tuple[int, str | None]]:
    return [(item.line, None if item.example is None else item.example.text) for item in items]


@pytest.mark.parametrize("packing", PACKS)
def test_files_and_pipes_give_the_same_packed_or_not(tmp_path: Path, packing: str) -> None:
    content = PACKS[packing]("\ufeff一つ\r\n\r\n  二つ \n".encode())
    (tmp_path / f"in.txt{packing}").write_bytes(content)
    from_file = list(read_source(tmp_path / f"in.txt{packing}", Reads()))
    from_pipe = list(read_source(Path("-"), Reads(), standard=io.BytesIO(content)))
    assert texts(from_file) == texts(from_pipe) == [(1, "一つ"), (2, None), (3, "二つ")]
    exact = read_source(Path("-"), Reads(exact=True), standard=io.BytesIO(content))
    assert texts(list(exact)) == [(1, "一つ"), (2, None), (3, "  二つ ")], "places count from the line's own beginning"


def test_tables_with_marks_and_carriage_returns(tmp_path: Path) -> None:
    csv = '\ufeffid,text,note\r\na,"x\r\ny",1\r\nb, ,2\r\n'
    assert [(item.id, item.line) for item in read(csv, "in.csv", tmp_path)] == [("a", 2), ("b", 4)]
    assert texts(read(csv, "in.csv", tmp_path)) == [(2, "x\ny"), (4, None)]
    assert texts(read("text\tid\nx y\t1\n", "in.tsv", tmp_path)) == [(2, "x y")]
    assert texts(read(csv, "table", tmp_path, format="csv")) == [(2, "x\ny"), (4, None)]
    assert texts(read("雨\n".encode("cp932"), "in.txt", tmp_path, encoding="cp932")) == [(1, "雨")]


def test_pairs_and_choices(tmp_path: Path) -> None:
    rows = [{"question": " q ", "context": " c "}, {"question": "q", "context": " "}]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    first, second = read(content, "in.jsonl", tmp_path, QUESTIONS)
    assert first.example is not None
    assert (first.example.text, first.example.second) == (" q ", " c ")
    assert second.example is None, "one of its texts is empty"
    (item,) = read("question,a,b\nq,x,y\n", "in.csv", tmp_path, CHOICES)
    assert item.example is not None
    assert item.example.choices == ("x", "y")
    listed = Reads(text=("question",), choices=("choices[]",))
    (item,) = read('{"question": "q", "choices": ["x", "y", "z"]}', "in.jsonl", tmp_path, listed)
    assert item.example is not None
    assert item.example.choices == ("x", "y", "z")


@pytest.mark.parametrize(
    ("content", "name", "reads", "said"),
    [
        ("a,b\n1,2\n", "in.csv", Reads(), r'no column "text": the columns are a, b\n +in .*in\.csv, line 2'),
        ('{"text": 3}\n', "in.jsonl", Reads(), r'"text" holds a number, not a text'),
        ('{"text": ["x"]}\n', "in.jsonl", Reads(), r'"text" holds a list'),
        ('{"text": "x"\n', "in.jsonl", Reads(), r"not JSON"),
        ("text,id\nx\n", "in.csv", Reads(), r"1 columns, the header has 2"),
        ("text,text\nx,y\n", "in.csv", Reads(), r'names "text" twice'),
        ("text\n", "in.csv", Reads(), r"the table has no rows"),
        ("", "in.txt", Reads(), r"the file is empty"),
        ("x\n", "in.txt", QUESTIONS, r"more than one text, and a line .*: give a table .* question, context"),
        ("question,choices\nq,x\n", "in.csv", Reads(text=("question",), choices=("choices[]",)), r'"choices" holds no list'),
        (
            '{"question": "q", "choices": [1, 2]}',
            "in.jsonl",
            Reads(text=("question",), choices=("choices[]",)),
            r'the list "choices" holds .1., not what',
        ),
    ],
)
def test_bad_sources_are_named(tmp_path: Path, content: str, name: str, reads: Reads, said: str) -> None:
    with pytest.raises(KitaeError, match=said):
        read(content, name, tmp_path, reads)


def test_a_models_own_columns_or_those_that_everybody_may_use(tmp_path: Path) -> None:
    """Of a model that learnt from files without a line of names: tables without one, tables that name the text, and plain text."""
    own = Reads(text=("1",), named=False)
    assert texts(read("a,x\nb,y\n", "in.csv", tmp_path, own)) == [(1, "x"), (2, "y")]
    assert texts(read("a,x\nb,y\n", "in.csv", tmp_path, Reads(text=("-1",), named=False))) == [(1, "x"), (2, "y")]
    for content, name in (("id,text\na,x\n", "in.csv"), ("text\tid\nx\ta\n", "in.tsv")):
        (item,) = read(content, name, tmp_path, own)
        assert item.example is not None
        assert (item.line, item.id, item.example.text) == (2, "a", "x")
    assert texts(read('{"text": "x"}\n', "in.jsonl", tmp_path, own)) == texts(read("x\n", "in.txt", tmp_path, own)) == [(1, "x")]
    pairs = Reads(text=("0",), second=("1",), named=False)
    for content in ("x,y\n", "second,text\ny,x\n"):
        (item,) = read(content, "in.csv", tmp_path, pairs)
        assert item.example is not None
        assert (item.example.text, item.example.second) == ("x", "y")
    with pytest.raises(KitaeError, match="give a table .* with the columns text, second"):
        read("x\n", "in.txt", tmp_path, pairs)
    body = Reads(text=("body",), named=False)
    assert texts(read("body,text\nx,y\n", "in.csv", tmp_path, body)) == [(2, "x")], "its own before others"
    assert texts(read("text\ny\n", "in.csv", tmp_path, body)) == [(2, "y")]
    both = Reads(text=("title", "body"), named=False)
    with pytest.raises(KitaeError, match='no column "title"'):
        read("body,text\nx,y\n", "in.csv", tmp_path, both)  # half of them: not another text in silence
    with pytest.raises(KitaeError, match='no column "body"'):
        read("text\ny\n", "in.csv", tmp_path, Reads(text=("body",)))  # named on the command line


def test_strings_mappings_and_examples() -> None:
    assert example_from("x", Reads(), number=1).text == "x"
    assert example_from({"body": "x"}, Reads(text=("body",)), number=1).text == "x"
    own = example_from({"question": "q", "context": "c"}, QUESTIONS, number=1)
    general = example_from({"text": "q", "second": "c"}, QUESTIONS, number=1)
    assert (own.text, own.second) == (general.text, general.second) == ("q", "c")
    assert example_from({"question": "q", "a": "x", "b": "y"}, CHOICES, number=1).choices == ("x", "y")
    assert example_from({"text": "q", "choices": ["x", "y", "z"]}, CHOICES, number=1).choices == ("x", "y", "z")
    made = Example(id="1", text="x", gold=None, where="here")
    assert example_from(made, QUESTIONS, number=1) is made
    with pytest.raises(KitaeError, match=r"this is a string: give mappings with question, context\n +in text 7"):
        example_from("q", QUESTIONS, number=7)
    with pytest.raises(KitaeError, match='no column "context": the columns are question'):
        example_from({"question": "q"}, QUESTIONS, number=1)
    with pytest.raises(KitaeError, match='"text" holds a number'):
        example_from({"text": 3}, Reads(), number=1)


def test_chunks_are_bounded_and_an_error_loses_nothing() -> None:
    assert list(in_chunks("abcdefg", len, most=3)) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert list(in_chunks(range(4), lambda _: CHARACTERS // 2, most=100)) == [[0, 1], [2, 3]]

    def broken() -> Iterator[int]:
        yield from (1, 2)
        raise KitaeError("line 3 is bad")

    for live in (False, True):
        found: list[int] = []
        with pytest.raises(KitaeError, match="line 3 is bad"):
            for chunk in in_chunks(broken(), lambda _: 1, live=live):
                found += chunk
        assert found == [1, 2]


def test_a_line_in_a_pipe_is_answered_before_the_next_one_comes() -> None:
    """The writer waits for the answer to each line before it writes another; it would wait for ever if lines were held back."""
    into, out = os.pipe()
    reader, writer = os.fdopen(into, "rb", buffering=0), os.fdopen(out, "wb", buffering=0)
    answered = threading.Semaphore(0)
    silent: list[int] = []

    def write() -> None:
        for number in range(5):
            writer.write(f"line {number}\n".encode())
            if not answered.acquire(timeout=20):
                silent.append(number)
                break
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    found = []
    for chunk in in_chunks(read_source(Path("-"), Reads(), standard=reader), lambda item: 1, live=True):
        for item in chunk:
            assert item.example is not None
            found.append(item.example.text)
            answered.release()
    thread.join()
    reader.close()
    assert silent == []
    assert found == [f"line {number}" for number in range(5)]


@pytest.mark.parametrize("packing", PACKS)
def test_targets_are_whole_or_absent_and_always_the_same(tmp_path: Path, packing: str) -> None:
    target = tmp_path / f"out.csv{packing}"
    contents = []
    for _ in range(2):
        with opened(target, check_target(target, tmp_path / "in"), ("label", "p(a)")) as (write, _flush):
            write(Item(line=3, id="=1", example=None), Label(label="a", probabilities={"a": 1.0}))
        contents.append(target.read_bytes())
    assert contents[0] == contents[1]
    assert texts(list(read_source(target, Reads(text=("id",))))) == [(2, "'=1")]
    with pytest.raises(KitaeError), opened(target, "csv", ("label",)):
        raise KitaeError("the source ends here")
    assert target.read_bytes() == contents[0]
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_rows_and_json_of_what_has_none_or_half_a_character(tmp_path: Path) -> None:
    none, half = Entities(entities=()), Entities(entities=(Entity(start=0, end=1, label="PER", text="\ud800", score=1),))
    target = tmp_path / "out.jsonl"
    with opened(target, "jsonl", ()) as (write, _):
        write(Item(line=1, id=None, example=None), none)
        write(Item(line=2, id=None, example=None), half)
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert rows[0] == {"line": 1, "entities": []}
    assert rows[1]["entities"] == [{"start": 0, "end": 1, "label": "PER", "text": "\ud800", "score": 1}]
    assert list(none.rows()) == [[""] * 5]
