"""WordPiece training: equal to the library's, deterministic, and never a special token."""

import os
import random
import resource
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers, trainers

from kitae.core.errors import KitaeError
from kitae.tokenization import characters, counting, counts, library, training, vocabulary
from kitae.tokenization.counting import Unit
from kitae.tokenization.counts import Counts
from kitae.tokenization.dictionary import find
from kitae.tokenization.lexicon import Lexicon
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer
from kitae.tokenization.training import define, seeds
from kitae.tokenization.vocabulary import SPECIAL_TOKENS, VocabularyOptions


def lines_of(path: Path) -> Iterator[str]:
    return iter(path.read_text(encoding="utf-8").splitlines())


def train(counts: Mapping[str, int], options: VocabularyOptions) -> tuple[str, ...]:
    return vocabulary.train(Counts.of(counts), options)


def count_words(shards: Sequence[Path], spec: SegmenterSpec, *, unit: Unit = "words", sample: int = 0, workers: int = 1) -> dict[str, int]:
    with counting.count_words(shards, lines_of, spec, unit=unit, sample=sample, workers=workers) as counts:
        return dict(counts.rows())


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
    alone = count_words(shards, spec)
    assert alone == count_words(shards, spec, workers=2)
    assert list(alone) == list(count_words(shards, spec, workers=2))
    assert alone["東京"] == 3
    assert alone["ABC"] == 1


def test_rare_words_go_when_the_table_is_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(counting, "DISTINCT", 3)
    path = tmp_path / "a.txt"
    path.write_text("a a a b b b c c d e f g\n", encoding="utf-8")
    assert count_words([path], SegmenterSpec(kind="whitespace")) == Counter(a=3, b=3, c=2)


