"""Vocabularies beyond WordPiece: trained on real text, ids equal to the reference on more than ten thousand real sentences."""

import functools
import itertools
import json
import lzma
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import golden_ids
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from real_text import AWKWARD, sentences
from transformers import AutoTokenizer
from transformers.models.bert_japanese.tokenization_bert_japanese import SentencepieceTokenizer

from kitae.core.errors import KitaeError
from kitae.tokenization import exported, library
from kitae.tokenization.counting import count_words
from kitae.tokenization.counts import Counts
from kitae.tokenization.definition import Around, Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.sentencepiece import Encoder, _with_origins, prepared, read
from kitae.tokenization.tokenizer import Tokenizer
from kitae.tokenization.training import define
from kitae.tokenization.vocabulary import VocabularyOptions
from kitae.tokenization.wordpiece import SentencePieceCache
from tokenizer_kinds import KINDS, train

RAW = ["unigram-raw", "bpe-raw", "byte-bpe", "character-blanks"]
LITERALS = ("[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]")


def some_lines(path: Path) -> Iterator[str]:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        yield from (line.rstrip("\n")[:200] for line in itertools.islice(file, 0, 20_000, 7))


@functools.cache
def trained(shared: Path, name: str) -> Tokenizer:
    files = [shared / "ja_plain/kyoto_wiki.txt.xz", shared / "en_plain/english_novels.txt.xz"]
    added = ("Qwertz",) if KINDS[name][0] in ("unigram", "byte-bpe") else ()
    return train(name, files, some_lines, VocabularyOptions(vocab_size=3500, num_unused=2, user_tokens=added))


def flat(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [[number for word in words for number in word] for words in tokenizer.words_of_each(texts)]


def real(shared: Path) -> list[str]:
    chosen = [text for text in sentences(shared, "ipadic") if not any(name in unicodedata.normalize("NFKC", text) for name in LITERALS)]
    assert len(chosen) >= 10_000
    return chosen


def chosen(shared: Path, name: str) -> list[str]:
    """The sentences that a kind is compared on."""
    texts = real(shared)
    if name not in RAW:  # transformers is slow here
        texts = [text[:60] for text in texts[:10_000]]
    return texts


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name == "bpe-words" else ()) for name in KINDS])
def test_ids_equal_transformers_5(name: str, shared: Path, tmp_path: Path) -> None:
    tokenizer = trained(shared, name)
    tokenizer.save(tmp_path, max_length=128)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')  # as beside an exported model
    again = Tokenizer.load(tmp_path)
    assert (again.tokens, again.special, again.fingerprint) == (tokenizer.tokens, tokenizer.special, tokenizer.fingerprint)
    again.save(tmp_path / "twice", max_length=128)
    for file in (tmp_path / "twice").iterdir():
        assert file.read_bytes() == (tmp_path / file.name).read_bytes()
    reference = AutoTokenizer.from_pretrained(tmp_path)
    texts = chosen(shared, name)
    ours = flat(again, texts)
    if name in RAW:
        theirs = reference(texts, add_special_tokens=False)["input_ids"]
    else:
        theirs = [reference(text, add_special_tokens=False)["input_ids"] for text in texts]
    different = [(text, a, b) for text, a, b in zip(texts, ours, theirs, strict=True) if a != b]
    assert different == []
    special = again.special
    assert reference("")["input_ids"] == [special.cls, special.sep]
    assert (reference.mask_token_id, reference.pad_token_id, reference.unk_token_id) == (special.mask, special.pad, special.unk)
    assert len(reference) == again.vocab_size
    assert sum(row.count(special.unk) for row in ours) < 0.05 * sum(map(len, ours))


@pytest.mark.parametrize("name", KINDS)
def test_encode_gives_the_ids_of_words_and_their_places(name: str, shared: Path) -> None:
    tokenizer = trained(shared, name)
    for text in [*(text[:100] for text in real(shared)[::100]), *AWKWARD]:
        encoding, words = tokenizer.encode(text), tokenizer.words(text)
        assert encoding.ids.tolist() == [number for word in words for number in word]
        assert encoding.word_ids.tolist() == [number for number, word in enumerate(words) for _ in word]
        assert (encoding.starts <= encoding.ends).all()
        assert (encoding.starts[1:] >= encoding.starts[:-1]).all()
        assert encoding.ends.max(initial=0) <= len(text)
        for number, start, end in zip(encoding.ids.tolist(), encoding.starts.tolist(), encoding.ends.tolist(), strict=True):
            token = tokenizer.tokens[number].removeprefix("\u2581")
            if number != tokenizer.special.unk and name != "byte-bpe" and token:
                shown = unicodedata.normalize("NFKC", text[start:end])
                assert start < end
                assert token in shown or unicodedata.normalize("NFKC", token) in shown or token == "\u3099", (text, token, start, end)


