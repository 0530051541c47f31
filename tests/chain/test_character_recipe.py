"""CharacterBERT through a whole recipe of Japanese text: words by MeCab, pre-training, adapting, fine-tuning, export, prediction."""

import json
from pathlib import Path

import pytest

from kitae.core.artifact import newest
from kitae.models.folder import read_parts
from tiny_recipe import RECIPE, kitae, write_recipe

WORDS = 'algorithm = "characters-of-words"\nword_bytes = 30\nvocab_size = 2000\n'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    recipe = RECIPE.replace("vocab_size = 2000\nlimit_alphabet = 600\n", WORDS)
    own = '"character-bert-tiny"\nconfig = { max_word_length = 30 }'
    (tmp_path / "r.toml").write_text(recipe.replace('"electra-tiny"', own).replace('"rtd"', '"mlm"'), encoding="utf-8")
    return tmp_path


def test_plan(place: Path) -> None:
    change = ["--set", 'pretrain.model="character-bert-base"', "--set", "tokenizer.vocab_size=100000"]
    done = kitae("plan", "r.toml", *change)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "100,000" in line]
    assert line.split()[:3] == ["pretrain", "character-bert-base", "100,000"]
    assert line.split()[-1] == "181.1"  # rows of 32 have 32 positions, not 512


def test_from_text_to_predictions(place: Path) -> None:
    done = kitae("run", "r.toml", "--set", 'finetune.compare=["adapt"]')
    assert done.returncode == 0, done.stderr
    facts = json.loads((place / "run" / "dataset" / "dataset.json").read_text(encoding="utf-8"))
    assert facts["words"] > facts["vocab_size"]
    (part,) = read_parts(newest(place / "run" / "adapt")).values()
    assert (part.config.model_type, part.head, part.config.word_characters) == ("character_bert", "mlm", 30)
    (place / "new.txt").write_text("まったく新しい鬱金香の話\n株価が上がった\n", encoding="utf-8")
    exported = [path.parent for path in (place / "run" / "export").rglob("classifier.json")]
    assert exported
    found = set()
    for number, folder in enumerate((place / "run" / "finetune" / "topics" / "adapt" / "1", *exported)):
        done = kitae("predict", folder, place / "new.txt", place / f"{number}.csv")
        assert done.returncode == 0, done.stderr
        found.add((place / f"{number}.csv").read_text(encoding="utf-8"))
    (table,) = found
    assert len(table.splitlines()) == 3
