"""Posts of social networks: what goes, and the words and brackets that stay."""

import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st

from kitae.text.social import CLEANERS, SOCIAL, CleanSocial, FullWidth, Social

CHANGED: dict[Social, list[tuple[str, str]]] = {
    "urls": [
        ("見て https://example.com/a?b=c#d！", "見て ！"),
        ("写真pic.twitter.com/AbC123です", "写真です"),
        ("www.example.co.jp/ と https://t.co/abc…", " と "),
        ("見て(https://example.com)ね（https://t.co/a）", "見てね"),
        ("「https://a.jp/x_(y)」、(see https://a.jp/b). https://a.jp/c!", "「」、(see ). !"),
    ],
    "marks": [
        ("RT @user_1: 本日は晴天", "本日は晴天"),
        ("@taro おはよう @hanako", " おはよう "),
        ("今日は#花見 に行った #桜 #春", "今日は花見 に行った"),
        ("＃春 ＃桜\n本文", "\n本文"),
        ("花見 #桜 #春 に行く", "花見 桜 春 に行く"),
    ],
    "kaomoji": [
        ("おはよう(^_^)また明日(^^)/", "おはよう\nまた明日"),
        ("ありがとうm(_ _)m。ヽ(´ー`)ノ", "ありがとう。"),
        ("(´・ω・`)そうか(T_T)", "そうか"),
        ("できた＼(^o^)／！（≧∇≦）", "できた！"),
        ("Tom(^_^)、100m(^_^)と m(__)m", "Tom、100m\nと "),
    ],
    "laughter": [
        ("それなwwwでも違うｗ", "それな\nでも違う"),
        ("楽しかった(笑)また行く（笑）。", "楽しかった\nまた行く。"),
        ("面白い笑\nそうか笑笑", "面白い\nそうか"),
        ("ウケるw\n最高ｗ\nやった!w", "ウケる\n最高\nやった!"),
    ],
}  # fmt: skip
LEFT: dict[Social, list[str]] = {
    "urls": ["httpの話", "比は3://4", "wwwという略語", "Yahoo!ニュース、e.g. this"],
    "marks": ["a@example.com", "C#とF#と#1位", "RTの意味とSTARTとR&D", "5 @ 300円", "ランチ@Tokyoで", "価格@100円", "単価 @100 円", "https://example.com/#top"],
    "kaomoji": [
        "(NHK)と(2020年)と(株)", "(A)、(※1)、(・・・)、(-)、(→)、(*)、(0-0)", "f(x_1)とg(a_b, c_d)", "(Q-Q)プロット", "空欄(___)に(_ _)",
        "(o^x)、(x^o)",
        "（東京）・（大阪）",
    ],
    "laughter": [
        "微笑した。爆笑", "w杯とWii", "www.example.com", "笑う門には福", "重みwを求める", "重み(w)を更新(w)。", "幅がw。", "係数w",
        "New www site",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "wanted"), [(kind, *case) for kind, cases in CHANGED.items() for case in cases])
def test_removed(kind: Social, text: str, wanted: str) -> None:
    cleaned, count = CLEANERS[kind](text)
    assert cleaned == wanted
    assert count > 0


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in LEFT.items() for text in texts])
def test_words_stay(kind: Social, text: str) -> None:
    assert CLEANERS[kind](text) == (text, 0)


def test_the_step_in_its_order() -> None:
    document = Document(text="RT @a_b: 見てhttps://t.co/x #花見 楽しいwww(^^) #春", id="")
    assert CleanSocial(("laughter", "kaomoji", "marks", "urls")).change(document) is None
    assert document.text == "見て 花見 楽しい"
    assert document.metadata["changes"] == {"urls": 1, "marks": 3, "kaomoji": 1, "laughter": 1}


PIECES = [
    "漢字",
    "かな",
    "カナ",
    "ー",
    "a",
    "Tom",
    "Z",
    "0",
    "12",
    " ",
    "、",
    "。",
    "\n",
    "(w)",
    "(注)",
    "(3)",
    "（東京）",
    "[1]",
    "C#",
    "#1位",
    "@100円",
    "w = 2",
    "m²",
]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_plain_text_is_never_touched(text: str) -> None:
    document = Document(text=text, id="")
    CleanSocial(SOCIAL).change(document)
    assert document.text == text


def test_full_width() -> None:
    document = Document(text="Tokyo 2020は<EMAIL>へ(笑)。", id="")
    assert FullWidth().change(document) is None
    assert document.text == "Ｔｏｋｙｏ ２０２０は<EMAIL>へ（笑）。"