def test_counts_are_exact_through_runs_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However small the tables, and however the corpus lies in shards, what is kept has its true count."""
    draw = random.Random(5)
    lines = [" ".join(draw.choices("abcdefghijklmnopqrstuvwxyz", weights=range(1, 27), k=9)) for _ in range(300)]
    truth = Counter(word for line in lines for word in line.split())
    spec = SegmenterSpec(kind="whitespace")
    monkeypatch.setattr(counting, "DISTINCT", 7)
    for size, parts in ((3, 1), (3, 5), (100, 2)):
        monkeypatch.setattr(counting, "RUN", size)
        shards = [tmp_path / f"{size}-{parts}-{i}" for i in range(parts)]
        for i, shard in enumerate(shards):
            shard.write_text("\n".join(lines[i::parts]), encoding="utf-8")
        assert count_words(shards, spec) == dict(truth.most_common(7))


def test_the_sample_of_sentences_depends_on_nothing_but_the_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = [f"sentence {i % 40} of many\twith a tab" for i in range(100)]
    found = []
    for parts, size in ((1, 10), (4, 3), (4, 1000)):
        monkeypatch.setattr(counting, "RUN", size)
        shards = [tmp_path / f"{parts}-{size}-{i}" for i in range(parts)]
        for i, shard in enumerate(shards):
            shard.write_text("\n".join(lines[i::parts]), encoding="utf-8")
        found.append(count_words(shards, SegmenterSpec(kind="none"), unit="sentences", sample=880))
    assert found[0] == found[1] == found[2]
    assert 8 <= len(found[0]) <= 15
    assert all(count == (3 if int(text.split()[1]) < 20 else 2) and "\t" not in text for text, count in found[0].items())


def test_byte_level_merges_are_the_librarys() -> None:
    words = words_with_distinct_counts()
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator([f" {word}" * count for word, count in words.items()], trainer)
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for unit, _ in library.pre_tokenizer.pre_tokenize_str(word):
            counts[unit] += count
    tokens, merges = vocabulary.train_bytes(Counts.of(counts), VocabularyOptions(vocab_size=305, num_unused=0))
    assert set(tokens) - set(SPECIAL_TOKENS) == set(library.get_vocab())
    assert len(merges) == 300 - 256


def test_labels_and_characters_are_the_most_frequent() -> None:
    counts, options = {"東京": 5, "京都": 7, "x": 1}, VocabularyOptions(vocab_size=8, num_unused=1, alphabet="凸")
    assert vocabulary.train_labels(Counts.of(counts), options)[6:] == ("京都", "東京")
    assert vocabulary.train_characters(Counts.of(counts), options)[6:] == ("凸", "京")


@pytest.mark.parametrize("name", ["ipadic", "unidic-lite"])
def test_the_lexicon_has_the_dictionarys_words(name: str) -> None:
    lexicon = Lexicon(find(name).path)
    assert all(word in lexicon for word in ("東京", "食べる", "猫", "の"))
    assert all(word not in lexicon for word in ("東京東京", "ぬるぽが", "", "食べるz", "\U0001f600"))


def test_words_that_nfkc_narrows_are_found_in_full_width() -> None:
    lexicon = Lexicon(find("ipadic").path)
    assert "ＮＨＫ" in lexicon
    assert "NHK" in lexicon
    assert "NHKQQ" not in lexicon


def test_seeds_are_known_words_whole_and_parts_of_unknown_ones() -> None:
    found = dict(seeds(Counts.of({"東京都": 4, "abc": 2}), {"東京都"}))
    assert found == {"\u2581東京都": 4, "\u2581a": 2, "\u2581ab": 2, "\u2581abc": 2, "ab": 2, "abc": 2, "bc": 2}


def test_rows_of_bytes_are_character_berts() -> None:
    row = characters.rows(["日a"], 10)[0].tolist()
    assert row == [259, 0xE6 + 1, 0x97 + 1, 0xA5 + 1, ord("a") + 1, 260, 261, 261, 261, 261]
    assert characters.special_row("cls", 6).tolist() == [259, 257, 260, 261, 261, 261]
    assert characters.special_row("mask", 6).tolist() == [259, 262, 260, 261, 261, 261]
    assert characters.special_row("pad", 6).tolist() == [0] * 6
    long = characters.rows(["漢" * 20], 50)[0]
    assert (long.shape, int(long[-1]), int(long[48])) == ((50,), 260, 0xA2 + 1)  # 48 bytes: sixteen characters
    assert characters.rows(["日a", "b"], 10).tolist() == [row, [259, ord("b") + 1, 260, *[261] * 7]]
    assert int(characters.rows(["\u00ff", "x"], 8).max()) < characters.ROWS


def test_words_unseen_in_training_keep_their_bytes(tmp_path: Path) -> None:
    tokens = vocabulary.train_labels(Counts.of({"東京": 5, "に": 9}), VocabularyOptions(num_unused=0))
    spec = SegmenterSpec(kind="mecab")
    counts, options = Counts.of({"東京": 5, "に": 9}), VocabularyOptions(num_unused=0)
    made = define("characters-of-words", counts, spec, options, scratch=tmp_path, word_bytes=50)
    tokenizer = Tokenizer(made)
    assert tokenizer.tokens == tokens
    words = tokenizer.surfaces("東京に鬱金香")
    assert words[:2] == ["東京", "に"]
    assert tokenizer.words("東京に鬱金香")[:3] == [(5 + 1,), (5,), (tokenizer.special.unk,)]
    assert characters.rows(words, tokenizer.definition.word_bytes).shape == (len(words), 50)
    tokenizer.save(tmp_path / "t")
    again = Tokenizer.load(tmp_path / "t")
    assert (again.fingerprint, again.definition.word_bytes) == (tokenizer.fingerprint, 50)


def test_any_number_of_runs_is_merged_with_few_open_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """300 shards where a process may open 60 files; and every round of three runs gives the same sums."""
    shards = [tmp_path / str(number) for number in range(300)]
    for number, shard in enumerate(shards):
        shard.write_text(f"a w{number % 7} w{number}\n", encoding="utf-8")
    truth = Counter(word for number in range(300) for word in ("a", f"w{number % 7}", f"w{number}"))
    monkeypatch.setattr(counts, "FILES", 16)
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 40, old[1]))
    try:
        found = count_words(shards, SegmenterSpec(kind="whitespace"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)
    assert found == truth
    monkeypatch.setattr(counts, "FILES", 3)
    assert count_words(shards[:50], SegmenterSpec(kind="whitespace")) == Counter(
        word for number in range(50) for word in ("a", f"w{number % 7}", f"w{number}")
    )


def test_tables_of_long_words_are_written_down_early(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{'x' * 90}{number:03d}\n" for number in range(100)), encoding="utf-8")
    monkeypatch.setattr(counting, "RUN_TEXT", 2000)
    job = counting.Job(shard=path, read=lines_of, spec=SegmenterSpec(kind="whitespace"), unit="words", sample=0, place=tmp_path / "run")
    runs = counting.count_shard(job)
    assert len(runs) >= 4
    assert counts.merge(runs, tmp_path / "merged").distinct == 100


def test_the_most_frequent_units_that_fit() -> None:
    table = Counts.of({"a": 9, "bb": 5, "cccc": 5, "d": 5, "e": 1})
    for units, size, expected in ((5, 99, "a bb cccc d e"), (3, 99, "a bb cccc"), (5, 8, "a bb cccc d"), (5, 5, "a bb"), (1, 9, "a")):
        kept = table.most_frequent(units=units, characters=size)
        assert [unit for unit, _ in kept.rows()] == expected.split()
        assert (kept.distinct, kept.total) == (len(expected.split()), sum(count for _, count in kept.rows()))


def test_long_words_count_by_their_characters_or_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    long = "漢字" * 60 + "\n"
    path.write_text(f"東京 {long}東京 {'漢' * 2500}\n", encoding="utf-8")
    spec = SegmenterSpec(kind="whitespace")
    assert count_words([path], spec) == {"東京": 2, "漢": 60 + 2500, "字": 60}
    assert count_words([path], spec, unit="characters") == {"東": 2, "京": 2, "漢": 60 + 2500, "字": 60}
    assert count_words([path], spec, unit="parts-of-words") == {"東京": 2, "漢字" * 60: 1, "漢" * 833: 2, "漢" * 834: 1}
    stretches = count_words([path], SegmenterSpec(kind="none"), unit="byte-words")
    texts = [bytes(library.BYTES[char] for char in unit).decode() for unit in stretches]  # no character is torn
    assert max(map(len, stretches)) <= counting.STRETCH + 3
    assert sum(text.count("漢") * count for text, count in zip(texts, stretches.values(), strict=True)) == 60 + 2500


def test_long_stretches_are_learned_from(tmp_path: Path) -> None:
    """Japanese stretches have more than 33 characters now and then: 7 % of the bytes of real text."""
    (tmp_path / "a").write_text("猫" * 40 + "\n", encoding="utf-8")
    stretches = count_words([tmp_path / "a"], SegmenterSpec(kind="none"), unit="byte-words")
    tokens, _ = vocabulary.train_bytes(Counts.of(stretches), VocabularyOptions(vocab_size=264, num_unused=0))
    shown = {byte: char for char, byte in library.BYTES.items()}
    assert "".join(shown[byte] for byte in "猫猫".encode()) in tokens


def test_a_killed_process_names_its_shard(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("x\n", encoding="utf-8")
    spec = SegmenterSpec(kind="whitespace")
    counted = counting.count_words([tmp_path / "a", tmp_path / "b"], dying, spec, workers=2, scratch=tmp_path)
    with pytest.raises(KitaeError, match=r"a counting process was killed while these shards were in work: .*/b"), counted:
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def dying(path: Path) -> Iterator[str]:
    if path.name == "b":
        os.kill(os.getpid(), signal.SIGKILL)
    return lines_of(path)


def test_rare_pairs_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the table, frequent pairs are merged and the vocabulary is one that encodes."""
    words = words_with_distinct_counts()
    options = VocabularyOptions(vocab_size=120, num_unused=0)
    whole = train(words, options)
    monkeypatch.setattr(vocabulary, "PAIRS", 60)
    few = train(words, options)
    assert len(few) == 120
    assert len(set(few) & set(whole)) >= 80
    tokenizer = Tokenizer.new(few, SegmenterSpec(kind="whitespace"))
    assert all(tokenizer.special.unk not in ids for word in words for ids in tokenizer.words(word))


def test_candidates_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though every second word is in the dictionary; the parts of frequent words stay."""
    monkeypatch.setattr(training, "SEEDS", 50)
    rare = {f"{number:05d}": 1 for number in range(2000)}
    found = seeds(Counts.of({**rare, "abc": 500}), {word for word in rare if int(word) % 2})
    assert len(found) == 50
    assert {"ab", "bc", "abc", "\u2581abc"} <= dict(found).keys()


def test_a_vocabulary_without_room_is_refused() -> None:
    for trainer in (vocabulary.train_characters, vocabulary.train_labels):
        with pytest.raises(KitaeError, match="vocab_size = 50 is too small: 105 tokens"):
            trainer(Counts.of({"a": 5}), VocabularyOptions(vocab_size=50, num_unused=100))
