"""A program that answers lines: kept open, written to and read from at the same time, never waited for beyond a bound."""

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence

END = b"EOS"
PIECE_BYTES = 1 << 16
LONGEST_ANSWER = 1 << 23
"""Bytes without an end of sentence; a program that says more is babbling."""
LAST_WORDS = 400


class Pipe:
    """One process that answers every line of its input with lines and one that says EOS.

    Both directions are served by turns, so that neither side ever waits for the other's full buffer. What the process says on
    its standard error is kept for messages. The process ends with this object, or when this process ends.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Start it. Raises OSError when it cannot be started."""
        self.trouble = ""
        self._open = contextlib.ExitStack()
        self._errors = self._open.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - it is entered
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0, process_group=0
        )
        assert self._process.stdin is not None, "asked for"
        assert self._process.stdout is not None, "asked for"
        self._in, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._in.fileno(), False)
        self._rest = b""
        self._lines: list[bytes] = []
        self._end = weakref.finalize(self, _end, self._process)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._end()
        self._open.close()

    def exchange(self, lines: Sequence[bytes], patience: float) -> list[list[bytes]]:
        """The answers to these lines (which hold no line feed), in order.

        They are fewer than the lines when the process ended, gave no further answer for `patience` seconds, or babbled; `trouble`
        then says which, and the process is of no more use.
        """
        unsent = memoryview(b"".join(line + b"\n" for line in lines))
        answers: list[list[bytes]] = []
        deadline = time.monotonic() + patience
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            selector.register(self._in, selectors.EVENT_WRITE)
            while len(answers) < len(lines):
                ready = {key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))}
                new: list[list[bytes]] = []
                if self._in.fileno() in ready:
                    unsent = unsent[self._write(unsent) :]
                    if not unsent:
                        selector.unregister(self._in)
                if self._out.fileno() in ready:
                    new = self._read()
                answers += new
                if self.trouble:
                    break
                if new:
                    deadline = time.monotonic() + patience
                elif time.monotonic() > deadline:
                    self.trouble = f"gave no answer within {patience:g} seconds"
                    break
        return answers[: len(lines)]

    def _write(self, unsent: memoryview) -> int:
        try:
            return os.write(self._in.fileno(), unsent[:PIECE_BYTES])
        except BlockingIOError:
            return 0
        except BrokenPipeError:  # it is gone; what it said before is still to be read
            return len(unsent)

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
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)  # it closed its output: it is about to end
        code = self._process.poll()
        how = "closed its output" if code is None else f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        return f"{how} ({' '.join(said[-LAST_WORDS:].split())})" if said else how


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with what a script around the program may have started
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.wait()
