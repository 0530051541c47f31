"""CharacterBERT through a whole recipe of Japanese text: words by MeCab, pre-training, a new domain's words, fine-tuning, prediction."""

import csv
import json
from pathlib import Path

import pytest
import torch

from kitae.chain import nodes, recipe
from kitae.core.artifact import newest
from kitae.core.errors import KitaeError
from kitae.models.folder import read_parts
from kitae.tokenization.tokenizer import Tokenizer
from tiny_recipe import RECIPE, kitae, write_recipe

WORDS = 'algorithm = "characters-of-words"\nword_bytes = 30\nvocab_size = 2000\n'
OWN = ("adapt.tokenizer.vocab_size=300", "adapt.train.learning_rate=1e-30")
"""A vocabulary of the domain's own, and an adaptation that changes no weight."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    text = RECIPE.replace("vocab_size = 2000\nlimit_alphabet = 600\n", WORDS).replace('"electra-tiny"', '"character-bert-tiny"')
    (tmp_path / "r.toml").write_text(text.replace('"rtd"', '"mlm"'), encoding="utf-8")
    return tmp_path


def run(*arguments: object) -> None:
    done = kitae(*arguments)
    assert done.returncode == 0, done.stderr


def test_plan(place: Path) -> None:
    change = [
        "--set",
        'pretrain.model="character-bert-base"',
        "--set",
        "tokenizer.vocab_size=100000",
        "--set",
        "adapt.tokenizer.vocab_size=300",
    ]
    done = kitae("plan", "r.toml", *change)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "100,000" in line]
    assert line.split()[:3] == ["pretrain", "character-bert-base", "100,000"]
    assert line.split()[-1] == "181.1"  # rows of 32 have 32 positions, not 512


def test_from_text_to_predictions(place: Path) -> None:
    run("run", "r.toml", "--set", 'finetune.compare=["adapt"]')
    facts = json.loads((place / "run" / "dataset" / "dataset.json").read_text(encoding="utf-8"))
    assert facts["words"] > facts["vocab_size"]
    (part,) = read_parts(newest(place / "run" / "adapt")).values()
    assert (part.config.model_type, part.head, part.config.word_characters) == ("character_bert", "mlm", 30)
    (place / "new.txt").write_text("まったく新しい鬱金香の話\n株価が上がった\n", encoding="utf-8")
    exported = [path.parent for path in (place / "run" / "export").rglob("task.json")]
    assert exported
    found = set()
    for number, folder in enumerate((place / "run" / "finetune" / "topics" / "adapt" / "1", *exported)):
        run("predict", folder, place / "new.txt", place / f"{number}.csv")
        found.add((place / f"{number}.csv").read_text(encoding="utf-8"))
    (table,) = found
    assert len(table.splitlines()) == 3


def test_the_words_of_a_new_domain_replace_the_head_within_a_recipe(place: Path) -> None:
    run("run", "r.toml", "--set", 'finetune.compare=["adapt"]', *(word for change in OWN for word in ("--set", change)))
    folders = place / "run" / "tokenizer", place / "run" / "adapt.tokenizer"
    old, new = (Tokenizer.load(folder) for folder in folders)
    assert new.vocab_size == 300
    assert set(new.tokens) - set(old.tokens)
    assert (new.definition.spec, new.definition.word_bytes) == (old.definition.spec, 30)
    before, after = (read_parts(newest(place / "run" / name))["encoder"] for name in ("pretrain", "adapt"))
    assert before.state.keys() == after.state.keys()
    for name, tensor in before.state.items():
        if name not in ("head.table", "head.bias"):
            torch.testing.assert_close(after.state[name], tensor, rtol=0, atol=1e-12, msg=name)
    shared = [(new.tokens.index(word), old.tokens.index(word)) for word in new.tokens if word in old.tokens]
    here, there = map(list, zip(*shared, strict=True))
    torch.testing.assert_close(after.state["head.table"][here], before.state["head.table"][there], rtol=0, atol=1e-12)
    assert len(after.state["head.table"]) == 300
    assert Tokenizer.load(newest(place / "run" / "adapt") / "tokenizer").tokens == new.tokens  # fine-tuning and export take it
    (place / "masks.txt").write_text("株価が[MASK]\n", encoding="utf-8")
    run("predict", place / "run" / "export" / "adapt", place / "masks.txt", place / "filled.csv", "--set", "candidates=300")
    with (place / "filled.csv").open(encoding="utf-8", newline="") as file:
        assert {row["token"] for row in csv.DictReader(file)} >= set(new.tokens) - set(old.tokens)


@pytest.mark.parametrize(
    ("changes", "told", "table"),
    [
        (('tokenizer={dictionary = "ipadic"}',), "the tokenizer gives wordpiece tokens", "pretrain"),
        (('pretrain.model="bert-tiny"',), "which the model does not read", "pretrain"),
        (('pretrain.initialization="informed"',), "informed initial weights", "pretrain"),
        (("pretrain.config.cnn_filters=[[31, 2]]",), "spans 31 characters, a word has 30", "pretrain"),
        (("pretrain.config.max_word_length=30",), '"max_word_length" cannot be set', "pretrain"),
        (("adapt.tokenizer.word_bytes=20",), "words of 20 characters, but the model learns to read words of 30", "adapt.tokenizer"),
        (('adapt.tokenizer={from = "run/tokenizer", vocab_size = 99}',), "takes a finished tokenizer", "adapt"),
        (("adapt.tokenizer.vocabsize=20",), "vocabsize is not a known key", "adapt.tokenizer"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_made(place: Path, changes: tuple[str, ...], told: str, table: str) -> None:
    with pytest.raises(KitaeError) as caught:
        loaded, path = recipe.load("r.toml", changes)
        nodes.nodes(loaded, str(path))
    assert told in caught.value.what
    assert f"[{table}]" in caught.value.where


def test_a_model_of_tokens_keeps_its_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    loaded, path = recipe.load("r.toml", ("adapt.tokenizer={}",))
    with pytest.raises(KitaeError, match="a model of wordpiece tokens cannot change its vocabulary"):
        nodes.nodes(loaded, str(path))


def test_words_of_a_start_from_outside_come_from_the_domain_alone(place: Path) -> None:
    text = (place / "r.toml").read_text(encoding="utf-8")
    tables = {part.partition("]")[0]: f"[{part}" for part in text.split("\n[")[1:]}
    tables["tokenizer"] = tables["tokenizer"].replace("[tokenizer]", "[adapt.tokenizer]")
    kept = "\n".join(tables[name] for name in ("dataset", "adapt", "tokenizer"))
    alone = kept.replace("[adapt]", '[adapt]\nstart = "run/pretrain"\nobjective = "mlm"')
    (place / "a.toml").write_text(f'output = "again"\n{alone}', encoding="utf-8")
    run("run", "r.toml", "--until", "pretrain")
    run("run", "a.toml")
    theirs, ours = (read_parts(newest(place / name))["encoder"].state for name in ("run/pretrain", "again/adapt"))
    assert theirs["head.table"].shape != ours["head.table"].shape


@pytest.mark.parametrize("algorithm", ["characters-of-words", "character", "unigram"])
def test_any_tokenizer_shrinks_to_the_size_of_a_trial(place: Path, algorithm: str) -> None:
    text = (place / "r.toml").read_text(encoding="utf-8").replace("vocab_size = 2000", "vocab_size = 100000")
    if algorithm != "characters-of-words":
        text = text.replace('"characters-of-words"\nword_bytes = 30', f'"{algorithm}"').replace("character-bert", "bert")
    (place / "r.toml").write_text(text, encoding="utf-8")
    loaded, path = recipe.load("r.toml", ('scale="debug"',))
    assert nodes.nodes(loaded, str(path))
    assert loaded.tokenizer is not None
    assert (loaded.tokenizer.algorithm, loaded.tokenizer.vocab_size) == (algorithm, 3000)
    loaded, _ = recipe.load("r.toml", ('scale="debug"', 'tokenizer={from = "somewhere"}'))
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.from_ == "somewhere"
