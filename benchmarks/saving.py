"""What a checkpoint costs the training, in steps: written at once, and in the background.

    python -m benchmarks.saving [--preset electra-mini] [--steps 48] [--every 8] [--rounds 3]

Rows of 128 made-up ids, 32 a step. The time from one step's beginning to the next, without checkpoints, is a step. `stall` is the longest
that any interval with a save in it took beyond a step, `cost` all that a save added, to the steps that went on meanwhile too.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.paired import keep
from kitae.models.presets import resolve_preset
from kitae.objectives.rtd import RtdConfig
from kitae.objectives.table import build
from kitae.tensor.batch import Batch, Layout
from kitae.tensor.random import torch_generator
from kitae.tensor.world import World
from kitae.tokenization.special import SpecialIds
from kitae.train.config import TrainConfig
from kitae.train.loop import fit

VOCAB, ROWS, LENGTH = 32_768, 32, 128
SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
WARM_UP = 3


class Timed:
    """Full rows of made-up ids; remembers when every step asked for its first micro-batch."""

    def __init__(self) -> None:
        self.rows_per_step, self.micro_batches_per_step, self.rows_per_epoch = ROWS, 1, 1 << 20
        self.tokens_per_step = float(ROWS * LENGTH)
        self.begun: dict[int, float] = {}

    def micro(self, step: int, micro: int) -> Batch:
        """One micro-batch of one document a row."""
        self.begun[step] = time.perf_counter()
        rows = torch.arange(step * ROWS, (step + 1) * ROWS)
        ids = torch.randint(5, VOCAB, (ROWS, LENGTH), generator=torch_generator(step, "ids"))
        ids[:, 0], ids[:, -1] = SPECIAL.cls, SPECIAL.sep
        words = torch.arange(LENGTH, dtype=torch.int32).expand(ROWS, LENGTH).clone()
        words[:, [0, -1]] = -1
        layout = Layout.padded(torch.ones(ROWS, LENGTH, dtype=torch.bool))
        return Batch(ids_BL=ids, layout=layout, words_BL=words, rows=rows, step=step, micro=micro)


def intervals(preset: str, steps: int, **settings: object) -> list[float]:
    """Seconds from every step's beginning to the next one's, after a warm-up."""
    batches = Timed()
    config = TrainConfig.model_validate({"length": f"{steps} steps", "batch": f"{ROWS} rows", "device": "cpu", **settings})
    objective = build(resolve_preset(preset, {}, VOCAB, LENGTH), RtdConfig(), SPECIAL, VOCAB, 1)
    with tempfile.TemporaryDirectory() as folder:
        fit(objective, batches, config, Path(folder), world=World(), seed=1, attach={})
    times = [batches.begun[step] for step in sorted(batches.begun)]
    return [later - one for one, later in zip(times[WARM_UP:], times[WARM_UP + 1 :], strict=False)]


def main() -> None:
    """Measure all three by turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="electra-mini")
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    saving = {"save_every": f"{arguments.every} steps", "keep_last": 2}
    sides = {"sync": saving | {"save_async": False}, "async": saving | {"save_async": True}}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for number in range(arguments.rounds):
        step = statistics.median(intervals(arguments.preset, arguments.steps, save_every=None))
        for name, settings in sides.items():
            times = intervals(arguments.preset, arguments.steps, **settings)
            saves = len(range(arguments.every, arguments.steps, arguments.every))
            stalls = sorted(times[at - WARM_UP - 1] for at in range(arguments.every, arguments.steps, arguments.every))
            found[name].append(
                {
                    "seconds_a_step": step,
                    "stall": statistics.median(stalls) / step - 1,
                    "longest_stall": stalls[-1] / step - 1,
                    "cost": (sum(times) / step - len(times)) / saves,
                }
            )
        print(
            f"round {number + 1}: " + ", ".join(f"{name} stalls {rows[-1]['stall']:.2f} steps" for name, rows in found.items()), flush=True
        )
    medians = {name: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for name, rows in found.items()}
    keep(f"saving-{arguments.preset}", {"unit": "steps", "every": arguments.every, **medians})


if __name__ == "__main__":
    main()
