"""The whole way of a corpus to token shards at 2 GB of nearly all-new words, within 2 GB of memory. Takes half an hour."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts all private memory on Linux only")
def test_two_gigabytes_of_text_in_two_gigabytes_of_memory() -> None:
    """The script sets the limit on every process; its result is kept in benchmarks/results/memory.json."""
    line = [sys.executable, "-m", "benchmarks.memory", "--megabytes", "2000", "--limit", "2000", "--near-duplicates"]
    done = subprocess.run(line, cwd=ROOT, check=False)
    assert done.returncode == 0
