"""Readers of public corpora on real files, or on files in the published layout: OSCAR, CirrusSearch, Aozora Bunko, Kyoto."""

import difflib
import gzip
import itertools
import json
import lzma
from collections import Counter
from pathlib import Path

import pytest

from kitae.core.errors import KitaeError
from kitae.text.aozora import unmarked
from kitae.text.format import Columns, Found
from kitae.text.readers import read

OSCAR_23 = {  # the keys of version 3 of the oscar-io crate
    "content": "本文です。\n二行目。",
    "warc_headers": {
        "warc-record-id": "<urn:uuid:c100fb99-8d71-49c6-a1d0-f24bca6590d8>",
        "warc-date": "2022-11-26T08:53:57Z",
        "content-type": "text/plain",
        "content-length": 27,
        "warc-type": "conversion",
        "warc-identified-content-language": "jpn",
        "warc-refers-to": "<urn:uuid:3da37d7f-78d9-4569-aaf0-c4c11b6c53fe>",
        "warc-target-uri": "https://example.com/",
        "warc-block-digest": "sha1:A4ANW6752TUU2KYCAYNLD3O6Q4NEIV7A",
    },
    "metadata": {
        "identification": {"label": "ja", "prob": 0.97},
        "harmful_pp": 4063.1814,
        "tlsh": "tlsh:T125315FF2B6088901EEA097015DB39B4600B",
        "quality_warnings": ["short_sentences", "noisy"],
        "categories": ["examen_pix", "liste_bu"],
        "sentence_identifications": [{"label": "ja", "prob": 0.99}, None],
    },
}


