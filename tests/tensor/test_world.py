"""Groups of processes, one after the other in the same processes: real gloo under torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import kitae

SESSIONS = """
import sys, time
from kitae.tensor.world import ranks, session
for number in range(4):
    if ranks()[0] == number % 2:
        time.sleep(0.5)  # the other rank comes early and must not meet the addresses of the session before
    with session("cpu") as world:
        summed = world.sum_numbers({"a": world.rank + number})
        assert summed == {"a": 1 + 2 * number}, summed
        world.barrier()
sys.stdout.write(f"rank {world.rank} of {world.size}\\n")  # at once: torchrun's processes do not buffer
"""


def test_one_session_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "sessions.py").write_text(SESSIONS, encoding="utf-8")
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "sessions.py"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(kitae.__file__).parents[1])}
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")[:2]) == ["rank 0 of 2", "rank 1 of 2"]
