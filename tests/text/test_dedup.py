"""Exact duplicates, and evaluation text found in documents."""

import json
import lzma
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kitae.text.clean import normalize
from kitae.text.decontaminate import build_index, find, letters, load_index, missing, save_index
from kitae.text.dedup import digest, first_occurrences
from kitae.text.readers import read


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=30))
def test_first_occurrence_stays(pairs: list[tuple[int, int]]) -> None:
    words = np.array(pairs, np.uint64).reshape(-1, 2)
    assert first_occurrences(words[:, 0], words[:, 1]).tolist() == [pair not in pairs[:i] for i, pair in enumerate(pairs)]


def test_digest_ignores_blanks_only() -> None:
    assert digest("一。 二。\n三。") == digest("一。二。三。") != digest("一。二。四。")
    assert len(digest("")) == 16


def articles(shared: Path, count: int) -> list[tuple[str, str, str]]:
    with lzma.open(shared / "kyoto_cls" / "train.jsonl.xz", "rt", encoding="utf-8") as file:
        rows = [json.loads(next(file)) for _ in range(count)]
    return [("kyoto", row["id"], row["text"]) for row in rows]


def test_disguised_items_are_found_and_others_left(shared: Path) -> None:
    items = articles(shared, 40)
    index, later = build_index(items), articles(shared, 80)[40:]
    for number, (_, _, text) in enumerate(items):
        spaced = "題名\n" + text.replace("。", "。\n").replace("1", "１").replace("(", "（") + "\nあとがき。" * 20
        assert number in find(index, spaced, 0.5).items
        if len(text) > 250:
            assert number in find(index, text[: int(len(text) * 0.7)], 0.5).items  # most of the item
    assert not any(find(index, text, 0.5) for _, _, text in later)
    long = max((text for _, _, text in items), key=len)
    assert find(index, long[200:400], 0.5), "a document that is a piece of an item"
    assert not find(index, long[:200] + "".join(text for _, _, text in later), 0.5), "a short quotation"


def test_short_items_are_found_whole_only(tmp_path: Path) -> None:
    items = [
        ("t", "a", "この製品の保証期間は二年間です。"),
        ("t", "b", "はい。"),
        ("t", "c", "この製品の保証期間は二年間です"),
        ("u", "d", "X" * 20),
    ]
    index = build_index(items)
    save_index(index, tmp_path / "index.npz")
    for each in (index, load_index(tmp_path / "index.npz")):
        assert find(each, "前置き。この製品の 保証期間は、二年間です!はい。", 0.5).items == (0, 2)
        assert not find(each, "この製品の保証期間は三年間です。はい。", 0.5)
        assert not find(each, "短い", 0.5)
        report = missing(each, {0, 2})
        assert report["t"] == {"items": 3, "found": 2, "too_short": 1, "not_found": 0, "examples_not_found": []}
        assert report["u"]["examples_not_found"] == ["d"]
    assert not find(build_index([]), "何か長い文書の本文がここにあります。" * 20, 0.5)


def test_saved_index_is_the_same(shared: Path, tmp_path: Path) -> None:
    items = articles(shared, 30)
    index = build_index(items)
    save_index(index, tmp_path / "index.npz")
    again = load_index(tmp_path / "index.npz")
    assert again.ids == index.ids
    assert [find(again, text, 0.5) for _, _, text in items] == [find(index, text, 0.5) for _, _, text in items]


def test_kyoto_articles_stand_in_the_kyoto_wiki(shared: Path) -> None:
    """The first 600 articles: those that are test items are found."""
    documents = []
    for number, found in enumerate(read(shared / "ja_plain" / "kyoto_wiki.txt.xz", "text")):
        documents.append(normalize(found.text))
        if number == 599:
            break
    items = articles(shared, 4052)
    index = build_index(items)
    hits = [find(index, document, 0.5) for document in documents]
    everything = letters("\n".join(documents))
    expected = {number for number, (_, _, text) in enumerate(items) if len(text) > 200 and letters(text)[100:160] in everything}
    found = {number for hit in hits for number in hit.items}
    assert len(found & expected) >= 0.98 * len(expected) > 100
    assert 100 < sum(map(bool, hits)) < 500
