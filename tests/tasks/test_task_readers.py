"""Readers of labelled sentences: every layout gives the texts, labels, ids and places that the file says."""

import io
import json
import lzma
import tarfile
from pathlib import Path

import pytest

from kitae.core.errors import KitaeError
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.formats import read_examples
from kitae.tasks.presets.table import task_like
from kitae.tasks.readers.livedoor import CATEGORIES
from kitae.tasks.records import load


def task(path: Path, **own: object) -> TaskConfig:
    return TaskConfig.model_validate({"name": "t", "train": str(path), "test": str(path), **own})


def read(path: Path, content: str | bytes, /, **own: object) -> list[Example]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_examples(path, task(path, **own)))


def test_tables_without_a_header_are_read_by_column_number(tmp_path: Path) -> None:
    text = 'a1\t1\t\tShe said "no.\na1\t0\t*\tThem goes.\n'
    found = read(tmp_path / "x.tsv", text, text="-1", label="1", format_config={"header": False})
    assert [(one.text, one.gold, one.id) for one in found] == [('She said "no.', "1", "x.tsv:1"), ("Them goes.", "0", "x.tsv:2")]
    assert found[1].where == f"{tmp_path / 'x.tsv'}, line 2"
    with pytest.raises(KitaeError, match='no column "9": the columns are 0, 1, 2, 3'):
        read(tmp_path / "x.tsv", text, text="9", label="1", format_config={"header": False})
    with pytest.raises(KitaeError, match="this row has 2 columns, the first row has 4"):
        read(tmp_path / "x.tsv", text + "a\tb\n", text="3", label="1", format_config={"header": False})
    commas = read(tmp_path / "x.csv", '1,"a, b"\n0,c\n', text="1", label="0", format_config={"header": False})
    assert [one.text for one in commas] == ["a, b", "c"]


@pytest.mark.parametrize(
    ("ending", "content", "own", "wanted"),
    [
        ("csv", 'text,label\n"a, b",x\n', {}, ("a, b", None, (), "x")),
        ("csv", "text,label\na,x | y\n", {"kind": "multilabel", "kind_config": {"separator": "|"}}, ("a", None, (), ("x", "y"))),
        ("jsonl", '{"text": "a", "label": ["x", "y"]}', {"kind": "multilabel"}, ("a", None, (), ("x", "y"))),
        ("tsv", "p\tq\tscore\na\tb\t-2.5\n", {"text": "p", "second": "q", "label": "score", "kind": "regression"}, ("a", "b", (), -2.5)),
        (
            "csv",
            "question,A,B,C,right\nq,1,2,3,C\n",
            {"text": "question", "choices": ["A", "B", "C"], "label": "right", "kind": "choice", "kind_config": {"first": "A"}},
            ("q", None, ("1", "2", "3"), 2),
        ),
        (
            "tsv",
            "0\tq\tyes\tno\n",
            {"text": "1", "choices": ["2", "3"], "label": "0", "kind": "choice", "format_config": {"header": False}},
            ("q", None, ("yes", "no"), 0),
        ),
        (
            "csv",
            "3,b,a\n",
            {"text": "-1", "second": "-2", "label": "0", "kind": "regression", "format_config": {"header": False}},
            ("a", "b", (), 3.0),
        ),
    ],
)
def test_a_table_of_ones_own(ending: str, content: str, own: dict[str, object], wanted: tuple[object, ...], tmp_path: Path) -> None:
    (found,) = read(tmp_path / f"x.{ending}", content, **own)
    assert (found.text, found.second, found.choices, found.gold) == wanted


def test_quotes_marks_and_line_ends(tmp_path: Path) -> None:
    rows = 'text\tlabel\r\n"a" b\tx\r\n"c\td\r\n'
    plain = read(tmp_path / "x.tsv", b"\xef\xbb\xbf" + rows.encode())
    assert [(one.text, one.gold) for one in plain] == [('"a" b', "x"), ('"c', "d")]
    quoted = read(tmp_path / "x.tsv", 'text\tlabel\n"one\ntwo"\tx\n"a ""b"""\ty\n', format_config={"quoting": "double"})
    assert [(one.text, one.where[-6:]) for one in quoted] == [("one\ntwo", "line 2"), ('a "b"', "line 4")]
    unquoted = read(tmp_path / "x.csv", 'text,label\nsay "hi,y\n', format_config={"quoting": "none"})
    assert unquoted[0].text == 'say "hi'
    assert read(tmp_path / "x.csv", "text,label\n日本,x\n".encode("cp932"), format_config={"encoding": "cp932"})[0].text == "日本"


