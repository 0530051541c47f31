"""A program that answers lines: kept open, written to and read from at the same time, never waited for beyond a bound."""

import contextlib
import os
import selectors
import signal
import subprocess
import time
import weakref
from collections.abc import Sequence

END = b"EOS"
PIECE_BYTES = 1 << 16
LONGEST_ANSWER = 1 << 23
"""Bytes without an end of sentence; a program that says more is babbling."""
ERRORS_KEPT = 1 << 12
"""Bytes of the end of its standard error that are remembered."""
LAST_WORDS = 400
"""Characters of them in a message."""
ENDING_SECONDS = 1.0
"""For a program that closed its output to end."""


class Pipe:
    """One process that answers every line of its input with lines and one that says EOS.

    All directions are served by turns, so that neither side ever waits for the other's full buffer. The end of what the process
    says on its standard error is kept for messages. The process ends with this object, or when this process ends; a fork of this
    process may drop the object, which leaves the process alone, but not use it.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Start it. Raises OSError when it cannot be started."""
        self.trouble = ""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, process_group=0
        )
        assert self._process.stdin is not None, "asked for"
        assert self._process.stdout is not None, "asked for"
        assert self._process.stderr is not None, "asked for"
        self._in, self._out, self._err = self._process.stdin, self._process.stdout, self._process.stderr
        os.set_blocking(self._in.fileno(), False)
        self._rest = self._said = b""
        self._silent = False
        self._lines: list[bytes] = []
        self._end = weakref.finalize(self, _end, self._process, os.getpid())

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._end()

    def exchange(self, lines: Sequence[bytes], patience: float) -> list[list[bytes]]:
        """The answers to these lines (which hold no line feed), in order.

        They are fewer than the lines when the process ended, gave no further answer for `patience` seconds, or babbled; `trouble`
        then says which, and the process is of no more use. So it is when it gave more answers: one of them has no line.
        """
        answers = self._serve(b"".join(line + b"\n" for line in lines), len(lines), patience)
        if len(answers) > len(lines):
            self.trouble = self.trouble or "gave more answers than it was asked for"
        return answers[: len(lines)]

    def until_end(self, patience: float) -> list[bytes] | None:
        """The lines that it says without being asked before it ends well; None when it does not, and `trouble` says how."""
        self._in.close()
        answers = self._serve(b"", 1, patience)
        if answers or self._process.returncode != 0:
            self.trouble = self.trouble or "answers, and does not end"
            return None
        return [*self._lines, self._rest]

    def _serve(self, question: bytes, count: int, patience: float) -> list[list[bytes]]:
        """Send the question and gather so many answers or a few more; fewer, and `trouble`, when none comes in time."""
        unsent = memoryview(question)
        answers: list[list[bytes]] = []
        deadline = time.monotonic() + patience
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            if unsent:
                selector.register(self._in, selectors.EVENT_WRITE)
            if not self._silent:
                selector.register(self._err, selectors.EVENT_READ)
            while len(answers) < count and not self.trouble:
                ready = {key.fileobj for key, _ in selector.select(max(0.0, deadline - time.monotonic()))}
                if self._in in ready:
                    unsent = unsent[self._write(unsent) :]
                    if not unsent:
                        selector.unregister(self._in)
                if self._err in ready and not self._listen():
                    selector.unregister(self._err)
                new = self._read() if self._out in ready else []
                answers += new
                if new:
                    deadline = time.monotonic() + patience
                elif not self.trouble and time.monotonic() > deadline:
                    self.trouble = f"gave no answer within {patience:g} seconds"
        return answers

    def _write(self, unsent: memoryview) -> int:
        try:
            return os.write(self._in.fileno(), unsent[:PIECE_BYTES])
        except BlockingIOError:
            return 0
        except BrokenPipeError:  # it is gone; what it said before is still to be read
            return len(unsent)

    def _listen(self) -> bool:
        """Remember the end of what it says on its standard error; whether it may say more."""
        data = os.read(self._err.fileno(), PIECE_BYTES)
        self._silent = not data
        self._said = (self._said + data)[-ERRORS_KEPT:]
        return not self._silent

    def _read(self) -> list[list[bytes]]:
        data = os.read(self._out.fileno(), PIECE_BYTES)
        if not data:
            self.trouble = self._last_words()
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        answers = []
        for line in lines:
            if line == END:
                answers.append(self._lines)
                self._lines = []
            else:
                self._lines.append(line)
        if len(self._rest) + sum(map(len, self._lines)) > LONGEST_ANSWER:
            self.trouble = f"gave {LONGEST_ANSWER:,} bytes without an end of sentence"
        return answers

    def _last_words(self) -> str:
        """How it ended, it having closed its output, and what it said of that."""
        deadline = time.monotonic() + ENDING_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._err, selectors.EVENT_READ)
            while not self._silent and time.monotonic() < deadline and selector.select(deadline - time.monotonic()):
                self._listen()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.1, deadline - time.monotonic()))
            _kill(self._process.pid)  # at once: a number that was waited for can be given to another process
        code = self._process.returncode
        how = "closed its output" if code is None else f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        said = self._said.decode(errors="replace").strip()
        return f"{how} ({' '.join(said[-LAST_WORDS:].split())})" if said else how


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() == owner and process.returncode is None:  # not waited for, so that the number is still its own
        _kill(process.pid)
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _kill(group: int) -> None:
    """End a process with what a script around the program may have started, and that may outlive it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the second: macOS, when all of them have ended
        os.killpg(group, signal.SIGKILL)
