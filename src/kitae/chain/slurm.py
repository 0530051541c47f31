"""The script of a training job for Slurm's sbatch. Its tasks find each other by Slurm's own variables."""

import shlex
import sys
from pathlib import Path

SCRIPT = """#!/bin/bash
# kitae show slurm > job.sh; sbatch job.sh RECIPE.toml [--set a.b.c=VALUE ...]
# One task is one process, which takes one GPU: here two machines of eight. The recipe's output lies where all machines see it.
# Without GPUs: leave out --gpus-per-node, and give each task more processors. Write the account and partition of your site.
#SBATCH --job-name=kitae
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
# TERM comes 300 seconds before the time is over: kitae writes a checkpoint and ends with 143. The same sbatch line goes on from there.
set -eu
export PATH={bin}:"$PATH"
export OMP_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-1}}"
srun --kill-on-bad-exit=1 --cpus-per-task="${{SLURM_CPUS_PER_TASK:-1}}" kitae run "$@"
"""


def job_script() -> str:
    """The script, for the environment that this program runs in."""
    return SCRIPT.format(bin=shlex.quote(str(Path(sys.executable).parent)))
