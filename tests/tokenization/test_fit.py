"""The fit report: numbers checked by hand, bounded tables, and the command."""

import lzma
from pathlib import Path

import pytest
from real_text import golden_tokenizer, sentences

from kitae.chain.fit import OF_WORDS, report
from kitae.tokenization import fit as fit_module
from kitae.tokenization import library
from kitae.tokenization.counts import Counts
from kitae.tokenization.definition import Definition
from kitae.tokenization.fit import Fit, measure
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer
from kitae.tokenization.training import define
from kitae.tokenization.vocabulary import SPECIAL_TOKENS, VocabularyOptions
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


def test_tokens_of_one_character_whatever_marks_a_word() -> None:
    """A blank's mark is no character, and a byte of a character none either."""
    shown = {byte: char for char, byte in library.BYTES.items()}
    parts = [("".join(shown[byte] for byte in text.encode())) for text in (" 猫", "猫", "a", " ab")]
    tokens = (*SPECIAL_TOKENS, *library.BYTES, *dict.fromkeys(part for part in parts if len(part) > 1))
    made = Definition(tokens=tokens, spec=SegmenterSpec(kind="none"), algorithm="byte-bpe")
    short = {number for number, token in enumerate(tokens) if len(fit_module._shown(made, number)) == 1}
    assert {tokens[number] for number in short if len(tokens[number]) > 1} == {parts[0], parts[1]}
    assert sum(len(tokens[number]) == 1 for number in short) == 128 - 10  # ASCII without its white space
    marked = Definition(
        tokens=(*SPECIAL_TOKENS, "\u2581", "\u2581猫", "猫", "\u2581ab"), spec=SegmenterSpec(kind="none"), algorithm="unigram"
    )
    assert [len(fit_module._shown(marked, number)) for number in range(5, 9)] == [0, 1, 1, 2]


def test_text_without_blanks_has_words_only_with_a_segmenter(tmp_path: Path) -> None:
    texts = ["吾輩は猫である。", "名前はまだ無い。"] * 20
    counts = Counts.of(dict.fromkeys(texts, 1))
    spec = SegmenterSpec(kind="none")
    made = Tokenizer(define("unigram", counts, spec, VocabularyOptions(vocab_size=40, num_unused=0), scratch=tmp_path))
    fit = measure(made, texts)
    assert not fit.has_words
    assert measure(made, ["the cat", "a cat"]).has_words
    assert measure(golden_tokenizer("ipadic"), texts).has_words
    made.save(tmp_path / "t")
    (tmp_path / "a.txt").write_text("\n".join(texts), encoding="utf-8")
    measures, *others = report(tmp_path / "t", [tmp_path / "a.txt"])
    assert [row[0] for row in measures.rows if row[1] == "no segmenter"] == list(OF_WORDS)
    assert "words split worst" not in "".join(table.title for table in others)


def test_words_with_an_unknown_part_are_counted_as_words(tmp_path: Path) -> None:
    tokens = [*SPECIAL_TOKENS, "a", "b"]
    made = Definition(tokens=tuple(tokens), spec=SegmenterSpec(kind="whitespace"), algorithm="character")
    fit = measure(Tokenizer(made), ["xyz ab", "a"])
    assert (fit.unknown, fit.unread, fit.words) == (3, 1, 3)
    assert fit.unread_share == 1 / 3


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
