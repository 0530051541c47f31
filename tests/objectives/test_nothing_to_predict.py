"""Text of unknown tokens alone, and text that is masked whole: trained on without a NaN, counted and warned of."""

from pathlib import Path

import pytest
import torch
from forms import Texts, build
from rows import SPECIAL
from safetensors.torch import load_file

from kitae.objectives.mlm import MlmConfig
from kitae.objectives.protocol import Objective
from kitae.objectives.rtd import RtdConfig
from kitae.tensor.batch import Batch
from kitae.tensor.world import World
from kitae.train.config import TrainConfig
from kitae.train.loop import Fitted, fit
from kitae.train.monitor import read_metrics


class Unknown(Texts):
    """Every word of every second step is unknown."""

    def micro(self, step: int, micro: int) -> Batch:
        found = super().micro(step, micro)
        return found if step % 2 else found.replace(ids_BL=found.ids_BL.masked_fill(found.words_BL >= 0, SPECIAL.unk))


def train(objective: Objective, texts: Texts, folder: Path) -> Fitted:
    config = TrainConfig.model_validate({"length": "4 steps", "batch": "6 rows", "learning_rate": 1e-3, "log_every": "1 step"})
    return fit(objective, texts, config, folder, world=World(), seed=3, attach={})


@pytest.mark.parametrize("form", ["electra", "modernbert"])
def test_steps_of_unknown_tokens_alone(form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fitted = train(build(form), Unknown(form), tmp_path)
    records = read_metrics(tmp_path)
    assert [(r["step"], r["term"]) for r in records if r["kind"] == "empty"] == [(1, "mlm"), (3, "mlm")]
    assert caplog.text.count("nothing to predict") == 1
    losses = [float(str(r["mlm_loss"])) for r in records if r["kind"] == "train"]
    assert losses[0] == losses[2] == 0.0 < min(losses[1], losses[3])
    assert all(torch.isfinite(tensor).all() for tensor in load_file(fitted.checkpoint / "weights.safetensors").values())


@pytest.mark.parametrize("form", ["electra", "modernbert"])
def test_steps_that_are_masked_whole(form: str, tmp_path: Path) -> None:
    settings = RtdConfig(rate=1.0) if form == "electra" else MlmConfig(rate=1.0)
    fitted = train(build(form, settings), Texts(form), tmp_path)
    assert all(torch.isfinite(tensor).all() for tensor in load_file(fitted.checkpoint / "weights.safetensors").values())
    assert not [record for record in read_metrics(tmp_path) if record["kind"] == "empty"]