@pytest.mark.parametrize("name", KINDS)
def test_text_never_becomes_a_special_token(name: str, shared: Path) -> None:
    tokenizer = trained(shared, name)
    special = tokenizer.special
    for text in ("[CLS] a [SEP] b[MASK]c [PAD] [UNK]", "[SEP]", "東京[MASK]\ufdd0[SEP]\ufdd1"):
        ids = tokenizer.encode(text).ids.tolist()
        assert not {special.cls, special.sep, special.mask, special.pad} & set(ids)
        assert ids == flat(tokenizer, [text])[0]


@pytest.mark.parametrize("name", ["unigram-raw", "byte-bpe", "unigram-words"])
def test_user_tokens_are_one_token(name: str, shared: Path) -> None:
    tokenizer = trained(shared, name)
    ids = tokenizer.encode("これは Qwertz です").ids.tolist()
    assert tokenizer.tokens.index("Qwertz") in ids
    tokenizer = trained(shared, "unigram-raw")
    assert tokenizer.decode(tokenizer.encode("東京に Qwertz と行く").ids.tolist()) == "東京に Qwertz と行く"


def test_user_tokens_of_bytes_keep_their_letters() -> None:
    """In a byte-level vocabulary the letters of an added token stand for themselves, not for bytes."""
    spec, options = SegmenterSpec(kind="none"), VocabularyOptions(vocab_size=300, num_unused=1, user_tokens=("naïve", "Ġx"))
    tokenizer = Tokenizer(define("byte-bpe", Counts.of({"Ġa": 5, "Ġb": 5}), spec, options, scratch=Path("unused")))
    ids = tokenizer.encode("a naïve b").ids.tolist()
    assert tokenizer.tokens.index("naïve") in ids
    assert tokenizer.decode(ids).strip() == "a naïve b"


@given(st.text(st.one_of(st.sampled_from("`'` \u3000\x1cＡΣİǅéが\u3099ﬁ㌔1,"), st.characters(exclude_categories=("Cs",))), max_size=12))
def test_prepared_text_is_told_character_by_character(text: str) -> None:
    for flags in itertools.product((False, True), repeat=3):
        around = Around(**dict(zip(("quotes", "strip_accents", "lower_case"), flags, strict=True)))
        given_text, origins = _with_origins(text, around)
        assert given_text == prepared(text, around)
        assert len(origins) == len(given_text)
        for char, origin in zip(given_text, origins, strict=True):
            assert char.isspace() or char == '"' or char in prepared(text[origin], around) or char in "ςσ"


