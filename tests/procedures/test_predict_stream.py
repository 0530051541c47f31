"""A file that is larger than memory should be: 1,000,000 rows in bounded memory. Takes a few minutes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_million_rows_take_no_more_memory_than_a_hundredth_of_them() -> None:
    """At most 64 MB more, each row in its place; the result is kept in benchmarks/results/predict-stream.json."""
    assert subprocess.run([sys.executable, "-m", "benchmarks.stream"], cwd=ROOT, check=False).returncode == 0