def test_lists_and_keys_of_json(tmp_path: Path) -> None:
    row = {"q": {"s": "why"}, "context": ["one", "two"], "choices": [{"t": "a"}, {"t": "b"}], "label": "x"}
    (found,) = read(tmp_path / "x.jsonl", json.dumps(row), text="q.s", second="context[]", choices=["choices[].t"])
    assert (found.text, found.second, found.choices) == ("why", "one\ntwo", ("a", "b"))
    for wrong, message in (
        ("q[]", 'the column "q" holds no list'),
        ("choices[]", "not what"),
        ("absent[]", 'no column "absent"'),
        ("context", "holds a list"),
    ):
        with pytest.raises(KitaeError, match=message):
            read(tmp_path / "x.jsonl", json.dumps(row), text=wrong)


def test_one_json_document(tmp_path: Path) -> None:
    own = {"format": "json", "format_config": {"records": "data.items"}}
    document = {"data": {"items": [{"text": "a", "label": 1}, {"text": "b", "label": 0}]}}
    found = read(tmp_path / "x.json", json.dumps(document, indent=1), **own)
    assert [(one.text, one.gold, one.id) for one in found] == [("a", "1", "x.json:1"), ("b", "0", "x.json:2")]
    by_key = read(tmp_path / "x.json", json.dumps({"7": {"text": "a", "label": "y"}}), format="json", id="key")
    assert (by_key[0].id, by_key[0].where[-11:]) == ("7", ' record "7"')
    for text, message in (("[1,", "not one JSON document"), ('{"data": {}}', 'no "data.items"'), ('{"data": {"items": [3]}}', "JSON int")):
        with pytest.raises(KitaeError, match=message):
            read(tmp_path / "x.json", text, **own)


def test_lines_that_begin_with_labels(tmp_path: Path) -> None:
    found = read(tmp_path / "train.txt", "__label__pos good film\n\n__label__neg   bad __label__x\n", format="fasttext")
    assert [(one.gold, one.text) for one in found] == [("pos", "good film"), ("neg", "bad __label__x")]
    for line, message in (
        ("good film", "does not begin with a label"),
        ("__label__ good", "begin with a label"),
        ("__label__pos", "empty"),
    ):
        with pytest.raises(KitaeError, match=message) as caught:
            read(tmp_path / "train.txt", f"__label__pos good\n{line}\n", format="fasttext")
        assert caught.value.where.endswith("line 2")
    with pytest.raises(KitaeError, match="holds a list"):
        read(tmp_path / "train.txt", "__label__a __label__b both\n", format="fasttext")


def livedoor(folder: Path, counts: dict[str, int]) -> Path:
    """Articles written in the layout of ldcc-20140209.tar.gz."""
    for category, count in counts.items():
        (folder / "text" / category).mkdir(parents=True)
        (folder / "text" / category / "LICENSE.txt").write_text("CC BY-ND\n", encoding="utf-8")
        for number in range(count):
            name = f"{category}-{5000000 + number}"
            text = f"http://news.example/{name}\n2012-01-01T09:00:00+0900\n題 {category} {number}\n本文です。\n\n二段落目。\n"
            (folder / "text" / category / f"{name}.txt").write_text(text, encoding="utf-8")
    (folder / "text" / "README.txt").write_text("livedoor\n", encoding="utf-8")
    (folder / "text" / "CHANGES.txt").write_text("1.0\n", encoding="utf-8")
    return folder


def test_livedoors_articles(tmp_path: Path) -> None:
    folder = livedoor(tmp_path / "ldcc", dict.fromkeys(CATEGORIES, 10))
    data = load(task_like("livedoor/standard", folder))
    assert data.labels == CATEGORIES
    assert [len(part) for part in (data.train, data.validation, data.test)] == [72, 9, 9]
    example = next(one for one in data.train if one.gold == "smax")
    assert example.id.startswith("smax-50000")
    assert example.text == f"題 smax {example.id[-1]}\n本文です。\n\n二段落目。"
    with tarfile.open(tmp_path / "text.tar.gz", "w:gz") as tar:
        tar.add(folder / "text", "text")
    packed = load(task_like("livedoor/standard", tmp_path))
    assert {one.id: one.text for one in packed.train} == {one.id: one.text for one in data.train}
    (folder / "text" / "peachy" / "peachy-1.txt").write_text("only\ntwo lines\n", encoding="utf-8")
    with pytest.raises(KitaeError, match="not url, date, title, body") as caught:
        load(task_like("livedoor/standard", folder))
    assert "peachy/peachy-1.txt" in caught.value.where


