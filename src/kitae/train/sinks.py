"""Copies of metrics.jsonl for other programs: Weights & Biases and MLflow, which are loaded only when they are asked for.

metrics.jsonl is the truth. An interrupted training begins its copies anew from what it still says, so that nothing that was made
again stands in them twice: a run of wandb keeps its id and is written whole again, one of MLflow takes the place of the former.
"""

import importlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from kitae.core.artifact import digest_json
from kitae.core.errors import KitaeError
from kitae.train.monitor_config import SinkName
from kitae.train.tensorboard import TensorBoardSink

log = logging.getLogger(__name__)
PACKAGES: Mapping[SinkName, str] = {"wandb": "wandb", "mlflow": "mlflow"}
"""Packages that a sink needs and kitae itself does not."""
PROJECT = "kitae"
TAG = "kitae.training"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One record of metrics.jsonl."""

    kind: str
    """"train" or "evaluate"."""
    step: int
    values: Mapping[str, float]


class Sink(Protocol):
    """Takes one record after another. A sink that fails warns once and falls silent: it is a copy."""

    def add(self, point: Point) -> None:
        """Take one record."""

    def close(self) -> None:
        """Write out and close."""


@dataclass(frozen=True, kw_only=True)
class Story:
    """What a sink is told of the training when it is opened."""

    folder: Path
    """The training's."""
    settings: Mapping[str, object]
    """The training's, as JSON values."""
    step: int
    """Of the checkpoint that it goes on from; 0 for a new one."""
    before: Sequence[Point]
    """What earlier processes recorded up to there."""

    @property
    def title(self) -> str:
        """Short, for lists of runs: recipe's output and node."""
        return "/".join(self.folder.absolute().parts[-2:])

    @property
    def id(self) -> str:
        """One for the folder, whatever process writes in it."""
        return digest_json(str(self.folder.absolute()))[:16]


def check_sinks(names: Iterable[SinkName]) -> None:
    """Raise KitaeError when the package of a sink is not installed."""
    for name in names:
        if name in PACKAGES and find_spec(PACKAGES[name]) is None:
            raise KitaeError(
                f'log_to names "{name}", which is not installed',
                cure=f"pip install 'kitae[{name}]', or take it out",
                where="train.log_to",
            )


def open_sinks(names: Sequence[SinkName], story: Story) -> list[Sink]:
    """The sinks of these names, open; their packages are installed (`check_sinks`)."""
    return [_Board(story) if name == "tensorboard" else _Cautious(name, _SINKS[name], story) for name in names]


class _Board:
    """TensorBoard hides what earlier processes wrote past the checkpoint, so that its files only grow."""

    def __init__(self, story: Story) -> None:
        self._board = TensorBoardSink(story.folder / "tensorboard", story.step)

    def add(self, point: Point) -> None:
        self._board.add(point.step, point.values)

    def close(self) -> None:
        self._board.close()


class _Cautious:
    """A sink whose library may fail in ways of its own, which must not end the training."""

    def __init__(self, name: str, start: Callable[[Story], Sink], story: Story) -> None:
        self._name = name
        self._sink: Sink | None = None
        self._guard(lambda: self._begin(start, story))

    def _begin(self, start: Callable[[Story], Sink], story: Story) -> None:
        self._sink = start(story)
        for point in story.before:
            self._sink.add(point)

    def add(self, point: Point) -> None:
        if (sink := self._sink) is not None:
            self._guard(lambda: sink.add(point))

    def close(self) -> None:
        if (sink := self._sink) is not None:
            self._guard(sink.close)

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # a server that is gone, a full disk, a library's own kinds
            self._sink = None
            log.warning("%s could not be written, and is left out from here on: %s", self._name, error)


class _Wandb:
    """A run in wandb/ of the training's folder, for `wandb sync`; with a server in the environment, as wandb itself decides.

    wandb wants rising steps and takes none back, so that every process writes the run whole, under one id.
    """

    def __init__(self, story: Story) -> None:
        self._wandb: Any = importlib.import_module("wandb")
        server = any(os.environ.get(name) for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"))
        if not server:
            for former in (story.folder / "wandb").glob(f"offline-run-*-{story.id}"):
                shutil.rmtree(former)
        self._run: Any = self._wandb.init(
            mode=None if server else "offline",
            dir=str(story.folder),
            id=story.id,
            name=story.title,
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            config=dict(story.settings),
            settings=self._wandb.Settings(console="off", silent=True, disable_git=True, save_code=False, x_disable_stats=True),
        )

    def add(self, point: Point) -> None:
        self._run.log({f"{point.kind}/{name}": value for name, value in point.values.items()}, step=point.step)

    def close(self) -> None:
        self._run.finish()
        self._wandb.teardown()  # offline, `finish` returns before its own process has written everything


class _Mlflow:
    """A run of the experiment "kitae" in mlflow/ of the training's folder, or on the server that MLFLOW_TRACKING_URI names.

    MLflow keeps every value it was given, so that each process makes a run of its own and deletes the former (as MLflow does: it can
    be restored until `mlflow gc`).
    """

    def __init__(self, story: Story) -> None:
        server = os.environ.get("MLFLOW_TRACKING_URI")
        if server is None:  # the small package has no database, and takes a folder only when it is told to
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        tracking: Any = importlib.import_module("mlflow.tracking")
        self._metric: Any = importlib.import_module("mlflow.entities").Metric
        self._client: Any = tracking.MlflowClient(tracking_uri=server or (story.folder / "mlflow").absolute().as_uri())
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if known is None else known.experiment_id
        for former in self._client.search_runs([experiment], filter_string=f"tags.`{TAG}` = '{story.id}'"):
            self._client.delete_run(former.info.run_id)
        self._id: str = self._client.create_run(experiment, run_name=story.title, tags={TAG: story.id}).info.run_id
        for key, value in story.settings.items():
            self._client.log_param(self._id, key, str(value)[:500])

    def add(self, point: Point) -> None:
        now = int(time.time() * 1000)
        metrics = [self._metric(f"{point.kind}/{name}", value, now, point.step) for name, value in point.values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._id)


_SINKS: Mapping[SinkName, Callable[[Story], Sink]] = {"wandb": _Wandb, "mlflow": _Mlflow}
