"""A training under random kills against the same training left alone: are its weights equal to the bit?

    python -m benchmarks.soak --piece 1 [--minutes 20] [--mean 15]
    python -m benchmarks.soak --piece 2            # the same in bf16, with another seed; may run beside the first

An ELECTRA learns replaced tokens of the packaged text (soak.toml), with a checkpoint every 50 steps, written in the background. Its
process is killed (SIGKILL) after `--mean` seconds of training on average, half of the time at a random moment, else within a save; one
in ten before it trains. The same command starts it again, until it has trained for `--minutes` in all. Then the steps to the next
checkpoint are made in peace, and the same number of steps from the beginning in one go. Weights, optimizer
state and recorded losses are compared.

In as many calls as one likes: the minutes are counted over all of them; only the run that is left alone has to be in one. It takes about
half an hour more than the minutes, most of it for the run that is left alone.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.paired import RESULTS, machine
from kitae.core.artifact import checkpoints, verify
from kitae.train.monitor import read_metrics

EVERY = 50
KEPT = ("step", "loss", "gradient_norm", "tokens")
PIECES: Mapping[int, tuple[str, ...]] = {1: ("seed=1",), 2: ("seed=2", 'pretrain.train.precision="bf16"')}
FILES = ("weights.safetensors", "optimizer.safetensors")


class Training:
    """One run of the recipe, in processes of its own."""

    def __init__(self, output: Path, settings: tuple[str, ...]) -> None:
        self.folder = output / "pretrain"
        self.log = output.with_suffix(".log")
        self.line = [sys.executable, "-m", "kitae", "run", str(Path(__file__).with_suffix(".toml")), "--until", "pretrain"]
        for setting in (f'output="{output}"', *settings):
            self.line += ["--set", setting]

    def start(self, *settings: str) -> subprocess.Popen[bytes]:
        """Go on, from what lies there."""
        more = [word for setting in settings for word in ("--set", setting)]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self.line, *more], stderr=log, stdout=log, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True
            )

    def until(self, step: int) -> float:
        """Train in peace until the checkpoint of a step is there, which stays; the seconds that took."""
        begun, process = time.monotonic(), self.start(f'pretrain.train.milestones=["{step} steps"]')
        while not (self.at(step) / "manifest.json").is_file():
            if process.poll() is not None:
                sys.exit(f"the training ended by itself with {process.returncode}: see {self.log}")
            time.sleep(0.2)
        process.terminate()
        process.wait()
        return time.monotonic() - begun

    def at(self, step: int) -> Path:
        """The checkpoint of a step."""
        return self.folder / "checkpoints" / f"step-{step:08d}"

    def saving(self) -> bool:
        """Whether a save is under way, or was when the process ended."""
        return any((self.folder / "checkpoints").glob(".step-*.part"))

    def trains_since(self, moment: float) -> bool:
        """Whether a process that was started at that time has begun to train."""
        metrics = self.folder / "metrics.jsonl"
        return metrics.is_file() and metrics.stat().st_mtime > moment

    def reached(self) -> int:
        """The step of the newest checkpoint."""
        found = checkpoints(self.folder)
        return int(found[-1].name.removeprefix("step-")) if found else 0


def disturb(training: Training, state: dict[str, float], seconds: float, mean: float, place: Path) -> None:
    """Kill and start again until it has run for so many seconds over all calls."""
    chance = random.Random(f"{place.name} {state['kills']}")
    while state["seconds"] < seconds:
        started, process = time.time(), training.start()
        wait, in_save, early = chance.expovariate(1 / mean), chance.random() < 0.5, chance.random() < 0.1
        trains, within = None, 0.0
        while process.poll() is None and not (early and time.time() - started > wait) and within < 20 * mean:
            if trains is None and training.trains_since(started):
                trains = time.time()
            within = 0.0 if trains is None else time.time() - trains
            if within > wait and (training.saving() or not in_save):
                break
            time.sleep(0.001)
        time.sleep(chance.random() * 0.01 if in_save else 0)
        if process.poll() is not None:
            sys.exit(f"the training ended by itself with {process.returncode}: see {training.log}")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        state["kills"] += 1
        state["within_a_save"] += training.saving()
        state["seconds"] += within
        newest = checkpoints(training.folder)[-1:]
        state["damaged"] += sum(not sound(path) for path in newest)
        (place / "state.json").write_text(json.dumps(state), encoding="utf-8")
        print(f"{state['seconds']:.0f} s, {state['kills']:.0f} kills, step {training.reached()}", flush=True)


def sound(path: Path) -> bool:
    """Whether a checkpoint verifies."""
    try:
        verify(path)
    except Exception as error:
        print(f"{path}: {error}", file=sys.stderr)
        return False
    return True


def records(folder: Path, step: int) -> list[dict[str, object]]:
    """What was recorded of the steps up to one, without times."""
    return [{key: record.get(key) for key in KEPT} for record in read_metrics(folder) if int(str(record["step"])) <= step]


def main() -> None:
    """Disturb, finish, repeat in peace, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--piece", type=int, choices=tuple(PIECES), required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--mean", type=float, default=15)
    parser.add_argument("--folder", type=Path, default=Path("runs/soak"))
    arguments = parser.parse_args()
    place = arguments.folder / f"piece-{arguments.piece}"
    place.mkdir(parents=True, exist_ok=True)
    saved = place / "state.json"
    state = {"seconds": 0.0, "kills": 0, "within_a_save": 0, "damaged": 0}
    state |= json.loads(saved.read_text(encoding="utf-8")) if saved.is_file() else {}
    killed, alone = (Training((place / name).absolute(), PIECES[arguments.piece]) for name in ("killed", "alone"))
    disturb(killed, state, arguments.minutes * 60, arguments.mean, place)
    last = int(state.setdefault("last", (killed.reached() // EVERY + 1) * EVERY))
    saved.write_text(json.dumps(state), encoding="utf-8")
    killed.until(last)
    shutil.rmtree(place / "alone", ignore_errors=True)
    for name in ("corpus", "tokenizer", "dataset", "kitae.json"):  # the same data, so that trainings are compared
        copy = shutil.copytree if (place / "killed" / name).is_dir() else shutil.copy
        (place / "alone").mkdir(exist_ok=True)
        copy(place / "killed" / name, place / "alone" / name)
    seconds = alone.until(last)
    files = {name: (killed.at(last) / name).read_bytes() == (alone.at(last) / name).read_bytes() for name in FILES}
    losses = records(killed.folder, last) == records(alone.folder, last)
    equal = all(files.values()) and losses
    result = {**state, "seconds_alone": seconds, "equal": equal, "files": files, "losses": losses, "settings": PIECES[arguments.piece]}
    kept = RESULTS / "soak.json"
    whole = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    whole |= {"command": "python -m benchmarks.soak --piece N", "machine": machine(), f"piece {arguments.piece}": result}
    kept.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
