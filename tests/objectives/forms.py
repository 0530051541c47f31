"""Every family with the objectives that it learns, tiny, and batches of several lengths for them."""

import dataclasses
from collections.abc import Mapping

import numpy as np
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

    def __init__(self, form: str) -> None:
        self.pairs, self.spelled = "pairs" in form, form == "character-bert"

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


def build(form: str, settings: Config | None = None) -> Objective:
    """The objective with its own dropout; with other settings than the form's where they are given."""
    preset, own = FORMS[form]
    architecture = resolve_preset(preset, {}, VOCAB, LENGTH, word_bytes=BYTES if form == "character-bert" else 0)
    return table.build(architecture, settings or own, SPECIAL, VOCAB, 1)
