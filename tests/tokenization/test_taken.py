"""Finished vocabularies of which the user says how words are found, against transformers and SentencePiece."""

import json
import re
from pathlib import Path

import pytest
import sentencepiece
from real_text import GOLDEN, golden_tokenizer, sentences
from test_kinds import flat, some_lines
from transformers import AutoTokenizer, BertTokenizer

from kitae.core.errors import KitaeError
from kitae.tokenization.counting import count_words
from kitae.tokenization.segmenter import SegmenterSpec, words_of
from kitae.tokenization.taken import home, take
from kitae.tokenization.tokenizer import Tokenizer
from kitae.tokenization.training import define
from kitae.tokenization.vocabulary import VocabularyOptions

ACCENTS = ["Élan vital, naïve CAFÉ résumé!", "Don't İstanbul STRAẞE", "e\u0301A\u030a"]


def test_an_english_uncased_vocab_txt(shared: Path, tmp_path: Path) -> None:
    """As the requirement has it: `from` a BERT vocab.txt, lower case and no accents said beside it."""
    file = tmp_path / "vocab.txt"
    file.write_bytes((GOLDEN / "vocab_english.txt").read_bytes())
    tokenizer = Tokenizer(take(file, {"lower_case": True, "strip_accents": True}))
    texts = [text for text in [*sentences(shared, "basic")[:10_500], *ACCENTS] if "[" not in text]
    reference = BertTokenizer(str(file), do_lower_case=True)
    assert len(texts) >= 10_000
    assert flat(tokenizer, texts) == reference(texts, add_special_tokens=False)["input_ids"]
    assert tokenizer.words("CAFÉ") == tokenizer.words("cafe") != Tokenizer.load(file).words("CAFÉ")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    folder = Tokenizer.load(tmp_path)
    assert folder.definition.spec == tokenizer.definition.spec
    assert flat(folder, texts[:2000]) == AutoTokenizer.from_pretrained(tmp_path)(texts[:2000], add_special_tokens=False)["input_ids"]
    folder.save(tmp_path / "ours")
    assert flat(Tokenizer.load(tmp_path / "ours"), texts[:500]) == flat(folder, texts[:500])


def test_a_vocab_txt_with_the_words_of_mecab(shared: Path, tmp_path: Path) -> None:
    golden = golden_tokenizer("ipadic")
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(golden.tokens) + "\n", encoding="utf-8")
    tokenizer = Tokenizer(take(file, {"kind": "mecab", "dictionary": "ipadic"}))
    assert tokenizer.fingerprint == golden.fingerprint
    with pytest.raises(KitaeError, match="cannot be said anew"):
        golden.save(tmp_path / "ours")
        take(tmp_path / "ours", {"lower_case": True})


def test_sentencepiece_of_segmented_text(shared: Path, tmp_path: Path) -> None:
    """A DeBERTa whose model saw words joined by blanks, as ku-nlp's: words first, then the model's pieces."""
    spec = SegmenterSpec(kind="mecab")
    with count_words([shared / "ja_plain/kyoto_wiki.txt.xz"], some_lines, spec, unit="parts-of-words") as counts:
        made = define("unigram", counts, spec, VocabularyOptions(vocab_size=3500), scratch=tmp_path)
    (tmp_path / "spm.model").write_bytes(made.model)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "DebertaV2Tokenizer", "do_lower_case": false}')
    tokenizer = Tokenizer(take(tmp_path, {"kind": "mecab"}))
    texts = sentences(shared, "ipadic")
    processor, words = sentencepiece.SentencePieceProcessor(model_proto=made.model), words_of(spec)
    chosen = [text for text in texts if not re.search(r"``|''|\d,|[\ud800-\udfff\x00]", text) and len(text) < 400][:10_000]
    assert len(chosen) == 10_000
    assert flat(tokenizer, chosen) == processor.encode([" ".join(words(text)) for text in chosen], num_threads=1)
    tokenizer.save(tmp_path / "ours")
    assert Tokenizer.load(tmp_path / "ours").fingerprint == tokenizer.fingerprint
    reference = AutoTokenizer.from_pretrained(tmp_path / "ours")
    some = [text[:60] for text in chosen[::20]]
    assert [reference(text, add_special_tokens=False)["input_ids"] for text in some] == flat(tokenizer, some)
    config = {"tokenizer_class": "AlbertTokenizer", "keep_accents": False, "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (tmp_path / "albert").mkdir()
    (tmp_path / "albert" / "spiece.model").write_bytes(made.model)
    (tmp_path / "albert" / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(KitaeError, match="a SentencePiece model a segmenter of Japanese"):
        take(tmp_path / "albert", {"kind": "mecab"})


@pytest.mark.parametrize(
    "name", ["vocab.txt", "spiece.model", "spm.model", "sentencepiece.bpe.model", "vocab.json", "kitae_tokenizer.json"]
)
def test_a_checkpoints_tokenizer_is_found_by_any_of_its_files(name: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    assert home(tmp_path) == tmp_path
    (tmp_path / "tokenizer" / name).touch()
    assert home(tmp_path) == tmp_path / "tokenizer"
