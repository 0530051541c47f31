"""Sentence ends: worked examples, what must always hold, and agreement with the sentences of Universal Dependencies."""

import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitae.text.sentences import SPLITTERS, split_english, split_japanese

JAPANESE = [
    ["彼は「もう帰る。明日また来る。」と言った。", "私は黙っていた。"],
    ["本当ですか?", "はい!", "そうです。"],
    ["モーニング娘。の新曲が出た。", "よく売れた。"],
    ["Yahoo!ニュースを見た。", "面白かった。"],
    ["会議(議長は田中氏。書記は佐藤氏。)は終わった。", "次へ進む。"],
    ["「おはよう。」", "「ああ、おはよう。」"],
    ["「閉じない括弧がある。", "それでも分ける。"],
    ["それは3.14である。", "次は2.5だ。"],
    ["すごい!!", "信じられない!?", "終わり"],
    ["結果を示す.", "これは成功である."],
    ["何だと?と彼は聞いた。", "誰も答えない。"],
]
ENGLISH = [
    ["Dr. Smith paid 3.5 million.", "He left at once."],
    ["The U.S. Senate met.", "It voted."],
    ["I live in the U.S.", "It is large."],
    ['"Is it you?"', '"Yes!"', "She smiled."],
    ["J. R. Smith wrote it (see p. 5. It is long).", "We read it."],
    ["Acme Inc. said so.", "Use e.g. a knife, i.e. No. 5."],
]


@pytest.mark.parametrize("sentences", JAPANESE, ids=range(len(JAPANESE)))
def test_japanese(sentences: list[str]) -> None:
    assert split_japanese("".join(sentences)) == sentences


@pytest.mark.parametrize("sentences", ENGLISH, ids=range(len(ENGLISH)))
def test_english(sentences: list[str]) -> None:
    assert split_english(" ".join(sentences)) == sentences


@given(st.sampled_from(["ja", "en"]), st.text(st.sampled_from("あ漢A a1。！？!?.「」『』（）()“”\n、と"), max_size=60))
def test_no_character_is_lost(language: str, text: str) -> None:
    sentences = SPLITTERS[language](text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence and sentence == sentence.strip() and "\n" not in sentence for sentence in sentences)


def boundaries(sentences: list[str]) -> set[int]:
    ends, length = set(), 0
    for sentence in sentences:
        length += len("".join(sentence.split()))
        ends.add(length)
    return ends - {length}


def f1(path: Path, language: str, glue: str) -> float:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        gold = [line.removeprefix("# text = ").rstrip("\n") for line in file if line.startswith("# text = ")]
    assert len(gold) > 400
    both = wrong = 0
    for start in range(0, len(gold), 10):
        group = gold[start : start + 10]
        expected, found = boundaries(group), boundaries(SPLITTERS[language](glue.join(group)))
        both += len(expected & found)
        wrong += len(expected ^ found)
    return 2 * both / (2 * both + wrong)


def test_agreement_with_universal_dependencies(shared: Path) -> None:
    assert f1(shared / "ud_japanese_gsd" / "ja_gsd-ud-dev.conllu.xz", "ja", "") >= 0.99  # measured 0.9956
    assert f1(shared / "ud_japanese_gsd" / "ja_gsd-ud-train.from-docbin.conllu.xz", "ja", "") >= 0.99  # measured 0.9952
    # A third of EWT's sentences end without any mark or go on in lower case: no splitter sees those.
    assert f1(shared / "ud_english_ewt" / "en_ewt-ud-dev.conllu.xz", "en", " ") >= 0.77  # measured 0.781, precision 0.986
