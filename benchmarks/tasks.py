"""Real tasks, several seeds: kitae's fine-tuning, transformers' Trainer with the same settings, majority and TF-IDF.

    python -m benchmarks.tasks runs/kyoto/pretrain [--only jsts kyoto] [--minutes 50]     # trains what is missing
    python -m benchmarks.tasks runs/kyoto/pretrain --table                                # writes results/tasks.json

Both sides start from one encoder, see the same token ids in batches of as many examples, choose the best of the same epochs on the same
validation examples by the same metric, and are scored by the same function on the same test examples; new heads, the order of the
examples and dropout are each side's own. Every result is a line of results/tasks.jsonl at once, and what stands there is not done again.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scipy.stats import t as student

from benchmarks.paired import RESULTS, keep
from benchmarks.trainer import Peer
from kitae.models.folder import write_huggingface
from kitae.procedures.baselines import BASELINES
from kitae.procedures.trials import Start, TrialConfig, build, read_start, tune
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.kinds import kind_of, metric_of
from kitae.tasks.records import TaskData, load
from kitae.tensor.random import numpy_generator

SEEDS = (1, 2, 3, 4, 5)
SIDES = ("kitae", "trainer")
LINES = RESULTS / "tasks.jsonl"
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Job:
    """A task, how much of it is used (training, validation and test examples) and how it is learnt."""

    task: Mapping[str, object]
    sizes: tuple[int, int, int]
    settings: Mapping[str, object]


def files(*names: str) -> list[str]:
    """Files below the folder of data."""
    return [f"{{data}}/{name}" for name in names]


COMMON: Mapping[str, object] = {"batch": 16, "learning_rate": 5e-4, "epochs": 2, "max_length": 128, "dropout": 0.1, "device": "cpu"}
PAIR = {"text": "sentence1", "second": "sentence2"}
JOBS: Mapping[str, Job] = {
    "kyoto": Job(
        task={"train": files("kyoto_cls/train.jsonl.xz"), "test": files("kyoto_cls/valid.jsonl.xz"), "text": ["title", "text"], "id": "id"},
        sizes=(450, 100, 400), settings={"max_length": 64, "epochs": 3},
    ),
    "jcola": Job(
        task={
            "train": files("jcola/in_domain_train-v1.0.json.xz"), "test": files("jcola/in_domain_valid-v1.0.json"), "text": "sentence",
            "format": "jsonl",
        },
        sizes=(800, 100, 400), settings={},
    ),
    "jsts": Job(
        task={
            "kind": "regression", "kind_config": {"bounds": [0, 5]}, "train": files("jglue/jsts-v1.3/train-v1.3.json.xz"),
            "test": files("jglue/jsts-v1.3/valid-v1.3.json.xz"), **PAIR,
        },
        sizes=(600, 100, 400), settings={},
    ),
    "jnli": Job(
        task={
            "train": files("jglue/jnli_train_partial/train-partial-from-jnli-neg.json.xz"),
            "test": files("jglue/jnli-v1.3/valid-v1.3.json.xz"), **PAIR,
        },
        sizes=(700, 100, 400), settings={},
    ),
    "jsick": Job(
        task={
            "train": files("jsick/train.tsv.xz"), "test": files("jsick/test.tsv.xz"), "text": "sentence_A_Ja",
            "second": "sentence_B_Ja", "label": "entailment_label_Ja",
        },
        sizes=(700, 100, 400), settings={},
    ),
    "jcommonsenseqa": Job(
        task={
            "kind": "choice", "train": files("jglue/jcommonsenseqa-v1.3/train-v1.3.json.xz"),
            "test": files("jglue/jcommonsenseqa-v1.3/valid-v1.3.json.xz"), "text": "question",
            "choices": [f"choice{i}" for i in range(5)],
        },
        sizes=(200, 50, 300), settings={},
    ),
}  # fmt: skip


def read(name: str, folder: Path) -> TaskData:
    """The task, cut to its sizes: examples drawn once for all seeds and systems."""
    job = JOBS[name]
    placed = {key: [str(one).format(data=folder) for one in value] if key in ("train", "test", "path") else value
              for key, value in job.task.items() if isinstance(value, object)}  # fmt: skip
    data = load(TaskConfig.model_validate({"name": name, **placed}))
    train, validation, test = (_drawn(part, size, name) for part, size in zip((data.train, data.validation, data.test), job.sizes, strict=True))
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
    return digest_json([dict(job.task), job.sizes, settings(name).semantic()])[:12]


def result(name: str, system: str, seed: int, data: TaskData, start: Start, folder: Path) -> dict[str, object]:
    """One training (or baseline) and its test scores. `folder` holds the encoder for the Trainer."""
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
        peer = Peer(folder, data, build(start, data, config, seed=seed), config, metric)
        model, chosen = peer.train(seed)
        predicted = peer.predict(model, data.test)
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


def agreement(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, object]:
    """The difference of the means over seeds and its interval by Welch's t; they agree where 0 lies in it."""
    difference = statistics.fmean(ours) - statistics.fmean(theirs)
    a, b = (statistics.variance(values) / len(values) for values in (ours, theirs))
    half = 0.0
    if a + b:
        freedom = (a + b) ** 2 / (a**2 / (len(ours) - 1) + b**2 / (len(theirs) - 1))
        half = float(student.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(a + b)
    return {"difference": difference, "low": difference - half, "high": difference + half, "agree": abs(difference) <= half or not difference}


def table(run: Path) -> dict[str, object]:
    """All results by task."""
    lines = done()
    rows = {}
    for name, job in JOBS.items():
        mine = [line for line in lines if (line["task"], line["job"]) == (name, digest(name))]
        found = {system: [line for line in mine if line["system"] == system] for system in (*SIDES, *BASELINES)}
        scores = {system: [float(str(line["score"])) for line in some] for system, some in found.items()}
        if min(len(scores[side]) for side in SIDES) < 2:
            continue
        config = settings(name)
        rows[name] = {
            "kind": str(job.task.get("kind", "classification")),
            "metric": found["kitae"][0]["metric"],
            "examples used (training, validation, test)": job.sizes,
            "settings": {"epochs": config.epochs, "max_length": config.max_length},
            "scores": scores,
            "mean": {system: statistics.fmean(values) for system, values in scores.items() if values},
            "kitae - trainer": agreement(scores["kitae"], scores["trainer"]),
            "minutes": {side: sum(float(str(line["seconds"])) for line in found[side]) / 60 for side in SIDES},
        }
    agree = {name: row["kitae - trainer"]["agree"] for name, row in rows.items()}  # type: ignore[index]
    return {"encoder": str(run), "common settings": {**COMMON}, "tasks": rows, "agree": agree, "all agree": all(agree.values())}


def done() -> list[dict[str, object]]:
    """The results that there are."""
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()] if LINES.is_file() else []


def main() -> None:
    """Train what is missing, or write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="*", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no training later than this")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        keep("tasks", table(arguments.run))
        return
    end = time.monotonic() + 60 * arguments.minutes
    start = read_start(arguments.run)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_huggingface(start.part, folder)
        start.tokenizer.save(folder, max_length=min(512, start.part.config.positions))
        for name in arguments.only:
            data = read(name, arguments.data)
            for system, seed in [*((system, 0) for system in BASELINES), *((side, seed) for seed in arguments.seeds for side in SIDES)]:
                if time.monotonic() > end:
                    return
                if any((line["task"], line["system"], line["seed"], line["job"]) == (name, system, seed, digest(name)) for line in done()):
                    continue
                found = result(name, system, seed, data, start, folder)
                with LINES.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found, ensure_ascii=False) + "\n")
                print(name, system, seed, f"{found['score']:.3f}", found["seconds"], flush=True)


if __name__ == "__main__":
    main()
