"""Pre-training ELECTRA with two gloo processes under torchrun against one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_pretraining import losses, pretrain, write_dataset

from kitae.core.artifact import newest
from kitae.train.monitor import read_metrics

SCRIPT = Path(__file__).with_name("tiny_pretraining.py")


@pytest.mark.parametrize(
    ("precision", "tolerance", "parallel"),
    [
        ("fp64", 1e-8, "ddp"),
        pytest.param("fp32", 1e-3, "ddp", marks=pytest.mark.slow),
        pytest.param("bf16", 3e-2, "ddp", marks=pytest.mark.slow),
        pytest.param("fp64", 1e-8, "fsdp2", marks=pytest.mark.slow),
        pytest.param("bf16", 3e-2, "fsdp2", marks=pytest.mark.slow),
    ],
)
def test_two_processes_pretrain_what_one_does(tmp_path: Path, precision: str, tolerance: float, parallel: str) -> None:
    """Three micro-batches a step for two ranks; also what is measured on held-out text agrees."""
    dataset = write_dataset(tmp_path / "dataset")
    changes = {"train": {"precision": precision, "batch": "24 rows", "length": "20 steps", "parallel": parallel}}
    one = pretrain(tmp_path / "one", dataset, **changes)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT]
    done = subprocess.run(
        [*command, tmp_path / "two", dataset, json.dumps(changes)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=tolerance)
    evaluations = [record for record in read_metrics(tmp_path / "two") if record["kind"] == "evaluate"]
    for name, value in one.counts["heldout"].items():  # type: ignore[attr-defined]
        assert evaluations[-1][name] == pytest.approx(value, rel=max(tolerance, 1e-6) * 10), name
    assert json.loads((newest(tmp_path / "two") / "state.json").read_text())["world_size"] == 2