def test_livedoor_by_a_list_of_files(tmp_path: Path) -> None:
    folder = livedoor(tmp_path / "ldcc", dict.fromkeys(CATEGORIES, 3))
    names = [(f"{category}-{5000000 + i}.txt", category, i) for category in CATEGORIES for i in range(3)]
    for i, part in enumerate(("train", "dev", "test")):
        rows = [f"{name}\t{category}" for name, category, number in reversed(names) if number == i]
        (folder / f"{part}_indexed.tsv").write_text("\n".join(["filename\tcategory", *rows]) + "\n", encoding="utf-8")
    data = load(task_like("livedoor/laboro", folder))
    assert [one.text.split()[1] for one in data.test] == list(reversed(CATEGORIES))
    assert data.test[0].id == "test_indexed.tsv:2"
    assert data.test[0].where.endswith("topic-news/topic-news-5000002.txt, line 3")
    assert len(data.train) == len(data.validation) == 9
    for row, message in (("smax-1.txt\tsmax", 'no article "smax-1.txt"'), ("peachy-5000001.txt\tsmax", "lies in peachy")):
        (folder / "test_indexed.tsv").write_text(f"filename\tcategory\n{row}\n", encoding="utf-8")
        with pytest.raises(KitaeError, match=message) as caught:
            load(task_like("livedoor/laboro", folder))
        assert caught.value.where.endswith("test_indexed.tsv, line 2")


MISSING = ("dokujo-tsushin", "dokujo-tsushin", "peachy", "peachy", "peachy", "topic-news")
"""Categories of the six articles of the corpus that no list names, in whose place six others are listed twice."""


