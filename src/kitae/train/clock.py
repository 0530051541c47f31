"""Wall-clock time of a training: the first rank's clock, told to all, written down step by step, and replayed from what is written."""

import contextlib
import json
import logging
import os
import statistics
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import TextIO

import torch

from kitae.core.errors import KitaeError
from kitae.tensor.world import World

log = logging.getLogger(__name__)
RECORD = "clock.jsonl"
SAVE = "save"
"""The event of writing a checkpoint."""
RECENT = 16
"""Steps whose median time is the time that the next one is expected to take."""


class Clock:
    """Seconds that a training has taken, over all its pieces, from its first step on: steps, measurements and checkpoints.

    With a `limit` (a budget) every step's times are appended to `clock.jsonl`. Steps that are made again after a kill take their times
    from there, and are not counted twice; so are the end of the training and every event. All ranks know the same numbers.
    """

    def __init__(self, world: World, folder: Path, *, limit: float | None = None) -> None:
        self._world, self._folder, self.limit = world, folder, limit
        self._middles, self._ends = array("d"), array("d")
        self._last: int | None = None
        self._elapsed, self._zero = 0.0, 0.0
        self._costs: dict[str, float] = {}
        self._started = False
        self.busy: Callable[[], float] = float
        """Seconds since a save in the background began; 0 when none is under way."""
        self._file: TextIO | None = None

    def resume(self, step: int, *, seconds: float, identity: str) -> None:
        """Go on after `step` steps. What is written for another `identity` of the training is dropped.

        `seconds` is what the checkpoint says, for a training without a budget or a record that was lost.
        """
        if self.limit is not None:
            if self._world.main:
                self._read(identity)
            self._share()
        if len(self._ends) < step:
            if self.limit is not None:
                log.warning("%s lacks the times of %d steps: %.0f seconds are counted for them", RECORD, step - len(self._ends), seconds)
            for times in (self._middles, self._ends):
                times.extend([max(seconds, self._elapsed)] * (step - len(times)))
            self._elapsed = max(seconds, self._elapsed)

    def begin(self, step: int) -> None:
        """Step number `step` (from 0) begins: fixes the moment that stands for it, the expected middle."""
        if step < len(self._ends):
            return
        if not self._started:
            self._zero, self._started = monotonic() - self._elapsed, True
        middle = self._elapsed + self._step_seconds() / 2 if step else 0.0
        self._middles.append(middle if self.limit is None else min(self.limit, middle))

    def reading(self) -> dict[str, float]:
        """What the first rank says now, as numbers that are added up over the ranks: for `note`."""
        now = monotonic() - self._zero if self._world.main and self._started else 0.0
        return {"elapsed": now, "over": float(self._world.main and self._passes(now))}

    def note(self, step: int, told: Mapping[str, float]) -> None:
        """Step number `step` has ended; `told` is the sum of every rank's `reading`."""
        if step < len(self._ends):
            return
        self._elapsed = told["elapsed"]
        self._ends.append(self._elapsed)
        if told["over"]:
            self._last = step + 1
        self._write({"step": step, "middle": self._middles[step], "end": self._elapsed, "over": bool(told["over"])})

    def rest(self, step: int) -> None:
        """After `step` steps something beside steps took time: a measurement or a checkpoint. Every rank calls it."""
        if step < len(self._ends) or not self._started or self.limit is None:
            return
        told = self._world.sum_numbers(self.reading())
        self._elapsed = told["elapsed"]
        if told["over"]:
            self._last = step
        self._write({"after": step, "elapsed": self._elapsed, "over": bool(told["over"]), "costs": self._costs})

    @contextlib.contextmanager
    def event(self, name: str) -> Iterator[None]:
        """Remember how long the longest event of this name took: the last one of each is part of the budget."""
        begun = monotonic()
        yield
        self.cost(name, monotonic() - begun)

    def cost(self, name: str, seconds: float) -> None:
        """The same of an event that took its time in the background: the last one will be waited for."""
        self._costs[name] = max(self._costs.get(name, 0.0), seconds)

    def knows(self, name: str) -> bool:
        """Whether there was an event of this name."""
        return name in self._costs

    def now(self) -> float:
        """This process's clock, in seconds."""
        return monotonic()

    def over(self, step: int) -> bool:
        """Whether the budget is spent after `step` steps: another one, with the last events after it, would pass the limit."""
        return self._last is not None and step >= self._last

    def fraction(self, step: int) -> float:
        """Share of the budget that is spent in the middle of step number `step`, which has begun."""
        assert self.limit is not None
        return self._middles[step] / self.limit if step else 0.0

    def moment(self, step: int) -> float:
        """Seconds after `step` steps."""
        return self._ends[step - 1] if step else 0.0

    def crossed(self, every: float, step: int) -> bool:
        """Whether a multiple of `every` seconds was reached by the last of `step` steps."""
        return step > 0 and self.moment(step) // every > self.moment(step - 1) // every

    def first_after(self, seconds: float) -> int:
        """The number of steps after which `seconds` were first reached; one more than there are when they were not yet."""
        return bisect_left(self._ends, seconds) + 1

    def expected_steps(self) -> int:
        """How many steps the budget allows at the recent pace."""
        assert self.limit is not None
        each, made = self._step_seconds(), len(self._ends)
        return made + max(0, int((self.limit - self._elapsed) / each)) if each > 0 else made + 1

    def flush(self) -> None:
        """Have the record on the disk, before a checkpoint that relies on it."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the record."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk has been reported by the write already
                self._file.close()

    def _step_seconds(self) -> float:
        ends = self._ends[-RECENT - 1 :].tolist()
        ends = ends if len(ends) > RECENT else [0.0, *ends]
        return statistics.median(later - one for one, later in pairwise(ends)) if len(ends) > 1 else 0.0

    def _passes(self, now: float) -> bool:
        if self.limit is None:
            return False
        busy = self.busy()
        rest = max(0.0, self._costs.get(SAVE, 0.0) - busy) if busy else 0.0  # the last save begins when the one under way has ended
        return now + self._step_seconds() + rest + sum(self._costs.values()) > self.limit

    def _write(self, line: Mapping[str, object]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def _read(self, identity: str) -> None:
        """Take up the record of this identity, or begin a new one; a last line cut off by a crash is left out."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / RECORD
        found = path.read_bytes().decode("utf-8", "replace").splitlines(keepends=True) if path.is_file() else []
        lines = [line for line in found if line.endswith("\n")]
        try:
            kept = lines if lines and json.loads(lines[0])["identity"] == identity else [json.dumps({"identity": identity}) + "\n"]
            for line in kept[1:]:
                self._take(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            cure = f"remove {RECORD}: the time until the newest checkpoint is then counted by the steps alone"
            raise KitaeError(f"{RECORD} is damaged", cure=cure, where=str(self._folder)) from error
        temporary = self._folder / f".{RECORD}.part"
        temporary.write_text("".join(kept), encoding="utf-8")
        os.replace(temporary, path)
        self._file = path.open("a", encoding="utf-8")

    def _take(self, line: Mapping[str, object]) -> None:
        if "after" in line:
            step, costs = int(str(line["after"])), line["costs"]
            self._elapsed = float(str(line["elapsed"]))
            self._costs.update({str(name): float(value) for name, value in costs.items()} if isinstance(costs, dict) else {})
        else:
            step = int(str(line["step"])) + 1
            if step != len(self._ends) + 1:
                raise ValueError(f"step {step} does not follow {len(self._ends)}")
            self._elapsed = float(str(line["end"]))
            self._middles.append(float(str(line["middle"])))
            self._ends.append(self._elapsed)
        if line["over"]:
            self._last = step

    def _share(self) -> None:
        """The first rank's record for all ranks."""
        known = {"steps": float(len(self._ends)), "elapsed": self._elapsed, "last": -1.0 if self._last is None else float(self._last)}
        told = self._world.sum_numbers(known if self._world.main else dict.fromkeys(known, 0.0))
        times = torch.zeros(2, int(told["steps"]), dtype=torch.float64, device=self._world.device)
        if self._world.main and self._ends:
            times.copy_(torch.tensor([self._middles.tolist(), self._ends.tolist()], dtype=torch.float64))
        middles, ends = self._world.sum(times).tolist()
        self._middles, self._ends = array("d", middles), array("d", ends)
        self._elapsed, self._last = told["elapsed"], None if told["last"] < 0 else int(told["last"])
