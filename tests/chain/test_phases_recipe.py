"""Phases in a recipe: CharacterBERT's 128 then 512 with LAMB at toy size, what is refused beforehand, and debug scale."""

import json
from pathlib import Path

import pytest

from kitae.chain import nodes, recipe
from kitae.core.errors import KitaeError
from kitae.train.monitor import read_metrics
from kitae.train.phases import phases_of
from tiny_recipe import kitae, write_recipe

LAMB = (
    'pretrain.model="bert-tiny"',
    'pretrain.objective="mlm"',
    # lengths, batches and rows are CharacterBERT's divided; rates and warm-ups are its own
    """pretrain.train={ optimizer = "lamb", schedule = "polynomial", schedule_config = { power = 0.5, warmup_form = "cut" }, \
log_every = "1 step", phases = [ \
{ length = "9 steps", max_length = 16, batch = "16 rows", micro_batch = "8 rows", learning_rate = 6e-3, warmup = "0.2843 of length" }, \
{ length = "4 steps", max_length = 64, batch = "8 rows", micro_batch = "4 rows", learning_rate = 4e-3, warmup = "0.128 of length" }] }""",
)
PHASE = 'pretrain.train={{ phases = [{{ length = "2 steps" }}, {{ length = "2 steps"{more} }}] }}'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    return tmp_path


def sets(*overrides: str) -> list[str]:
    return [word for item in overrides for word in ("--set", item)]


def test_128_then_512_at_toy_size(place: Path) -> None:
    done = kitae("run", "r.toml", "--until", "pretrain", *sets(*LAMB))
    assert done.returncode == 0, done.stderr
    run = place / "run" / "pretrain"
    trained = [record for record in read_metrics(run) if record["kind"] == "train"]

    def expected(step: int) -> float:
        first, length, rate, warmup = (0, 9, 6e-3, 0.2843) if step < 9 else (9, 4, 4e-3, 0.128)
        done = (step - first + 0.5) / length
        return rate * (done / warmup if done < warmup else (1 - done) ** 0.5)

    assert [record["learning_rate"] for record in trained] == pytest.approx([expected(step) for step in range(13)], rel=1e-12)
    counts = json.loads((run / "manifest.json").read_text())["facts"]["counts"]
    assert [(phase["max_length"], phase["steps"]) for phase in counts["phases"]] == [(16, 9), (64, 4)]
    changed = LAMB[2].replace("4e-3", "5e-3")
    done = kitae("run", "r.toml", "--until", "pretrain", *sets(*LAMB[:2], changed))
    assert done.returncode == 2
    assert "pretrain.train.phases[1].learning_rate: 0.004 -> 0.005" in done.stderr
    again = kitae("plan", "r.toml", "--until", "dataset", *sets(*LAMB[:2], changed))
    assert again.stdout.count("done") == 3, "another length of rows makes no corpus, tokenizer or dataset stale"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (', sources = ["generel"]', ['phases.1.sources names "generel"', 'did you mean "general"?', "[pretrain.train]"]),
        (', max_lenght = 64', ["pretrain.train.phases.1.max_lenght is not a known key", 'did you mean "max_length"?']),
        (', warmup = "5m"', ["phases.1: warmup", "is a time"]),
        (', batch = "24 rows", micro_batch = "16 rows"', ["micro_batch = 16 rows does not divide batch = 24 rows", "[pretrain.train]"]),
        (', schedule = "cosin"', ['"cosin" is not known', 'did you mean "cosine"?']),
    ],
)  # fmt: skip
def test_phases_that_cannot_be(place: Path, more: str, expected: list[str]) -> None:
    done = kitae("plan", "r.toml", *sets(PHASE.format(more=more)))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for words in expected:
        assert words in done.stderr, done.stderr


def test_adapting_in_longer_rows_than_the_model_has_positions_is_refused(place: Path) -> None:
    longer = 'adapt.train={ phases = [{ length = "2 steps", max_length = 128 }] }'
    done = kitae("plan", "r.toml", *sets(longer))
    assert done.returncode == 2
    assert "its rows have 128 tokens, but the model that it goes on with has 32 positions" in done.stderr
    assert "[adapt]" in done.stderr
    assert kitae("plan", "r.toml", *sets(longer, PHASE.format(more=", max_length = 128"))).returncode == 0


def test_a_model_gets_the_positions_that_its_tasks_may_use(place: Path) -> None:
    loaded = sets(PHASE.format(more=", max_length = 64"), "finetune.max_length=64")
    assert kitae("plan", "r.toml", *loaded).returncode == 0
    done = kitae("plan", "r.toml", *loaded[:2], *sets("finetune.max_length=65"))
    assert "max_length = 65, but the encoder has 64 positions: set max_length = 64 or less" in done.stderr
    assert "table [finetune], task topics" in done.stderr
    own = kitae("plan", "r.toml", *loaded[:2], *sets("task.topics.finetune={ max_length = 65 }"))
    assert own.returncode == 2
    assert "max_length = 65, but the encoder has 64 positions" in own.stderr


def test_debug_scale_keeps_the_proportions(place: Path) -> None:
    loaded, _ = recipe.load("r.toml", (*LAMB, 'scale="debug"'))
    assert loaded.pretrain is not None
    first, second = phases_of(loaded.pretrain.train, 32)
    assert (first.steps(), second.steps()) == (14, 6)
    assert (first.max_length, second.max_length) == (16, 64)
    assert (first.rows, second.rows) == (64, 16), "1024 tokens each"
    shared = PHASE.format(more="").replace("{ phases", '{ length = "4 steps", phases').replace('"2 steps"', '"0.5 of length"')
    loaded, _ = recipe.load("r.toml", (shared, 'scale="debug"'))
    assert loaded.pretrain is not None
    assert [phase.steps() for phase in phases_of(loaded.pretrain.train, 32)] == [10, 10]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("pretrain.train.freeze={ layers = 99 }", ["freeze.layers = 99", "discriminator has 2 layers", "freeze at most 2", "[pretrain]"]),
        ("adapt.train.freeze={ layers = 99 }", ["freeze.layers = 99", "freeze at most 2", "[adapt]"]),
        ("finetune.freeze={ layers = 99 }", ["freeze.layers = 99", "the encoder has 2 layers", "freeze at most 2", "[finetune]"]),
        (
            'pretrain.train.decay_from="other/pretrain"',
            ['decay_from = "other/pretrain" does not exist', "name a checkpoint", "[pretrain.train]"],
        ),
        ('pretrain.train.decay_from="r.toml"', ["decay_from is no checkpoint of a training", "checkpoints/step-..."]),
    ],
)
def test_said_by_plan_and_not_after_hours(place: Path, override: str, expected: list[str]) -> None:
    with pytest.raises(KitaeError) as caught:
        nodes.nodes(*recipe.load("r.toml", (override,)))
    for words in expected:
        assert words in str(caught.value)
    done = kitae("plan", "r.toml", *sets(override))
    assert (done.returncode, done.stdout) == (2, "")
