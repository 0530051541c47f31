"""Runs trainings and stages that die at their n-th operation on files, and goes on after each. test_dying.py preloads injector.c into it.

Every line on standard input asks for one scenario: {"scenario": ..., "first": 0, "stride": 1, "torn": false}. A process is forked for every
n: it does all up to operation n of the scenario, and of a write (`torn`) the first half. What is left is looked at, and the same is run
again to its end by nobody's hand. The answer is a line with the number of deaths and what went wrong.
"""

import contextlib
import ctypes
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from toy_training import Toy, ToyBatches, config

from kitae.chain import execute, nodes, recipe, status
from kitae.core.artifact import checkpoints, verify
from kitae.tensor.batch import Batch
from kitae.tensor.world import World
from kitae.train import clock
from kitae.train.checkpoint import latest
from kitae.train.loop import fit
from kitae.train.monitor import read_metrics

DIES = 137
KEPT = ("kind", "step", "loss", "mlm_loss", "rtd_loss", "learning_rate", "gradient_norm", "held", "tokens")
"""What metrics.jsonl says but times."""
CHAIN = """
output = "run"
[corpus]
source = [{ path = "text.txt" }]
holdout = 0.2
engine = { workers = 1 }
[tokenizer]
segmenter = "whitespace"
algorithm = "character"
vocab_size = 30
[dataset]
max_length = 16
workers = 1
"""


class Cut(ToyBatches):
    """Ends by an error where `step` begins."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def micro(self, step: int, micro: int) -> Batch:
        if step == self.step:
            raise InterruptedError
        return super().micro(step, micro)


class Scenario:
    """What is run. Results are compared with those of a run that nothing happened to."""

    def prepare(self, folder: Path) -> None:
        """What lies there before."""

    def run(self, folder: Path) -> None:
        """To the end, from whatever lies there."""
        raise NotImplementedError

    def found(self, folder: Path) -> None:
        """Assert what must hold right after a death."""

    def result(self, folder: Path) -> object:
        """What must be the same in the end."""
        raise NotImplementedError


class Training(Scenario):
    """Three steps, a checkpoint after each, of which one stays; two of them are made before."""

    def __init__(self, *, behind: bool, before: int = 2) -> None:
        self.before = before
        self.config = config(length="3 steps", save_every="1 step", evaluate_every="1 step", keep_last=1, save_async=behind)

    def fit(self, folder: Path, batches: ToyBatches) -> None:
        fit(Toy(), batches, self.config, folder, world=World(), seed=7, attach={}, evaluate=lambda step: {"held": float(step)})

    def prepare(self, folder: Path) -> None:
        if self.before:
            with contextlib.suppress(InterruptedError):
                self.fit(folder, Cut(self.before))

    def run(self, folder: Path) -> None:
        self.fit(folder, ToyBatches())

    def found(self, folder: Path) -> None:
        for path in checkpoints(folder):
            verify(path)
        newest = latest(folder)
        assert newest is not None or not self.before, "no checkpoint is left"

    def result(self, folder: Path) -> object:
        (last,) = checkpoints(folder)
        assert [path.name for path in (folder / "checkpoints").iterdir() if path.is_dir()] == [last.name]
        content = [hashlib.sha256((last / name).read_bytes()).hexdigest() for name in ("weights.safetensors", "optimizer.safetensors")]
        records = [{key: value for key, value in record.items() if key in KEPT} for record in read_metrics(folder)]
        return [last.name, content, records]


class Budget(Training):
    """A wall-clock length: clock.jsonl is written with every step. Every look at the clock is a quarter of a second later."""

    def __init__(self) -> None:
        super().__init__(behind=True, before=0)
        self.config = config(length="8s", save_every="2s", keep_last=1)

    def run(self, folder: Path) -> None:
        time = [0.0]

        def monotonic() -> float:
            time[0] += 0.25
            return time[0]

        before, clock.monotonic = clock.monotonic, monotonic
        try:
            super().run(folder)
        finally:
            clock.monotonic = before

    def result(self, folder: Path) -> object:
        (last,) = checkpoints(folder)
        lines = [json.loads(line) for line in (folder / clock.RECORD).read_text().splitlines()]
        steps = [line["step"] for line in lines if "step" in line]
        assert steps == list(range(int(last.name[5:])))
        return [verify(last).kind, len(steps) > 3]  # how many steps it comes to hangs on the clock


class Chain(Scenario):
    """A recipe's stages that are no training, from their lock to the last seal."""

    def __init__(self, first: str, last: str) -> None:
        self.first, self.last = first, last

    def prepare(self, folder: Path) -> None:
        (folder / "text.txt").write_text("\n\n".join(f"首都は東京です。{i}番目の文書。" for i in range(6)), encoding="utf-8")
        (folder / "r.toml").write_text(CHAIN, encoding="utf-8")
        if self.first:
            self._make(folder, self.first)

    def _make(self, folder: Path, until: str) -> None:
        os.chdir(folder)
        loaded, path = recipe.load("r.toml")
        execute.execute(loaded, path, nodes.select(nodes.nodes(loaded, str(path)), until))

    def run(self, folder: Path) -> None:
        self._make(folder, self.last)

    def found(self, folder: Path) -> None:
        os.chdir(folder)
        loaded, path = recipe.load("r.toml")
        for row in status.statuses(nodes.nodes(loaded, str(path)), folder / "run", loaded.seed).values():
            if row.state is status.State.DONE:
                verify(folder / "run" / row.node.name)

    def result(self, folder: Path) -> object:
        left = [
            item.name for item in (folder / "run").iterdir() if item.name.startswith(".") and item.name not in (".lock", ".hashes.json")
        ]
        assert left == []
        return {
            name: verify(folder / "run" / name).files for name in ("corpus", "tokenizer", "dataset") if (folder / "run" / name).is_dir()
        }