def test_places_of_words_are_kept(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SentencePiece is asked once for every word, and no more than the cache may hold."""
    definition = trained(shared, "unigram-words").definition
    cache = SentencePieceCache(Encoder(definition.model, read(definition.model, Path("m")), definition.around), limit=2)
    asked: list[str] = []
    spans = Encoder.spans
    monkeypatch.setattr(Encoder, "spans", lambda self, word: asked.append(word) or spans(self, word))
    places = [cache.spans(word) for word in ("東京", "大阪", "京都") * 2]
    assert asked == ["東京", "大阪", "京都", "京都"]
    assert places[:3] == places[3:]


def test_words_of_raw_text() -> None:
    """Between blanks in scripts that have them, token by token elsewhere."""
    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u2581", "\u2581un", "able", "東京", "に", "7", ",")
    from kitae.tokenization.lines import Words

    words = Words(Definition(tokens=tokens, spec=SegmenterSpec(kind="none"), algorithm="unigram"))
    assert words.group([[6, 7, 11, 5, 8, 9, 10, 10, 7], [], [7]]) == [[(6, 7), (11,), (5,), (8,), (9,), (10, 10, 7)], [], [(7,)]]
    assert words.group([[1, 7, 1, 10]]) == [[(1,), (7,), (1,), (10,)]]
    assert words.numbers([6, 7, 8]) == [0, 0, 1]
    assert words.group([[5, 7, 7, 5, 10, 5, 8, 5]]) == [[(5, 7, 7), (5, 10), (5,), (8,), (5,)]], "a blank goes with letters"


def processor_of(model: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def spm_of(tokenizer: Tokenizer) -> sentencepiece.SentencePieceProcessor:
    return processor_of(tokenizer.definition.model)


@pytest.mark.parametrize("kind", ["unigram-raw", "bpe-raw"])
def test_a_deberta_folder_keeps_its_normalizer(kind: str, shared: Path, tmp_path: Path) -> None:
    """transformers 5 drops it: the reference is SentencePiece itself."""
    made = trained(shared, kind)
    (tmp_path / "spm.model").write_bytes(made.definition.model)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "DebertaV2Tokenizer", "do_lower_case": false}')
    tokenizer = Tokenizer.load(tmp_path)
    chosen = real(shared)
    assert flat(tokenizer, chosen) == spm_of(made).encode(chosen, num_threads=1)
    assert tokenizer.encode("１２３㌔").ids.tolist() == spm_of(made).encode("１２３㌔")
    assert tokenizer.special == made.special
    tokenizer.save(tmp_path / "ours")
    reference = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert reference(chosen[:3000], add_special_tokens=False)["input_ids"] == flat(tokenizer, chosen[:3000])


def test_debertas_mask_stands_behind_the_pieces(shared: Path, tmp_path: Path) -> None:
    made = trained(shared, "unigram-raw")
    (tmp_path / "spm.model").write_bytes(made.definition.model)
    config = {"tokenizer_class": "DebertaV2Tokenizer", "mask_token": "[OTHER]", "do_lower_case": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.special.mask == made.vocab_size == tokenizer.vocab_size - 1
    assert tokenizer.words("TOKYO") == made.words("tokyo")
    tokenizer.save(tmp_path / "ours")
    again = Tokenizer.load(tmp_path / "ours")
    assert again.fingerprint == tokenizer.fingerprint
    assert AutoTokenizer.from_pretrained(tmp_path / "ours").mask_token_id == tokenizer.special.mask


def fairseq_model(shared: Path, tmp_path: Path) -> bytes:
    """A SentencePiece model as fairseq trains it: <unk>, <s>, </s> first."""
    files = [shared / "ja_plain/kyoto_wiki.txt.xz"]
    with count_words(files, some_lines, SegmenterSpec(kind="none"), unit="sentences", sample=10_000_000) as counts:
        (tmp_path / "text").write_text("\n".join(text for text, _ in counts.rows()), encoding="utf-8")
    prefix = str(tmp_path / "sentencepiece.bpe")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=prefix, vocab_size=3000, normalization_rule_name="nmt_nfkc", minloglevel=3
    )
    return Path(f"{prefix}.model").read_bytes()


def test_an_xlm_roberta_folder(shared: Path, tmp_path: Path) -> None:
    model = fairseq_model(shared, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    tokenizer = Tokenizer.load(tmp_path)
    chosen = real(shared)
    processor = processor_of(model)
    shifted = [[number + 1 if number else 3 for number in row] for row in processor.encode(chosen, num_threads=1)]
    assert flat(tokenizer, chosen) == shifted
    special = tokenizer.special
    assert (special.cls, special.pad, special.sep, special.unk, special.mask) == (0, 1, 2, 3, 3001)
    tokenizer.save(tmp_path / "ours")
    reference = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert reference(chosen, add_special_tokens=False)["input_ids"] == shifted
    assert reference("a", "b")["input_ids"].count(special.sep) == 3


@pytest.mark.parametrize("keep", [True, False])
def test_an_albert_folder(keep: bool, shared: Path, tmp_path: Path) -> None:
    made = trained(shared, "unigram-raw")
    (tmp_path / "spiece.model").write_bytes(made.definition.model)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    config = {"tokenizer_class": "AlbertTokenizer", "do_lower_case": not keep, "keep_accents": keep, **names}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.load(tmp_path)
    reference = SentencepieceTokenizer(str(tmp_path / "spiece.model"), "[UNK]", do_lower_case=not keep, keep_accents=keep)
    find = spm_of(made).piece_to_id
    chosen = [*real(shared), *sentences(shared, "basic")[:2000], "``in 1,000, or 2,''  x"]
    assert flat(tokenizer, chosen) == [[find(piece) for piece in reference.tokenize(text)] for text in chosen]
    for text in ("the men 1,000 were here", "  in 1,000, or ２,  x 3,", "一九0,0,ガ12,"):
        encoding = tokenizer.encode(text)
        assert encoding.ids.tolist() == [number for word in tokenizer.words(text) for number in word]
        for number, start, end in zip(encoding.ids.tolist(), encoding.starts.tolist(), encoding.ends.tolist(), strict=True):
            shown = unicodedata.normalize("NFKC", prepared(text[start:end], tokenizer.definition.around))
            assert tokenizer.tokens[number].removeprefix("\u2581") == shown or number == tokenizer.special.unk, (text, number, start, end)
    encoding = tokenizer.encode("  ``Tokyo''   is\u3000東京 ")
    assert encoding.ids.tolist() == [number for word in tokenizer.words("  ``Tokyo''   is\u3000東京 ") for number in word]
    assert int(encoding.ends[-1]) == 19


def write_roberta(made: Tokenizer, folder: Path) -> None:
    model = json.loads(made.definition.library)["model"]
    rename = dict(zip(made.definition.names, ("<s>", "</s>", "<mask>", "<pad>", "<unk>"), strict=True))
    (folder / "vocab.json").write_text(json.dumps({rename.get(token, token): i for token, i in model["vocab"].items()}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in model["merges"]))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}')


def test_roberta_files(shared: Path, tmp_path: Path) -> None:
    write_roberta(trained(shared, "byte-bpe"), tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    chosen = [text for text in real(shared) if "<" not in text]
    theirs = reference(chosen, add_special_tokens=False)["input_ids"]
    assert flat(tokenizer, chosen) == theirs
    reference.save_pretrained(tmp_path / "json")  # now as tokenizer.json
    foreign = Tokenizer.load(tmp_path / "json")
    assert flat(foreign, chosen) == theirs
    text = "Don't go, 東京タワー!"
    assert foreign.decode(foreign.encode(text).ids.tolist()) == text
    encoding = foreign.encode(text)
    assert text[encoding.starts[0] : encoding.ends[0]] == foreign.tokens[encoding.ids[0]]


def test_a_tokenizer_json_of_unigram(shared: Path, tmp_path: Path) -> None:
    made = trained(shared, "unigram-raw")
    made.save(tmp_path)
    for name in ("kitae_tokenizer.json", "spiece.model"):
        (tmp_path / name).unlink()
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.definition.algorithm == "unigram"
    chosen = real(shared)
    assert flat(tokenizer, chosen) == flat(made, chosen)
    a, b = tokenizer.encode("ABC 東京 1,234円"), made.encode("ABC 東京 1,234円")
    assert (a.ids.tolist(), a.word_ids.tolist()) == (b.ids.tolist(), b.word_ids.tolist())


def test_a_different_tokenizer_json_is_refused(shared: Path, tmp_path: Path) -> None:
    made = trained(shared, "unigram-raw")
    texts = [*library.ODD, "東京に行く"]
    exported.check(made.definition, tmp_path, flat(made, texts), texts, allowed=0)
    changed = replace(made.definition, around=Around(lower_case=True))
    with pytest.raises(KitaeError, match="other ids than kitae"):
        exported.check(changed, tmp_path, flat(made, ["TOKYO"]), ["TOKYO"], allowed=0.5)


@pytest.mark.parametrize("name", ["unigram-words", "character-words"])
def test_the_check_of_japanese_folders_sees_a_difference(name: str, shared: Path, tmp_path: Path) -> None:
    """`exported.bert_japanese` reads the folder alone: another file or setting there shows."""
    made = trained(shared, name)
    made.save(tmp_path)
    texts = [*library.ODD, *chosen(shared, name)[:200:5], "1,000と`` AB''"]
    exported.check(made.definition, tmp_path, flat(made, texts), texts, allowed=0)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for change in ({"do_lower_case": True}, {"mecab_kwargs": {**config["mecab_kwargs"], "normalize_text": False}}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | change))
        with pytest.raises(KitaeError, match="BertJapaneseTokenizer would give other ids than kitae"):
            exported.check(made.definition, tmp_path, flat(made, texts), texts, allowed=0)


def test_training_is_deterministic_and_refuses_what_cannot_be(shared: Path, tmp_path: Path) -> None:
    counts = Counts.of({"東京": 30, "東京都": 20, "京都": 25, "大阪": 9, "都": 4})
    spec, options = SegmenterSpec(kind="mecab"), VocabularyOptions(vocab_size=40, num_unused=1)
    one = define("unigram", counts, spec, options, scratch=tmp_path)
    other = define("unigram", counts, spec, options, scratch=tmp_path)
    assert one.fingerprint == other.fingerprint
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KitaeError, match="SentencePiece cannot train 8 pieces"):
        define("unigram", counts, spec, VocabularyOptions(vocab_size=8, num_unused=1), scratch=tmp_path)
    whole = define("unigram", counts, spec, options, scratch=tmp_path, candidates={"東京都", "京都"})
    assert {"\u2581東京都", "\u2581京都"} & set(whole.tokens)


@pytest.mark.parametrize("name", KINDS)
def test_ids_equal_transformers_4(name: str, shared: Path) -> None:
    golden_ids.equal(name, trained(shared, name), chosen(shared, name))
