"""Saving, loading, foreign folders, dictionaries, and what is refused."""

import json
import pickle
import shutil
from pathlib import Path

import ipadic
import pytest
from real_text import AWKWARD, GOLDEN, SPECS, golden_tokenizer
from transformers import AutoTokenizer, BertJapaneseTokenizer

from kitae.core.errors import KitaeError
from kitae.tokenization import dictionary
from kitae.tokenization.segmenter import SegmenterSpec, build
from kitae.tokenization.tokenizer import Tokenizer

TEXTS = [*AWKWARD, "吾輩は猫である。名前はまだ無い。", "The Bishop's ring; naïve Café, 1,000 men."]
VOCABULARY = GOLDEN / "vocab_japanese.txt"


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return [number for word in tokenizer.words(text) for number in word]


def same_ids(folder: Path, tokenizer: Tokenizer) -> None:
    reference = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert ids_of(tokenizer, text) == reference(text, add_special_tokens=False)["input_ids"], text


@pytest.mark.parametrize(
    "spec", [*SPECS.values(), SegmenterSpec(kind="whitespace"), SegmenterSpec(kind="none", nfkc=False, lower_case=True)]
)
def test_save_and_load_give_the_same_tokenizer(spec: SegmenterSpec, tmp_path: Path) -> None:
    tokenizer = Tokenizer.new(VOCABULARY.read_text(encoding="utf-8").splitlines(), spec)
    tokenizer.save(tmp_path / "once", max_length=128)
    again = Tokenizer.load(tmp_path / "once")
    assert (again.tokens, again.special, again.fingerprint) == (tokenizer.tokens, tokenizer.special, tokenizer.fingerprint)
    again.save(tmp_path / "twice", max_length=128)
    for file in (tmp_path / "once").iterdir():
        assert file.read_bytes() == (tmp_path / "twice" / file.name).read_bytes()
    same_ids(tmp_path / "once", again)
    assert AutoTokenizer.from_pretrained(tmp_path / "once").model_max_length == 128
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_fingerprint_tells_tokenizers_apart() -> None:
    tokens = VOCABULARY.read_text(encoding="utf-8").splitlines()
    made = [
        Tokenizer.new(tokens, SPECS["ipadic"]),
        Tokenizer.new(tokens, SPECS["unidic-lite"]),
        Tokenizer.new(tokens, SPECS["basic"]),
        Tokenizer.new(tokens[:-1], SPECS["ipadic"]),
        Tokenizer.new(tokens, SegmenterSpec(kind="mecab", lower_case=True)),
    ]
    assert len({tokenizer.fingerprint for tokenizer in made}) == len(made)
    assert Tokenizer.new(tokens, SPECS["ipadic"]).fingerprint == made[0].fingerprint


