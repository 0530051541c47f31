"""Normalization keeps every letter and its marks, and folds what is not text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitae.text.clean import normalize

ODD = st.text(st.one_of(st.characters(), st.sampled_from("ハか゛゜\u3099ﾊﾞ（）　\r\n\t\u2028\u200b\ufeffé\u0301㍿０")), max_size=60)


def test_dakuten_and_accents_survive() -> None:
    assert normalize("ハ\u3099ナナ か\u3099 ﾊﾞﾅﾅ ハ゛ナナ") == "バナナ が バナナ バナナ"
    assert normalize("cafe\u0301 Ångström naïve") == "café Ångström naïve"
    assert normalize("プログラミングを学ぶ") == "プログラミングを学ぶ"


def test_widths_and_blanks() -> None:
    assert normalize("ＡＢＣ１２３（株）　㍿\u00a0ﾃｽﾄ") == "ABC123(株) 株式会社 テスト"
    assert normalize("ＡＢＣ　（株）", "none") == "ＡＢＣ （株）"
    assert normalize("  一 \t 二\u3000\n\n\n 三 \r\n四\r五\u2028六\u0085七\x0c八") == "一 二\n三\n四\n五\n六\n七\n八"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("バナナ", "バナナ"),  # already composed
        ("ハ\u3099ナナ", "バナナ"),  # decomposed
        ("ハ\u309aン", "パン"),
        ("ﾊﾞﾅﾅ ﾊﾟﾝ", "バナナ パン"),  # half-width, with half-width marks
        ("ﾊ゛ﾅﾅ ﾊ゜ﾝ", "バナナ パン"),  # half-width letter, spacing mark
        ("ハﾞ はﾞ は゛ ハ゜", "バ ば ば パ"),  # full-width letter, half-width or spacing mark
        ("か\u200b\u3099", "が"),  # an unseen character between a letter and its mark
        ("で、です。出て", "で、です。出て"),
        ("ウ\u3099ィ う\u3099", "ヴィ ゔ"),
        ("ー゛", "ー\u3099"),  # no letter has this mark: it stays
        ("㍿テスト ㌔ ㍻ ㈱", "株式会社テスト キロ 平成 (株)"),
        ("第①章 ⅳ Ⅳ ㊤", "第1章 iv IV 上"),
        ("ＡＢＣ　ａｂｃ　１２３", "ABC abc 123"),
        ("～ － ￥ ｢｣", "~ - ¥ 「」"),
        ("髙橋 﨑 神\ufe00 辻󠄀", "髙橋 﨑 神\ufe00 辻󠄀"),  # variants of kanji are letters of their own
        ("İ ﬁ ſ", "İ fi s"),
    ],
)
def test_words_are_never_changed_by_accident(text: str, wanted: str) -> None:
    assert normalize(text) == wanted
    assert normalize(wanted) == wanted


@pytest.mark.parametrize(
    "unseen", ["\0", "\u200b", "\u200e", "\u200f", "\u202a", "\u202e", "\u2060", "\u2066", "\u2069", "\ufeff", "\xad", "\x1b"]
)
def test_unseen_characters_leave_the_word_whole(unseen: str) -> None:
    for policy in ("nfkc", "none"):
        assert normalize(f"東{unseen}京{unseen}", policy) == "東京"
        assert normalize(f"{unseen}\n{unseen}", policy) == ""


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\u2028", "\u2029", "\x85", "\x0b", "\x0c"])
def test_line_ends_of_every_kind(end: str) -> None:
    for policy in ("nfkc", "none"):
        assert normalize(f"一{end}{end}二{end}", policy) == "一\n二"


def test_a_million_empty_lines_and_one_long_line() -> None:
    assert normalize("\n" * 1_000_000 + "終") == "終"
    assert normalize("ａ" * 3_000_000) == "a" * 3_000_000


def test_unseen_characters_go_and_emoji_stay() -> None:
    assert normalize("a\u200bb\ufeffc\u202ed\x07e\xadf\ud800g") == "abcdefg"
    assert normalize("👨\u200d👩\u200d👧") == "👨\u200d👩\u200d👧"


@given(ODD)
def test_is_nfkc_and_stable(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once
    assert unicodedata.is_normalized("NFKC", once)
    assert all(line and line == line.strip() for line in once.split("\n") if once)


@given(st.text(st.sampled_from("かハ漢aé０（）　、。\n１Ａ！～ｶﾞ\u3099㌔"), max_size=40))
def test_equals_plain_nfkc_but_for_blanks(text: str) -> None:
    assert "".join(normalize(text).split()) == "".join(unicodedata.normalize("NFKC", text).split())
