"""Companies' reports: EDINET's tables, XBRL, Inline XBRL, and the HTML inside them."""

import io
import lzma
import time
import zipfile
from pathlib import Path

import pytest

from kitae.core.errors import KitaeError
from kitae.text import markup
from kitae.text.format import Columns, Found
from kitae.text.kyoto import read_kyoto
from kitae.text.markup import html_text
from kitae.text.readers import read
from kitae.text.streams import CheckedStream

HEADINGS = "要素ID", "項目名", "コンテキストID", "相対年度", "連結・個別", "期間・時点", "ユニットID", "単位", "値"


def edinet(path: Path, values: dict[str, str], encoding: str = "utf-16") -> Path:
    rows = [
        HEADINGS,
        *((name, "", "FilingDateInstant", "提出日時点", "その他", "時点", "－", "－", value) for name, value in values.items()),
    ]
    lines = ("\t".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows)
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode(encoding))
    return path


def one(path: Path, format: str, encoding: str | None = None) -> Found:
    (found,) = read(path, format, encoding=encoding)
    return found


def test_real_edinet_tables(shared: Path) -> None:
    folder = shared / "finance_ja" / "edinet_original_tsv_sample"
    first, second = read(folder, "edinet")
    assert first.metadata == {"title": "有価証券報告書", "company": "日本通信株式会社", "date": "2016-03-31"}
    assert second.metadata["company"] == "任天堂株式会社"
    for found, value in (
        (first, "４【事業等のリスク】　当社グループの事業展開、"),
        (second, "４ 【事業等のリスク】当社グループ(当社及び連結子会社)の"),
    ):
        assert sum(line.startswith(value) for line in found.content.splitlines()) == 1
        assert "CurrentYearDuration" not in found.content
        lines = found.content.splitlines()
        assert len(set(lines)) == len(lines)  # notes are tagged whole and in parts: each text stands once
    assert 100_000 < len(first.content) < 105_640
    assert "3724141000" not in first.content  # a number, not a text block


