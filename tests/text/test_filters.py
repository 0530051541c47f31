"""Every limit keeps three texts and drops three, under its own name; the web preset on real text."""

import json
import lzma
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from datatrove.data import Document
from pydantic import ValidationError

from kitae.text.filters import MEASURES, WEB, Filter, Filters
from kitae.text.readers import read
from kitae.text.steps import Clean

PLAIN = "昨日は雨が降ったので、家で本を読んだ。"
# limit, its value, language, texts kept, texts dropped
CASES: list[tuple[str, float, str, list[str], list[str]]] = [
    ("min_characters", 5, "ja", ["あいうえお", "あいう\nえお", "漢字かな混"], ["あいうえ", "あい\nうえ", ""]),
    ("max_characters", 5, "ja", ["あいうえお", "あいう\nえお", ""], ["あいうえおか", "あいうえお\nか", PLAIN]),
    ("min_sentences", 2, "en", ["One.\nTwo.", "1\n2\n3", "a\nb"], ["One. Two.", "", "a"]),
    ("max_repeated_lines", 0.5, "ja", ["あ\nあ", "い\nろ\nは", "あ\nい\nあ\nい"], ["あ\nあ\nあ", "あ\nい\nあ\nあ\nい", "ー\nー\nー\nー"]),
    (
        "max_repeated_line_characters", 0.4, "ja",
        ["あい\nあい\nうえおか", "あ\nあ\nあ\nいうえおかきく", "一\n二"],
        ["あいう\nあいう", "メニュー\nメニュー\n題", "あ\nあ\nあ"],
    ),
    (
        "max_repeated_ngrams", 0.33, "ja",
        [PLAIN, "いろはにほへとちりぬるをわかよたれそつねならむ", "短い"],
        ["安い安い安い安い安い安い", "お得・" * 10, "ー" * 30],
    ),
    (
        "max_repeated_ngrams", 0.2, "en",
        ["The quick brown fox jumps over the lazy dog.", "It was the best of times, it was the worst.", "short"],
        ["Buy now! Buy now! Buy now! Buy now!", "Home | About | " * 4, "=" * 40],
    ),
    ("max_run", 4, "ja", ["すごい!!!!", "ああああ", "あ\nあ\nい"], ["すごい!!!!!", "-----", "うわああああああ"]),
    ("min_script", 0.5, "ja", [PLAIN, "東京Tokyo都民の声", "カナ、かな。 ab"], ["This is English.", "東京 = Tokyo", "1,234,567円"]),
    ("min_script", 0.8, "en", ["It is so.", "naïve café 'tis", "In 1990 we went (by train)."], ["1 2 3 go", "Это не так", "- - a b -"]),
    ("min_hiragana", 0.2, "ja", [PLAIN, "これは東京", "のは東京都内外人"], ["東京都千代田区", "中华人民共和国", "カタカナト漢字"]),
    ("max_katakana", 0.5, "ja", [PLAIN, "コーヒーを飲みます", "漢字カナ"], ["アイウエオ", "レンタルサーバーの比", "ブランド・サイフ通販"]),
    ("max_symbols", 0.4, "ja", [PLAIN, "(a)bcd", "「はい」と言う"], ["※★☆お得", "a | -- |", "🎉🎉祝🎉"]),
    ("max_bullets", 0.5, "ja", ["・一\n二", "一\n二", "* a\nb\nc"], ["・一\n・二", "- a\n- b\nc", "●一"]),
    ("max_ellipses", 0.4, "ja", ["そう...\n次。\n次。", "はい。", "…から"], ["続く…", "続く...\n続く・・", "a\nb...\nc…"]),
    (
        "max_addresses", 0.3, "en",
        ["See https://a.b/c for everything that we know of it.", "No address.", "Mail a@b.org, or come to see us at home on any day."],
        ["https://example.com/a/b", "Go to www.example.org/x now", "a.b@example.co.jp, c@example.co.jp"],
    ),
    ("min_ended_lines", 0.5, "ja", ["はい。\n題", "「はい」", "(注)\nです!"], ["ホーム\nメニュー", "題\n題\n終わり。", "a"]),
    ("min_mean_sentence", 5, "ja", [PLAIN, "あいうえお", "あいう\nえおかきくけこ"], ["あいう", "はい。\nいいえ。", "あい\nうえおかき"]),
    ("max_mean_sentence", 10, "ja", ["短い文。", "あいうえおかきくけこ", "短い。\n短い文。"], [PLAIN, PLAIN * 3, f"{PLAIN}\n短い。"]),
    ("min_mean_word", 3, "en", ["The fox ran.", "word", "to the station"], ["a b c", "H e l l o", "I am"]),
    ("max_mean_word", 10, "en", ["Short words only.", "internationally we", "ten let"], ["x" * 11, "internationally", "abc " + "y" * 29]),
]  # fmt: skip


