"""Fifty kills at random moments, half of them within a save; the short form is in test_train_loop.py, every operation in faults."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_training import Toy, ToyBatches, config

from kitae.core.artifact import checkpoints, verify
from kitae.tensor.world import World
from kitae.train.checkpoint import latest
from kitae.train.loop import fit
from kitae.train.monitor import read_metrics

SCRIPT = Path(__file__).with_name("toy_training.py")
RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "kills.json"
FIELDS = {"deterministic": True, "save_every": "1 step", "length": "2000 steps", "keep_last": 2}
KILLS = 50


@pytest.mark.slow
@pytest.mark.parametrize("save", ["async", "sync"])
def test_fifty_kills_leave_a_checkpoint_that_verifies(tmp_path: Path, save: str) -> None:
    """A checkpoint after every step, so that most kills fall into a save; no step of a checkpoint that was there is lost."""
    fields = FIELDS | {"save_async": save == "async"}
    whole = fit(Toy(), ToyBatches(), config(**fields), tmp_path / "whole", world=World(), seed=7, attach={})
    chance, within, folder = random.Random(0), 0, tmp_path / "cut"
    for number in range(KILLS):
        before = reached(folder)
        process = subprocess.Popen([sys.executable, SCRIPT, folder, json.dumps({"config": fields})], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while reached(folder) <= before:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(chance.random() * 0.2)
        if number % 2:
            while not saving(folder):
                time.sleep(0)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        within += saving(folder)
        there = checkpoints(folder)
        for path in there:
            verify(path)
        assert latest(folder) == there[-1]
    fitted = fit(Toy(), ToyBatches(), config(**fields), folder, world=World(), seed=7, attach={})
    assert losses(folder) == losses(tmp_path / "whole")
    for name in ("weights.safetensors", "optimizer.safetensors"):
        assert (fitted.checkpoint / name).read_bytes() == (whole.checkpoint / name).read_bytes()
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    found[save] = {"kills": KILLS, "within_a_save": within, "checkpoints_that_verify": "all", "weights": "equal", "losses": "equal"}
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    assert within >= KILLS // 4


def reached(folder: Path) -> int:
    found = checkpoints(folder)
    return int(found[-1].name[5:]) if found else 0


def saving(folder: Path) -> bool:
    return any((folder / "checkpoints").glob(".step-*.part"))


def losses(folder: Path) -> list[object]:
    return [(record["step"], record["loss"], record["gradient_norm"]) for record in read_metrics(folder) if record["kind"] == "train"]
