"""Ids equal to AutoTokenizer's on real text: transformers 5 directly, transformers 4.57 through the golden file."""

from pathlib import Path

import fake_jumanpp
import golden_ids
import pytest
import transformers
from real_text import FURTHER, SPECS, golden_tokenizer, need, sentences
from transformers import AutoTokenizer

from kitae.tokenization.tokenizer import Tokenizer


def ids_of(tokenizer: Tokenizer, sentence: str) -> list[int]:
    return [number for word in tokenizer.words(sentence) for number in word]


@pytest.mark.parametrize("name", SPECS)
def test_ids_equal_transformers_5(name: str, shared: Path, tmp_path: Path) -> None:
    assert transformers.__version__.startswith("5.")
    tokenizer = golden_tokenizer(name)
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "electra"}')  # as beside an exported model
    reference = AutoTokenizer.from_pretrained(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    chosen = sentences(shared, name)
    assert len(chosen) >= 10_000
    different = [sentence for sentence in chosen if reference(sentence, add_special_tokens=False)["input_ids"] != ids_of(loaded, sentence)]
    assert different == []
    assert loaded.fingerprint == tokenizer.fingerprint
    special = loaded.special
    assert reference("")["input_ids"] == [special.cls, special.sep]
    assert (reference.mask_token_id, reference.pad_token_id, reference.unk_token_id) == (special.mask, special.pad, special.unk)
    assert len(reference) == loaded.vocab_size
    assert reference("a", "b")["token_type_ids"] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("name", [*SPECS, *FURTHER])
def test_ids_equal_transformers_4(name: str, shared: Path, tmp_path: Path) -> None:
    need(name)
    tokenizer = golden_tokenizer(name, fake_jumanpp.install(tmp_path))
    golden_ids.equal(name, tokenizer, sentences(shared, name), thousands=0 if name in SPECS else 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", FURTHER)
def test_all_ids_equal_transformers_4(name: str, shared: Path, tmp_path: Path) -> None:
    need(name)
    golden_ids.equal(name, golden_tokenizer(name, fake_jumanpp.install(tmp_path)), sentences(shared, name))


@pytest.mark.parametrize("name", SPECS)
def test_encode_gives_the_ids_of_words(name: str, shared: Path) -> None:
    tokenizer = golden_tokenizer(name)
    for sentence in sentences(shared, name)[::7]:
        encoding = tokenizer.encode(sentence)
        words = tokenizer.words(sentence)
        assert encoding.ids.tolist() == [number for word in words for number in word]
        assert encoding.word_ids.tolist() == [number for number, word in enumerate(words) for _ in word]
        assert (encoding.starts < encoding.ends).all()
        assert (encoding.starts[1:] >= encoding.starts[:-1]).all()
        assert encoding.ends.max(initial=0) <= len(sentence)


@pytest.mark.parametrize("name", ["ipadic", "basic"])
def test_special_tokens_in_text_stay_text(name: str, tmp_path: Path) -> None:
    tokenizer = golden_tokenizer(name)
    tokenizer.save(tmp_path)
    text = "[CLS] a [SEP] b[MASK]c [PAD] [UNK]"
    special = tokenizer.special
    ours = ids_of(tokenizer, text)
    assert not {special.cls, special.sep, special.mask, special.pad} & set(ours)
    assert tokenizer.encode(text).ids.tolist() == ours
    reference = AutoTokenizer.from_pretrained(tmp_path)
    assert special.sep in reference(text, add_special_tokens=False)["input_ids"]  # the stated difference
    if name == "ipadic":
        reference = AutoTokenizer.from_pretrained(tmp_path, split_special_tokens=True)
        assert reference(text, add_special_tokens=False)["input_ids"] == ours
