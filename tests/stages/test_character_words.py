"""CharacterBERT from text to predictions: words outside of the vocabulary keep their characters, any workers, any start, any domain."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kitae.core.artifact import Inputs, Out, newest, seal
from kitae.core.errors import KitaeError
from kitae.data import spelling
from kitae.data.sampler import DatasetFacts, Heldout, Sampler
from kitae.data.shards import Shards
from kitae.models.folder import load, read_parts, write_huggingface
from kitae.objectives.mlm import MlmConfig
from kitae.procedures.fill import Filler
from kitae.procedures.predict import Predictor
from kitae.procedures.trials import TrialConfig, read_start, run_trial
from kitae.stages import dataset, export, pretrain
from kitae.stages.dataset import DatasetConfig
from kitae.stages.pretrain import PretrainConfig
from kitae.tasks.batches import collate, encode
from kitae.tasks.records import Example, TaskData
from kitae.tensor.batch import Layout
from kitae.tensor.random import numpy_generator
from kitae.text.corpus import ShardWriter
from kitae.tokenization.characters import rows, special_row
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
KNOWN = tuple(f"w{number}" for number in range(30))
LONG = "internationalisierung" * 4
LENGTH, BYTES = 32, 20


def text(seed: int, sentences: int = 9) -> str:
    """Sentences in which a word decides the next; one word in eight is not of the vocabulary."""
    random = np.random.default_rng(seed)
    lines = []
    for _ in range(sentences):
        first = int(random.integers(30))
        words = [f"w{(first + i) % 30}" for i in range(int(random.integers(4, 12)))]
        lines.append(" ".join(f"名{word}{random.integers(40)}" if random.random() < 0.125 else word for word in words))
    return "\n".join([*lines, f"{LONG}{seed} {LONG} [MASK] [SEP]"])


def write_corpus(folder: Path, *, shards: int = 3, documents: int = 12) -> Path:
    characters = {}
    for split, count in (("train", shards), ("heldout", 1)):
        total = 0
        with ShardWriter(folder / split) as writer:
            for shard in range(count):
                for number in range(documents):
                    made = text(1000 * (split == "heldout") + 100 * shard + number)
                    total += len(made)
                    writer.write(json.dumps({"id": f"{shard}/{number}", "source": ("a", "b")[number % 2], "text": made}).encode())
                writer.close()
        characters[split] = total
    (folder / "corpus.json").write_text(json.dumps({"sources": ["a", "b"], "language": "ja", "characters": characters}))
    return folder


def tokenizer_of(folder: Path, words: tuple[str, ...] = KNOWN, word_bytes: int = BYTES) -> Path:
    spec = SegmenterSpec(kind="whitespace")
    made = Definition(tokens=(*SPECIAL, *words), spec=spec, algorithm="characters-of-words", word_bytes=word_bytes)
    Tokenizer(made).save(folder)
    return folder


def make_dataset(folder: Path, corpus: Path, tokenizer: Path, workers: int = 1, **settings: object) -> Path:
    folder.mkdir()
    config = DatasetConfig.model_validate({"max_length": LENGTH, "workers": workers, **settings})
    dataset.run(config, Inputs(parents={"corpus": corpus, "tokenizer": tokenizer}, seed=1), Out(path=folder))
    seal(folder, kind="dataset", facts={"licences": []})
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_of(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, corpus: Path, tokenizer: Path) -> Path:
    return make_dataset(tmp_path_factory.mktemp("made") / "dataset", corpus, tokenizer)


def settings(**changes: object) -> PretrainConfig:
    train = {
        "length": "8 steps", "batch": "8 rows", "micro_batch": "4 rows", "learning_rate": 3e-3, "log_every": "1 step",
        "save_every": "4 steps", "evaluate_every": "8 steps", "deterministic": True, "device": "cpu",
    } | changes.pop("train", {})  # type: ignore[operator]  # fmt: skip
    config = {"max_word_length": BYTES}
    base = {"model": "character-bert-tiny", "objective": "mlm", "train": train, "config": config}
    return PretrainConfig.model_validate(base | changes)


def run(folder: Path, data: Path, *, start: Path | None = None, **changes: object) -> Out:
    out = Out(path=folder)
    parents = {"dataset": data} | ({"start": start} if start else {})
    if start is not None:
        changes |= {"model": None, "config": {}}
    pretrain.run(settings(**changes), Inputs(parents=parents, seed=1), out)
    return out


def weights(folder: Path, step: int = 8) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / "weights.safetensors")


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
    assert set(scores) == {f"heldout/{name}/mlm_{score}" for name in "ab" for score in ("loss", "accuracy")}
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
    config = settings(config={"max_word_length": BYTES, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
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


def test_a_new_domain_gets_its_vocabulary_and_loses_nothing_of_the_encoder(trained, corpus, tmp_path, caplog):
    words = (*KNOWN[10:], "名w3", *(f"名w{i}0" for i in range(9)))
    data = make_dataset(tmp_path / "dataset", corpus, tokenizer_of(tmp_path / "tokenizer", words))
    with caplog.at_level(logging.INFO):
        out = run(tmp_path / "adapt", data, start=trained.path, train={"length": "1 step", "learning_rate": 1e-30, "save_every": "1 step"})
    assert "35 words: 25 keep what the start knows of them, 10 begin anew, 10 of the start's are left out" in caplog.text
    before, after = weights(trained.path), weights(out.path, 1)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        if "head.table" not in name:
            torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-12)
    old, new = (*SPECIAL, *KNOWN), (*SPECIAL, *words)
    shared = [(new.index(word), old.index(word)) for word in new if word in old]
    for leaf in ("weight", "bias"):
        theirs, ours = before[f"encoder.head.table.{leaf}"], after[f"encoder.head.table.{leaf}"]
        assert len(ours) == len(new)
        for here, there in shared:
            torch.testing.assert_close(ours[here], theirs[there], rtol=0, atol=1e-12)
    fresh = after["encoder.head.table.weight"][-10:]
    assert 0.01 < fresh.std() < 0.03
    assert len(fresh.unique(dim=0)) == 10
    expected = before["encoder.head.table.bias"][[there for _, there in shared]].mean()
    torch.testing.assert_close(after["encoder.head.table.bias"][-10:], expected.expand(10))
    part = read_parts(newest(out.path))["encoder"]
    assert part.config.vocab_size == 35 + 5 - 5


def test_pairs_are_learnt_beside_words_and_survive_a_new_vocabulary(corpus, tokenizer, tmp_path):
    """As the authors pre-train: masked words and next sentences."""
    order = {"objective_config": {"sentence_order": "nsp"}}
    data = make_dataset(tmp_path / "dataset", corpus, tokenizer, packing="pairs")
    out = run(tmp_path / "pretrain", data, train={"length": "2 steps", "save_every": "2 steps"}, **order)
    assert "heldout/a/nsp_loss" in out.counts["heldout"]
    other = make_dataset(tmp_path / "other", corpus, tokenizer_of(tmp_path / "words", KNOWN[5:]), packing="pairs")
    few = {"length": "1 step", "learning_rate": 1e-30, "save_every": "1 step"}
    run(tmp_path / "adapt", other, start=out.path, train=few, **order)
    before, after = weights(out.path, 2), weights(tmp_path / "adapt", 1)
    assert before.keys() == after.keys()
    for name in before:
        if "head.table" not in name:
            torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-12)
    assert read_parts(newest(tmp_path / "adapt"))["encoder"].head == "pretraining"


def test_the_same_vocabulary_goes_on_as_it_is(trained, made, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        out = run(tmp_path / "adapt", made, start=trained.path, train={"length": "1 step", "learning_rate": 1e-30, "save_every": "1 step"})
    assert "begin anew" not in caplog.text
    before, after = weights(trained.path), weights(out.path, 1)
    assert all(torch.allclose(after[name], before[name], rtol=0, atol=1e-12) for name in before)


def test_an_encoder_without_head_and_tokenizer_gets_a_head(trained, made, tmp_path):
    """As the authors published theirs."""
    part = read_parts(newest(trained.path))["encoder"]
    bare = {name: tensor for name, tensor in part.state.items() if name.startswith("encoder.")}
    write_huggingface(dataclasses.replace(part, head="none", state=bare), tmp_path / "bare")
    out = run(tmp_path / "adapt", made, start=tmp_path / "bare", train={"length": "1 step", "learning_rate": 1e-30, "save_every": "1 step"})
    after = weights(out.path, 1)
    for name, tensor in bare.items():
        torch.testing.assert_close(after[f"encoder.{name}"], tensor, rtol=0, atol=1e-12)
    assert 0.01 < after["encoder.head.table.weight"].std() < 0.03


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"config": {"max_word_length": 30}}, "20 characters in the tokenizer (word_bytes) and 30 in the model"),
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
            made_.append(Example(id=f"{name}{number}", text=" ".join([*words, f"{label}{name}{number}"]), label=label, where=name))
        return tuple(made_)

    return TaskData(train=some("t", 160), validation=some("v", 20), test=some("s", 20), labels=("甲", "乙"), leaked=0)


def test_fine_tuning_reads_words_that_no_vocabulary_has(trained, tmp_path):
    (tmp_path / "trial").mkdir()
    config = TrialConfig(epochs=12, batch=8, learning_rate=3e-3, dropout=0.0)
    outcome = run_trial(task(), read_start(trained.path), config, seed=1, folder=tmp_path / "trial")
    assert not outcome.warnings
    labels = np.array([("甲", "乙").index(example.label) for example in task().test])
    assert (outcome.probabilities.argmax(1) == labels).mean() >= 0.9
    out = Out(path=tmp_path / "export")
    export.run(export.ExportConfig(), Inputs(parents={"topics": tmp_path / "trial", "base": trained.path}, seed=1), out)
    texts = [example.text for example in task().test]
    for folder in (tmp_path / "trial", out.path / "topics"):
        found = list(Predictor.load(folder, device="cpu").predict(texts))
        probabilities = [[prediction.probabilities[label] for label in ("甲", "乙")] for prediction in found]
        np.testing.assert_allclose(probabilities, outcome.probabilities, atol=1e-5)
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
        first, second = (model.encoder.hidden_states(b.ids_BL, b.layout, None, b.chars_WC)[0] for b in (batch, spelled))
    torch.testing.assert_close(first[0, :26], second[row, :26])


def test_masks_are_filled_beside_words_that_no_vocabulary_has(trained, made):
    part = read_parts(newest(trained.path))["encoder"]
    loaded = Tokenizer.load(made / "tokenizer")
    texts = ["w1 [MASK] 新語 w5", "w2 w3", "鬱金香 w7 鬱金香\n別語 [MASK] [MASK]"]
    first, none, second = Filler.of(part, loaded, device=torch.device("cpu"), candidates=4).predict(texts)
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
            logits = model(torch.arange(len(chars))[None], layout, None, torch.tensor(places), torch.from_numpy(chars))
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