def put(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_real_oscar_2201(shared: Path) -> None:
    found = list(read(shared / "oscar_fixture" / "oscar22.01_data.jsonl.xz", "oscar"))
    assert len(found) == 63
    counts = Counter(name for one in found for name in one.metadata["annotations"])  # type: ignore[union-attr]
    assert counts == {"short_sentences": 53, "footer": 49, "header": 42, "tiny": 8}
    assert sum(one.metadata["annotations"] == () for one in found) == 2
    assert found[0].key == "urn:uuid:c100fb99-8d71-49c6-a1d0-f24bca6590d8"
    wanted = {"language": "en", "language_probability": 0.6518743, "date": "2021-09-16T12:10:19Z"}
    assert {key: found[0].metadata[key] for key in wanted} == wanted
    assert found[0].metadata["url"] == "https://en.wikipedia.org/wiki/Navi_Mumbai"


def test_oscar_2301_and_lacking_fields(tmp_path: Path) -> None:
    bare = {"content": "x", "warc_headers": {}, "metadata": {"identification": None, "quality_warnings": None, "annotations": ["tiny"]}}
    full, less = read(put(tmp_path / "ja_meta_part_1.jsonl", OSCAR_23, bare), "oscar")
    assert full.text == OSCAR_23["content"]
    assert full.metadata == {
        "annotations": ("short_sentences", "noisy"),
        "categories": ("examen_pix", "liste_bu"),
        "language": "ja",
        "language_probability": 0.97,
        "harmful_pp": 4063.1814,
        "url": "https://example.com/",
        "date": "2022-11-26T08:53:57Z",
    }
    assert (less.key, less.metadata) == (None, {"annotations": ("tiny",), "categories": ()})
    (sure,) = read(put(tmp_path / "a.jsonl", {"content": "x", "metadata": {"identification": {"label": "ja", "prob": 1}}}), "oscar")
    assert sure.metadata["language_probability"] == 1.0
    with pytest.raises(KitaeError, match='no text "content"') as caught:
        list(read(put(tmp_path / "a.jsonl", OSCAR_23, {"text": "x"}), "oscar"))
    assert caught.value.where.endswith("line 2")
    (tmp_path / "a.jsonl").write_text(json.dumps(OSCAR_23)[:-9], encoding="utf-8")
    with pytest.raises(KitaeError, match="not JSON"):
        list(read(tmp_path / "a.jsonl", "oscar"))


def cirrus(key: int, **fields: object) -> list[dict[str, object]]:
    """Two lines as Elasticsearch's bulk requests have them, with the fields of the dumps on dumps.wikimedia.org/other/cirrussearch."""
    page = {"wiki": "jawiki", "language": "ja", "namespace": 0, "timestamp": "2023-06-01T02:03:04Z", "redirect": [], "template": []}
    return [{"index": {"_type": "_doc", "_id": str(key)}}, {**page, **fields}]


def test_cirrussearch_pairs_of_lines(tmp_path: Path) -> None:
    rows = [
        *cirrus(5, title="アンパサンド", text="アンパサンドは記号。", redirect=[{"namespace": 0, "title": "&"}]),
        *cirrus(6, title="利用者:甲", text="こんにちは。", namespace=2),
        *cirrus(7, title="空", text=" "),
    ]
    path = tmp_path / "jawiki-20230605-cirrussearch-content.json.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    found = list(read(path, "cirrussearch"))
    assert [(one.key, one.text, one.drop) for one in found] == [
        ("5", "アンパサンドは記号。", None),
        ("6", "こんにちは。", "namespace"),
        ("7", " ", "stub"),
    ]
    assert found[0].metadata == {"title": "アンパサンド", "date": "2023-06-01T02:03:04Z", "language": "ja"}
    with pytest.raises(KitaeError, match="does not follow"):
        list(read(put(tmp_path / "cut.json", *rows[:3]), "cirrussearch"))
    with pytest.raises(KitaeError, match="does not follow") as caught:
        list(read(put(tmp_path / "lost.json", rows[0], *rows[2:]), "cirrussearch"))
    assert caught.value.where.endswith("line 2")
    with pytest.raises(KitaeError, match="not a page") as caught:
        list(read(put(tmp_path / "other.json", *rows[:2], {"body": "x"}), "cirrussearch"))
    assert caught.value.where.endswith("line 3")


def real_aozora(shared: Path) -> dict[str, Found]:
    folder = shared / "ja_plain" / "aozora_original_sjis_sample"
    return {file.name.partition("_")[0]: next(iter(read(file, "aozora"))) for file in sorted(folder.iterdir())}


def test_real_aozora_against_the_cleaned_texts(shared: Path) -> None:
    """The cleaned file gives characters without a Unicode number as geta marks and keeps one stray mark or two."""
    works = real_aozora(shared)
    assert len(works) == 8
    cleaned: dict[str, str] = {}
    for one in itertools.islice(read(shared / "ja_plain" / "aozora.txt.xz", "text"), 30):
        title, _, body = one.content.partition("\n")
        cleaned.setdefault(title.partition("（")[0], body)
    likeness = []
    for work in works.values():
        expected = cleaned[str(work.metadata["title"]).partition("（")[0]]
        lines = list(zip(work.content.splitlines(), expected.splitlines(), strict=True))
        assert not set("《》｜［］＃") & set(work.content)
        likeness += [1.0 if a == b else difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() for a, b in lines]
    assert len(likeness) > 300
    assert sum(score < 1 for score in likeness) <= 8
    assert min(likeness) > 0.97


def test_real_aozora_titles_authors_and_missing_characters(shared: Path) -> None:
    works = real_aozora(shared)
    assert works["2508"].metadata == {"title": "地図をながめて", "author": "寺田寅彦"}
    assert works["42608"].metadata == {"title": "ジャン・クリストフ", "author": "豊島与志雄"}
    assert works["44811"].metadata["title"] == "俳優と現代人の生活（対話\u2164）"
    assert "樅と橅との" in works["42608"].content
    assert works["49582"].content.count("〓") == 2  # two characters that have no code there
    assert not works["2508"].content.endswith("底本")
    assert works["2508"].content.endswith("（昭和九年十月、東京朝日新聞）\n")


def test_aozora_marks() -> None:
    cases = {
        "撒布《さんぷ》された": "撒布された",
        "この夏｜信州《しんしゅう》": "この夏信州",
        "新しい［＃「新しい」に傍点］形": "新しい形",
        "［＃５字下げ］一［＃「一」は中見出し］": "一",
        "※［＃「木＋無」、第3水準1-86-12］の": "橅の",
        "※［＃「夕／寅」、第4水準2-5-29］《てんいん》": "夤",
        "※［＃「土へん＋竒」、U+57FC、31-上-6］": "\u57fc",
        "※［＃「石＋雷」、265-12］": "〓",
        "※［＃「※［＃「木＋無」、第3水準1-86-12］」の誤り、U+6A46、9-1］": "※",  # a note in a note: no code to trust
        "ジャン［＃「ジャン［第一］」に傍点］は": "ジャンは",
        "対話５［＃「５」はローマ数字、1-13-25］": "対話\u2164",
        "※［＃始め二重山括弧、1-1-52］x※［＃終わり二重山括弧、1-1-53］": "《x》",
        "縦線※［＃縦線、1-1-35］《たて》": "縦線｜",
        "※［＃U+D800、1-1］": "〓",
        "｜《あ》": "",
        "米※印": "米※印",
    }
    assert {line: unmarked(line) for line in cases} == cases


def test_aozora_lines_that_would_be_slow_are_not() -> None:
    for mark in ("｜", "［＃", "※［＃", "《", "［＃「a［b", "［＃［a］"):
        unmarked(mark * 50_000 + "》")


def aozora(path: Path, text: str) -> Path:
    path.write_bytes(text.replace("\n", "\r\n").encode("cp932"))
    return path


def test_aozora_layout(tmp_path: Path) -> None:
    rule = "-" * 55
    header = f"題\n著者\n訳者訳\n\n{rule}\n《》：ルビ\n{rule}\n\n"
    text = f"{header}　本文《ほんぶん》。\n［＃改ページ］\n底本：という語。\n\n終わり。\n\n\n底本：「全集」\n入力：甲\n"
    (one,) = read(aozora(tmp_path / "a.txt", text), "aozora")
    assert one.content == "本文。\n底本：という語。\n終わり。\n"
    assert one.metadata == {"title": "題", "author": "著者"}
    (one,) = read(aozora(tmp_path / "a.txt", text.replace("。\n\n\n底本", "。\n底本")), "aozora")
    assert one.content == "本文。\n底本：という語。\n終わり。\n"
    (one,) = read(aozora(tmp_path / "b.txt", "題\n\n本文。\n"), "aozora")
    assert (one.content, one.metadata) == ("本文。\n", {"title": "題"})
    (tmp_path / "b.txt").write_text("題\n\n本文。\n", encoding="utf-8")
    with pytest.raises(KitaeError, match="looks like UTF-8"):
        list(read(tmp_path / "b.txt", "aozora"))
    assert [one.content for one in read(tmp_path / "b.txt", "aozora", encoding="utf-8")] == ["本文。\n"]
    with pytest.raises(KitaeError, match="does not begin as"):
        list(read(aozora(tmp_path / "c.txt", "本文。\n" * 100), "aozora"))
    with pytest.raises(KitaeError, match="truncated"):
        list(read(aozora(tmp_path / "d.txt", f"題\n著者\n\n{rule}\n《》：ルビ\n"), "aozora"))


def test_real_kyoto_articles_equal_the_plain_text(shared: Path) -> None:
    """The plain file joins the same sentences, without the headings of sections; one of the seven articles is not in it."""
    articles = list(read(shared / "kyoto_cls" / "original_xml_sample", "kyoto"))
    assert len(articles) == 7
    wanted = {str(one.metadata["title"]): one.content.splitlines() for one in articles}
    found = set()
    with lzma.open(shared / "ja_plain" / "kyoto_wiki.txt.xz", "rt", encoding="utf-8") as file:
        for block in file.read().split("\n\n"):
            lines = block.splitlines()
            if lines and lines[0] in wanted and lines[1] in wanted[lines[0]]:
                found.add(lines[0])
                mine = iter(wanted[lines[0]])
                assert all(line in mine for line in lines), lines[0]  # a subsequence: only headings come in between
                assert len(wanted[lines[0]]) - len(lines) <= 12
    assert set(wanted) - found == {"龍安寺"}


def test_kyoto_languages_and_damage(shared: Path, tmp_path: Path) -> None:
    original = shared / "kyoto_cls" / "original_xml_sample" / "CLT00001.xml"
    (japanese,) = read(original, "kyoto")
    (english,) = read(original, "kyoto", columns=Columns("en"))
    assert japanese.content.splitlines()[2].startswith("1976年に田宮克哉が発表した、ごく新しい将棋である。京都銀閣将棋、")
    assert english.content.startswith("Kyoto Shogi\nKyoto Shogi is a kind of board game that is played between two players.\n")
    assert english.metadata == {"title": "Kyoto Shogi", "language": "en"}
    assert len(japanese.content.splitlines()) == len(english.content.splitlines())
    with pytest.raises(KitaeError, match="no language"):
        list(read(original, "kyoto", columns=Columns("fr")))
    (tmp_path / "cut.xml").write_bytes(original.read_bytes()[:5000])
    with pytest.raises(KitaeError, match="not whole XML"):
        list(read(tmp_path / "cut.xml", "kyoto"))
    (tmp_path / "page.xml").write_text("<html><body>Not found</body></html>", encoding="utf-8")
    with pytest.raises(KitaeError, match="no article"):
        list(read(tmp_path / "page.xml", "kyoto"))
