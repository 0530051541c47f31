"""Sentence ends: worked examples, what must always hold, and agreement with the sentences of Universal Dependencies."""

from pathlib import Path

import pytest
from benchmarks.sentences import measure
from hypothesis import given
from hypothesis import strategies as st

from kitae.text.readers import read
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
    ["そうですか...次は何だろう。", "さて..終わり"],  # as normalization writes an ellipsis
    ["そうですか…次は何だろう……と思った…。", "え...!", "「まあ…」と言った。"],
    [
        "走った。",
        "とある日。",
        "とりあえず。",
        "となりの。",
        "のちに。",
        "のんびり。",
        "とくに。",
        "ともあれ。",
        "と同時に。",
        "というのは。",
    ],
    ["モーニング娘。と松浦。", "モーニング娘。という名。", "何ですか?", "では次へ。", "Yahoo!では探す。", "Yahoo!3位"],
    ["すごい!", "もう!", "とても!", "やった!", "はい!", "3位だ!", "がんばる!", "でも!", "ラブライブ!の曲!", "けいおん!も見た。"],
    ['彼は"行く。すぐ行く。"と言った。', '5"の画面。', "次。"],
    ['"「あ。」い。" と言う。', '"次。"と言う。'],
]
ENGLISH = [
    ["Dr. Smith paid 3.5 million.", "He left at once."],
    ["The U.S. Senate met.", "It voted."],
    ["I live in the U.S.", "It is large."],
    ['"Is it you?"', '"Yes!"', "She smiled."],
    ["J. R. Smith wrote it (see p. 5. It is long).", "We read it."],
    ["Acme Inc. said so.", "Use e.g. a knife, i.e. No. 5."],
    ["is it far?", "i think so."],
    ["we liked the nice place.", "it was cheap!", "try it"],
    ["Yahoo! is old, but, alas! it lives, etc. and so on.", "It cost approx. ten dollars at Acme Corp. in May."],
    ["This (is open.", "It goes on.", "Now (see p. 5. It is long).", "It (so no. Yes.) ends.", "Next."],
    ["She said no.", "That was plan B.", "The end of J. A. Smith, X. He, Y. Li and J. In Kim at No. 5."],
    ["Tel. 03-1234-5678, ca. 1900.", "Ça va.", "Élan (ver. 3)."],
    ['"Is it?" he asked.', "Oh! what a day, at 5 p.m. in town."],
]


@pytest.mark.parametrize("sentences", JAPANESE, ids=range(len(JAPANESE)))
def test_japanese(sentences: list[str]) -> None:
    assert split_japanese("".join(sentences)) == sentences


@pytest.mark.parametrize("sentences", ENGLISH, ids=range(len(ENGLISH)))
def test_english(sentences: list[str]) -> None:
    assert split_english(" ".join(sentences)) == sentences


@given(st.sampled_from(["ja", "en"]), st.text(st.sampled_from('あ漢A a1。！？!?.「」『』（）()“”"\n、と'), max_size=60))
def test_no_character_is_lost(language: str, text: str) -> None:
    sentences = SPLITTERS[language](text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence and sentence == sentence.strip() and "\n" not in sentence for sentence in sentences)


def test_agreement_with_universal_dependencies(shared: Path) -> None:
    gsd, ewt = shared / "ud_japanese_gsd", shared / "ud_english_ewt"
    assert measure(gsd / "ja_gsd-ud-dev.conllu.xz", "ja")["f1"] >= 0.99  # measured 0.9967
    assert measure(gsd / "ja_gsd-ud-train.from-docbin.conllu.xz", "ja")["f1"] >= 0.99  # measured 0.9971
    # Most of what is missing are lines of letters and lists, which the treebank shows without their line ends.
    english = measure(ewt / "en_ewt-ud-dev.conllu.xz", "en")
    assert english["precision"] >= 0.98  # measured 0.987
    assert english["recall"] >= 0.79  # measured 0.807


def test_edited_english_is_not_cut_before_small_letters(shared: Path) -> None:
    """Where every sentence begins with a capital, what begins with a small one is a mistake (or the writer's)."""
    texts = [str(found.text) for found, _ in zip(read(shared / "en_plain" / "enwiki_2018_articles.txt.xz", "text"), range(500))]
    later = [sentence for text in texts for line in text.split("\n") for sentence in split_english(line)[1:]]
    assert len(later) > 5000
    assert sum(sentence[0].islower() for sentence in later) <= 0.002 * len(later)  # measured 0.0012, half of them the writers' own
