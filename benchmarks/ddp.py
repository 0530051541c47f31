"""Two processes with a core each against one process with one core: real tokens a second of the same training.

    python -m benchmarks.ddp [--preset electra-mini] [--steps 12] [--rounds 5] [--batch 16384] [--precision fp32]

The whole loop on a made-up dataset (rows of 256), the same global batch, micro-batches of 4096 tokens dealt in whole; processes take turns,
each side is started anew every round. The speed is that of metrics.jsonl, the first records left out.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.made import SPECIAL, VOCAB, make_dataset
from benchmarks.paired import OFFLINE, keep, ratio
from kitae.core.runtime import keep_memory, leave
from kitae.data.sampler import Sampler
from kitae.models.presets import resolve_preset
from kitae.objectives.rtd import RtdConfig
from kitae.objectives.table import build
from kitae.tensor.world import session
from kitae.train.config import TrainConfig, step_rows
from kitae.train.loop import fit
from kitae.train.monitor import read_metrics

LENGTH = 256
WARM_UP = 2


def work(folder: Path, dataset: Path, preset: str, settings: dict[str, object]) -> None:
    """One process of a training; the launcher's environment says which."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[int(os.environ.get("RANK", "0"))]})
    torch.set_num_threads(1)
    keep_memory()
    config = TrainConfig.model_validate(settings)
    rows, micro = step_rows(config, LENGTH)
    sampler = Sampler(dataset, rows_per_step=rows, rows_per_micro_batch=micro, seed=1)
    objective = build(resolve_preset(preset, {}, VOCAB, LENGTH), RtdConfig(), SPECIAL, VOCAB, 1)
    with session("cpu") as world:
        fit(objective, sampler, config, folder, world=world, seed=1, attach={})


def speed(processes: int, dataset: Path, preset: str, settings: dict[str, object]) -> float:
    """Real tokens a second of a training on so many processes."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "benchmarks.ddp", "--worker", temporary, str(dataset), preset, json.dumps(settings)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        group = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(processes)}
        running = []
        for rank in range(processes):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} | group if processes > 1 else {}
            running.append(subprocess.Popen(command, env=os.environ | OFFLINE | {"OMP_NUM_THREADS": "1"} | own))
        assert [process.wait() for process in running] == [0] * processes
        records = [record for record in read_metrics(Path(temporary)) if record["kind"] == "train"]
        return statistics.median(float(str(record["tokens_per_second"])) for record in records[WARM_UP:])


def main() -> None:
    """Measure both by turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="electra-mini")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16_384)
    parser.add_argument("--worker", nargs=4)
    arguments = parser.parse_args()
    if arguments.worker:
        folder, dataset, preset, settings = arguments.worker
        work(Path(folder), Path(dataset), preset, json.loads(settings))
        leave(0)
    settings = {"length": f"{arguments.steps} steps", "batch": f"{arguments.batch} tokens", "precision": arguments.precision}
    settings |= {"device": "cpu", "save_every": None, "keep_last": 0, "evaluate_every": None, "log_every": "1 step", "log_to": []}
    found: dict[str, list[float]] = {"one": [], "two": []}
    with tempfile.TemporaryDirectory() as temporary:
        dataset = make_dataset(Path(temporary), max_length=LENGTH)
        for number in range(arguments.rounds):
            for processes, side in enumerate(found, start=1):
                found[side].append(speed(processes, dataset, arguments.preset, settings))
            print(f"round {number + 1}: one {found['one'][-1]:,.0f}, two {found['two'][-1]:,.0f} tokens/s", flush=True)
    keep(f"ddp-{arguments.preset}", {"settings": settings, "tokens per second": found, "two / one": ratio(found["two"], found["one"])})


if __name__ == "__main__":
    main()
