"""Training in fp16 with a scaled loss: every family and objective learns what it learns in fp32."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rows import SPECIAL, VOCAB, batch, paired

from kitae.core.config import Config
from kitae.models.presets import resolve_preset
from kitae.objectives import table
from kitae.objectives.electric import ElectricConfig
from kitae.objectives.mlm import MlmConfig
from kitae.objectives.protocol import Objective
from kitae.objectives.rtd import RtdConfig
from kitae.tensor.batch import Batch
from kitae.tensor.world import World
from kitae.train.config import TrainConfig
from kitae.train.loop import Fitted, fit
from kitae.train.monitor import read_metrics

LENGTH = 48
BYTES = 20


class Letters:
    """Words as characters, for a model that reads these."""

    def rows(self, numbers: NDArray[np.int64]) -> NDArray[np.uint16]:
        places = np.arange(BYTES)
        return (1 + (numbers[:, None] * 31 + places * 7) % 200).astype(np.uint16)


class Texts:
    """Rows of several lengths, each a pure function of step and number."""

    micro_batches_per_step, rows_per_step, rows_per_epoch, tokens_per_step = 2, 6, 6000, 6.0 * LENGTH

    def __init__(self, *, pairs: bool = False, spelled: bool = False) -> None:
        self.pairs, self.spelled = pairs, spelled

    def micro(self, step: int, micro: int) -> Batch:
        seed = step * 2 + micro
        if self.pairs:
            return paired([[(9, 8, 0), (7, 6, 1)], [(20, 20, seed % 2)], [(5, 11, 1)]], length=LENGTH, seed=seed, step=step, micro=micro)
        found = batch([[46], [20, 9], [3, 17]], length=LENGTH, seed=seed, step=step, micro=micro)
        return dataclasses.replace(found, spelling=Letters()) if self.spelled else found


FORMS: Mapping[str, tuple[str, Config]] = {
    "bert with pairs": ("bert-tiny", MlmConfig(sentence_order="nsp")),
    "electra": ("electra-tiny", RtdConfig()),
    "electric": ("electra-tiny", ElectricConfig()),
    "deberta-v2": ("deberta-v2-tiny", MlmConfig()),
    "deberta-v3": ("deberta-v3-tiny", RtdConfig(embedding_sharing="disentangled", optimizers="separate", discriminator_weight=10.0)),
    "modernbert": ("modernbert-tiny", MlmConfig()),
    "character-bert": ("character-bert-tiny", MlmConfig()),
}


def build(form: str) -> Objective:
    preset, settings = FORMS[form]
    architecture = resolve_preset(preset, {}, VOCAB, LENGTH, word_bytes=BYTES if form == "character-bert" else 0)
    return table.build(architecture, settings, SPECIAL, VOCAB, 1)


def train(folder: Path, form: str, precision: str, **fields: object) -> Fitted:
    plain = {"length": "5 steps", "learning_rate": 1e-3, "batch": "6 rows", "log_every": "1 step", "keep_last": 0, "precision": precision}
    config = TrainConfig.model_validate(plain | fields)
    texts = Texts(pairs="pairs" in form, spelled=form == "character-bert")
    return fit(build(form), texts, config, folder, world=World(), seed=3, attach={})


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
