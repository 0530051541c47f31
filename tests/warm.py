"""`kitae`, or a script's `main`, in processes of its own that need not import torch again: forked from one that has imported everything
and done nothing.

Such a process is as real as one from a shell (its own signals, exit code, streams and session); only its imports come for free,
and the interpreter's own end is left out. `tests/test_cli.py` and `tests/test_end_to_end.py` start and end the real interpreter.
"""

import importlib
import json
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

FORK, POLL = "fork", "poll"


class Running:
    """A process of a Warm, with what is used of subprocess.Popen."""

    def __init__(self, warm: "Warm", pid: int, errors: Path) -> None:
        self._warm, self.pid, self._errors = warm, pid, errors
        self.returncode: int | None = None

    @property
    def stderr(self) -> str:
        """What it has printed to standard error so far."""
        return self._errors.read_text(encoding="utf-8")

    def poll(self) -> int | None:
        """Its exit code (negative: the signal that ended it), or None while it runs."""
        if self.returncode is None:
            self.returncode = self._warm.ask({"what": POLL, "pid": self.pid})
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Its exit code, once it has ended."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, f"process {self.pid} still runs: {self.stderr}"
            time.sleep(0.01)
        return code


class Warm:
    """The process that has imported everything."""

    def __init__(self, folder: Path, script: Path | None = None) -> None:
        """`script`: what runs instead of `kitae`, by its `main()`."""
        self._folder, self._count = folder, 0
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        line = [sys.executable, __file__, *([] if script is None else [str(script)])]
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def ask(self, question: dict[str, object]) -> int | None:
        """Its answer to one question."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer: int | None = json.loads(self._process.stdout.readline())
        return answer

    def start(self, folder: Path, *arguments: object, environment: Mapping[str, str] | None = None) -> Running:
        """`kitae ARGUMENTS` in a folder, in a session of its own."""
        self._count += 1
        errors = self._folder / f"{self._count}.txt"
        said = {"folder": str(folder), "errors": str(errors), "arguments": [str(one) for one in arguments]}
        pid = self.ask({"what": FORK, "environment": dict(environment or {}), **said})
        assert pid is not None
        return Running(self, pid, errors)

    def ranks(self, folder: Path, environments: Sequence[Mapping[str, str]], *arguments: object) -> list[Running]:
        """The same in as many processes as there are environments: what a launcher says to each beside rank and size."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(len(environments))}
        return [
            self.start(folder, *arguments, environment=meeting | {"RANK": str(rank)} | dict(own)) for rank, own in enumerate(environments)
        ]

    def close(self) -> None:
        """End it; what it started must have ended before."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def _serve() -> None:
    if len(sys.argv) > 1:
        script = Path(sys.argv[1])
        sys.path.insert(0, str(script.parent))
        main = importlib.import_module(script.stem).main
    else:
        importlib.import_module("kitae.chain.execute")
        main = importlib.import_module("kitae.cli").main
    for line in sys.stdin:
        question = json.loads(line)
        if question["what"] == POLL:
            pid, status = os.waitpid(question["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if not answer:
                _become(question)
                _run(main)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _run(main: Callable[[], int | None]) -> NoReturn:
    """End as the interpreter does, without taking down torch's thousand modules: that costs each of them a second or two."""
    code = 0
    try:
        code = main() or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


def _become(question: dict[str, object]) -> None:
    """Turn this fork into what a shell would have started."""
    os.setsid()
    os.chdir(str(question["folder"]))
    nothing = os.open(os.devnull, os.O_RDWR)
    errors = os.open(str(question["errors"]), os.O_WRONLY | os.O_CREAT, 0o644)
    for number, file in enumerate((nothing, nothing, errors)):
        os.dup2(file, number)
    os.environ.update(question["environment"])  # type: ignore[arg-type]
    sys.argv = ["kitae", *question["arguments"]]  # type: ignore[misc]


if __name__ == "__main__":
    _serve()
