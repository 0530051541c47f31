"""The TensorBoard sink: scalars into event files beside metrics.jsonl."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

log = logging.getLogger(__name__)


class TensorBoardSink:
    """Writes event files into a folder. What an earlier process wrote past `step` is hidden by TensorBoard.

    It is a copy of metrics.jsonl: when it cannot be written (a full disk), it warns once and falls silent.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._writer: EventFileWriter | None = EventFileWriter(str(folder))
        self._write(Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars of one step."""
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))

    def _write(self, event: Event) -> None:
        if self._writer is not None:
            try:
                self._writer.add_event(event)
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._writer = None
        log.warning("TensorBoard's file could not be written: %s", error)

    def close(self) -> None:
        """Write out and close."""
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                self._fail(error)
