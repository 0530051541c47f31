"""Every kind of tokenizer folder beside its reference implementation: what is written, and whose ids have to come out.

A case writes a folder and returns what gives the reference's ids. The quick forms are in test_reference_ids.py; `python -m
benchmarks.tokenizers` counts differences on more than ten thousand real sentences of each.
"""

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import fake_jumanpp
import test_kinds
from real_text import FURTHER, GOLDEN, SPECS, golden_tokenizer, sentences
from transformers import AutoTokenizer, BertJapaneseTokenizer
from transformers.models.bert_japanese.tokenization_bert_japanese import SentencepieceTokenizer

from kitae.tokenization import jumanpp
from kitae.tokenization.tokenizer import Tokenizer

Ids = Callable[[Sequence[str]], list[list[int]]]


def transformers_of(folder: Path) -> Ids:
    """AutoTokenizer of the installed transformers."""
    sys.modules.setdefault("rhoknp", fake_jumanpp.rhoknp())
    reference = AutoTokenizer.from_pretrained(folder)
    return lambda texts: reference(list(texts), add_special_tokens=False)["input_ids"]


def ours(name: str) -> Callable[[Path, Path], Ids]:
    """A folder of SPECS or FURTHER, or of test_kinds.KINDS."""

    def make(shared: Path, folder: Path) -> Ids:
        if name in test_kinds.KINDS:
            test_kinds.trained(shared, name).save(folder)
        else:
            program = None
            if name.startswith("jumanpp"):
                folder.mkdir(exist_ok=True)
                program = fake_jumanpp.install(folder)
            golden_tokenizer(name, program).save(folder)
        return transformers_of(folder)

    return make


def without_ours(name: str) -> Callable[[Path, Path], Ids]:
    """The same folder as if transformers had written it."""

    def make(shared: Path, folder: Path) -> Ids:
        reference = ours(name)(shared, folder)
        (folder / "kitae_tokenizer.json").unlink()
        return reference

    return make


def bert_japanese(**settings: object) -> Callable[[Path, Path], Ids]:
    """A folder that BertJapaneseTokenizer saves."""

    def make(shared: Path, folder: Path) -> Ids:
        BertJapaneseTokenizer(str(GOLDEN / "vocab_japanese.txt"), **settings).save_pretrained(folder)
        return transformers_of(folder)

    return make


def bert(lower: bool, *, saved: bool) -> Callable[[Path, Path], Ids]:
    """BERT's vocab.txt with a class, or the tokenizer.json that transformers saves of it."""

    def make(shared: Path, folder: Path) -> Ids:
        first = folder / "vocabulary" if saved else folder
        first.mkdir(parents=True, exist_ok=True)
        shutil.copy(GOLDEN / "vocab_english.txt", first / "vocab.txt")
        (first / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": lower}))
        if saved:
            AutoTokenizer.from_pretrained(first).save_pretrained(folder)
        return transformers_of(folder)

    return make


def deberta(shared: Path, folder: Path) -> Ids:
    """SentencePiece itself is the reference: transformers 5 drops the normalizer."""
    made = test_kinds.trained(shared, "unigram-raw")
    folder.mkdir(exist_ok=True)
    (folder / "spm.model").write_bytes(made.definition.model)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "DebertaV2Tokenizer", "do_lower_case": false}')
    return lambda texts: test_kinds.spm_of(made).encode(list(texts), num_threads=1)


def xlm_roberta(shared: Path, folder: Path) -> Ids:
    """SentencePiece's ids, moved as fairseq does it."""
    folder.mkdir(exist_ok=True)
    processor = test_kinds.processor_of(test_kinds.fairseq_model(shared, folder))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    return lambda texts: [[number + 1 if number else 3 for number in row] for row in processor.encode(list(texts), num_threads=1)]


def albert(shared: Path, folder: Path) -> Ids:
    """The slow tokenizer's rules, which transformers keeps within BertJapaneseTokenizer."""
    made = test_kinds.trained(shared, "unigram-raw")
    folder.mkdir(exist_ok=True)
    (folder / "spiece.model").write_bytes(made.definition.model)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "AlbertTokenizer", "do_lower_case": True, **names}))
    reference = SentencepieceTokenizer(str(folder / "spiece.model"), "[UNK]", do_lower_case=True, keep_accents=False)
    find = test_kinds.spm_of(made).piece_to_id
    return lambda texts: [[find(piece) for piece in reference.tokenize(text)] for text in texts]


def roberta(shared: Path, folder: Path) -> Ids:
    """vocab.json and merges.txt."""
    test_kinds.write_roberta(test_kinds.trained(shared, "byte-bpe"), folder)
    return transformers_of(folder)


def library_alone(shared: Path, folder: Path) -> Ids:
    """A tokenizer.json of unigram that anybody could have written."""
    reference = without_ours("unigram-raw")(shared, folder)
    (folder / "spiece.model").unlink()
    return reference


FOREIGN: dict[str, Callable[[Path, Path], Ids]] = {
    "BertJapaneseTokenizer, mecab, lower case": bert_japanese(
        word_tokenizer_type="mecab", mecab_kwargs={"mecab_dic": "ipadic"}, do_lower_case=True
    ),
    "BertJapaneseTokenizer, mecab, characters": bert_japanese(
        word_tokenizer_type="mecab", mecab_kwargs={"mecab_dic": "ipadic"}, subword_tokenizer_type="character"
    ),
    "BertJapaneseTokenizer, sudachi": bert_japanese(word_tokenizer_type="sudachi", sudachi_kwargs={"sudachi_split_mode": "C"}),
    "BertJapaneseTokenizer, jumanpp": without_ours("jumanpp"),
    "BertTokenizer, vocab.txt": bert(False, saved=False),
    "BertTokenizer, vocab.txt, lower case": bert(True, saved=False),
    "BertTokenizer, tokenizer.json": bert(False, saved=True),
    "BertTokenizer, tokenizer.json, lower case": bert(True, saved=True),
    "DebertaV2Tokenizer, spm.model": deberta,
    "XLMRobertaTokenizer, sentencepiece.bpe.model": xlm_roberta,
    "AlbertTokenizer, spiece.model": albert,
    "RobertaTokenizer, vocab.json": roberta,
    "tokenizer.json, unigram": library_alone,
}
CASES: dict[str, Callable[[Path, Path], Ids]] = {name: ours(name) for name in (*SPECS, *FURTHER, *test_kinds.KINDS)} | FOREIGN


def texts_of(shared: Path, name: str) -> list[str]:
    """More than ten thousand sentences for a case, without the names of special tokens, which transformers cuts out first."""
    kind = "basic" if name.startswith("BertTokenizer") else "jumanpp" if "jumanpp" in name else name
    names = (*test_kinds.LITERALS, "<s>", "</s>", "<mask>", "<pad>", "<unk>")
    return [text for text in sentences(shared, kind) if not any(each in unicodedata.normalize("NFKC", text) for each in names)]


def differing(shared: Path, name: str, folder: Path, every: int = 1) -> tuple[int, list[str]]:
    """How many sentences were compared, and those that differ."""
    reference = CASES[name](shared, folder)
    texts = texts_of(shared, name)[::every]
    with mock.patch.dict(os.environ, {jumanpp.VARIABLE: str(folder / "jumanpp")}):
        tokenizer = Tokenizer.load(folder)
    return len(texts), [text for text, a, b in zip(texts, test_kinds.flat(tokenizer, texts), reference(texts), strict=True) if a != b]
