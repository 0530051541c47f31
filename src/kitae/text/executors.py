"""Where the tasks of a corpus run: on this machine, as a Slurm array, or on a Ray cluster. The result is the same bytes.

Slurm and Ray are datatrove's executors with our pipeline. They know a task only as done or not; here an error of a task
is written beside its mark, so that it reaches the user as it would from this machine. All machines must see the folder.
"""

import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

from datatrove.executor.base import PipelineExecutor
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.stats import PipelineStats
from loguru import logger as datatrove_log
from pydantic import Field

from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.text.engine import LocalExecutor

log = logging.getLogger(__name__)
POLL_SECONDS = 10.0
JOB = "slurm-job"
SILENT = 60  # times in a row that squeue may fail
HELD = re.compile(r"JobHeld|DependencyNeverSatisfied|BadConstraints|PartitionTimeLimit|InvalidAccount|InvalidQOS", re.IGNORECASE)


class Slurm(Config):
    """What Slurm asks for."""

    partition: str = ""
    """Partition of the cluster; by default the cluster's own default."""
    time: str = "24:00:00"
    """Time limit of one task."""
    memory: int = Field(default=4, ge=1)
    """Gigabytes for one task."""
    options: dict[str, str] = {}
    """More options of sbatch, for example { account = "nlp" }."""
    prepare: str = ""
    """A shell command before each task, for example "module load python"."""


class Engine(Config):
    """Where and in how many processes a corpus is made; the result does not depend on it."""

    executor: Literal["local", "slurm", "ray"] = "local"
    """local: processes of this machine; slurm: an array job, waited for; ray: tasks of the cluster that RAY_ADDRESS names."""
    tasks: int = Field(default=0, ge=0)
    """Parts that each large source is read in, 0 for as many as workers; finished parts are kept when a run is cut off."""
    workers: int = Field(default=0, ge=0)
    """Tasks at a time; 0 for all processors here, and for no limit on a cluster."""
    slurm: Slurm = Slurm()
    """Settings of executor = "slurm"."""

    @property
    def processes(self) -> int:
        """Processes to work with on this machine."""
        return (self.workers if self.executor == "local" else 0) or len(os.sched_getaffinity(0))

    @property
    def parts(self) -> int:
        """Parts of a large source."""
        return self.tasks or self.workers or self.processes


def run(
    pipeline: Sequence[PipelineStep], *, labels: Sequence[str], engine: Engine, folder: Path, pool: ProcessPoolExecutor | None = None
) -> None:
    """Run one task a label. Raises the error of a task, or KitaeError that names the tasks whose process died."""
    if engine.executor == "local":
        LocalExecutor(pipeline, labels=labels, workers=engine.processes, folder=folder, pool=pool).run()
        return
    datatrove_log.disable("datatrove")
    (folder / "errors").mkdir(parents=True, exist_ok=True)
    if engine.executor == "slurm":
        slurm = SlurmExecutor(pipeline, tasks=len(labels), engine=engine, folder=folder.absolute())
        if not _in_queue(folder):  # else the errors are those of the job that is waited for
            _forget_errors(folder)
            try:
                slurm.run()
            except subprocess.CalledProcessError as error:
                what = f"sbatch refused the job (exit status {error.returncode}); what it said stands above"
                raise KitaeError(what, cure="mend engine.slurm", where=str(folder / "launch_script.slurm")) from error
        _wait(slurm, folder)
    else:
        _forget_errors(folder)
        try:
            _run_on_ray(pipeline, len(labels), engine, folder)
        except KitaeError:
            raise
        except Exception:  # of Ray's own classes, which hide what the task said
            _explain(folder, labels)
            raise
    _explain(folder, labels)


def incomplete(folder: Path, tasks: int) -> list[int]:
    """The tasks whose mark of completion is not in an executor's folder."""
    return [rank for rank in range(tasks) if not (folder / "completions" / f"{rank:05d}").is_file()]


class SlurmExecutor(SlurmPipelineExecutor):
    """One array job. datatrove writes its script, `launch_script.slurm`, and the pipeline for it into the folder, and calls sbatch."""

    def __init__(self, pipeline: Sequence[PipelineStep], *, tasks: int, engine: Engine, folder: Path) -> None:
        settings, place = engine.slurm, shlex.quote(str(Path(sys.executable).parent))
        super().__init__(
            list(pipeline), tasks=tasks, time=settings.time, partition=settings.partition, mem_per_cpu_gb=settings.memory,
            workers=engine.workers or -1, job_name="kitae", qos="", sbatch_args=dict(settings.options), logging_dir=str(folder),
            env_command=f"{settings.prepare}\nexport PATH={place}:\"$PATH\"".strip(), mail_type="NONE",
        )  # fmt: skip
        self.folder = folder

    def run(self) -> None:
        """Within the job: one task. Outside: submit what is not done."""
        super().run()
        if self.job_id not in (None, -1):
            (self.folder / JOB).write_text(str(self.job_id), encoding="ascii")
            log.info("Slurm job %s has %d tasks; if you stop waiting, `kitae run` goes on later", self.job_id, self.tasks)

    def launch_merge_stats(self) -> None:
        """No second job: kitae counts by itself."""

    def get_sbatch_args(self, max_array: int = 1) -> dict[str, str]:
        """As datatrove's, but that no partition means the cluster's own default."""
        arguments: dict[str, str] = super().get_sbatch_args(max_array)
        return {name: value for name, value in arguments.items() if name != "partition" or value}

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        return _noting(self.folder, rank, lambda: super(SlurmExecutor, self)._run_for_rank(rank, local_rank, node_rank))


