"""Copies of metrics.jsonl in wandb and MLflow, offline, where these packages are installed; and what happens when one fails."""

import logging
import struct
from pathlib import Path

import pytest
from toy_training import Toy, ToyBatches, config

from kitae.core.errors import KitaeError
from kitae.tensor.batch import Batch
from kitae.tensor.world import World
from kitae.train.loop import fit
from kitae.train.monitor import read_metrics

SERVERS = ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME")


class Breaking(ToyBatches):
    def micro(self, step: int, micro: int) -> Batch:
        if step == 10:
            raise RuntimeError("cut off")
        return super().micro(step, micro)


def train(folder: Path, sink: str, batches: ToyBatches | None = None) -> None:
    settings = config(log_to=[sink], length="12 steps", evaluate_every="6 steps")
    world = World()
    fit(Toy(), batches or ToyBatches(), settings, folder, world=world, seed=7, attach={}, evaluate=lambda step: {"news/mlm_loss": step})


def cut_and_resumed(folder: Path, sink: str) -> None:
    """Interrupted in step 10, two steps behind the checkpoint of step 8."""
    with pytest.raises(RuntimeError, match="cut off"):
        train(folder, sink, Breaking())
    train(folder, sink)


def truth(folder: Path) -> list[tuple[str, int, float]]:
    """What metrics.jsonl says: name, step, value."""
    found = []
    for record in read_metrics(folder):
        values = {name: value for name, value in record.items() if name not in ("kind", "step")}
        found += [(f"{record['kind']}/{name}", int(str(record["step"])), float(str(value))) for name, value in values.items()]
    return sorted(found)


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SERVERS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_server")
def test_mlflow_holds_every_record_once(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed: pip install 'kitae[mlflow]'")
    from mlflow.entities import ViewType
    from mlflow.tracking import MlflowClient

    cut_and_resumed(tmp_path / "run", "mlflow")
    client = MlflowClient(tracking_uri=(tmp_path / "run" / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("kitae").experiment_id
    (run,) = client.search_runs([experiment])
    assert len(client.search_runs([experiment], run_view_type=ViewType.ALL)) == 2, "the interrupted one is deleted as MLflow deletes"
    assert run.info.status == "FINISHED"
    found = [(name, point.step, point.value) for name in run.data.metrics for point in client.get_metric_history(run.info.run_id, name)]
    assert sorted(found) == truth(tmp_path / "run")
    assert {step for _, step, _ in found} == set(range(1, 13))
    assert run.data.params["length"] == "12 steps"


def histories(path: Path) -> list[dict[str, float]]:
    """The rows of a .wandb file: LevelDB's log format (blocks of 32 kB; checksum, length and type before each part of a record)."""
    import json

    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole, rows = path.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole of a record, or its last part
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "history":
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item})
    return rows


@pytest.mark.usefixtures("no_server")
def test_wandb_holds_every_record_once(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'kitae[wandb]'")
    cut_and_resumed(tmp_path / "run", "wandb")
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    rows = histories(file)
    assert [row["_step"] for row in rows] == list(range(1, 13))
    found = [(name, row["_step"], float(value)) for row in rows for name, value in row.items() if not name.startswith("_")]
    assert sorted(found) == truth(tmp_path / "run")


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize("sink", ["wandb", "mlflow"])
def test_a_sink_that_fails_does_not_end_the_training(tmp_path: Path, sink: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its folder is a file."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / sink).write_text("in the way")
    try:
        with caplog.at_level(logging.WARNING):
            train(tmp_path / "run", sink)
    except KitaeError as error:
        assert f"pip install 'kitae[{sink}]'" in str(error)  # noqa: PT017
        pytest.skip(f"{sink} is not installed")
    assert len([record for record in caplog.records if f"{sink} could not be written" in record.getMessage()]) == 1
    assert len(truth(tmp_path / "run")) > 12
