"""Documents of every format, and tables with their line numbers."""

import gzip
import io
import json
import lzma
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from kitae.core.errors import KitaeError
from kitae.text.format import Columns, Format, Found
from kitae.text.readers import READERS, read
from kitae.text.selection import Keep, Selection
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


@pytest.mark.parametrize(
    ("value", "kind"), [('{"ja": "一"}', "an object"), ('["一"]', "a list"), ("7", "a number"), ("-0.5", "a number"), ("true", "true")]
)
def test_a_column_of_json_that_is_no_text(tmp_path: Path, value: str, kind: str) -> None:
    path = put(tmp_path / "a.jsonl", f'{{"text": "一", "id": 1}}\n{{"text": {value}, "id": {value}}}\n')
    with pytest.raises(KitaeError, match=f'column "text" holds {kind}') as caught:
        list(read(path, "jsonl"))
    assert caught.value.where.endswith("a.jsonl, line 2")
    if kind.startswith(("an", "a l")):
        with pytest.raises(KitaeError, match=f'column "id" holds {kind}'):
            list(read(put(path, f'{{"text": "", "id": {value}}}\n'), "jsonl", columns=Columns("text", "id")))
    assert texts(put(path, '{"text": null}\n{"text": "{}"}\n'), "jsonl") == ["", "{}"]  # a text may look like JSON


def test_a_number_of_5000_digits(tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match="too many digits") as caught:
        list(read_rows(put(tmp_path / "a.jsonl", '{"n": ' + "9" * 5000 + "}\n")))
    assert caught.value.where.endswith("line 1")


def test_a_column_may_be_called_replaced(tmp_path: Path) -> None:
    (found,) = read(put(tmp_path / "a.jsonl", '{"text": "一", "replaced": "no"}\n'), "jsonl", errors="replace")
    assert (found.replaced, found.metadata["replaced"]) == (0, "no")


def test_documents_that_are_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("format", "readers", "aozora", "filings"):
        monkeypatch.setattr(f"kitae.text.{module}.LONGEST_LINE", 300)
    long = "長" * 400
    ixbrl = "<html><body><p>{}</p></body></html>"
    of_format = {
        "csv": f'text\n"{long}"\nshort\n',
        "jsonl": f'{{"text": "{long}"}}\n{{"text": "short"}}\n',
        "wikiextractor": f'<doc id="1" title="t">\nt\n{long}\n</doc>\n<doc id="2" title="u">\nu\nshort\n</doc>\n{{"text": "a\\n{long}"}}\n',
        "oscar": json.dumps({"content": long}),
        "ixbrl": ixbrl.format(long),
    }
    drops = {format: [one.drop for one in read(put(tmp_path / "a", text), format)] for format, text in of_format.items()}
    assert drops == {
        "csv": ["oversized", None], "jsonl": ["oversized", None], "wikiextractor": ["oversized", None, "oversized"],
        "oscar": ["oversized"], "ixbrl": ["oversized"],
    }  # fmt: skip
    for body, drop in (("文。", None), (long, "oversized")):
        (tmp_path / "b").write_bytes(f"題\n作者\n\n{body}\n".encode("cp932"))
        assert [one.drop for one in read(tmp_path / "b", "aozora")] == [drop]
        cells = f"要素ID\t値\nx:ATextBlock\t一\nx:BTextBlock\t{body}\n"
        (tmp_path / "c").write_bytes(cells.encode("utf-16"))
        assert [one.drop for one in read(tmp_path / "c", "edinet")] == [drop]


