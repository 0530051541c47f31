"""Watches over processes that train together: one that hangs, or cannot be reached, is named, and all end.

Every process tells through the store where they met what it is doing, from a thread of its own: nobody waits for it, no device is
asked. The first process judges. Who waits for others is not to blame: the one that they wait for is.
"""

import faulthandler
import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from types import FrameType
from typing import Any

import torch.distributed as dist

from kitae.core.runtime import report_failure

SLOW = 10
"""So many times the limit is allowed to what is known to be slow: starting, compiling, measuring, saving."""
GRACE = 8.0
"""Seconds in which a process may end by itself, with a better message, after it has heard of another's failure."""
EXCHANGE = os.path.join("torch", "distributed")
DEPTH = 8
VERDICT = "verdict"
EXIT = 1
CURE = "see to that, and run the same command again: it goes on from the newest checkpoint"


@dataclass(frozen=True, kw_only=True)
class Doing:
    """What a process is doing."""

    operation: str = "starting"
    step: int = -1
    """Number of the training step; -1 outside of steps."""
    count: int = 0
    """Grows with everything that is done: while it stands still, nothing moves."""
    waiting: bool = False
    """Whether it waits for other processes."""
    slow: bool = True
    """Whether it is known to take long."""
    left: bool = False
    """Whether the training is over for this process."""

    @property
    def place(self) -> str:
        """For people."""
        return f'"{self.operation}"' + (f" of step {self.step}" if self.step >= 0 else "")


@dataclass(kw_only=True)
class _Seen:
    """What the judge knows of a process. Ages are counted in cycles of the watch, so that a suspended machine blames nobody."""

    doing: Doing = field(default_factory=Doing)
    beat: int = -1
    silent: float = 0.0
    """Seconds without a word of it."""
    still: float = 0.0
    """Seconds in which it did the same."""

    def hear(self, beat: int, doing: Doing, seconds: float) -> None:
        self.silent = 0.0 if beat != self.beat else self.silent + seconds
        self.still = 0.0 if doing.count != self.doing.count else self.still + seconds
        self.beat, self.doing = beat, doing


def judge(seen: Sequence[_Seen], hosts: Sequence[str], limit: float) -> tuple[int, str] | None:
    """(rank, what to say of it) of the first process that is to blame for standing still longer than `limit` seconds; None if none is."""
    here = [(rank, one) for rank, one in enumerate(seen) if not one.doing.left]
    for rank, one in here:
        if one.silent > limit:
            return rank, f"rank {rank} (host {hosts[rank]}) has not been heard of for {one.silent:.0f} s; it was at {one.doing.place}"
    for rank, one in here:
        if not one.doing.waiting and one.still > limit * (SLOW if one.doing.slow else 1):
            return rank, f"rank {rank} (host {hosts[rank]}) hangs: {one.still:.0f} s in {one.doing.place}"
    if here and all(one.doing.waiting and one.still > limit for _, one in here):
        rank, last = min(here, key=lambda pair: pair[1].doing.count)
        return rank, f"all processes wait for each other, rank {rank} (host {hosts[rank]}) the furthest behind, in {last.doing.place}"
    return None


def exchanging(frame: FrameType | None) -> bool:
    """Whether a thread's innermost calls are within torch's exchange between processes, such as that of shards in a forward pass."""
    for _ in range(DEPTH):
        if frame is None:
            return False
        if EXCHANGE in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


