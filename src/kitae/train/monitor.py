"""What a run tells of itself: metrics.jsonl (the truth), its copies, and a line of progress."""

import contextlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.core.runtime import Progress
from kitae.train.monitor_config import SinkName
from kitae.train.sinks import Point, Story, check_sinks, open_sinks

METRICS = "metrics.jsonl"
CURVES = ("train", "evaluate")
"""Kinds of records that hold numbers only, and are copied."""


def read_metrics(folder: Path) -> list[dict[str, object]]:
    """The records of a run; an end that a crash cut off is left out. Raises KitaeError when a record before others is damaged."""
    path = folder / METRICS
    if not path.is_file():
        return []
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    records = list(itertools.takewhile(bool, map(_record, lines)))
    if len(records) < len(lines) and (not records or any(map(_record, lines[len(records) :]))):
        cure = "restore it; or remove it, and what was measured before is lost"
        raise KitaeError(f"{METRICS} is damaged in line {len(records) + 1}", cure=cure, where=str(path))
    return records


def _record(line: bytes) -> dict[str, object]:
    """What a line says, nothing when it is damaged."""
    try:
        found = json.loads(line)
        return found if int(found["step"]) >= 0 and str(found["kind"]) else {}
    except (ValueError, KeyError, TypeError):
        return {}


class Monitor:
    """Writes records of kind "train" (one step), "evaluate" (held-out data), "skipped" and "empty" (steps
    worth a note). Only the main process has one."""

    def __init__(self, folder: Path, *, step: int, total: int, log_to: Sequence[SinkName], settings: Mapping[str, object]) -> None:
        """Open for appending after `step`: what an interrupted process wrote past that step is cut off, in the copies too.

        `settings` are for the copies. Raises KitaeError when the package of one is not installed.
        """
        check_sinks(log_to)
        kept = [record for record in read_metrics(folder) if int(str(record["step"])) <= step]
        temporary = folder / f".{METRICS}.part"
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        os.replace(temporary, folder / METRICS)
        self.total = total
        before = [_point(record) for record in kept if record["kind"] in CURVES]
        self.evaluated = {point.step: dict(point.values) for point in before if point.kind == "evaluate"}
        self._file = (folder / METRICS).open("a", encoding="utf-8")
        self._sinks = open_sinks(log_to, Story(folder=folder, settings=settings, step=step, before=before))
        self._progress = Progress(folder.name)
        self._progress.__enter__()

    def record(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Write one record; it is on its way to the disk when this returns."""
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()
        for sink in self._sinks:
            sink.add(Point(kind=kind, step=step, values=values))
        if kind == "evaluate":
            self.evaluated[step] = dict(values)

    def note(self, kind: str, step: int, values: Mapping[str, object]) -> None:
        """Write an event that is more than numbers: no curve."""
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()

    def flush(self) -> None:
        """Have the records on the disk, before a checkpoint behind them."""
        os.fsync(self._file.fileno())

    def show(self, step: int, text: str) -> None:
        """Update the line of progress."""
        self._progress.update(step, self.total, text)

    def close(self) -> None:
        """Close everything."""
        self._progress.__exit__()
        for sink in self._sinks:
            sink.close()
        with contextlib.suppress(OSError):  # a full disk has been reported by the write already
            self._file.close()


def _point(record: Mapping[str, object]) -> Point:
    values = {name: float(str(value)) for name, value in record.items() if name not in ("kind", "step")}
    return Point(kind=str(record["kind"]), step=int(str(record["step"])), values=values)
