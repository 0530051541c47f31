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
    ],
    "marks": [
        ("RT @user_1: 本日は晴天", "本日は晴天"),
        ("@taro おはよう @hanako", " おはよう "),
        ("今日は#花見 に行った #桜 #春", "今日は花見 に行った"),
        ("＃春 ＃桜\n本文", "\n本文"),
    ],
    "kaomoji": [
        ("おはよう(^_^)また明日(^^)/", "おはよう\nまた明日"),
        ("ありがとうm(_ _)m。ヽ(´ー`)ノ", "ありがとう。"),
        ("(´・ω・`)そうか(T_T)", "そうか"),
        ("できた＼(^o^)／！（≧∇≦）", "できた！"),
    ],
    "laughter": [
        ("それなwwwでも違うｗ", "それな\nでも違う"),
        ("楽しかった(笑)また行く（笑）。", "楽しかった\nまた行く。"),
        ("面白い笑\nそうか笑笑", "面白い\nそうか"),
    ],
}  # fmt: skip
LEFT: dict[Social, list[str]] = {
    "urls": ["httpの話", "比は3://4", "wwwという略語", "Yahoo!ニュース、e.g. this"],
    "marks": ["a@example.com", "C#とF#と#1位", "RTの意味とSTARTとR&D", "5 @ 300円", "https://example.com/#top"],
    "kaomoji": ["(NHK)と(2020年)と(株)", "(A)、(※1)、(・・・)、(-)、(→)、(*)、(0-0)", "f(x_1)とg(a_b, c_d)", "（東京）・（大阪）"],
    "laughter": ["微笑した。爆笑", "w杯とWii", "www.example.com", "笑う門には福", "重みwを求める", "New www site"],
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


@given(st.text(st.sampled_from("漢字かなカナーaAZ0 、。\n"), max_size=60))
def test_plain_text_is_never_touched(text: str) -> None:
    document = Document(text=text, id="")
    CleanSocial(SOCIAL).change(document)
    assert document.text == text


def test_full_width() -> None:
    document = Document(text="Tokyo 2020は<EMAIL>へ(笑)。", id="")
    assert FullWidth().change(document) is None
    assert document.text == "Ｔｏｋｙｏ ２０２０は<EMAIL>へ（笑）。"