class Watch:
    """The watch of one process. `doing` and `waiting` say what it does; they cost a microsecond or two."""

    def __init__(self, store: dist.Store, *, rank: int, hosts: Sequence[str], limit: float) -> None:
        """`limit`: seconds that one operation may take. The store is asked through a connection of its own."""
        self._store, self._rank, self._hosts, self._limit = store.clone(), rank, hosts, limit
        self._every = min(5.0, max(0.2, limit / 8))
        self._now = Doing()
        self._seen = [_Seen() for _ in hosts]
        self._thread = threading.get_ident()
        self._beat, self._missed = 0, 0
        self._told = ""
        self._stop = threading.Event()
        self._tell()
        self._store.compare_set(VERDICT, "", "{}")
        self._threads = [threading.Thread(target=run, name="watch", daemon=True) for run in (self._talk, self._guard)]

    def start(self) -> None:
        """Begin. Every process must have made its watch before."""
        for thread in self._threads:
            thread.start()

    def doing(self, operation: str, step: int = -1, *, slow: bool = False) -> None:
        """From now on this process does so."""
        self._now = Doing(operation=operation, step=step, count=self._now.count + 1, slow=slow)

    @contextmanager
    def waiting(self, operation: str) -> Iterator[None]:
        """Within, this process waits for others; after an error it still says so."""
        before = self._now
        self._now = replace(before, operation=operation, count=before.count + 1, waiting=True)
        yield
        self._now = replace(before, count=before.count + 2)

    @property
    def now(self) -> Doing:
        """What this process does."""
        return self._now

    @property
    def closed(self) -> bool:
        """Whether the watch over this process has ended."""
        return self._stop.is_set()

    def fail(self, message: str) -> None:
        """Tell the others that this process ends with an error, unless another one was first."""
        first = message.partition("\n")[0][:300]
        text = f"rank {self._rank} (host {self._hosts[self._rank]}) failed: {first}"
        with suppress(RuntimeError):  # nobody may be there to hear it
            self._store.compare_set(VERDICT, "{}", json.dumps({"rank": self._rank, "text": text}))

    def blame(self, patience: float = 3.0) -> str:
        """What another process said when it failed; "" when none says anything for some seconds."""
        end = time.monotonic() + patience
        while not self._told and time.monotonic() < end:
            with suppress(RuntimeError):
                found = json.loads(self._store.get(VERDICT))
                self._told = str(found["text"]) if found and found["rank"] != self._rank else ""
            self._stop.wait(0.1)
        return self._told

    def close(self) -> None:
        """End the watch over this process; the others go on watching each other."""
        if self.closed:
            return
        self._now = replace(self._now, left=True)
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=self._every)
        if not any(thread.is_alive() for thread in self._threads):
            with suppress(RuntimeError):  # the others may be gone already
                self._tell()

    def _tell(self) -> None:
        self._beat += 1
        now = self._now
        if exchanging(sys._current_frames().get(self._thread)):
            now = replace(now, waiting=True)
        self._store.set(f"doing {self._rank}", json.dumps([self._beat, asdict(now)]))

    def _talk(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self._cycle()
            except RuntimeError:  # torch's, of lost connections
                self._end_in_time(f"rank {self._rank} (host {self._hosts[self._rank]}) lost the place where the processes met", alone=True)

    def _cycle(self) -> None:
        self._tell()
        wanted = range(len(self._hosts) if self._rank == 0 else 1)
        verdict, *told = self._store.multi_get([VERDICT, *(f"doing {rank}" for rank in wanted)])
        self._missed = 0
        for rank, text in zip(wanted, told, strict=True):
            beat, doing = json.loads(text)
            self._seen[rank].hear(beat, Doing(**doing), self._every)
        found = json.loads(verdict)
        if not found and (found := self._judge()):
            self._stop.wait(2 * self._every)  # the store may live in this process, and the others have to hear of it
        if found.get("hangs"):
            self._end(found["text"], culprit=found["rank"] == self._rank)
        elif found:
            self._told = found["text"] if found["rank"] != self._rank else ""
            self._end_in_time(found["text"])

    def _judge(self) -> dict[str, Any]:
        """The verdict of this cycle: of the first process over all, of the others over the first one's silence."""
        limit = self._limit if self._rank == 0 else self._limit + 3 * self._every
        if self._rank and self._seen[0].silent <= limit:
            return {}
        culprit = judge(self._seen if self._rank == 0 else self._seen[:1], self._hosts, limit)
        if culprit is None:
            return {}
        rank, text = culprit
        verdict = {"rank": rank, "text": text, "hangs": True}
        return dict(json.loads(self._store.compare_set(VERDICT, "{}", json.dumps(verdict))))

    def _guard(self) -> None:
        """The talking thread may itself hang in a network that is cut off."""
        most = math.ceil(self._limit / self._every) + 2
        while not self._stop.wait(self._every):
            self._missed += 1
            if self._missed > most:
                self._end(f"rank {self._rank} (host {self._hosts[self._rank]}) reaches the others no more", alone=True)

    def _end_in_time(self, message: str, *, alone: bool = False) -> None:
        """A failure: this process may still end by itself, with an error that says more."""
        if not self._stop.wait(GRACE):
            self._end(message, alone=alone)

    def _end(self, message: str, *, culprit: bool = False, alone: bool = False) -> None:
        if self._stop.is_set():
            return
        if culprit:
            faulthandler.dump_traceback()  # where it hangs
        report_failure(f"{message}: {CURE}", aloud=culprit or alone or self._rank == 0)
        os._exit(EXIT)
