"""Normalization keeps every letter and its marks, and folds what is not text."""

import unicodedata

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
