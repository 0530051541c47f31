"""How well `kitae plan` estimates: time and memory as predicted by FLOPs and formulas, and by a probe, against trainings that are run.

    python -m benchmarks.estimate [--rounds 3] [--seconds 12] [--only electra-tiny]

Every round of a case is a probe and a training of the same model in a process of its own, one directly after the other; kept are the ratios
prediction / measurement of every round and their medians. Memory is what the training's process grew by. About eight minutes on two cores.
"""

import argparse
import itertools
import json
import logging
import multiprocessing
import os
import platform
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.paired import RESULTS
from kitae.data.random_rows import SPECIAL, RandomRows
from kitae.models.presets import resolve_preset
from kitae.objectives import table
from kitae.procedures.estimate import Work, estimate
from kitae.procedures.machine import machine
from kitae.procedures.measured_steps import probe
from kitae.tensor.usage import peak_memory, restart_peak
from kitae.tensor.world import World
from kitae.train.config import TrainConfig
from kitae.train.loop import fit
from kitae.train.monitor import read_metrics

VOCABULARY = 8000
STEPS = 14


@dataclass(frozen=True, kw_only=True)
class Case:
    """One configuration."""

    preset: str
    precision: str = "fp32"
    length: int = 128
    rows: int = 16
    hidden: int | None = None
    """Another hidden size than the preset's."""


CASES = (
    Case(preset="electra-tiny", rows=32),
    Case(preset="electra-mini"),
    Case(preset="electra-mini", hidden=384),
    Case(preset="electra-mini", precision="bf16"),
    Case(preset="electra-mini", precision="bf16", length=512, rows=4),
    Case(preset="electra-small", precision="bf16"),
    Case(preset="bert-small", precision="bf16"),
    Case(preset="bert-small", length=512, rows=4),
)


def work_of(case: Case) -> Work:
    """The case as work to be estimated."""
    overrides: dict[str, object] = {} if case.hidden is None else {"hidden_size": case.hidden}
    architecture = resolve_preset(case.preset, overrides, VOCABULARY, case.length)
    objective = "mlm" if architecture.generator is None else "rtd"
    rows = f"{case.rows} rows"
    settings = {"length": f"{STEPS} steps", "batch": rows, "micro_batch": rows, "precision": case.precision, "keep_last": 0}
    return Work(
        architecture=architecture,
        objective="mlm" if objective == "mlm" else "rtd",
        train=TrainConfig.model_validate({**settings, "evaluate_every": None, "log_every": "1 steps"}),
        length=case.length,
        context=case.length,
        fill=1.0,
        rows=case.rows,
        micro_rows=case.rows,
        steps=float(STEPS),
        mask_rate=0.15,
        learnt=table.row(objective).config.model_validate({}),
        shared=True,
    )


def train(case: Case, kind: str, results: Connection) -> None:
    """The training itself, in a process of its own: seconds of its steps behind the first, and bytes that it took."""
    logging.disable(logging.WARNING)
    work, device = work_of(case), torch.device(kind)
    base = restart_peak(device)
    assert work.learnt is not None
    module = table.build(work.architecture, work.learnt, SPECIAL, VOCABULARY, 1)
    batches = RandomRows(rows=case.rows, micro_rows=case.rows, length=case.length, context=case.length, vocab_size=VOCABULARY)
    with tempfile.TemporaryDirectory() as folder:
        fit(module, batches, work.train, Path(folder), world=World(device=device), seed=1, attach={})
        ends = [float(str(record["seconds"])) for record in read_metrics(Path(folder)) if record["kind"] == "train"]
    steps = [later - earlier for earlier, later in itertools.pairwise(ends[1:])]
    results.send((statistics.median(steps), peak_memory(device, base)))


def trained(case: Case, kind: str) -> tuple[float, float]:
    """(seconds of a step, bytes) of a real training."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=train, args=(case, kind, theirs))
    child.start()
    found: tuple[float, float] = ours.recv()
    child.join()
    return found


def rounds(case: Case, number: int, seconds: float) -> Iterator[dict[str, float]]:
    """Prediction over measurement, once a round."""
    work, on = work_of(case), replace(machine("auto"), count=1)
    for _ in range(number):
        measured = probe({case.preset: work}, on.kind, seconds=seconds)[case.preset]
        step, memory = trained(case, on.kind)
        by_probe, by_flops = estimate(work, on, measured=measured), estimate(work, on)
        yield {
            "seconds_per_step": step,
            "megabytes": memory / 1e6,
            "time: probe": by_probe.seconds / STEPS / step,
            "time: FLOPs": by_flops.seconds / STEPS / step,
            "memory: probe": by_probe.memory.total / memory,
            "memory: formulas": by_flops.memory.total / memory,
        }


def main() -> None:
    """Measure every case, and keep what came out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", type=Path, default=RESULTS / "estimate.json")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    kept: list[dict[str, object]] = []
    for case in (case for case in CASES if case.preset.startswith(arguments.only)):
        found = list(rounds(case, arguments.rounds, arguments.seconds))
        medians = {name: round(statistics.median(one[name] for one in found), 4) for name in found[0]}
        kept.append({**asdict(case), "medians": medians, "rounds": found})
        print(json.dumps({**asdict(case), **medians}), flush=True)
    ratios = [name for name in kept[0]["rounds"][0] if ":" in name]  # type: ignore[index]
    every = {name: [case["medians"][name] for case in kept] for name in ratios}  # type: ignore[index]
    result = {
        "command": f"python -m benchmarks.estimate --rounds {arguments.rounds} --seconds {arguments.seconds:g}",
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__},
        "prediction / measurement, median of all cases": {name: round(statistics.median(values), 4) for name, values in every.items()},
        "worst case": {name: max(values, key=lambda value: abs(value - 1)) for name, values in every.items()},
        "cases": kept,
    }
    arguments.keep.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: result[name] for name in list(result)[2:4]}, indent=1))


if __name__ == "__main__":
    main()