def test_the_livedoor_papers_split_and_laboros_lists(tmp_path: Path, shared: Path) -> None:
    """Articles of the corpus' own names and number, with texts of the test's."""
    lists = {part: (shared / "livedoor_index" / f"{part}_indexed.tsv").read_text(encoding="utf-8") for part in ("train", "dev", "test")}
    articles = {line.split("\t")[0]: line.split("\t")[1] for table in lists.values() for line in table.splitlines()[1:]}
    assert len(articles) == 7361, "six of the 7,367 are listed twice"
    with tarfile.open(tmp_path / "text.tar", "w") as tar:
        for name, category in [*articles.items(), *((f"more-{i}.txt", category) for i, category in enumerate(MISSING))]:
            content = f"http://news.example/{name}\n2012\n{name}\n".encode()
            member = tarfile.TarInfo(f"text/{category}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    of_list = task_like("livedoor/laboro", shared / "livedoor_index", beside=str(tmp_path / "text.tar"))
    assert [one.text for one in read_examples(Path(of_list.validation[0]), of_list)] == [
        line.split("\t")[0] for line in lists["dev"].splitlines()[1:]
    ]
    paper = load(task_like("livedoor/paper", tmp_path))
    assert [len(part) for part in (paper.train, paper.validation, paper.test)] == [736, 736, 5895]


def test_chabsa_in_its_three_forms(tmp_path: Path, shared: Path) -> None:
    config = task_like("chabsa/target", shared / "chabsa")
    found = list(read_examples(Path(config.path[0]), config))
    golds = [one.gold for one in found]
    assert (len(found), golds.count("positive"), golds.count("negative"), golds.count("neutral")) == (6333, 3481, 2638, 214)
    assert len({one.group for one in found}) <= 184
    assert all(one.second and one.second in one.text for one in found)
    sentences = list(read_examples(Path(config.path[0]), task_like("chabsa/sentence", shared / "chabsa")))
    by_sentence: dict[str, set[object]] = {}
    for one in found:
        by_sentence.setdefault(one.id.rpartition("-")[0], set()).add(one.gold)
    assert {one.id: {one.gold} for one in sentences} == {name: golds for name, golds in by_sentence.items() if len(golds) == 1}
    opinion = {"target": "売上", "category": "NULL#sales", "polarity": "positive", "from": 1, "to": 3}
    header = {"document_id": "E1", "document_name": "n", "category33": "c"}
    document = {"header": header, "sentences": [{"sentence_id": 0, "sentence": "売上は増えた", "opinions": [opinion]}]}
    for broken, message in ((document, "does not stand at 1 to 3"), ({"header": header}, "not laid out as chABSA's are: sentences")):
        (tmp_path / "e00001_ann.json").write_text(json.dumps(broken), encoding="utf-8")
        with pytest.raises(KitaeError, match=message):
            list(read_examples(tmp_path, config))


def test_medquads_files_and_the_table_made_of_them_agree(shared: Path) -> None:
    original = task_like("medquad", shared / "medical_en" / "medquad_original_xml_sample")
    found = list(read_examples(Path(original.path[0]), original))
    wanted = {one.text: one.gold for one in found}
    with lzma.open(shared / "medical_en" / "medquad.jsonl.xz", "rt", encoding="utf-8") as file:
        table = {row["question"]: row["qtype"] for row in map(json.loads, file) if row["question"] in wanted}
    assert len(found) == 16
    assert {text: wanted[text] for text in table} == table


def test_a_column_divides_a_pool(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": "ab"[i % 2], "part": ("train", "trial", "test", "other")[i % 4 if i > 3 else 0]} for i in range(40)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    parts = {"column": "part", "train": "train", "validation": "trial", "test": ["test"]}
    config = TaskConfig.model_validate({"name": "t", "path": str(tmp_path / "x.jsonl"), "parts": parts, "labels": ["a", "b"]})
    data = load(config)
    assert [{one.part for one in part} for part in (data.train, data.validation, data.test)] == [{"train"}, {"trial"}, {"test"}]
    shared_out = load(config.model_copy(update={"parts": config.parts.model_copy(update={"validation": ()})}))  # type: ignore[union-attr]
    assert {one.part for one in shared_out.validation} == {"train"}


def test_a_group_is_never_divided(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": "rare" if i == 77 else "ab"[i % 2], "document": i // 5} for i in range(400)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    split = {"train": 0.5, "validation": 0.2, "test": 0.2}
    for seed in range(1, 9):
        data = load(TaskConfig.model_validate(
            {"name": "t", "path": str(tmp_path / "x.jsonl"), "split": split, "group": "document", "split_seed": seed}
        ))  # fmt: skip
        groups = [{one.group for one in part} for part in (data.train, data.validation, data.test)]
        assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
        assert "rare" in {one.gold for one in data.train}
        assert abs(len(data.train) - 200) <= 10
        assert abs(len(data.validation) - 80) <= 10
        assert abs(len(data.test) - 80) <= 10


def test_pairs_are_learnt_in_both_orders(tmp_path: Path) -> None:
    rows = [{"a": f"a{i}", "b": f"b{i}", "label": "xy"[i % 2]} for i in range(20)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    split = {"train": 0.5, "validation": 0.2, "test": 0.3}
    own = {"name": "t", "path": str(tmp_path / "x.jsonl"), "split": split, "text": "a", "second": "b"}
    once, twice = (load(TaskConfig.model_validate({**own, "both_orders": both})) for both in (False, True))
    assert (twice.train, twice.validation, twice.test) == (once.train, once.validation, once.test)
    assert once.learned == once.train
    assert twice.learned[: len(once.train)] == once.train
    swapped = {(one.second, one.text, one.gold) for one in twice.learned[len(once.train) :]}
    assert swapped == {(one.text, one.second, one.gold) for one in once.train}
    assert len({one.id for one in twice.learned}) == 2 * len(once.train)


def test_rows_are_chosen_and_left_out_by_name_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "text\tlabel\tkind\na\t1\tm\n\t0\tm\nb\t0\tn\nbroken\nc\t1\tm\n"
    own = {"only": {"kind": "m"}, "skip_empty": True, "skip_broken": True}
    assert [one.text for one in read(tmp_path / "x.tsv", text, format_config=own)] == ["a", "c"]
    assert "1 rows with other columns" in caplog.text
    assert "1 rows with an empty text or label" in caplog.text
    for absent, message in (("skip_empty", "text is empty"), ("skip_broken", "this row has 1 columns")):
        with pytest.raises(KitaeError, match=message):
            read(tmp_path / "x.tsv", text, format_config={key: value for key, value in own.items() if key != absent})
