"""A CharacterBERT goes on with the words of another domain: the head is replaced, the encoder stays (kitae.procedures.words)."""

import dataclasses
import logging
import shutil
from pathlib import Path

import pytest
import torch
from character_runs import KNOWN, SPECIAL, make_dataset, run, tokenizer_of, weights, write_corpus

from kitae.core.artifact import Out, newest
from kitae.core.errors import KitaeError
from kitae.models.folder import read_parts, write_huggingface
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

OF_WORDS = ("encoder.head.table", "encoder.head.bias")
"""Weights that have a row a word."""
FEW = {"length": "1 step", "learning_rate": 1e-30, "save_every": "1 step"}
"""A step that changes nothing."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    folder = tmp_path_factory.mktemp("made")
    return make_dataset(folder / "dataset", corpus, tokenizer_of(folder / "tokenizer"))


@pytest.fixture(scope="module")
def trained(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Out:
    return run(tmp_path_factory.mktemp("runs") / "pretrain", made)


def test_a_new_domain_gets_its_vocabulary_and_loses_nothing_of_the_encoder(trained, corpus, tmp_path, caplog):
    words = (*KNOWN[10:], "名w3", *(f"名w{i}0" for i in range(9)))
    data = make_dataset(tmp_path / "dataset", corpus, tokenizer_of(tmp_path / "tokenizer", words))
    with caplog.at_level(logging.INFO):
        out = run(tmp_path / "adapt", data, start=trained.path, train=FEW)
    assert "35 words: 25 keep what the start knows of them, 10 begin anew, 10 of the start's are left out" in caplog.text
    before, after = weights(trained.path), weights(out.path, 1)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        if name not in OF_WORDS:
            torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-12)
    old, new = (*SPECIAL, *KNOWN), (*SPECIAL, *words)
    shared = [(new.index(word), old.index(word)) for word in new if word in old]
    for name in OF_WORDS:
        theirs, ours = before[name], after[name]
        assert len(ours) == len(new)
        for here, there in shared:
            torch.testing.assert_close(ours[here], theirs[there], rtol=0, atol=1e-12)
    fresh = after["encoder.head.table"][-10:]
    assert 0.01 < fresh.std() < 0.03
    assert len(fresh.unique(dim=0)) == 10
    expected = before["encoder.head.bias"][[there for _, there in shared]].mean()
    torch.testing.assert_close(after["encoder.head.bias"][-10:], expected.expand(10))
    part = read_parts(newest(out.path))["encoder"]
    assert part.config.vocab_size == 35


def test_an_adaptation_to_other_words_goes_on_bit_equal_after_a_stop(trained, corpus, tmp_path):
    data = make_dataset(tmp_path / "dataset", corpus, tokenizer_of(tmp_path / "tokenizer", KNOWN[5:]))
    whole = run(tmp_path / "whole", data, start=trained.path)
    shutil.copytree(whole.path, tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "step-00000008")  # as if it was killed before
    assert run(tmp_path / "stopped", data, start=trained.path).counts["heldout"] == whole.counts["heldout"]
    first, second = weights(whole.path), weights(tmp_path / "stopped")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_pairs_are_learnt_beside_words_and_survive_a_new_vocabulary(corpus, made, tmp_path):
    """As the authors pre-train: masked words and next sentences."""
    order = {"objective_config": {"sentence_order": "nsp"}}
    data = make_dataset(tmp_path / "dataset", corpus, made / "tokenizer", packing="pairs")
    out = run(tmp_path / "pretrain", data, train={"length": "2 steps", "save_every": "2 steps"}, **order)
    assert "heldout/a/nsp_loss" in out.counts["heldout"]
    other = make_dataset(tmp_path / "other", corpus, tokenizer_of(tmp_path / "words", KNOWN[5:]), packing="pairs")
    run(tmp_path / "adapt", other, start=out.path, train=FEW, **order)
    before, after = weights(out.path, 2), weights(tmp_path / "adapt", 1)
    assert before.keys() == after.keys()
    for name in before:
        if name not in OF_WORDS:
            torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-12)
    assert read_parts(newest(tmp_path / "adapt"))["encoder"].head == "pretraining"


def test_the_same_vocabulary_goes_on_as_it_is(trained, made, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        out = run(tmp_path / "adapt", made, start=trained.path, train=FEW)
    assert "begin anew" not in caplog.text
    before, after = weights(trained.path), weights(out.path, 1)
    assert all(torch.allclose(after[name], before[name], rtol=0, atol=1e-12) for name in before)


def bare(trained: Out, folder: Path, *, tokenizer: bool) -> dict[str, torch.Tensor]:
    """Its encoder as the authors published theirs: without a head, with the pooler of their class, and mostly without a tokenizer."""
    part = read_parts(newest(trained.path))["encoder"]
    pooler = {"head.dense.weight": torch.full((64, 64), 0.5), "head.dense.bias": torch.full((64,), 0.5)}
    kept = {name: tensor for name, tensor in part.state.items() if name.startswith("encoder.")}
    write_huggingface(dataclasses.replace(part, head="none", state=kept | pooler), folder)
    if tokenizer:
        shutil.copytree(newest(trained.path) / "tokenizer", folder, dirs_exist_ok=True)
    return kept


@pytest.mark.parametrize("tokenizer", [False, True], ids=["alone", "with its words"])
def test_an_encoder_without_a_head_gets_one(trained, made, tmp_path, tokenizer):
    kept = bare(trained, tmp_path / "bare", tokenizer=tokenizer)
    after = weights(run(tmp_path / "adapt", made, start=tmp_path / "bare", train=FEW).path, 1)
    for name, tensor in kept.items():
        torch.testing.assert_close(after[f"encoder.{name}"], tensor, rtol=0, atol=1e-12)
    for name in ("dense.weight", "table"):  # not the pooler
        assert 0.01 < after[f"encoder.head.{name}"].std() < 0.03
        assert abs(after[f"encoder.head.{name}"].mean()) < 0.01


def published(trained: Out, folder: Path) -> None:
    """The model in the authors' layout, without a tokenizer."""
    write_huggingface(read_parts(newest(trained.path))["encoder"], folder)