def test_a_folder_of_bert_japanese(tmp_path: Path) -> None:
    BertJapaneseTokenizer(
        str(VOCABULARY), word_tokenizer_type="mecab", mecab_kwargs={"mecab_dic": "ipadic"}, do_lower_case=True
    ).save_pretrained(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.definition.spec.lower_case
    same_ids(tmp_path, tokenizer)


@pytest.mark.parametrize("lower", [False, True])
def test_vocab_txt_of_bert_and_a_saved_bert_tokenizer(lower: bool, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "vocab_english.txt", tmp_path / "vocab.txt")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": lower}))
    same_ids(tmp_path, Tokenizer.load(tmp_path))
    saved = tmp_path / "saved"
    AutoTokenizer.from_pretrained(tmp_path).save_pretrained(saved)
    foreign = Tokenizer.load(saved)
    same_ids(saved, foreign)
    foreign.save(tmp_path / "ours")
    ours = Tokenizer.load(tmp_path / "ours")
    same_ids(tmp_path / "ours", ours)
    assert ours.fingerprint == foreign.fingerprint
    assert "[SEP]" not in [ours.tokens[number] for number in ours.encode("a [SEP] b").ids]


def test_a_bare_vocab_txt_keeps_case_and_accents(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "vocab_english.txt", tmp_path / "vocab.txt")
    for path in (tmp_path, tmp_path / "vocab.txt"):
        tokenizer = Tokenizer.load(path)
        assert ids_of(tokenizer, "The men") == [tokenizer.tokens.index("The"), tokenizer.tokens.index("men")]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no tokenizer.json and no vocab.txt"),
        ({"tokenizer_config.json": "{", "vocab.txt": "a"}, "tokenizer_config.json is not JSON"),
        ({"vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n"}, r"has no mask token \[MASK\]"),
        ({"vocab.txt": "[PAD]\na\na\n"}, "names 1 tokens twice"),
        ({"tokenizer_config.json": '{"tokenizer_class": "T5Tokenizer"}', "vocab.txt": "a"}, "tokenizer_class T5Tokenizer"),
        ({"tokenizer.json": '{"model": {"type": "Other", "vocab": {}}}'}, "holds a Other model"),
        (
            {
                "tokenizer_config.json": '{"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "basic"}',
                "vocab.txt": "a",
            },
            "BertJapaneseTokenizer with basic words",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(files: dict[str, str], says: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(KitaeError, match=says) as error:
        Tokenizer.load(tmp_path)
    assert error.value.cure


WORDPIECE = {"type": "WordPiece", "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}}


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("tokenizer.json", "{}", "tokenizer.json is damaged: it lacks 'model'"),
        ("tokenizer.json", '{"model": "x"}', "tokenizer.json is damaged"),
        ("tokenizer.json", '{"model": {"type": "BPE"}}', "tokenizer.json is damaged: it lacks 'vocab'"),
        ("tokenizer.json", '{"model": {"type": "WordPiece", "vocab": {"a": "x"}}}', "tokenizer.json is damaged"),
        ("tokenizer.json", '{"model": {"type": "Unigram", "vocab": [1, 2]}}', "tokenizer.json is damaged"),
        (
            "tokenizer.json",
            json.dumps({"model": {**WORDPIECE, "unk_token": "[UNK]"}, "normalizer": {"type": "No"}}),
            "is refused by",
        ),
        ("tokenizer.json", '{"model":', "tokenizer.json is not JSON"),
        ("vocab.json", '{"a": "x"}', "vocab.json is damaged"),
        ("vocab.json", '{"a": null}', "vocab.json is damaged"),
        ("spm.model", "x", "spm.model is not a SentencePiece model"),
    ],
)
def test_a_damaged_file_of_others_is_told(file: str, text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    if file == "spm.model":
        (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "DebertaV2Tokenizer"}')
    with pytest.raises(KitaeError, match=says) as error:
        Tokenizer.load(tmp_path)
    assert error.value.cure


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("kitae_tokenizer.json", {}, "has format None, this version of kitae reads 1"),
        ("kitae_tokenizer.json", {"format": 2}, "has format 2"),
        ("kitae_tokenizer.json", {"format": 1}, "kitae_tokenizer.json is damaged: it lacks 'segmenter'"),
        ("kitae_tokenizer.json", {"segmenter": {"kind": "magic"}}, "kitae_tokenizer.json is damaged"),
        ("kitae_tokenizer.json", {"special": {"cls": "[CLS]"}}, "it lacks 'sep'"),
        ("kitae_tokenizer.json", {"algorithm": "magic"}, "do not fit its fingerprint"),
        ("kitae_tokenizer.json", {"around": {"magic": True}}, "spiece.model is missing"),
        ("tokenizer.json", None, "tokenizer.json is not JSON"),
    ],
)
def test_a_damaged_folder_of_ours_is_told(file: str, change: dict[str, object] | None, says: str, tmp_path: Path) -> None:
    golden_tokenizer("basic").save(tmp_path)
    text = (tmp_path / file).read_text(encoding="utf-8")
    whole = json.loads(text) if change and "format" not in change else {}
    (tmp_path / file).write_text(text[: len(text) // 2] if change is None else json.dumps(whole | change), encoding="utf-8")
    with pytest.raises(KitaeError, match=says) as error:
        Tokenizer.load(tmp_path)
    assert error.value.cure


def test_a_missing_folder_and_a_changed_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match="there is no tokenizer folder"):
        Tokenizer.load(tmp_path / "nothing")
    golden_tokenizer("ipadic").save(tmp_path)
    text = (tmp_path / "vocab.txt").read_text(encoding="utf-8")
    (tmp_path / "vocab.txt").write_text(text.replace("\n猫\n", "\n犬犬犬\n"), encoding="utf-8")
    with pytest.raises(KitaeError, match="do not fit its fingerprint"):
        Tokenizer.load(tmp_path)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """IPAdic as a dictionary folder, with a blank in its path."""
    folder = tmp_path / "my dic"
    shutil.copytree(ipadic.DICDIR, folder)
    return folder


def test_a_dictionary_folder(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = VOCABULARY.read_text(encoding="utf-8").splitlines()
    tokenizer = Tokenizer.new(tokens, SegmenterSpec(kind="mecab", dictionary=str(copied)))
    named = golden_tokenizer("ipadic")
    assert tokenizer.fingerprint == named.fingerprint  # by content, wherever it lies
    tokenizer.save(tmp_path / "t")
    assert str(tmp_path) not in (tmp_path / "t" / "tokenizer_config.json").read_text()
    again = Tokenizer.load(tmp_path / "t")
    assert [ids_of(again, text) for text in TEXTS] == [ids_of(named, text) for text in TEXTS]
    option = {"mecab_dic": None, "mecab_option": f'-d "{copied}" -r /dev/null'}
    reference = AutoTokenizer.from_pretrained(tmp_path / "t", mecab_kwargs=option)
    assert reference(TEXTS[-2], add_special_tokens=False)["input_ids"] == ids_of(again, TEXTS[-2])

    moved = copied.rename(tmp_path / "elsewhere")
    with pytest.raises(KitaeError, match="is not on this machine"):
        Tokenizer.load(tmp_path / "t")
    monkeypatch.setenv(dictionary.VARIABLE, str(moved))
    assert Tokenizer.load(tmp_path / "t").fingerprint == named.fingerprint
    with (moved / "unk.dic").open("r+b") as file:  # another dictionary under the same name
        file.seek(200)
        file.write(b"\x01")
    with pytest.raises(KitaeError, match=r"fingerprint [0-9a-f]{16}, expected [0-9a-f]{16}"):
        Tokenizer.load(tmp_path / "t")


def test_a_folder_that_is_no_dictionary(tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match="lacks sys.dic, unk.dic, matrix.bin, char.bin"):
        build(SegmenterSpec(kind="mecab", dictionary=str(tmp_path)))
    with pytest.raises(KitaeError, match='"ipadik" is not on this machine'):
        build(SegmenterSpec(kind="mecab", dictionary="ipadik"))


def test_words_joined_are_the_text_without_white_space() -> None:
    for spec in (SPECS["ipadic"], SPECS["unidic-lite"], SegmenterSpec(kind="whitespace", nfkc=False)):
        for text in TEXTS:
            found = "".join(build(spec).segment(text))
            assert "".join(found.split()) == "".join(text.split())  # Python alone calls U+001C to U+001F white space
