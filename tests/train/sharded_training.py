"""Real models and the toy, in shards; run as a script by torchrun it makes the trainings that a file lists, one after another.

`torchrun sharded_training.py JOBS.json`: a list of {"folder", "model", "start", "config", ...}; see `run`. Rank r adds to
FOLDER/measured-R.json what it held.
"""

import gc
import json
import logging
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from toy_training import VOCAB, Toy, ToyBatches, config

from kitae.core.errors import KitaeError
from kitae.core.runtime import leave
from kitae.models.presets import resolve_preset
from kitae.objectives import table
from kitae.objectives.electric import ElectricConfig
from kitae.objectives.mlm import MlmConfig
from kitae.objectives.rtd import RtdConfig
from kitae.tensor.batch import Batch
from kitae.tensor.world import World, session
from kitae.tokenization.special import SpecialIds
from kitae.train.loop import fit

WORDS = VOCAB + 1  # rows that two processes cannot share equally
SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
APART = {"optimizers": "separate", "generator_learning_rate": 2e-3, "embedding_sharing": "disentangled"}
MODELS = {
    "bert": ("bert-tiny", MlmConfig()),
    "electra": ("electra-tiny", RtdConfig()),
    "modernbert": ("modernbert-tiny", MlmConfig()),
    "roberta": ("roberta-tiny", MlmConfig(rate=0.3)),
    "electric": ("electra-tiny", ElectricConfig()),  # two stacks of layers that take turns
    "deberta-v3": ("deberta-v3-tiny", RtdConfig.model_validate(APART)),  # a decoder that works twice, a table and a difference
}


def learner(name: str, job: Mapping) -> nn.Module:
    """The toy, or a tiny model with its objective."""
    if name == "toy":
        return Toy(head_rate=job.get("head_rate"), bad_step=job.get("bad_step", -1))
    preset, settings = MODELS[name]
    architecture = resolve_preset(preset, job.get("overrides", {}), WORDS, 16, pad_token_id=SPECIAL.pad)
    return table.build(architecture, settings, SPECIAL, WORDS, 3)


def held() -> int:
    """Bytes of all tensors of this process that are no view of each other, but for those that are about to be freed."""
    gc.collect()
    found = [thing for thing in gc.get_objects() if isinstance(thing, torch.Tensor) and thing.device.type == "cpu"]
    parts = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in found]
    parts += [tensor.grad for tensor in found if tensor.is_leaf and tensor.grad is not None]
    return sum({part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in parts}.values())


def run(job: Mapping, world: World) -> None:
    """One training: "model", "rows" of a step in micro-batches of 4, "config" of the loop. It goes on from a copy of the checkpoint
    "start". An error is written to FOLDER/error-R.txt."""
    folder = Path(job["folder"])
    if "start" in job and world.main:
        start = Path(job["start"])
        shutil.copytree(start, folder / "checkpoints" / start.name)
        shutil.copy(start.parents[1] / "identity.json", folder)
    world.barrier()
    before = held() if job.get("weigh") else 0
    module = learner(job["model"], job)
    seen: dict[str, float] = {}

    def measure(step: int) -> dict[str, float]:
        seen["squares"] = float(sum(p.detach().double().square().sum() for p in module.parameters()))
        return {"squares": seen["squares"]}

    class Weighed(ToyBatches):
        def micro(self, step: int, micro: int) -> Batch:
            if step == 2 and "bytes" not in seen:  # between two steps
                seen["bytes"] = held() - before
            return super().micro(step, micro)

    batches = (Weighed if job.get("weigh") else ToyBatches)(job["rows"], 4)
    try:
        fit(module, batches, config(**job["config"]), folder, world=world, seed=7, attach={}, evaluate=measure)
    except KitaeError as error:
        (folder / f"error-{world.rank}.txt").write_text(str(error))
    seen["left"] = float(sum(p.detach().double().square().sum() for p in module.parameters()))
    (folder / f"measured-{world.rank}.json").write_text(json.dumps(seen))


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    torch.set_num_threads(1)
    jobs = json.loads(Path(sys.argv[1]).read_text())
    for part in (jobs[:1], jobs[1:]):  # two process groups in one process, as a recipe with two trainings has
        with session("cpu") as world:
            for job in part:
                run(job, world)
    return 0


if __name__ == "__main__":
    leave(main())
