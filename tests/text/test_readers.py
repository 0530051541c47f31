"""Documents of every format, and tables with their line numbers."""

import gzip
import json
from pathlib import Path

import pytest

from kitae.core.errors import KitaeError
from kitae.text.format import Columns, Format, Found
from kitae.text.readers import READERS, read
from kitae.text.tables import format_of, read_rows


def put(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def texts(path: Path, kind: str, columns: Columns = Columns()) -> list[str]:  # noqa: B008 - immutable
    return [found.text for found in read(path, kind, columns=columns)]


def test_text_and_paragraphs(tmp_path: Path) -> None:
    path = put(tmp_path / "a.txt", "\n\n一。\n二。\n\n \u3000\n三。\n四。")
    assert texts(path, "text") == ["一。\n二。\n", "三。\n四。"]
    assert texts(path, "paragraphs") == ["一。\n", "二。\n", "三。\n", "四。"]
    assert texts(path, "files") == ["\n\n一。\n二。\n\n \u3000\n三。\n四。"]


def test_a_format_has_exactly_one_reader_and_may_make_its_text_late() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Format()
    made: list[int] = []
    found = Found(lambda: f"text {made.append(1)}", "k")
    assert not made
    assert found.content == "text None"
    assert made == [1]
    assert Found("there").content == "there"


def test_a_million_empty_lines_make_no_document(tmp_path: Path) -> None:
    assert texts(put(tmp_path / "a.txt", "一\n" + "\n" * 1_000_000 + "二"), "text") == ["一\n", "二"]


def test_columns_and_ids(tmp_path: Path) -> None:
    csv = put(tmp_path / "a.csv", '\ufeffno,body\r\n7,"一, ""二""\r\n三"\r\n8,四\r\n')
    found = list(read(csv, "csv", columns=Columns("body", "no")))
    assert [(one.key, one.text) for one in found] == [("7", '一, "二"\n三'), ("8", "四")]
    with pytest.raises(KitaeError, match='no column "text"') as caught:
        list(read(csv, "csv"))
    assert "no, body" in caught.value.cure
    assert "line 2" in caught.value.where
    lines = put(tmp_path / "a.jsonl", '{"text": "一", "n": 1, "none": null}\n\n{"text": "二", "n": true, "none": [1]}\n')
    assert texts(lines, "jsonl") == ["一", "二"]
    assert list(read_rows(lines)) == [
        (1, {"text": "一", "n": "1", "none": ""}),
        (3, {"text": "二", "n": "true", "none": "[1]"}),
    ]


def test_rows_tell_their_first_line(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", 'text,label\n"one\ntwo",x\nthree,y\n')
    assert [number for number, _ in read_rows(path)] == [2, 4]
    put(path, 'text,label\n"one\ntwo",x\nthree,y,z\n')
    with pytest.raises(KitaeError, match="3 columns, the header has 2") as caught:
        list(read_rows(path))
    assert caught.value.where.endswith("line 4")


def test_tsv_with_stray_quotes_and_with_real_ones(tmp_path: Path) -> None:
    stray = put(tmp_path / "a.tsv", 'text\tlabel\n"hello\t1\nhe said "no"\t0\n')
    assert [row["text"] for _, row in read_rows(stray)] == ['"hello', 'he said "no"']
    quoted = put(tmp_path / "b.tsv", '"text"\t"label"\n"a ""b""\tc"\t"1"\n')
    assert [row["text"] for _, row in read_rows(quoted)] == ['a "b"\tc']


def test_broken_tables(tmp_path: Path) -> None:
    for text, message in (("{bad\n", "not JSON"), ("[1]\n", "not an object"), ("\n\n", "no rows")):
        with pytest.raises(KitaeError, match=message):
            list(read_rows(put(tmp_path / "a.jsonl", text)))
    with pytest.raises(KitaeError, match="not a csv file"):
        list(read_rows(put(tmp_path / "a.csv", 'text\n"open\n')))
    with pytest.raises(KitaeError, match="twice"):
        list(read_rows(put(tmp_path / "a.csv", "text,text\n1,2\n")))
    with pytest.raises(KitaeError, match="no rows"):
        list(read_rows(put(tmp_path / "a.csv", "text,label\n")))
    with pytest.raises(KitaeError, match="does not say"):
        format_of(Path("a.dat"))
    assert format_of(Path("x.jsonl.xz")) == "jsonl"


def test_unknown_format_suggests(tmp_path: Path) -> None:
    with pytest.raises(KitaeError) as caught:
        list(read(put(tmp_path / "a.txt", "x"), "jsonll"))
    assert 'did you mean "jsonl"' in caught.value.cure


def test_wikiextractor_blocks_lines_and_stubs(tmp_path: Path) -> None:
    blocks = '<doc id="1" url="u" title="甲">\n甲\n\n本文。\n</doc>\n<doc id="2" url="u" title="乙">\n乙\n\n</doc>\n'
    found = list(read(put(tmp_path / "wiki_00", blocks), "wikiextractor"))
    assert [(one.text, one.drop) for one in found] == [("甲\n\n本文。\n", None), ("乙\n\n", "stub")]
    lines = [{"url": "u", "text": "甲\n\n本文。"}, {"url": "u", "title": "乙", "text": "乙"}, {"url": "u", "title": "丙", "text": ""}]
    path = tmp_path / "wiki_01.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(line) for line in lines).encode()))
    assert [one.drop for one in read(path, "wikiextractor")] == [None, "stub", "stub"]
    with pytest.raises(KitaeError, match="not closed"):
        list(read(put(tmp_path / "wiki_02", blocks[:-8]), "wikiextractor"))
    with pytest.raises(KitaeError, match="neither"):
        list(read(put(tmp_path / "wiki_03", "just text\n"), "wikiextractor"))


def test_real_wikiextractor_archives(shared: Path) -> None:
    found = list(read(shared / "ja_plain" / "jawiki_wikiextractor.tar.xz", "wikiextractor"))
    assert len(found) == 1896
    assert 0 < sum(one.drop == "stub" for one in found) < 400
    assert len(list(read(shared / "en_plain" / "enwiki_wikiextractor_json.tar.xz", "wikiextractor"))) == 513


def test_real_tables(shared: Path) -> None:
    assert len(list(read_rows(shared / "glue" / "SST-2" / "train.tsv.xz"))) == 67349
    assert len(list(read(shared / "kyoto_cls" / "valid.jsonl.xz", "jsonl", columns=Columns("text", "id")))) == 504
    assert len(list(read(shared / "chabsa" / "chABSA.tar.xz", "files"))) == 184


def test_every_format_is_in_the_table() -> None:
    assert set(READERS) == {"text", "paragraphs", "files", "wikipedia", "wikiextractor", "jsonl", "csv", "tsv"}
