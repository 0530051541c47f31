"""Wall-clock lengths in a recipe: what `kitae plan` says, debug scale, and a whole training by the clock."""

import json
from pathlib import Path

import pytest

from kitae.chain import recipe
from kitae.chain.nodes import nodes
from kitae.chain.sizes import budgets
from tiny_recipe import kitae, write_recipe

TIMED = ('pretrain.train.length="55m"', 'pretrain.train.warmup="90s"', 'pretrain.train.save_every="10m"')


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    return tmp_path


def test_plan_tells_the_hours_of_a_budget(place: Path) -> None:
    done = kitae("plan", "r.toml", *(word for item in TIMED for word in ("--set", item)))
    assert done.returncode == 0, done.stderr
    assert "pretrain trains for 0.92 hours of wall-clock time" in done.stdout


def test_debug_scale_has_steps_and_no_times(place: Path) -> None:
    loaded, path = recipe.load("r.toml", (*TIMED, 'pretrain.train.milestones=["20m", "0.5 of length"]', 'scale="debug"'))
    assert loaded.pretrain is not None
    assert str(loaded.pretrain.train.length) == "20 steps"
    assert str(loaded.pretrain.train.warmup) == "0.1 of length"
    assert [str(item) for item in loaded.pretrain.train.milestones] == ["0.5 of length"]
    assert not list(budgets(nodes(loaded, str(path))))


def test_a_time_in_a_length_in_steps_is_one_line(place: Path) -> None:
    done = kitae("plan", "r.toml", "--set", 'pretrain.train.warmup="5m"')
    assert done.returncode == 2
    assert 'warmup = "300 seconds" is a time, but length' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_training_by_the_clock(place: Path) -> None:
    done = kitae("run", "r.toml", "--until", "pretrain", "--set", 'pretrain.train.length="2s"', "--set", 'pretrain.train.warmup="0.2s"')
    assert done.returncode == 0, done.stderr
    steps = [line for line in (place / "run/pretrain/clock.jsonl").read_text().splitlines() if "step" in json.loads(line)]
    made = json.loads((place / "run/pretrain/manifest.json").read_text())["facts"]["counts"]["steps"]
    assert made == len(steps)


def test_a_decay_begun_at_a_checkpoint_of_another_output(place: Path) -> None:
    stable = ('pretrain.train.schedule="warmup-stable-decay"', 'pretrain.train.warmup="2 steps"')
    long = (
        *stable,
        'pretrain.train.length="12 steps"',
        'pretrain.train.milestones=["5 steps"]',
        'pretrain.train.schedule_config.decay="2 steps"',
    )
    short = (*stable, 'pretrain.train.length="8 steps"', 'pretrain.train.schedule_config.decay="3 steps"', 'output="short"')
    done = kitae("run", "r.toml", "--until", "pretrain", *(word for item in long for word in ("--set", item)))
    assert done.returncode == 0, done.stderr
    branch = (*short, 'pretrain.train.decay_from="run/pretrain/checkpoints/step-00000005"')
    done = kitae("run", "r.toml", "--until", "pretrain", *(word for item in branch for word in ("--set", item)))
    assert done.returncode == 0, done.stderr
    counts = json.loads((place / "short/pretrain/manifest.json").read_text())["facts"]["counts"]
    assert counts["steps"] == 8
    steps = [json.loads(line)["step"] for line in (place / "short/pretrain/metrics.jsonl").read_text().splitlines()]
    assert min(steps) == 5, "what the branch began with is measured, and nothing before it is made"