def reason(text: str, filters: Filters, language: str) -> str | None:
    return Filter(filters, language=language).change(Document(text=text, id=""))


@pytest.mark.parametrize(("limit", "value", "language", "kept", "dropped"), CASES, ids=[f"{case[0]}-{case[2]}" for case in CASES])
def test_limits(limit: str, value: float, language: str, kept: list[str], dropped: list[str]) -> None:
    assert len(kept) == len(dropped) == 3
    filters = Filters.model_validate({limit: value})
    assert [text for text in kept if reason(text, filters, language)] == []
    assert [reason(text, filters, language) for text in dropped] == [limit] * 3


def test_every_limit_is_tested_and_measured() -> None:
    limits = set(Filters.model_fields) - {"preset"}
    assert {case[0] for case in CASES} == limits
    assert {limit.partition("_")[2] for limit in limits} == set(MEASURES)
    assert all(set(numbers) <= limits for numbers in WEB.values())


def test_off_by_default_and_a_preset_gives_way() -> None:
    assert Filters().limits("ja") == {}
    assert reason("", Filters(), "ja") is None
    web = Filters(preset="web")
    assert web.limits("ja")["min_characters"] == 400
    assert "min_hiragana" not in web.limits("en")
    own = Filters(preset="web", min_characters=10, max_repeated_ngrams=1.0)
    assert own.limits("ja") | {"min_characters": 400, "max_repeated_ngrams": 0.33} == web.limits("ja")
    assert reason(PLAIN + "\n天気がよければ、明日は朝から山に登るつもりだ。", own, "ja") is None
    with pytest.raises(ValidationError):
        Filters(max_symbols=1.5)


@pytest.mark.parametrize("measure", ["characters", "mean_sentence", "mean_word"])
def test_limits_that_no_document_could_pass(measure: str) -> None:
    Filters.model_validate({f"min_{measure}": 5, f"max_{measure}": 5})
    with pytest.raises(ValidationError, match=f"min_{measure} = 6 is more than max_{measure} = 5"):
        Filters.model_validate({f"min_{measure}": 6, f"max_{measure}": 5})


def web_reasons(texts: Iterable[str], language: str) -> Counter[str | None]:
    """Reasons of the texts that are long enough."""
    clean, step = Clean(normalization="nfkc", language=language, min_characters=1), Filter(Filters(preset="web"), language=language)
    documents = [document for text in texts if clean.change(document := Document(text=text, id="")) is None]
    return Counter(reason for document in documents if (reason := step.change(document)) not in ("min_characters", "min_sentences"))


def test_the_web_preset_keeps_articles(shared: Path) -> None:
    for path, language in (("ja_plain/kyoto_wiki.txt.xz", "ja"), ("en_plain/enwiki_2018_articles.txt.xz", "en")):
        found = web_reasons((str(found.text) for found, _ in zip(read(shared / path, "text"), range(400))), language)
        assert found[None] >= 0.95 * found.total() > 200, found


def test_the_web_preset_drops_other_languages_and_lists(shared: Path) -> None:
    with lzma.open(shared / "oscar_fixture" / "oscar22.01_data.jsonl.xz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    language = [row["metadata"]["identification"]["label"] for row in rows]
    cyrillic = [row["content"] for row, label in zip(rows, language) if label in ("ru", "uk", "bg")]
    found = web_reasons(cyrillic, "en")
    assert set(found) == {"min_script"}
    english = web_reasons((row["content"] for row, label in zip(rows, language) if label == "en"), "ja")
    assert not english[None]
    assert english["min_script"] >= 0.9 * english.total() > 10
