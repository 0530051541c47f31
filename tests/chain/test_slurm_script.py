"""The printed job script, run with a stand-in for srun."""

import os
import subprocess
import sys
from pathlib import Path

from kitae.chain.slurm import job_script

SRUN = """#!/bin/bash
printf '%s\\n' "$@" "threads $OMP_NUM_THREADS" "$(command -v kitae)" > "$ASKED"
exit 143
"""


def test_the_job_script_starts_a_task_for_every_process(tmp_path: Path) -> None:
    script = job_script()
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH ")]
    assert options[-1] < next(number for number, line in enumerate(lines) if line and not line.startswith("#"))  # sbatch reads no further
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ASKED": str(tmp_path / "asked"), "SLURM_CPUS_PER_TASK": "3"}
    done = subprocess.run(["bash", "-c", script, "job", "my recipe.toml", "--set", "a=1"], env=environment, timeout=30, check=False)
    assert done.returncode == 143
    kitae = Path(sys.executable).parent / "kitae"
    expected = ["--kill-on-bad-exit=1", "--cpus-per-task=3", "kitae", "run", "my recipe.toml", "--set", "a=1", "threads 3", str(kitae)]
    assert (tmp_path / "asked").read_text().splitlines() == expected