def test_filters_go_by_keys_inside_keys(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", '{"text": "一", "meta": {"day": "2019-05-01"}}\n{"text": "二", "meta": {}}\n')
    selection = Selection(keep=Keep(date=("2019", "2019")), names={"date": "meta.day"})
    found = read(path, "jsonl", columns=Columns(filters=selection.columns))
    assert [selection.reason(one.metadata) for one in found] == [None, "no date"]


def test_unknown_format_suggests(tmp_path: Path) -> None:
    with pytest.raises(KitaeError) as caught:
        list(read(put(tmp_path / "a.txt", "x"), "jsonll"))
    assert 'did you mean "jsonl"' in caught.value.cure


def test_three_pages_with_prose_stay_and_three_without_are_stubs(tmp_path: Path) -> None:
    bodies = ["東京は首都である。", "Kyoto is a city.", "一。", "", "\n", "   "]
    pages = "".join(f'<doc id="{number}" title="t{number}">\nt{number}\n\n{body}\n</doc>\n' for number, body in enumerate(bodies))
    found = list(read(put(tmp_path / "a.txt", pages), "wikiextractor"))
    assert [one.drop for one in found] == [None] * 3 + ["stub"] * 3
    assert all(body in one.content for body, one in zip(bodies[:3], found))


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
    with pytest.raises(KitaeError, match="before the last one was closed") as caught:
        list(read(put(tmp_path / "wiki_02", blocks.replace("</doc>\n", "", 1)), "wikiextractor"))
    assert caught.value.where.endswith("line 5")
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
    tables = {"jsonl", "csv", "tsv", "parquet", "hf"}
    assert set(READERS) == tables | {
        "text", "paragraphs", "files", "wikipedia", "wikiextractor", "cirrussearch", "oscar", "aozora", "kyoto", "edinet", "xbrl", "ixbrl",
    }  # fmt: skip


def test_the_page_of_sources_names_every_format() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")
    named = {name for row in page.splitlines() if row.startswith("| `") for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == set(READERS)


def test_keys_inside_keys(tmp_path: Path) -> None:
    lines = put(tmp_path / "a.jsonl", '{"meta": {"body": {"text": "一"}, "id": 7}, "a.b": "二"}\n')
    assert [(one.text, one.key) for one in read(lines, "jsonl", columns=Columns("meta.body.text", "meta.id"))] == [("一", "7")]
    assert texts(lines, "jsonl", Columns("a.b")) == ["二"]
    for column in ("meta.text", "meta.id.x", "a.c", "x.y"):
        with pytest.raises(KitaeError, match="no column"):
            texts(lines, "jsonl", Columns(column))


def test_cc100_is_text(tmp_path: Path) -> None:
    """Documents are parted by an empty line, paragraphs by line ends: https://data.statmt.org/cc-100/ ."""
    path = tmp_path / "ja.txt.xz"
    path.write_bytes(lzma.compress("一つ目の段落。\n二つ目。\n\n次の文書。\n\n".encode()))
    assert texts(path, "text") == ["一つ目の段落。\n二つ目。\n", "次の文書。\n"]


def tar_of(files: dict[str, bytes], compression: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=f"w:{compression}") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


def test_openwebtext_as_it_is_published(tmp_path: Path) -> None:
    """openwebtext.tar.xz holds openwebtext/urlsf_subsetNN-N_data.xz, each a tar (without saying so) of one text a document."""
    pages = {f"{i:07d}-{'ab' * 16}.txt": f"Page {i}.\n\nIts second paragraph.\n".encode() for i in range(1, 6)}
    names = sorted(pages)
    subsets = {
        "openwebtext/urlsf_subset00-1_data.xz": tar_of({name: pages[name] for name in names[:3]}, "xz"),
        "openwebtext/urlsf_subset00-2_data.xz": tar_of({name: pages[name] for name in names[3:]}, "xz"),
    }
    whole = tmp_path / "openwebtext.tar.xz"
    whole.write_bytes(tar_of(subsets, "xz"))
    expected = [pages[name].decode() for name in names]
    assert texts(whole, "files") == expected
    folder = tmp_path / "folder"
    for name, data in subsets.items():  # the outer archive unpacked
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    assert texts(folder, "files") == expected
    single = folder / "openwebtext" / "urlsf_subset00-2_data.xz"
    assert texts(single, "files") == expected[3:]
    single.write_bytes(single.read_bytes()[:-20])
    with pytest.raises(KitaeError, match="truncated"):
        texts(single, "files")
    subsets["openwebtext/urlsf_subset00-2_data.xz"] = single.read_bytes()
    whole.write_bytes(tar_of(subsets, "xz"))
    with pytest.raises(KitaeError, match="truncated") as caught:
        texts(whole, "files")
    assert "urlsf_subset00-2_data.xz" in caught.value.where


def test_a_format_reads_only_its_own_files_of_an_archive(tmp_path: Path) -> None:
    article = "<art><tit><j>題</j></tit><par><sen><j>文。</j></sen></par></art>".encode()
    files = {"readme.txt": b"not XML", "A/a.xml": article, "A/pixel.png": b"\x89PNG\0"}
    (tmp_path / "k.tar.gz").write_bytes(tar_of(files, "gz"))
    with zipfile.ZipFile(tmp_path / "k.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    folder = tmp_path / "k"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "empty.css").touch()
    (folder / "b.xml.gz").write_bytes(gzip.compress(article))
    (folder / "more.zip").write_bytes((tmp_path / "k.zip").read_bytes())
    (folder / "plain.XML").write_bytes(article)
    counts = {name: len(list(read(tmp_path / name, "kyoto"))) for name in ("k.tar.gz", "k.zip", "k")}
    assert counts == {"k.tar.gz": 1, "k.zip": 1, "k": 4}
    with pytest.raises(KitaeError, match="no document"):
        list(read(tmp_path / "k.zip", "ixbrl"))
    with pytest.raises(KitaeError, match="say their encoding themselves"):
        list(read(tmp_path / "k.zip", "kyoto", encoding="cp932"))
    (tmp_path / "a.bin").write_bytes(article)  # a file that the recipe names itself is read, whatever it is called
    assert len(list(read(tmp_path / "a.bin", "kyoto"))) == 1
