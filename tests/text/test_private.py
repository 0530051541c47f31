"""Private data: what is masked, and what only looks like it."""

from pathlib import Path

import pytest
from datatrove.data import Document

from kitae.text.private import MARKS, MaskPrivate, Private, is_card, mask
from kitae.text.readers import read

CHANGED: dict[Private, list[tuple[str, str]]] = {
    "email": [
        ("連絡はtaro.yamada+x@example.co.jpまで。", "連絡は<EMAIL>まで。"),
        ("Write to <a_b-c@mail.example.org>, please.", "Write to <<EMAIL>>, please."),
        ("ｔａｒｏ＠ｅｘａｍｐｌｅ．ｃｏｍと書いた。", "<EMAIL>と書いた。"),
        ("_taro@example.com、.taro.@docomo.ne.jp、宛先...taro@example.com", "<EMAIL>、<EMAIL>、宛先...<EMAIL>"),
    ],
    "phone": [
        ("電話03-1234-5678です", "電話<PHONE>です"),
        ("センター０３－１２３４－５６７８", "センター<PHONE>"),
        ("(03) 1234-5678、06(6123)4567", "<PHONE>、<PHONE>"),
        ("０９０－１２３４－５６７８と090ー1234ー5678", "<PHONE>と<PHONE>"),
        ("携帯は09012345678。", "携帯は<PHONE>。"),
        ("TEL 0312345678 / 電話番号は 03 1234 5678 です", "TEL <PHONE> / 電話番号は <PHONE> です"),
        ("0120-123-456、03-1234-5678/03-1234-5679", "<PHONE>、<PHONE>/<PHONE>"),
        ("+81-3-1234-5678 or tel:+1 212 555 0123", "<PHONE> or tel:<PHONE>"),
        ("Call (212) 555-0123 or 212-555-0123.", "Call <PHONE> or <PHONE>."),
        ("call us at 1-212-555-0123; fax 212.555.0123", "call us at <PHONE>; fax <PHONE>"),
        ("03―1234―5678、03—1234—5678", "<PHONE>、<PHONE>"),
        ("私は090 1234 5678、電話: 045 123 4567 / 0451234567", "私は<PHONE>、電話: <PHONE> / <PHONE>"),
        ("+81 3-1234-5678, +81 (0)90 1234 5678, +44 20 7946 0958, 電話+49 151-2345-6789", "<PHONE>, <PHONE>, <PHONE>, 電話<PHONE>"),
        ("TEL.075-123-4567、FAX-(075)123-4567、Tel.+81 75-123-4567", "TEL.<PHONE>、FAX-<PHONE>、Tel.<PHONE>"),
        ("+818012345678、TEL +12125550123", "<PHONE>、TEL <PHONE>"),
        ("お問い合わせ先：０４２－１２３－４５６７人事部", "お問い合わせ先：<PHONE>人事部"),
    ],
    "card": [
        ("番号は4111 1111 1111 1111です", "番号は<CARD>です"),
        ("3782-822463-10005, 378282246310005", "<CARD>, <CARD>"),
        ("ＪＣＢ：３５３０１１１３３３３０００００", "ＪＣＢ：<CARD>"),
    ],
}  # fmt: skip
LEFT: dict[Private, list[str]] = {
    "email": [
        "@taro さん", "5 kg @ 300 yen", "user@localhost and a@b", "git clone https://example.com/@name/x",
        "icon@3x.jpg、file@2x.png", "lodash@4.17.21",
    ],
    "phone": [
        "2020-01-02、01-02-2020、2020.01.02 10:00-12:00", "〒123-4567", "ISBN 978-4-06-519981-0、0-306-40615-2", "第03-12号、12-34-5678",
        "0123456789 0.1234567890", "2,345,678 1,000,000,000", "利益は+1234567890円", "192.168.0.1", "A-03-1234-5678", "1234-5678-9012-3456",
        "製品番号1234567890、会員番号0123456789、注文番号 0312345678、口座番号:1234567890", "電話 1234567890円、電話0312345678円",
        "+3.14159265358、+1.4142135623", "株価+123.45 (12345)", "温度+25 1013 1000 1020", "x=+4611686018、y = +4611686018",
        "+123 456 789 012円",
        "200-300-4000", "価格は300-400-5000円", "09-1200-1300", "IP 212.555.0123", "03 1234 5678", "番号045 123 4567",
    ],
    "card": ["4111 1111 1111 1112", "1234-5678-9012-3452", "4111111111111111000", "978-4-06-519981-0", "4111.1111.1111.1111"],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "wanted"), [(kind, *case) for kind, cases in CHANGED.items() for case in cases])
def test_masked(kind: Private, text: str, wanted: str) -> None:
    assert mask(text, kind) == (wanted, wanted.count(MARKS[kind]))
    assert mask(wanted, kind) == (wanted, 0)


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in LEFT.items() for text in texts])
def test_look_alikes_stay(kind: Private, text: str) -> None:
    assert mask(text, kind) == (text, 0)


def test_the_step_counts_and_never_drops() -> None:
    document = Document(text="a@example.com、b@example.com、4111-1111-1111-1111、090-1234-5678", id="")
    assert MaskPrivate(("phone", "email", "card")).change(document) is None
    assert document.text == "<EMAIL>、<EMAIL>、<CARD>、<PHONE>"
    assert document.metadata["changes"] == {"email": 2, "card": 1, "phone": 1}
    plain = Document(text="何もない。", id="")
    MaskPrivate(("phone", "email", "card")).change(plain)
    assert (plain.text, plain.metadata) == ("何もない。", {})


def test_dropped_documents_show_nothing_private() -> None:
    text = "090\u200b-1234-5678、taro@example.com" + "。" * 400
    dropped = Document(text=text, id="", metadata={"dropped": "short"})
    list(MaskPrivate(("phone", "email")).run(iter([dropped])))
    assert dropped.metadata["shown"].startswith("<PHONE>、<EMAIL>。")
    assert dropped.text == text
    assert "changes" not in dropped.metadata


def test_check_digits_and_networks() -> None:
    assert all(map(is_card, ("5555555555554444", "2223003122003222", "6011111111111117", "30569309025904")))
    assert not any(map(is_card, ("5555555555554445", "9999999999999995", "411111111111111", "")))


def test_articles_full_of_numbers(shared: Path) -> None:
    """2,000 encyclopedia articles with dates, tables and 13 telephone numbers, looked at one by one; 150 reports without any."""
    articles = "\n".join(str(found.text) for found, _ in zip(read(shared / "ja_plain" / "kyoto_wiki.txt.xz", "text"), range(2000)))
    assert [mask(articles, kind)[1] for kind in MARKS] == [0, 13, 0]
    reports = "\n".join(str(found.text) for found, _ in zip(read(shared / "finance_ja" / "edinet_ja.txt.xz", "text"), range(150)))
    assert [mask(reports, kind)[1] for kind in MARKS] == [0, 0, 0]
