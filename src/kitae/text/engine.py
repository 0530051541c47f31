"""datatrove's pipelines on this machine: in this process, or in worker processes whose death is an error and not a hang."""

import concurrent.futures
import contextlib
import copy
import logging
import os
import shutil
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from datatrove.executor.base import DistributedEnvVars, PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger as datatrove_log

from kitae.core.errors import KitaeError
from kitae.core.runtime import worker_pool

log = logging.getLogger(__name__)


class LocalExecutor(PipelineExecutor):
    """Runs `tasks` copies of a pipeline, `workers` at a time. One worker means: here, without any other process.

    `labels` name the tasks in errors, `folder` takes datatrove's records (statistics and marks of what is done).
    What a task writes must depend on its rank only, so that the number of workers never shows in the result. `pool` lends processes
    that are there already, as many as `workers` at least; it is dead after an error.
    """

    def __init__(
        self,
        pipeline: Sequence[PipelineStep],
        *,
        labels: Sequence[str],
        workers: int,
        folder: Path,
        pool: ProcessPoolExecutor | None = None,
    ) -> None:
        folder = folder.absolute()  # fsspec keeps a file system by its path's text, and would not notice another working directory
        super().__init__(list(pipeline), logging_dir=str(folder), skip_completed=True)
        self.labels, self.workers, self.folder = tuple(labels), workers, folder
        self._pool = pool

    def __getstate__(self) -> dict[str, object]:
        """What travels to a worker."""
        return {**vars(self), "_pool": None}

    @property
    def world_size(self) -> int:
        """Number of tasks."""
        return len(self.labels)

    def get_distributed_env(self, node_rank: int = -1) -> DistributedEnvVars:
        """What datatrove puts into the environment of a task."""
        return DistributedEnvVars(
            datatrove_node_ips="localhost",
            datatrove_cpus_per_task="-1",
            datatrove_mem_per_cpu="-1",
            datatrove_gpus_on_node="-1",
            datatrove_executor="LOCAL",
        )

    def run(self) -> None:
        """Run every task that is not done yet. Raises the first task's error, or KitaeError naming those in work when a worker died."""
        shutil.rmtree(self._running, ignore_errors=True)
        self._running.mkdir(parents=True)
        todo = self.get_incomplete_ranks()
        if len(todo) < self.world_size:
            log.info("going on: %d of %d parts are done already", self.world_size - len(todo), self.world_size)
        environment = dict(os.environ)
        try:
            if self.workers <= 1 or len(todo) <= 1:
                for rank in todo:
                    run_task(self, rank)
            else:
                self._run_in_processes(todo)
        finally:  # datatrove sets variables of its own in this process
            for name in [name for name in os.environ if name.startswith("DATATROVE_") and name not in environment]:
                del os.environ[name]
            shutil.rmtree(self._running, ignore_errors=True)

    @property
    def _running(self) -> Path:
        return self.folder / "running"

    def _run_in_processes(self, ranks: Sequence[int]) -> None:
        with contextlib.nullcontext(self._pool) if self._pool else worker_pool(min(self.workers, len(ranks))) as pool:
            futures = [pool.submit(run_task, self, rank) for rank in ranks]
            try:
                done, _ = concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_EXCEPTION)
                for future in futures:
                    if future in done:
                        future.result()
            except BrokenProcessPool as error:
                names = ", ".join(self.labels[int(mark.name)] for mark in sorted(self._running.iterdir()))
                what = f"a worker process died while these parts were in work: {names or 'none had begun'}"
                raise KitaeError(
                    what, cure="it was killed, most likely for lack of memory: lower `workers` and run again; finished parts are kept"
                ) from error


def run_task(executor: LocalExecutor, rank: int) -> None:
    """One task; called in a worker process or here. A mark on disk tells which tasks are in work."""
    datatrove_log.disable("datatrove")
    mark = executor.folder / "running" / f"{rank:05d}"
    mark.touch()
    pipeline = executor.pipeline
    executor.pipeline = copy.deepcopy(pipeline)  # every task starts with fresh steps
    try:
        executor._run_for_rank(rank)
    except MemoryError as error:
        cure = "lower `workers`, or give the machine more memory, and run again; finished parts are kept"
        raise KitaeError(f"the memory did not suffice for {executor.labels[rank]}", cure=cure) from error
    except Exception as error:
        if isinstance(error, KitaeError) or type(error).__module__ == "builtins":
            raise
        # a class of a library's may refuse to be built again in the waiting process, which would look like a dead worker
        raise RuntimeError(f"{executor.labels[rank]}: {''.join(traceback.format_exception(error))}") from None
    finally:
        executor.pipeline = pipeline
    mark.unlink()
