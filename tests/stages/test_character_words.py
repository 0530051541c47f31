"""CharacterBERT from text to predictions: words outside of the vocabulary keep their characters, any workers, processes and stops."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from character_runs import BYTES, KNOWN, LENGTH, make_dataset, run, settings, text, tokenizer_of, weights, write_corpus

from kitae.core.artifact import Inputs, Out, newest
from kitae.core.errors import KitaeError
from kitae.data import spelling
from kitae.data.sampler import DatasetFacts, Heldout, Sampler
from kitae.data.shards import Shards
from kitae.models.folder import load, read_parts
from kitae.objectives.mlm import MlmConfig
from kitae.procedures.fill import Filler
from kitae.procedures.predict import Predictor
from kitae.procedures.trials import TrialConfig, read_start, run_trial
from kitae.stages import export, pretrain
from kitae.tasks.batches import collate
from kitae.tasks.config import TaskConfig
from kitae.tasks.encoded import encode
from kitae.tasks.examples import Example
from kitae.tasks.records import TaskData
from kitae.tensor.batch import Layout, Texts
from kitae.tensor.random import numpy_generator
from kitae.text.corpus import ShardWriter
from kitae.tokenization.characters import rows, special_row
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.monitor import read_metrics

SCRIPT = Path(__file__).with_name("character_runs.py")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_of(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, corpus: Path, tokenizer: Path) -> Path:
    return make_dataset(tmp_path_factory.mktemp("made") / "dataset", corpus, tokenizer)


def test_every_word_of_the_text_can_be_read_back(made, corpus, tokenizer):
    loaded = Tokenizer.load(tokenizer)
    facts = DatasetFacts.read(made)
    shards = Shards(made / "train")
    table = spelling.WordTable(made, words=facts.words, word_bytes=BYTES)
    words = [word for shard in range(3) for number in range(12) for word in text(100 * shard + number).split()]
    numbers = shards.tokens(0, shards.num_tokens)
    assert np.array_equal(table.rows(numbers), rows(words, BYTES))
    known = np.array([word in KNOWN for word in words])
    assert [loaded.tokens[number] for number in numbers[known]] == [word for word in words if word in KNOWN]
    assert (numbers[~known] >= loaded.vocab_size).all()
    outside = [bytes(char - 1 for char in row[1:] if char <= 256) for row in table.rows(np.arange(loaded.vocab_size, facts.words)).tolist()]
    assert outside == sorted({word.encode()[:18] for word in [*words, *heldout_words()] if word not in KNOWN})
    for role in ("cls", "sep", "mask", "pad"):
        assert np.array_equal(table.rows(np.array([getattr(loaded.special, role)]))[0], special_row(role, BYTES))


def heldout_words() -> list[str]:
    return [word for number in range(12) for word in text(1000 + number).split()]


@pytest.mark.parametrize("at_once", [1 << 20, 7])
def test_equal_bytes_for_any_number_of_workers_and_any_way_of_merging(made, corpus, tokenizer, tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(spelling, "AT_ONCE", at_once)
    monkeypatch.setattr(spelling, "RUNS", 2)
    other = make_dataset(tmp_path / "dataset", corpus, tokenizer, workers=2)
    names = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file() and path.name != "manifest.json")
    assert names == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file() and path.name != "manifest.json")
    assert all((made / name).read_bytes() == (other / name).read_bytes() for name in names)


@pytest.mark.parametrize("unit", ["token", "word", "span", "ngram"])
def test_batches_give_each_distinct_word_once(made, tokenizer, unit):
    loaded = Tokenizer.load(tokenizer)
    facts = DatasetFacts.read(made)
    table = spelling.WordTable(made, words=facts.words, word_bytes=BYTES)
    plain = Sampler(made, rows_per_step=4, rows_per_micro_batch=4, seed=1).micro(3, 0)
    masker = MlmConfig(rate=0.3, unit=unit).masker(special=loaded.special, vocab_size=loaded.vocab_size)
    masked = masker(plain, numpy_generator(1, "mask"))
    batch = masked.spelled()
    assert batch.chars_WC is not None
    assert batch.spelled() is batch
    assert torch.equal(batch.chars_WC[batch.ids_BL], torch.from_numpy(table.rows(masked.ids_BL.numpy()).astype(np.int64)))
    assert len(batch.chars_WC) == len(masked.ids_BL.unique()) == int(batch.ids_BL.max()) + 1
    before = plain.ids_BL.flatten()[batch.targets["picks"]]
    assert torch.equal(batch.targets["labels"], before)
    assert (before < loaded.vocab_size).all()
    assert (plain.ids_BL >= loaded.vocab_size).any()
    outside = plain.ids_BL >= loaded.vocab_size
    assert torch.equal(masked.ids_BL[outside], plain.ids_BL[outside])


@pytest.fixture(scope="module")
def trained(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Out:
    return run(tmp_path_factory.mktemp("runs") / "pretrain", made)


def test_goes_on_bit_equal_after_a_stop(made, trained, tmp_path):
    scores = trained.counts["heldout"]
    names = ("loss", "perplexity", "accuracy", "top5_accuracy", "entropy")
    assert set(scores) == {f"heldout/{source}mlm_{score}" for source in ("a/", "b/", "") for score in names}
    shutil.copytree(trained.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000008")  # as if it was killed before
    assert run(tmp_path / "run", made).counts["heldout"] == scores
    first, second = weights(trained.path), weights(tmp_path / "run")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_32_sentences_are_learned_by_heart(tmp_path):
    random = np.random.default_rng(2)
    lines = [" ".join([f"w{i}" for i in random.integers(0, 30, 9)] + [f"名前{number}"]) for number in range(32)]
    corpus = tmp_path / "corpus"
    with ShardWriter(corpus / "train") as writer:
        for number, line in enumerate(lines):
            writer.write(json.dumps({"id": str(number), "source": "a", "text": line}).encode())
    with ShardWriter(corpus / "heldout"):
        pass
    facts = {"sources": ["a"], "language": "ja", "characters": {"train": 1, "heldout": 0}}
    (corpus / "corpus.json").write_text(json.dumps(facts))
    data = make_dataset(tmp_path / "dataset", corpus, tokenizer_of(tmp_path / "tokenizer"), max_length=12)
    loaded = Tokenizer.load(data / "tokenizer")
    config = settings(config={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    objective = pretrain.new_objective(config, data, 12, loaded, seed=1)
    prepared = objective.prepare(Sampler(data, rows_per_step=32, rows_per_micro_batch=32, seed=1).micro(0, 0), 1)
    optimizer = torch.optim.Adam(objective.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = objective(prepared).total(objective.counts(prepared))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 3
    assert losses[-1] < 0.1
    assert objective.summarize(objective.eval().measure(prepared))["mlm_accuracy"] == 1


def test_a_cut_table_of_words_is_damage(made, tmp_path):
    shutil.copytree(made, tmp_path / "dataset")
    with (tmp_path / "dataset" / spelling.WORDS).open("r+b") as file:
        file.truncate(100)
    with pytest.raises(KitaeError, match=r"words\.bin is damaged"):
        Sampler(tmp_path / "dataset", rows_per_step=1, rows_per_micro_batch=1, seed=1)


def task() -> TaskData:
    """What counts is how unknown words begin: the vocabulary knows none of them."""

    def some(name: str, count: int) -> tuple[Example, ...]:
        made_ = []
        for number in range(count):
            label = "甲乙"[number % 2]
            words = [f"w{i}" for i in np.random.default_rng(number).integers(0, 30, 5)]
            made_.append(Example(id=f"{name}{number}", text=" ".join([*words, f"{label}{name}{number}"]), gold=label, where=name))
        return tuple(made_)

    config = TaskConfig(name="t", train=("-",), test=("-",))
    return TaskData(config=config, train=some("t", 160), validation=some("v", 20), test=some("s", 20), labels=("甲", "乙"), leaked=0)


def test_fine_tuning_reads_words_that_no_vocabulary_has(trained, tmp_path):
    (tmp_path / "trial").mkdir()
    config = TrialConfig(epochs=12, batch=8, learning_rate=3e-3, dropout=0.0)
    outcome = run_trial(task(), read_start(trained.path), config, seed=1, folder=tmp_path / "trial")
    assert not outcome.warnings
    assert np.mean([found.value == example.gold for found, example in zip(outcome.predicted, task().test, strict=True)]) >= 0.9
    out = Out(path=tmp_path / "export")
    export.run(export.ExportConfig(), Inputs(parents={"topics": tmp_path / "trial", "base": trained.path}, seed=1), out)
    texts = [example.text for example in task().test]
    for folder in (tmp_path / "trial", out.path / "topics"):
        found = list(Predictor.load(folder, device="cpu").predict(texts))
        probabilities = [[prediction.probabilities[label] for label in ("甲", "乙")] for prediction in found]
        np.testing.assert_allclose(probabilities, [one.more["probabilities"] for one in outcome.predicted], atol=1e-5)
    for name in ("topics", "base"):
        readme = (out.path / name / "README.md").read_text(encoding="utf-8")
        assert "library_name: kitae" in readme
        code = readme.split("```python\n")[1].split("```")[0].replace("FOLDER", str(out.path / name)).replace("TEXT", "w1 新語")
        exec(compile(code, "README.md", "exec"), {})
    raw = json.loads((out.path / "base" / "config.json").read_text(encoding="utf-8"))
    assert (raw["model_type"], raw["mlm_vocab_size"], raw["pad_token_id"]) == ("character_bert", 35, 0)


def test_texts_are_read_as_the_data_set_reads_them(trained, made):
    """The beginning of a held-out document, and the same text as a classifier gets it."""
    model = load(read_parts(newest(trained.path))["encoder"])
    loaded = Tokenizer.load(made / "tokenizer")
    words = text(1000).split()[:25]
    other = encode(loaded, "w2 新しい言葉", max_length=LENGTH)
    batch = collate([encode(loaded, " ".join(words), max_length=LENGTH), other], [[0], [1]], pad=0, numbers=[0, 1])
    table = torch.from_numpy(rows(words, BYTES).astype(np.int64))
    assert torch.equal(batch.chars_WC[batch.ids_BL[0, 1:26]], table)
    (held,) = Heldout(made, "a", 64)
    spelled = held.spelled()
    (row,) = [row for row in range(len(held.rows)) if torch.equal(spelled.chars_WC[spelled.ids_BL[row, 1:26]], table)]
    with torch.no_grad():
        first, second = (model.encoder.hidden_states(b)[0] for b in (batch, spelled))
    torch.testing.assert_close(first[0, :26], second[row, :26])


def test_masks_are_filled_beside_words_that_no_vocabulary_has(trained, made):
    part = read_parts(newest(trained.path))["encoder"]
    loaded = Tokenizer.load(made / "tokenizer")
    texts = ["w1 [MASK] 新語 w5", "w2 w3", "鬱金香 w7 鬱金香\n別語 [MASK] [MASK]"]
    first, none, second = Predictor(Filler.of(part, loaded, device=torch.device("cpu"), candidates=4)).predict(texts)
    assert none is None
    model = load(part)
    for filling, words, places in (
        (first, ["w1", None, "新語", "w5"], [2]),
        (second, ["鬱金香", "w7", "鬱金香", "別語", None, None], [5, 6]),
    ):
        shown = [special_row("mask", BYTES) if word is None else rows([word], BYTES)[0] for word in words]
        chars = np.stack([special_row("cls", BYTES), *shown, special_row("sep", BYTES)]).astype(np.int64)
        layout = Layout.padded(torch.ones(1, len(chars), dtype=torch.bool))
        with torch.no_grad():
            logits = model(Texts(torch.arange(len(chars))[None], layout, None, torch.from_numpy(chars)), torch.tensor(places))
        for mask, row in zip(filling.masks, logits.softmax(-1), strict=True):
            scores, ids = row.topk(4)
            assert [candidate.id for candidate in mask] == ids.tolist()
            assert [candidate.token for candidate in mask] == [loaded.tokens[number] for number in ids]
            np.testing.assert_allclose([candidate.score for candidate in mask], scores, rtol=1e-5)


def test_long_texts_are_cut_where_the_model_ends(tokenizer):
    loaded = Tokenizer.load(tokenizer)
    encoded = encode(loaded, "w1 w2\nw3 nie gehört\n" * 5, max_length=8)
    assert (len(encoded.ids), len(encoded.rows), encoded.words.tolist()) == (8, 8, [-1, 0, 1, 2, 3, 4, 5, -1])
    assert encoded.ids.tolist() == [2, 6, 7, 8, 1, 1, 6, 3]


def test_two_processes_read_what_one_does(made, tmp_path):
    """Three micro-batches a step for two ranks: each brings the words of its own micro-batches alone."""
    changes = {"train": {"precision": "fp64", "batch": "12 rows", "length": "12 steps"}}
    run(tmp_path / "one", made, **changes)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line = [*command, tmp_path / "two", made, json.dumps(changes)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    one, two = ([record["loss"] for record in read_metrics(tmp_path / name) if record["kind"] == "train"] for name in ("one", "two"))
    assert len(one) == 12
    assert two == pytest.approx(one, rel=1e-8)
