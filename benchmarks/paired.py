"""Paired timing: worker processes that stay alive and take turns, so that the machine's drift hits all sides alike."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
OFFLINE = {"HF_HUB_OFFLINE": "1"}


def serve(prepare: Callable[[], Callable[[], float]]) -> None:
    """The worker's side: prepare once, then answer every line on standard input with one measurement on standard output."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print too
    measure = prepare()
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), file=answers, flush=True)


def by_turns(workers: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[float]]:
    """Start the workers, let each measure once a round (A B C A B C ...), and return their measurements."""
    running = {
        name: subprocess.Popen(list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | OFFLINE)
        for name, command in workers.items()
    }
    for name, process in running.items():
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready", f"worker {name} did not start"
    found: dict[str, list[float]] = {name: [] for name in workers}
    for number in range(rounds):
        for name, process in running.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            found[name].append(float(json.loads(process.stdout.readline())))
        print(f"round {number + 1}/{rounds}: " + ", ".join(f"{name} {values[-1]:,.0f}" for name, values in found.items()), flush=True)
    for process in running.values():
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of the ratios round by round."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def matmul_gflops(dtype: torch.dtype, size: int = 2048, times: int = 5) -> float:
    """Billions of operations a second of one large matrix product, the best of a few: what the machine could do at most."""
    a, b, best = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype), 0.0
    for _ in range(times):
        begun = time.perf_counter()
        a @ b
        best = max(best, 2 * size**3 / (time.perf_counter() - begun) / 1e9)
    return best


def profile(step: Callable[[], object], most: int = 14) -> list[dict[str, object]]:
    """The operations that take most of a step's time, with their share of it."""
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step()
    rows = sorted(profiler.key_averages(), key=lambda row: -row.self_cpu_time_total)
    whole = sum(row.self_cpu_time_total for row in rows)
    return [{"operation": row.key, "calls": row.count, "share": round(row.self_cpu_time_total / whole, 4)} for row in rows[:most]]


def machine() -> dict[str, object]:
    """What was measured on."""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return {"processor": model, "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}


def command() -> str:
    """How this script was called."""
    return f"python -m benchmarks.{Path(sys.argv[0]).stem} {' '.join(sys.argv[1:])}".strip()


def keep(name: str, result: Mapping[str, object]) -> None:
    """Write a result with the command that made it, and print it."""
    whole = {"command": command(), "machine": machine(), **result}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(whole, indent=1, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
