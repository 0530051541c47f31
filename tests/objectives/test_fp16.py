"""Training in fp16 with a scaled loss: every family and objective learns what it learns in fp32."""

from pathlib import Path

import pytest
from forms import FORMS, Texts, build

from kitae.tensor.world import World
from kitae.train.config import TrainConfig
from kitae.train.loop import Fitted, fit
from kitae.train.monitor import read_metrics


def train(folder: Path, form: str, precision: str, **fields: object) -> Fitted:
    plain = {"length": "5 steps", "learning_rate": 1e-3, "batch": "6 rows", "log_every": "1 step", "keep_last": 0, "precision": precision}
    config = TrainConfig.model_validate(plain | fields)
    return fit(build(form), Texts(form), config, folder, world=World(), seed=3, attach={})


def losses(folder: Path) -> list[float]:
    return [float(str(record["loss"])) for record in read_metrics(folder) if record["kind"] == "train"]


@pytest.mark.parametrize("form", FORMS)
def test_fp16_learns_what_fp32_learns(form: str, tmp_path: Path) -> None:
    """Dropout and masks are the same, so that losses differ by rounding alone."""
    for precision, fields in (("fp32", {}), ("fp16", {"loss_scale": {"initial": 256.0}})):
        train(tmp_path / precision, form, precision, **fields)
    assert not [record for record in read_metrics(tmp_path / "fp16") if record["kind"] == "skipped"]
    assert losses(tmp_path / "fp16") != losses(tmp_path / "fp32")
    assert losses(tmp_path / "fp16") == pytest.approx(losses(tmp_path / "fp32"), rel=5e-3)
