"""The process and its surroundings: locks, stop signals, progress, memory settings, package versions."""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib.metadata
import json
import logging
import multiprocessing
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from kitae.core.errors import KitaeError

log = logging.getLogger(__name__)
PACKAGES = (
    *("kitae", "torch", "numpy", "datatrove", "tokenizers", "scikit-learn", "safetensors"),
    *("fugashi", "ipadic", "unidic-lite", "sudachipy", "sudachidict-core"),
)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the search for reference cycles, which costs a tenth of the time where millions of small lists are made and none is part
    of a cycle."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a run folder alone. The kernel drops the lock with the process, so that none is ever stale.

    Raises KitaeError when another process holds it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise KitaeError(f"{folder} cannot be written: {error.strerror}", cure="choose another output folder") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise KitaeError(f"{folder} is in use by another kitae process", cure="wait for it, or choose another output") from error
    try:
        yield
    finally:
        os.close(handle)


def cores() -> int:
    """How many processor cores this process may use; where the system does not say, how many there are."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class StopSignals:
    """Remembers the first SIGTERM or SIGINT; a second SIGINT ends the process at once."""

    def __init__(self) -> None:
        self.requested: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None and number == signal.SIGINT:
            os._exit(128 + number)
        self.requested = number


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Turn SIGTERM and SIGINT into a request that the training loop answers at the end of its step."""
    handler = StopSignals()
    old = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield handler
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def worker_pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of new processes that end with the block, whatever ends it: an error, Ctrl-C, SIGTERM, or this process's death."""
    # spawn: forking a process that holds threads (torch's, say) can hang
    pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=_follow_parent)
    before = set(multiprocessing.active_children())
    try:
        yield pool
    except BaseException:
        for worker in set(multiprocessing.active_children()) - before:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent, which ends its workers; and end when it was killed without a chance to."""
    atexit.register(os._exit, 0)  # the last thing: multiprocessing has cleaned up, and taking the interpreter apart takes 0.3 s
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


class Progress:
    """One line of progress: a moving bar on a terminal, a plain log line at most every ten seconds elsewhere."""

    def __init__(self, name: str, *, every: float = 10.0, silent: bool = False) -> None:
        self.name, self.every = name, every
        self._last, self._task = -float("inf"), TaskID(0)
        self._bar: Bar | None = None
        self._silent = silent

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty() and not self._silent:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}% {task.fields[text]}"))
            self._bar = Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self.name, text="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: float, total: float | None, text: str = "") -> None:
        """Show `done` of `total` (None: nobody knows), with what else there is to say."""
        if self._silent:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, text=text)
        elif time.monotonic() - self._last >= self.every or (total is not None and done >= total):
            self._last = time.monotonic()
            share = "" if total is None else f"{100 * done / max(total, 1e-9):3.0f}% "
            log.info("%s %s%s", self.name, share, text)


def report_failure(message: str, *, aloud: bool) -> None:
    """Say why this process ends: in the file that torchrun reads for its summary, and on standard error.

    Under torchrun processes that are not `aloud` write the file only: mostly all make the same mistake.
    """
    text = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in message)  # names may hold escapes
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if report:
        facts = {"message": {"message": f"kitae: {text}", "extraInfo": {"timestamp": str(int(time.time()))}}}
        with contextlib.suppress(OSError):
            Path(report).write_text(json.dumps(facts), encoding="utf-8")
    if aloud or not report:
        sys.stderr.write(f"kitae: {text}\n")
        sys.stderr.flush()


def leave(code: int) -> NoReturn:
    """End this process now, with all output written, but without the interpreter's shutdown, in which gloo's threads may abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(code)


def keep_memory() -> bool:
    """Tell glibc to keep freed blocks: giving them back at every step costs a CPU training step up to 40 %.

    Returns whether it could be set (not on musl or macOS). Settings: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL("libc.so.6")
    trim_threshold, mmap_max = -1, -4
    return bool(libc.mallopt(mmap_max, 0)) and bool(libc.mallopt(trim_threshold, 2**31 - 1))


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide results, and of Python."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