@pytest.mark.parametrize("form", ["{1} {0}", "{0}"], ids=["counts and words", "words"])
def test_the_authors_list_of_words_says_what_a_head_predicts(trained, made, tmp_path, form):
    published(trained, tmp_path / "theirs")
    words = (*SPECIAL, *KNOWN)
    lines = "".join(form.format(word, 1000 - number) + "\n" for number, word in enumerate(words))
    (tmp_path / "theirs" / "mlm_vocab.txt").write_text(lines, encoding="utf-8")
    before, after = weights(trained.path), weights(run(tmp_path / "adapt", made, start=tmp_path / "theirs", train=FEW).path, 1)
    assert before.keys() == after.keys()
    assert all(torch.allclose(after[name], before[name], rtol=0, atol=1e-12) for name in before)


def test_a_head_whose_words_nobody_knows_begins_anew(trained, made, tmp_path, caplog):
    """A vocab.txt of pieces, as older releases brought, is no list of its words."""
    published(trained, tmp_path / "theirs")
    (tmp_path / "theirs" / "vocab.txt").write_text("\n".join((*SPECIAL, *KNOWN)) + "\n", encoding="utf-8")
    with caplog.at_level(logging.INFO):
        out = run(tmp_path / "adapt", made, start=tmp_path / "theirs", train=FEW)
    assert "35 words: 0 keep what the start knows of them, 35 begin anew, 35 of the start's are left out" in caplog.text
    assert "does not list the words" in caplog.text
    before, after = weights(trained.path), weights(out.path, 1)
    torch.testing.assert_close(after["encoder.head.dense.weight"], before["encoder.head.dense.weight"], rtol=0, atol=1e-12)
    assert not torch.allclose(after["encoder.head.table"], before["encoder.head.table"], atol=1e-3)


def test_more_words_than_the_head_predicts(trained, made, tmp_path):
    published(trained, tmp_path / "theirs")
    tokenizer_of(tmp_path / "theirs", (*KNOWN, "zuviel"))
    with pytest.raises(KitaeError, match="the start lists 36 words, its head predicts 35"):
        run(tmp_path / "adapt", made, start=tmp_path / "theirs", train=FEW)


def test_words_that_are_found_otherwise_are_told(trained, corpus, tmp_path, caplog):
    spec = SegmenterSpec(kind="whitespace", lower_case=True)
    made = Definition(tokens=(*SPECIAL, *KNOWN), spec=spec, algorithm="characters-of-words", word_bytes=20)
    Tokenizer(made).save(tmp_path / "tokenizer")
    run(tmp_path / "adapt", make_dataset(tmp_path / "dataset", corpus, tmp_path / "tokenizer"), start=trained.path, train=FEW)
    assert "finds words otherwise" in caplog.text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"config": {"cnn_filters": [[21, 2]]}}, "a kernel of cnn_filters spans 21 characters, a word has 20"),
        ({"model": "bert-tiny", "config": {}}, "which the model does not read"),
        ({"initialization": "informed"}, "informed initial weights"),
        ({"objective": "rtd"}, "has none"),
    ],
)
def test_models_that_do_not_fit(changes, told, made, tmp_path):
    with pytest.raises(KitaeError) as error:
        run(tmp_path / "run", made, **changes)
    assert told in error.value.what


def test_a_model_of_characters_wants_a_tokenizer_of_characters(trained, corpus, tmp_path):
    Tokenizer(Definition(tokens=(*SPECIAL, *KNOWN), spec=SegmenterSpec(kind="whitespace"))).save(tmp_path / "tokenizer")
    data = make_dataset(tmp_path / "dataset", corpus, tmp_path / "tokenizer")
    for start in (None, trained.path):
        with pytest.raises(KitaeError, match="the model reads the characters of words, the tokenizer gives wordpiece tokens"):
            run(tmp_path / "run", data, start=start)
