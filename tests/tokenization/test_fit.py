"""The fit report: numbers checked by hand, bounded tables, and the command."""

import lzma
from pathlib import Path

import pytest
from real_text import golden_tokenizer, sentences

from kitae.tokenization.fit import Fit, measure
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer
from kitae.tokenization.vocabulary import SPECIAL_TOKENS
from tiny_recipe import kitae

TOKENS = [*SPECIAL_TOKENS, "a", "##b", "##c", "cd", "##ef", "g"]
SENTENCES = ["a ab abc cd", "abc  cdef x\u3000[SEP]", "", "ab g"]


def test_it_counts_what_one_counts_by_hand() -> None:
    tokenizer = Tokenizer.new(TOKENS, SegmenterSpec(kind="whitespace"))
    fit = measure(tokenizer, SENTENCES)
    assert (fit.characters, fit.words, fit.tokens) == (8 + 13 + 3, 10, 1 + 2 + 3 + 1 + 3 + 2 + 1 + 1 + 2 + 1)
    assert (fit.unknown, fit.whole, fit.spelled) == (2, 3, 4)  # x and [SEP]; a, cd, g; ab, abc, abc, ab
    assert fit.single == 1 + 2 + 3 + 3 + 2 + 1
    assert [(tokenizer.decode(word), count) for word, count in fit.worst(2)] == [("abc", 2), ("ab", 2)]
    assert fit.lost(5) == [("[SEP]", 1), ("x", 1)]
    assert (fit.tokens_per_word, fit.unknown_share) == (1.7, 2 / 17)
    assert measure(tokenizer, []).tokens_per_character == Fit().single_share == 0


def test_tables_are_bounded_and_keep_what_is_frequent() -> None:
    tokenizer = Tokenizer.new([*SPECIAL_TOKENS, *"0123456789", *(f"##{digit}" for digit in range(10))], SegmenterSpec(kind="whitespace"))
    source = (f"{number} 77" for number in range(10, 3000))
    fit = measure(tokenizer, source, distinct=300)
    assert fit.worst(1) == [((tokenizer.tokens.index("7"), tokenizer.tokens.index("##7")), 2991)]
    assert len(fit.split_words) <= 300
    assert fit.words == 2 * 2990


def test_it_equals_the_tokens_of_real_text(shared: Path) -> None:
    tokenizer = golden_tokenizer("ipadic")
    chosen = sentences(shared, "ipadic")[::50]
    fit = measure(tokenizer, chosen)
    ids = [number for sentence in chosen for number in tokenizer.encode(sentence).ids.tolist()]
    assert fit.tokens == len(ids)
    assert fit.unknown == ids.count(tokenizer.special.unk) == fit.unknown_words.total()
    assert sum(map(len, fit.split_words.elements())) + fit.whole + fit.unknown == fit.tokens


def test_the_command_shows_two_texts_side_by_side(tmp_path: Path) -> None:
    golden_tokenizer("ipadic").save(tmp_path / "run" / "tokenizer")
    (tmp_path / "law.txt").write_text("取締役会は監査役を選任する。\n" * 3, encoding="utf-8")
    with lzma.open(tmp_path / "tale.txt.xz", "wt", encoding="utf-8") as file:
        file.write("吾輩は猫である。\n\n名前はまだ無い。\n")
    done = kitae("inspect", str(tmp_path / "run"), str(tmp_path / "law.txt"), str(tmp_path / "tale.txt.xz"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (row,) = [line.split() for line in lines if line.strip().startswith("characters")]
    assert row[-2:] == ["42", "16"]
    assert any("law.txt: word" in line and "tale.txt.xz: word" in line for line in lines)
    assert any(line.split()[:2] == ["取締役", "3"] for line in lines)
    alone = kitae("inspect", str(tmp_path / "run" / "tokenizer"), str(tmp_path / "law.txt"))
    assert alone.returncode == 0, alone.stderr


@pytest.mark.parametrize(
    ("arguments", "says"), [(("nowhere", "a.txt"), "no tokenizer folder nowhere"), (("t", "a.txt"), "a.txt does not exist")]
)
def test_its_mistakes_are_one_line(arguments: tuple[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    golden_tokenizer("ipadic").save(tmp_path / "t")
    done = kitae("inspect", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
