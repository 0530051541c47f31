"""Two gloo processes under torchrun against one: equal samples, equal losses, equal stops."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_training import train

from kitae.core.artifact import checkpoints, verify
from kitae.tensor.world import World
from kitae.train.checkpoint import read_state
from kitae.train.monitor import read_metrics

SCRIPT = Path(__file__).with_name("toy_training.py")
PLAIN = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")} | {"OMP_NUM_THREADS": "1"}


def start(*jobs: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT), *jobs]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=PLAIN)


def samples(folder: Path) -> list[str]:
    """step, micro-batch, digest of rows, ids, masks and labels; over all ranks, in order."""
    lines = [line for file in folder.glob("samples-*") for line in file.read_text().splitlines()]
    return sorted(lines, key=lambda line: tuple(map(int, line.split()[:2])))


def losses(folder: Path) -> list[float]:
    return [float(str(record["loss"])) for record in read_metrics(folder / "run") if record["kind"] == "train" and "loss" in record]


def skipped(folder: Path) -> list[tuple[object, ...]]:
    records = [record for record in read_metrics(folder / "run") if record["kind"] == "skipped"]
    return [(record["step"], record["why"], record.get("rows"), record.get("weight")) for record in records]


def spent(folder: Path) -> tuple[int, int]:
    """Real tokens and positions over all processes, as the last checkpoint counts them."""
    found = read_state(checkpoints(folder / "run")[-1]).spent
    assert 0 < found.tokens < found.positions
    assert 0 <= found.waited <= found.seconds
    return found.tokens, found.positions


def alone(folder: Path, options: dict) -> None:
    folder.mkdir()
    train(folder / "run", options | {"samples": str(folder / "samples-")}, World())


CASES = {
    "fp64": ({"rows": 12, "config": {"precision": "fp64", "length": "40 steps"}}, 1e-8),  # three micro-batches for two ranks
    "fp32": ({"config": {"length": "40 steps"}}, 1e-3),
    "grouped": ({"rows": 12, "head_rate": 0.02, "config": {"precision": "fp64", "length": "40 steps", "clip": 0.05}}, 1e-8),
    "lamb": ({"rows": 12, "config": {"precision": "fp64", "optimizer": "lamb"}}, 1e-8),
    "muon": ({"rows": 12, "head_rate": 0.02, "config": {"precision": "fp64", "optimizer": "muon", "freeze": {"layers": 1}}}, 1e-8),
    "bare": ({"rows": 16, "bare": [2, 3], "config": {"precision": "fp64", "shares": [8, 8]}}, 1e-8),  # nothing masked on one rank
    "unequal": ({"rows": 16, "config": {"precision": "fp64", "shares": [12, 4], "batch_warmup": {"start": "4 rows"}}}, 1e-8),
    "idle": ({"rows": 12, "config": {"precision": "fp64", "shares": [0, 12]}}, 1e-8),
    "auto": ({"rows": 16, "config": {"precision": "fp64", "batch": "auto"}}, 1e-8),
    "again": ({"rows": 16, "config": {"precision": "fp64", "shares": "auto"}}, 1e-8),  # measured before: rank 1 computes all
    "skips": (
        {"rows": 12, "bad_step": 7, "spike_step": 12, "config": {"precision": "fp64", "non_finite": "skip", "spikes": {"window": 12}}},
        1e-8,
    ),
    "fp16": ({"config": {"precision": "fp16", "loss_scale": {"initial": 2.0**20, "growth_interval": 4}}}, 1e-4),
    "short": ({"rows": 4, "config": {"precision": "fp64"}}, 1e-8),  # one micro-batch for two ranks
}
ONE_RANK = ("short", "idle", "again")
"""Cases in which the other rank has nothing to do."""


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    jobs = []
    for name, (options, _) in CASES.items():
        alone(tmp_path / f"one-{name}", options)
        (tmp_path / name / "run").mkdir(parents=True)
        jobs += [str(tmp_path / name / "run"), json.dumps(options | {"samples": str(tmp_path / name / "samples-")})]
    earlier = {"hosts": [socket.gethostname()] * 2, "micro_batches": 4, "weights": [0, 4]}
    (tmp_path / "again" / "run" / "shares.json").write_text(json.dumps(earlier))
    process = start(*jobs)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    for name, (_, tolerance) in CASES.items():
        one, two = tmp_path / f"one-{name}", tmp_path / name
        assert len(list(two.glob("samples-*"))) == (1 if name in ONE_RANK else 2)
        assert samples(one)
        assert spent(one) == spent(two)
        if name == "auto":  # one micro-batch was looked at to measure the time it takes
            assert sum(json.loads((two / "run" / "shares.json").read_text())["weights"]) == 4
            assert sorted(set(samples(two))) == sorted(samples(one))
        else:
            assert samples(one) == samples(two)
        assert losses(two) == pytest.approx(losses(one), rel=tolerance, abs=1e-12)
        assert skipped(two) == skipped(one)
        if name != "fp16":
            assert [step for step, *_ in skipped(one)] == ([8, 13] if name == "skips" else [])


@pytest.mark.parametrize("parallel", ["ddp", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_a_signal_to_one_rank_stops_all_and_one_process_may_go_on(tmp_path: Path, parallel: str) -> None:
    options = {"delay": 0.05, "config": {"precision": "fp64", "length": "30 steps", "save_every": "30 steps", "parallel": parallel}}
    process = start(str(tmp_path / "run"), json.dumps(options))
    wait_for(tmp_path, 3, process)
    ranks = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()
    assert len(ranks) == 2
    os.kill(int(ranks[1]), signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert output.count("exitcode  : 143") >= 1, output
    (found,) = checkpoints(tmp_path / "run")
    verify(found)
    assert int(found.name.removeprefix("step-")) == len(losses(tmp_path)) < 30
    del options["delay"]
    train(tmp_path / "run", options, World())
    alone(tmp_path / "whole", options)
    assert losses(tmp_path) == pytest.approx(losses(tmp_path / "whole"), rel=1e-8)


def wait_for(folder: Path, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while len(losses(folder)) < step:
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
