"""Offsets into the original text, word numbers, and text that is not nice."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_text import AWKWARD, golden_tokenizer

from kitae.tokenization.cuts import parts
from kitae.tokenization.dictionary import find
from kitae.tokenization.normalize import nfkc_with_map
from kitae.tokenization.segmenter import LONGEST, MecabSegmenter, SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer
from kitae.tokenization.vocabulary import SPECIAL_TOKENS
from kitae.tokenization.wordpiece import WordCache

JAPANESE = golden_tokenizer("ipadic")
ENGLISH = golden_tokenizer("basic")
texts = st.text(
    alphabet=st.one_of(
        st.sampled_from("あいがか゛゜\u3099\u309aﾊﾞﾊﾟｶﾞ東京都ＡＢＣ１㌔㍿①ﬁé\u0301e\u200b😀👍🏽𠮷髙 \u3000\n\t\x00#[]"),
        st.characters(exclude_categories=("Cs",)),
    ),
    max_size=30,
)


@given(texts)
@settings(max_examples=300, deadline=None)
def test_the_map_of_nfkc_is_exact(text: str) -> None:
    normal, starts, ends = nfkc_with_map(text)
    assert normal == unicodedata.normalize("NFKC", text)
    assert len(starts) == len(ends) == len(normal)
    for char, start, end in zip(normal, starts, ends, strict=True):
        assert 0 <= start < end <= len(text)
        assert char in unicodedata.normalize("NFKC", text[start:end])


def test_the_map_is_fine_where_it_can_be() -> None:
    normal, starts, ends = nfkc_with_map("x㍿ｶﾞか\u3099한z")
    assert normal == "x株式会社ガが한z"
    assert list(starts) == [0, 1, 1, 1, 1, 2, 4, 6, 7]
    assert list(ends) == [1, 2, 2, 2, 2, 4, 6, 7, 8]


def test_the_map_leads_back_through_a_spacing_mark() -> None:
    """A corpus composes it; a tokenizer must not (its ids are those of transformers), but knows where its pieces come from."""
    text = "か゛ﾊ゛z"
    normal, starts, ends = nfkc_with_map(text)
    assert normal == "か \u3099ハ \u3099z"
    assert [text[start:end] for start, end in zip(starts, ends, strict=True)] == ["か", "゛", "゛", "ﾊ", "゛", "゛", "z"]


@given(texts)
@settings(max_examples=200, deadline=None)
def test_offsets_lead_back_to_the_surface(text: str) -> None:
    for tokenizer in (JAPANESE, ENGLISH):
        encoding = tokenizer.encode(text)
        words = tokenizer.words(text)
        assert encoding.ids.tolist() == [number for word in words for number in word]
        for number, start, end in zip(encoding.ids, encoding.starts, encoding.ends, strict=True):
            assert 0 <= start < end <= len(text)
            if number != tokenizer.special.unk:
                surface = tokenizer.tokens[number].removeprefix("##")
                shown = "".join(letter for letter in text[start:end] if unicodedata.category(letter) != "Cc")  # BERT takes them out
                assert surface in unicodedata.normalize("NFKC", shown)


def test_offsets_of_awkward_text_are_the_surface_itself_when_nothing_is_composed() -> None:
    for text in AWKWARD:
        encoding = JAPANESE.encode(text)
        _, starts, ends = nfkc_with_map(text)
        single = {(a, b) for a, b in zip(starts, ends, strict=True) if len(unicodedata.normalize("NFKC", text[a:b])) == 1}
        whole = {a for a, _ in single}, {b for _, b in single}
        for number, start, end in zip(encoding.ids.tolist(), encoding.starts.tolist(), encoding.ends.tolist(), strict=True):
            if number != JAPANESE.special.unk and start in whole[0] and end in whole[1]:
                assert unicodedata.normalize("NFKC", text[start:end]) == JAPANESE.tokens[number].removeprefix("##")


def test_arrays_and_multi_line_text() -> None:
    encoding = JAPANESE.encode("東京に行く。\n大阪へ\n")
    assert {array.dtype for array in (encoding.ids, encoding.word_ids, encoding.starts, encoding.ends)} == {np.dtype("int32")}
    assert encoding.ids.tolist() == JAPANESE.encode("東京に行く。 大阪へ ").ids.tolist()
    assert (encoding.starts[0], encoding.ends[0], encoding.ends[-1]) == (0, 2, 10)
    assert len(JAPANESE.encode("").ids) == 0


def test_decode_joins_pieces() -> None:
    assert ENGLISH.decode(ENGLISH.encode("The gentleman, unbelievably").ids.tolist()) == "The gentleman , unbelievably"
    assert JAPANESE.decode([JAPANESE.special.cls, *JAPANESE.encode("東京に行く").ids]) == "[CLS] 東京 に 行く"


@pytest.mark.parametrize("tokenizer", [JAPANESE, ENGLISH])
def test_broken_characters_do_not_break_it(tokenizer: Tokenizer) -> None:
    assert tokenizer.words("a\ud800b") == tokenizer.words("a\ufffdb")
    encoding = tokenizer.encode("ab \ud83d cd")
    assert encoding.ends[-1] == 7
    if tokenizer is JAPANESE:
        assert tokenizer.words("東京\x00大阪") == tokenizer.words("東京 大阪")


@pytest.mark.parametrize(
    ("unit", "size"),
    [("東京都に行く。", 3_000_000), ("漢", 6_000_000), ("あ", 3_000_000), ("a", 300_000), ("\u3000", 3_000_000), ("😀", 400_000)],
)
def test_a_line_of_megabytes(unit: str, size: int) -> None:
    """MeCab itself dies of most of these, or drops what follows."""
    count = size // len(unit.encode())
    text = unit * count + " 東京に行く"
    words = JAPANESE.words(text)
    assert [JAPANESE.tokens[number] for (number,) in words[-3:]] == ["東京", "に", "行く"]
    if unit == "東京都に行く。":
        assert words == JAPANESE.words(unit) * count + words[-3:]
        encoding = JAPANESE.encode(text[-50_000:])
        assert (int(encoding.ends[-1]), encoding.ids.tolist()[-3:]) == (50_000, [number for (number,) in words[-3:]])


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("漢字" * 20_000, LONGEST),
        ("あ。" + "い" * 20_000, LONGEST),
        ("あ" * 9000 + "い、" + "う" * 20_000, 9002),
        ("あ" * 9000 + "。い、" + "う" * 20_000, 9001),
        ("あ" * 9000 + " い。" + "う" * 20_000, 9001),
        ("あ。 " * 3000 + "\n" + "い 。" * 9000, 9001),
    ],
)
def test_long_lines_are_cut_where_it_hurts_least(text: str, end: int) -> None:
    mecab = MecabSegmenter(find("ipadic"))
    cut = list(parts(text, characters=LONGEST, size=4 * LONGEST))
    assert cut[0] == text[:end]
    assert "".join(cut) == text
    assert "".join(mecab.segment(text)) == "".join(text.split())


def test_up_to_the_bound_mecab_sees_the_text_whole() -> None:
    mecab = MecabSegmenter(find("ipadic"))
    text = ("すもももももももものうち" * 2000)[:LONGEST]
    assert mecab.segment(text) == mecab._words(text)


def test_lower_case_keeps_offsets() -> None:
    spec = SegmenterSpec(kind="mecab", lower_case=True)
    tokenizer = Tokenizer.new([*SPECIAL_TOKENS, "tokyo", "i", "##\u0307", "##s"], spec)
    encoding = tokenizer.encode("TOKYO \u0130S")  # one capital letter that becomes two characters
    assert [tokenizer.tokens[number] for number in encoding.ids] == ["tokyo", "i", "##\u0307", "##s"]
    assert encoding.starts.tolist() == [0, 6, 6, 6]
    assert encoding.ends.tolist() == [5, 8, 8, 8]
    assert [number for word in tokenizer.words("TOKYO \u0130S") for number in word] == encoding.ids.tolist()


def test_accents_and_voicing_marks_stay() -> None:
    """The default of BERT's basic tokenizer turns ba into ha."""
    tokens = [*SPECIAL_TOKENS, "バ", "ハ", "é", "e", "ば", "は"]
    for lower in (False, True):
        tokenizer = Tokenizer.new(tokens, SegmenterSpec(kind="basic", lower_case=lower))
        assert [tokenizer.tokens[number] for (number,) in tokenizer.words("バ é ば")] == ["バ", "é", "ば"]
    stripping = Tokenizer.new(tokens, SegmenterSpec(kind="basic", strip_accents=True))
    assert [stripping.tokens[number] for (number,) in stripping.words("バ é ば")] == ["ハ", "e", "は"]


def test_the_cache_is_bounded_and_right() -> None:
    cache = WordCache(["[UNK]", "a", "##b", "##bc", "[SEP]"], reserved=frozenset({"[SEP]"}), unk=0, max_chars=4, limit=2)
    assert [cache[word] for word in ("abc", "ab", "abb", "x", "abbbb", "[SEP]")] == [(1, 3), (1, 2), (1, 2, 2), (0,), (0,), (0,)]
    assert len(cache) == 2
