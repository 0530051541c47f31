"""A pre-training's estimate in its folder and its manifest, and what a probe finds."""

import json
from pathlib import Path

import pytest

from kitae.procedures.machine import machine
from kitae.procedures.measured_steps import KNOWN, remembered
from kitae.train.promise import read_promise
from tiny_recipe import kitae, write_recipe

RUN = ("--until", "pretrain", "--set", 'pretrain.train.log_every="1 steps"')


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    return tmp_path


def test_a_probe_is_remembered_and_becomes_the_promise_of_the_run(folder: Path) -> None:
    planned = kitae("plan", "r.toml", *RUN, "--set", "plan.probe=50")
    assert planned.returncode == 0, planned.stderr
    assert "real steps were measured" in " ".join(planned.stdout.split())
    (measured,) = remembered(folder / "run").values()
    assert 0 < measured.micro_batch < 50
    assert set(measured.memory) == {2, 4}
    again = kitae("plan", "r.toml", *RUN)
    assert "real steps were measured" in " ".join(again.stdout.split())

    done = kitae("run", "r.toml", *RUN)
    assert done.returncode == 0, done.stderr
    told = read_promise(folder / "run" / "pretrain")
    assert told is not None
    assert told.source == "probe"
    assert told.device == machine("cpu").name
    assert told.seconds == pytest.approx(4 * (measured.update + measured.micro_batch))
    counts = json.loads((folder / "run" / "pretrain" / "manifest.json").read_text(encoding="utf-8"))["facts"]["counts"]
    assert counts["estimate"] == told.model_dump(mode="json")
    ratio = counts["tokens_per_second"] / told.tokens_per_second
    assert counts["outcome_to_estimate"]["tokens_per_second"] == pytest.approx(ratio, rel=1e-3)
    assert counts["outcome_to_estimate"]["memory"] > 0
    after = kitae("plan", "r.toml", *RUN)
    assert any(line.startswith(" pretrain ") and " took " in line for line in after.stdout.splitlines())


def test_without_a_probe_the_promise_is_of_flops(folder: Path) -> None:
    assert kitae("run", "r.toml", *RUN).returncode == 0
    told = read_promise(folder / "run" / "pretrain")
    assert told is not None
    assert told.source == "flops"
    assert told.memory.total > 1e6
    assert not (folder / "run" / KNOWN).exists()


def test_a_probe_of_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    done = kitae("plan", "r.toml", "--set", "plan.probe=true", "--set", 'plan.device="H200"')
    assert done.returncode == 2
    assert 'plan.probe measures this machine, but plan.device = "H200" is not here' in done.stderr