class RayExecutor(RayPipelineExecutor):
    """Ray tasks, one a part."""

    def __init__(self, pipeline: Sequence[PipelineStep], *, tasks: int, workers: int, folder: Path) -> None:
        super().__init__(list(pipeline), tasks=tasks, workers=workers or -1, logging_dir=str(folder))
        self.folder = folder

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        return _noting(self.folder, rank, lambda: super(RayExecutor, self)._run_for_rank(rank, local_rank, node_rank))


def _run_on_ray(pipeline: Sequence[PipelineStep], tasks: int, engine: Engine, folder: Path) -> None:
    try:
        RayExecutor(pipeline, tasks=tasks, workers=engine.workers, folder=folder.absolute()).run()
    except ImportError as error:
        raise KitaeError('executor = "ray" needs the package ray', cure="pip install ray, on all machines of the cluster") from error


def _noting(folder: Path, rank: int, task: Callable[[], PipelineStats]) -> PipelineStats:
    """Run a task; a user's mistake found on another machine is kept for the one who waits."""
    try:
        return task()
    except KitaeError as error:
        text = json.dumps({"what": error.what, "cure": error.cure, "where": error.where}, ensure_ascii=False)
        (folder / "errors" / f"{rank:05d}.json").write_text(text, encoding="utf-8")
        raise


def _wait(executor: PipelineExecutor, folder: Path) -> None:
    """Until all tasks are done, one of them has failed, or Slurm knows the job no more."""
    while executor.get_incomplete_ranks() and not any((folder / "errors").iterdir()) and _in_queue(folder):
        time.sleep(POLL_SECONDS)
    if executor.get_incomplete_ranks():
        time.sleep(POLL_SECONDS)  # a network file system shows the last marks a little later
    if any((folder / "errors").iterdir()):
        cancel(folder)  # the other tasks would only delay what has to be mended; finished parts are kept
    (folder / JOB).unlink(missing_ok=True)


def _forget_errors(folder: Path) -> None:
    for old in (folder / "errors").iterdir():
        old.unlink()


def cancel(folder: Path) -> None:
    """End the Slurm job that still works in an executor's folder, if there is one."""
    mark = folder / JOB
    if mark.is_file() and shutil.which("scancel"):
        subprocess.run(["scancel", _job(mark)], capture_output=True, check=False)


def _job(mark: Path) -> str:
    return re.sub(r"\D", "", mark.read_text(encoding="ascii"))


def _in_queue(folder: Path) -> bool:
    """Whether Slurm still has work for the folder's job. Raises KitaeError for a job that will never run, and when Slurm stays silent."""
    mark = folder / JOB
    if shutil.which("sbatch") is None or shutil.which("squeue") is None:
        raise KitaeError('executor = "slurm" needs the commands sbatch and squeue', cure="run on a login node of the cluster")
    if not mark.is_file():
        return False
    for _ in range(SILENT):
        answer = subprocess.run(["squeue", "--noheader", "--format=%T %r", "--jobs", _job(mark)], capture_output=True, text=True)
        if not answer.returncode or "Invalid job id" in answer.stderr:  # what squeue says of jobs that ended a while ago
            break
        log.warning("squeue did not answer, asking again: %s", answer.stderr.strip())
        time.sleep(POLL_SECONDS)
    else:
        raise KitaeError(f"squeue does not answer: {answer.stderr.strip()}", cure="run again when Slurm does; its job goes on meanwhile")
    lines = answer.stdout.split("\n") if not answer.returncode else []
    states = [line.strip() for line in lines if line.strip()]
    if states and all(state.startswith("PENDING") and HELD.search(state) for state in states):
        what = f"Slurm job {_job(mark)} will not begin by itself: {states[0]}"
        raise KitaeError(what, cure=f"release it, or scancel {_job(mark)} and mend engine.slurm; then run again")
    return bool(states)


def _explain(folder: Path, labels: Sequence[str]) -> None:
    """Raises KitaeError unless every task is done: a task's own error, or the names of those that ended without a word."""
    for path in sorted((folder / "errors").iterdir()):
        error = json.loads(path.read_text(encoding="utf-8"))
        raise KitaeError(error["what"], cure=error["cure"], where=error["where"])
    lost = [labels[rank] for rank in incomplete(folder, len(labels))]
    if lost:
        logs = [str(folder / name) for name in ("logs", "slurm_logs") if (folder / name).is_dir()]
        cure = f"read {' and '.join(logs) or 'what stands above'}, mend it and run again; finished parts are kept"
        raise KitaeError(f"these parts ended before they were done: {', '.join(lost[:10])}", cure=cure)
