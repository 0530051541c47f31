"""WordPiece training: equal to the library's, deterministic, and never a special token."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers, trainers

from kitae.core.errors import KitaeError
from kitae.tokenization import vocabulary
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.vocabulary import SPECIAL_TOKENS, VocabularyOptions, count_words, train


def lines_of(path: Path) -> Iterator[str]:
    return iter(path.read_text(encoding="utf-8").splitlines())


def words_with_distinct_counts() -> dict[str, int]:
    """Many words over few letters, so that every pair stands in many words and no two sums tie while the vocabulary grows."""
    draw = random.Random(3)
    words = {"".join(draw.choices("abcdかきく", weights=(9, 7, 6, 5, 4, 3, 2), k=draw.randint(1, 7))) for _ in range(3000)}
    return {word: draw.randint(1, 200) for word in sorted(words)}


def library_vocabulary(counts: dict[str, int], options: VocabularyOptions) -> dict[str, int]:
    library = Library(models.WordPiece(unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=options.vocab_size, min_frequency=options.min_frequency, special_tokens=list(options.reserved), show_progress=False
    )
    library.train_from_iterator([f"{word} " * count for word, count in counts.items()], trainer)
    return library.get_vocab()


@pytest.mark.parametrize("size", [30, 60, 100, 150])
def test_it_is_the_librarys_wordpiece(size: int) -> None:
    counts, options = words_with_distinct_counts(), VocabularyOptions(vocab_size=size, num_unused=1)
    reference = library_vocabulary(counts, options)
    merged = [token for token, _ in sorted(reference.items(), key=lambda item: item[1]) if len(token.removeprefix("##")) > 1]
    ours = train(counts, options)
    assert len(ours) == size
    assert set(ours) == set(reference)
    if size <= 100:  # the order of the merges too, as long as no two pairs are equally frequent
        assert [token for token in ours if len(token.removeprefix("##")) > 1] == merged


def test_min_frequency_ends_the_merges_where_the_librarys_end() -> None:
    counts = {"abab": 5, "abc": 3, "cd": 1, "ef": 2}
    options = VocabularyOptions(vocab_size=1000, num_unused=0)
    ours = train(counts, options)
    assert set(ours) == set(library_vocabulary(counts, options))
    assert "cd" not in ours
    assert "ef" in ours


def test_repeated_letters_are_counted_exactly() -> None:
    counts = {"aaaa": 10, "baaaaab": 7, "ーーー": 4}
    tokens = train(counts, VocabularyOptions(vocab_size=1000, num_unused=0, min_frequency=4))
    assert {"aaaa", "baaaaab", "ーーー"} <= set(tokens)


def test_order_of_words_and_ties_do_not_matter() -> None:
    counts = dict.fromkeys(("xy", "yx", "xz", "zx", "xyz", "zyx", "yz"), 7)
    options = VocabularyOptions(vocab_size=30)
    expected = train(counts, options)
    for seed in range(5):
        items = list(counts.items())
        random.Random(seed).shuffle(items)
        assert train(dict(items), options) == expected


def test_reserved_tokens_come_first_and_only_there() -> None:
    tokens = train({"[SEP]": 100, "[SEPA]": 50, "<unused0>": 90}, VocabularyOptions(vocab_size=200))
    assert tokens[:15] == (*SPECIAL_TOKENS, *(f"<unused{i}>" for i in range(10)))
    assert len(set(tokens)) == len(tokens)
    assert "[SEPA]" in tokens or "[SEPA" in tokens


def test_the_alphabet_is_limited_to_the_most_frequent() -> None:
    tokens = train({"あい": 9, "いう": 5, "鬱": 1}, VocabularyOptions(vocab_size=100, limit_alphabet=3, num_unused=0))
    assert "鬱" not in tokens
    assert {"あ", "い", "う", "##い", "##う", "あい", "いう"} == set(tokens) - set(SPECIAL_TOKENS)


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(KitaeError, match="vocab_size = 16 is too small: 6 characters"):
        train({"abcdef": 3}, VocabularyOptions(vocab_size=16))


def test_counts_do_not_depend_on_workers(tmp_path: Path) -> None:
    shards = []
    for number, text in enumerate(["東京に行く\n東京から来た\n", "ＡＢＣは株式会社㍿\n", "東京\n\n"]):
        shards.append(tmp_path / f"{number}.txt")
        shards[-1].write_text(text, encoding="utf-8")
    spec = SegmenterSpec(kind="mecab")
    alone = count_words(shards, lines_of, spec)
    assert alone == count_words(shards, lines_of, spec, workers=2)
    assert list(alone) == list(count_words(shards, lines_of, spec, workers=2))
    assert alone["東京"] == 3
    assert alone["ABC"] == 1


def test_rare_words_go_when_the_table_is_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vocabulary, "DISTINCT", 3)
    path = tmp_path / "a.txt"
    path.write_text("a a a b b b c c d e f g\n", encoding="utf-8")
    assert count_words([path], lines_of, SegmenterSpec(kind="whitespace")) == Counter(a=3, b=3, c=2)