SCENARIOS: Mapping[str, Callable[[], Scenario]] = {
    "sync": lambda: Training(behind=False),
    "async": lambda: Training(behind=True),
    "new": lambda: Training(behind=True, before=0),
    "budget": Budget,
    "corpus": lambda: Chain("", "corpus"),
    "tokenizer": lambda: Chain("corpus", "tokenizer"),
    "dataset": lambda: Chain("tokenizer", "dataset"),
}


def dies(scenario: Scenario, folder: Path, operation: int, *, torn: bool) -> bool:
    """Run it in a process of its own that ends at that operation; False when it came to its end before."""
    process = os.fork()
    if not process:
        code = 1
        try:
            ctypes.CDLL(None).injector_arm(ctypes.c_long(operation), int(torn), str(folder).encode())
            scenario.run(folder)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, DIES), f"the run itself failed with {code}"
    return code == DIES


def deaths(scenario: Scenario, root: Path, *, first: int, stride: int, torn: bool) -> tuple[int, list[str]]:
    """(deaths, what went wrong after which)."""
    for name in ("before", "whole"):
        (root / name).mkdir()
    scenario.prepare(root / "before")
    shutil.copytree(root / "before", root / "whole", dirs_exist_ok=True)
    scenario.run(root / "whole")
    expected, wrong, count = scenario.result(root / "whole"), [], 0
    for operation in range(first, 100_000, stride):
        folder = root / "here"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(root / "before", folder)
        if not dies(scenario, folder, operation, torn=torn):
            break
        count += 1
        try:
            scenario.found(folder)
            scenario.run(folder)
            assert scenario.result(folder) == expected, "the result is another"
        except Exception as error:
            wrong.append(f"operation {operation}: {type(error).__name__}: {error} ({traceback.extract_tb(error.__traceback__)[-1]})")
    return count, wrong


def main() -> None:
    """Answer until the questions end."""
    torch.set_num_threads(1)
    logging.disable(logging.ERROR)
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # nothing here is about the disk itself
    for line in sys.stdin:
        asked = json.loads(line)
        with tempfile.TemporaryDirectory(dir=place) as root:
            count, wrong = deaths(SCENARIOS[asked.pop("scenario")](), Path(root), **asked)
        print(json.dumps({"deaths": count, "wrong": wrong}), flush=True)
    os._exit(0)  # taking torch apart takes seconds


if __name__ == "__main__":
    main()
