"""The mask's name in a text is the mask, and everything around it becomes the ids that transformers gives."""

import json
import shutil
from pathlib import Path

import fake_jumanpp
import pytest
import test_kinds
from parity import roberta, transformers_of
from real_text import GOLDEN, SPECS, golden_tokenizer, sentences
from tokenizers import AddedToken
from transformers import AutoTokenizer, BertJapaneseTokenizer

from kitae.tokenization.tokenizer import Tokenizer

AWKWARD = ("{}", "{}{}", " {} ", "a{}", "{}b", "a {}  b", "\u3000{}\u3000\u3042", "{} {}", "un{}able 1{}2")


def masked_texts(shared: Path, mask: str) -> list[str]:
    """Awkward ones, and real sentences with the mask in the place of one or two stretches of their letters."""
    texts = [text.format(*[mask] * 2) if text.count("{}") > 1 else text.format(mask) for text in AWKWARD]
    for number, sentence in enumerate(sentences(shared, "ipadic")[::40]):
        if "[" in sentence or "<" in sentence:
            continue
        at = number * 7 % (len(sentence) + 1)
        text = sentence[:at] + mask + sentence[at + number % 4 :]
        texts.append(text if number % 3 else f"{text}{mask}\u3002{mask}")
    assert len(texts) > 200
    return texts


def folder_of(name: str, shared: Path, folder: Path) -> Path:
    """A tokenizer folder that both read."""
    if name in test_kinds.KINDS:
        test_kinds.trained(shared, name).save(folder)
    elif name.startswith("roberta"):
        folder.mkdir()
        roberta(shared, folder)
        # transformers 4's class and fairseq take the blank before the mask away; transformers 5 has forgotten that
        told = AutoTokenizer.from_pretrained(folder, mask_token=AddedToken("<mask>", lstrip=True, special=True))
        told.save_pretrained(folder / "json")
        return folder / "json" if name == "roberta-json" else folder
    elif name == "bert-uncased":
        folder.mkdir()
        shutil.copy(GOLDEN / "vocab_english.txt", folder / "vocab.txt")
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))
    elif name == "bert-japanese":
        BertJapaneseTokenizer(
            str(GOLDEN / "vocab_japanese.txt"), word_tokenizer_type="mecab", mecab_kwargs={"mecab_dic": "ipadic"}
        ).save_pretrained(folder)
    else:
        golden_tokenizer(name, fake_jumanpp.install(folder.parent) if name.startswith("jumanpp") else None).save(folder)
    return folder


@pytest.mark.parametrize("name", [*SPECS, *test_kinds.KINDS, "roberta", "roberta-json", "bert-uncased", "bert-japanese"])
def test_ids_equal_transformers(name: str, shared: Path, tmp_path: Path) -> None:
    folder = folder_of(name, shared, tmp_path / "tokenizer")
    theirs, ours = transformers_of(folder / "json" if name == "roberta" else folder), Tokenizer.load(folder)
    texts = masked_texts(shared, ours.definition.names[2])
    found = ours.masked(texts)
    assert [row for row in zip(texts, found, theirs(texts), strict=True) if row[1] != row[2]] == []
    assert sum(row.count(ours.special.mask) for row in found) == sum(text.count(ours.definition.names[2]) for text in texts)
    assert not {ours.special.cls, ours.special.sep, ours.special.pad} & {number for row in found for number in row}


def test_without_the_name_nothing_changes(shared: Path) -> None:
    tokenizer = golden_tokenizer("ipadic")
    texts = sentences(shared, "ipadic")[:50]
    assert tokenizer.masked(texts) == [[number for word in tokenizer.words(text) for number in word] for text in texts]


@pytest.mark.parametrize("name", ["ipadic", "unigram-raw"])
def test_a_name_that_is_one_after_normalization_only_stays_text(name: str, shared: Path) -> None:
    tokenizer = test_kinds.trained(shared, name) if name in test_kinds.KINDS else golden_tokenizer(name)
    assert tokenizer.special.mask not in tokenizer.masked(["\uff3b\uff2d\uff21\uff33\uff2b\uff3d"])[0]


def test_other_special_names_stay_text(tmp_path: Path) -> None:
    tokenizer = golden_tokenizer("ipadic")
    tokenizer.save(tmp_path)
    text = "[CLS] \u6771\u4eac [SEP] [PAD] "
    reference = AutoTokenizer.from_pretrained(tmp_path, split_special_tokens=True)
    assert tokenizer.masked([f"{text}[MASK]"]) == [[*reference(text, add_special_tokens=False)["input_ids"], tokenizer.special.mask]]