def test_edinet_tables_of_other_kinds(tmp_path: Path) -> None:
    values = {
        "jpdei_cor:FilerNameInJapaneseDEI": "甲株式会社",
        "jpdei_cor:CurrentPeriodEndDateDEI": "－",
        "jpcrp_cor:NetSales": "100",
        "jpcrp_cor:NotesTextBlock": "注記。 一、二。 終わり。",
        "jpcrp_cor:PartTextBlock": "一、二。",
        "x:HtmlTextBlock": "<p>段落。</p><p>次の<b>段落</b>。</p>",
        "x:SmallerTextBlock": "5 < 6 である。",
        "x:EmptyTextBlock": "",
    }
    found = one(edinet(tmp_path / "a.csv", values), "edinet")
    assert found.content == "注記。 一、二。 終わり。\n段落。\n次の段落。\n5 < 6 である。"
    assert found.metadata == {"company": "甲株式会社"}
    assert one(edinet(tmp_path / "b.csv", values, "utf-8"), "edinet", "utf-8").content == found.content
    numbers = one(edinet(tmp_path / "c.csv", {"jpcrp_cor:NetSales": "100"}), "edinet")
    assert (numbers.text, numbers.drop) == ("", "no text block")
    (tmp_path / "d.tsv").write_text("text\tlabel\nx\ty\n", encoding="utf-16")
    with pytest.raises(KitaeError, match="not a table of EDINET"):
        one(tmp_path / "d.tsv", "edinet")
    data = (tmp_path / "a.csv").read_bytes()
    (tmp_path / "e.csv").write_bytes(data[: len(data) // 2 * 2 - 40])
    with pytest.raises(KitaeError):
        one(tmp_path / "e.csv", "edinet")


def test_real_xbrl_instance(shared: Path) -> None:
    found = one(shared / "finance_ja" / "xbrl_sample" / "CJ_2371_kakakucom.xbrl.xz", "xbrl")
    assert not isinstance(found.text, str)  # made only where the document is kept
    assert found.metadata == {"title": "有価証券報告書", "company": "株式会社カカクコム", "date": "2017-03-31"}
    text = found.content
    lines = text.splitlines()
    assert lines[:2] == ["株式会社東京証券取引所", "（東京都中央区日本橋兜町２番１号）"]
    assert "④ 店舗の評価について" in lines
    assert "回次 第16期 第17期 第18期 第19期 第20期" in lines  # a row of a table: its cells
    assert "売上高 (千円） 23,276,846 29,814,010 35,787,083 41,275,187 45,089,432" in lines
    assert not any(mark in text for mark in ("<", "&lt;", "&amp;", "font-size"))


def xbrl(body: str, prologue: str = "") -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?>{prologue}<xbrli:xbrl xmlns:xbrli="x" xmlns:a="a">{body}</xbrli:xbrl>'


def test_xbrl_damage_and_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.xbrl"
    path.write_text(xbrl("<a:NetSales>1</a:NetSales>"), encoding="utf-8")
    assert one(path, "xbrl").drop == "no text block"
    whole = xbrl("<a:OneTextBlock>&lt;p&gt;甲 &amp;amp; 乙&lt;/p&gt;</a:OneTextBlock>")
    path.write_text(whole, encoding="utf-8")
    assert one(path, "xbrl").content == "甲 & 乙"
    path.write_text(whole[:-20], encoding="utf-8")
    with pytest.raises(KitaeError, match="not whole XML") as caught:
        one(path, "xbrl")
    assert "line 1" in caught.value.where
    levels = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
    bomb = f'<!DOCTYPE x [<!ENTITY e0 "lol">{levels}]>'
    path.write_text(xbrl("<a:OneTextBlock>&e9;</a:OneTextBlock>", bomb), encoding="utf-8")
    with pytest.raises(KitaeError, match="entity"):
        one(path, "xbrl")
    outside = '<!DOCTYPE x [<!ENTITY passwords SYSTEM "file:///etc/passwd">]>'
    path.write_text(xbrl("<a:OneTextBlock>&passwords;</a:OneTextBlock>", outside), encoding="utf-8")
    with pytest.raises(KitaeError, match="entity"):
        one(path, "xbrl")
    monkeypatch.setattr(markup, "LONGEST_DOCUMENT", 1000)
    path.write_text(xbrl("<a:OneTextBlock>" + "x" * 2000 + "</a:OneTextBlock>"), encoding="utf-8")
    with pytest.raises(KitaeError, match="longer than"):
        one(path, "xbrl")


def page(body: str, header: str = "") -> str:
    names = 'xmlns="http://www.w3.org/1999/xhtml" xmlns:ix="http://www.xbrl.org/2008/inlineXBRL"'
    hidden = f'<div style="display:none"><ix:header><ix:hidden>{header}</ix:hidden></ix:header></div>' if header else ""
    return f'<?xml version="1.0" encoding="utf-8"?>\n<html {names}><head><title>題</title></head><body>{hidden}{body}</body></html>\n'


INLINE = page(
    """<h2>第一部</h2>
<ix:nonNumeric name="jpcrp_cor:RisksTextBlock" contextRef="FilingDateInstant" escape="true" id="r" continuedAt="c1">
<h3>４【リスク】</h3>
<p>本文は
ここにある。<ix:exclude><span>12/80</span></ix:exclude></p>
<ix:nonNumeric name="jpcrp_cor:PartTextBlock" contextRef="x" escape="true"><p>一部分。</p></ix:nonNumeric>
</ix:nonNumeric>
<p>ページ</p>
<ix:continuation id="c1" continuedAt="c2"><p>続き。</p></ix:continuation>
<ix:continuation id="c2"><table><tr><td><p>売上</p></td><td><p><ix:nonFraction name="a:S">1,000</ix:nonFraction></p></td></tr></table>
</ix:continuation>""",
    '<ix:nonNumeric name="jpdei_cor:FilerNameInJapaneseDEI" contextRef="x">甲<br/>株式会社</ix:nonNumeric>'
    '<ix:nonNumeric name="jpdei_cor:CurrentPeriodEndDateDEI" contextRef="x">2024-03-31</ix:nonNumeric>',
)


def test_inline_xbrl_pages(tmp_path: Path) -> None:
    path = tmp_path / "0101010_honbun_ixbrl.htm"
    path.write_text(INLINE, encoding="utf-8")
    found = one(path, "ixbrl")
    assert found.content == "４【リスク】\n本文はここにある。\n一部分。\n続き。\n売上 1,000"
    assert found.metadata == {"company": "甲株式会社", "date": "2024-03-31"}
    closed = INLINE.replace('<ix:continuation id="c2">', '<ix:continuation id="c2"/><ix:continuation id="c3">')
    path.write_text(closed, encoding="utf-8")
    assert one(path, "ixbrl").content == "４【リスク】\n本文はここにある。\n一部分。\n続き。"
    path.write_text(INLINE.replace("</html>", ""), encoding="utf-8")
    with pytest.raises(KitaeError, match="does not end"):
        one(path, "ixbrl")
    path.write_text(INLINE.replace('id="c2"', 'id="c3"'), encoding="utf-8")
    with pytest.raises(KitaeError, match='"c2", which is not on this page'):
        one(path, "ixbrl")
    path.write_text(INLINE.replace('id="c2"', 'id="c2" continuedAt="c1"'), encoding="utf-8")
    with pytest.raises(KitaeError, match='"c1", which is not'):  # a ring
        one(path, "ixbrl")


def test_tdnet_archive(tmp_path: Path) -> None:
    """A disclosure's zip: a summary of facts, statements as Inline XBRL, the text as a plain page, and files that are no text."""
    summary = page('<ix:nonNumeric name="tse-ed-t:CompanyName" contextRef="x">乙</ix:nonNumeric><p>短信</p>')
    notes = page('<ix:nonNumeric name="tse-acedjpfr-1:NotesTextBlock" contextRef="x" escape="true"><p>注記。</p></ix:nonNumeric>')
    with zipfile.ZipFile(tmp_path / "081220240510512345.zip", "w") as archive:
        archive.writestr("XBRLData/Summary/tse-acedjpsm-12340-20240510512345-ixbrl.htm", summary)
        archive.writestr("XBRLData/Summary/tse-acedjpsm-12340-20240510512345.xsd", "<schema/>")
        archive.writestr("XBRLData/Attachment/0600000-acnt01-tse-acedjpfr-12340-2024-03-31-01-2024-05-10-ixbrl.htm", notes)
        archive.writestr("XBRLData/Attachment/qualitative.htm", "<html><body><h1>概況</h1><p>業績は良い。<br>以上。</body></html>")
        archive.writestr("XBRLData/Attachment/image.gif", b"GIF89a\0\0")
    found = list(read(tmp_path / "081220240510512345.zip", "ixbrl"))
    assert [(one.content, one.drop) for one in found] == [
        ("", "no text block"),
        ("注記。", None),
        ("概況\n業績は良い。\n以上。", None),
    ]
    assert found[0].metadata == {"company": "乙"}


def test_html_to_text() -> None:
    cases = {
        "<p>一</p><p>二</p>三": "一\n二\n三",
        "<ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp>字<rt>じ</ruby>を書く": "漢字を書く",
        "<head><title>題<body>本文": "本文",
        "a<script>if (1 < 2) { x('</p>') }</script>b<style>p {}</style>": "ab",
        "<table><tr><th>年</th>\n<td><p>売</p>\n<p>上</p></td></tr><tr><td>1<td>2</table>後": "年 売 上\n1 2\n後",
        "<table><td>a<table><tr><td>b<td>c<tr><td>d</table>e<tr><td>f</table>g": "a b c d e\nf\ng",
        "<td>x</td>y</table></tr><p>z": "x y\nz",
        "<ul><li>甲<li>乙</ul>": "甲\n乙",
        "日本\n  語と\nEnglish\nwords": "日本語と English words",
        "&lt;p&gt; &amp; &nbsp; &#x3042;": "<p> & あ",
        "<svg><text>x</text></svg>見える<br/>次": "見える\n次",
        "a\0b\1c": "abc",
        "</td></rt></script>x": "x",
        "1 < 2 <3 <!-- <p> -- > -->a<!DOCTYPE x><?php y?></ z>b<![CDATA[c>d]]>e<![if x]>f": "1 < 2 <3 abef",
        "<p title='>' class=\">\" x=y/z>a</P><IMG SRC=x/>b": "a\nb",
        '<p class="a>b</p>c': "b\nc",  # the quote has no end
        "a <b c": "a <b c",
        "a<!-- b > c": "a c",
        "<script>a": "",
        "<rt>a<rt/>b<td/>": "",
        "": "",
    }
    assert {html: html_text(html) for html in cases} == cases


@pytest.mark.parametrize(
    "trap",
    [
        "<a ",
        "<a x='",
        '<a =" > " ',
        "<!--",
        "<!",
        "<![CDATA[",
        "<![a",
        "<?",
        "</a ",
        "</",
        "<script>",
        "<a",
        "&",
        "&#",
        "<a x =  ",
        "<a x=\"y' ",
    ],
)
def test_no_html_takes_long(trap: str) -> None:
    """Quadratic work on these would take minutes: 10,000 times `<a ` took 9 seconds."""
    begun = time.process_time()
    for end in ("", ">", "-->", "]]>", "</script>"):
        html_text(trap * 50_000 + end)
    assert time.process_time() - begun < 10


@pytest.mark.parametrize(("one", "other"), [("<svg>", "</ruby>"), ("<svg>", "<rt></ruby>"), ("<svg>", "</style>"), ("<rt>", "<svg></rt>")])
def test_nothing_hidden_takes_long(one: str, other: str) -> None:
    begun = time.process_time()
    html_text(one * 50_000 + other * 50_000)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("encoding", ["Shift_JIS", "euc-jp", "windows-1252", "utf-16", "utf-8"])
def test_xml_is_read_in_the_encoding_that_it_names(encoding: str) -> None:
    word = "caf\u00e9" if encoding == "windows-1252" else "\u4eac\u90fd"
    xml = f'<?xml version="1.0" encoding="{encoding}"?>\n<art><tit><j>{word}</j></tit></art>'.encode(encoding)
    (found,) = read_kyoto(CheckedStream(io.BytesIO(xml), where="a.xml"), Columns())
    assert found.content == word + "\n"


def test_wrong_and_unknown_encodings_of_xml() -> None:
    for encoding, message in (("klingon", "unknown"), ("euc-jp", "not in the encoding"), ("hex", "unknown")):
        xml = f'<?xml version="1.0" encoding="{encoding}"?>\n<art><tit><j>x'.encode() + b"\xff\xff</j></tit></art>"
        with pytest.raises(KitaeError, match=message):
            list(read_kyoto(CheckedStream(io.BytesIO(xml), where="a.xml"), Columns()))


def test_deep_and_broken_html_is_quick(tmp_path: Path) -> None:
    html_text("<div>" * 50_000 + "<table><td>" * 20_000 + "<rt>" * 20_000 + "<" * 5_000 + "&" * 50_000)
    deep = '<ix:nonNumeric name="a:XTextBlock">x' * 2_000 + "</ix:nonNumeric>" * 2_000
    (tmp_path / "a.htm").write_text(page(deep), encoding="utf-8")
    assert one(tmp_path / "a.htm", "ixbrl").content == "x" * 2_000


def test_compressed_instance_of_a_folder(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "PublicDoc").mkdir()
    (tmp_path / "PublicDoc" / "a.xbrl.xz").write_bytes(lzma.compress(xbrl("<a:OneTextBlock>甲</a:OneTextBlock>").encode()))
    (tmp_path / "PublicDoc" / "a_lab.xml").write_text("<x/>", encoding="utf-8")
    assert one(tmp_path, "xbrl").content == "甲"
