"""Long forms, on real launchers: four machines in network namespaces, one of which is cut off; fifty runs that all end cleanly."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hosts import Host, hosts, missing
from toy_training import losses, samples, train

from kitae.tensor.world import World

SCRIPT = Path(__file__).with_name("toy_training.py")
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
PLAIN = {name: value for name, value in os.environ.items() if name not in LAUNCHER} | {"OMP_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
RUNS = 50


def keep(name: str, **facts: object) -> None:
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    (RESULTS / f"{name}.json").write_text(json.dumps({**facts, "machine": machine}, indent=1) + "\n", encoding="utf-8")


def wait_for(folder: Path, step: int, jobs: list[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + 120
    while len(losses(folder)) < step:
        assert all(job.poll() is None for job in jobs), [job.communicate()[0] for job in jobs if job.poll() is not None]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def launch(machines: list[Host], meeting: int, *arguments: str) -> list[subprocess.Popen[str]]:
    """torchrun on every machine, two processes on the first and one on each other."""
    jobs = []
    for host in machines:
        size = ["--nnodes", str(len(machines)), "--nproc-per-node", "2" if host is machines[0] else "1"]
        place = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{machines[0].address}:{meeting}", "--rdzv-id", str(meeting)]
        jobs.append(host.start([*TORCHRUN, *size, *place, "--local-addr", host.address, str(SCRIPT), *arguments], PLAIN))
    return jobs


@pytest.mark.slow
@pytest.mark.skipif(bool(why := missing()), reason=why or "permitted")
def test_a_machine_is_cut_off_and_the_others_go_on(tmp_path: Path) -> None:
    """Unequal shares by host name, five processes on four machines; the fourth is unplugged in the middle."""
    shares = {"host0": 32, "host1": 16, "host2": 12, "host3": 4}
    settings = {"precision": "fp64", "length": "40 steps", "save_every": "5 steps", "hang_limit": "5s", "shares": shares}
    options = {"rows": 64, "samples": str(tmp_path / "samples-"), "config": settings}
    (tmp_path / "whole").mkdir()
    train(tmp_path / "whole" / "run", options | {"samples": str(tmp_path / "whole" / "samples-")}, World())
    with hosts(4, tmp_path) as machines:
        jobs = launch(machines, 29501, str(tmp_path / "run"), json.dumps(options | {"delay": 0.02}))
        wait_for(tmp_path, 12, jobs)
        machines[3].cut()
        cut = time.monotonic()
        told = [job.communicate(timeout=120)[0] for job in jobs[:3]]
        stopped = time.monotonic() - cut
        try:
            told.append(jobs[3].communicate(timeout=30)[0])
        except subprocess.TimeoutExpired:  # torchrun itself, which looks for the others for minutes; its process has ended
            os.killpg(jobs[3].pid, signal.SIGKILL)
            told.append(jobs[3].communicate()[0])
        assert all(job.returncode for job in jobs)
        assert "rank 4 (host host3) has not been heard of" in told[0], told[0]
        assert "reaches the others no more" in told[3] or "lost" in told[3], told[3]
        done = len(losses(tmp_path))
        assert 12 <= done < 40
        again = launch(machines[:3], 29502, str(tmp_path / "run"), json.dumps(options))
        output = [job.communicate(timeout=120)[0] for job in again]
        assert [job.returncode for job in again] == [0, 0, 0], output
        assert "host3 does not take part" in output[0]
    assert samples(tmp_path) == samples(tmp_path / "whole")
    assert losses(tmp_path) == pytest.approx(losses(tmp_path / "whole"), rel=1e-8)
    greatest = max(abs(a / b - 1) for a, b in zip(losses(tmp_path), losses(tmp_path / "whole"), strict=True))
    facts = {
        "machines": 4,
        "processes": 5,
        "shares": shares,
        "hang_limit": 5,
        "cut_off_after_step": done,
        "others_stopped_after_seconds": stopped,
    }
    keep("machines", **facts, went_on_with=3, greatest_relative_difference_of_losses=greatest)


@pytest.mark.slow
def test_fifty_runs_of_two_processes_end_cleanly(tmp_path: Path) -> None:
    """Real interpreters from start to end: none aborts, hangs, or leaves anything behind."""
    begun, ends = time.monotonic(), []
    for number in range(RUNS):
        folder = tmp_path / str(number)
        line = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", str(SCRIPT), str(folder), json.dumps({"config": {"length": "5 steps"}})]
        done = subprocess.run(line, capture_output=True, text=True, env=PLAIN, timeout=120, check=False)
        ends.append(done.returncode)
        assert done.returncode == 0, done.stderr
        for sign in ("terminate called", "Aborted", "Segmentation", "leaked", "Traceback"):
            assert sign not in done.stderr, done.stderr
    keep("clean-ends", runs=RUNS, clean=ends.count(0), seconds=time.monotonic() - begun)
