"""What a finished run came to: seconds of every node, held-out curves, scores with intervals, from its artifacts.

    python -m benchmarks.chain RUN NAME

RUN is the output folder of a recipe that has been run to its end; the result is results/chain-NAME.json. The seconds of a training
are those spent training, over all its pieces.
"""

import argparse
import json
from pathlib import Path

from benchmarks.paired import keep
from kitae.core.artifact import read_manifest
from kitae.train.monitor import read_metrics

TRAININGS = ("pretrain", "adapt")


def seconds(folder: Path) -> float:
    """What a node took: a training's own account outlives its interruptions."""
    facts = read_manifest(folder).facts
    counts = facts["counts"]
    spent = counts.get("seconds") if isinstance(counts, dict) else None
    return round(float(spent if spent is not None else facts["seconds"]), 1)  # type: ignore[arg-type]


def curve(folder: Path) -> list[dict[str, object]]:
    """The held-out measurements of a training, rounded."""
    found = [record for record in read_metrics(folder) if record["kind"] == "evaluate"]
    return [{key: round(value, 4) if isinstance(value, float) else value for key, value in r.items() if key != "kind"} for r in found]


def main() -> None:
    """Collect and keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    arguments = parser.parse_args()
    nodes = sorted(path.parent for path in arguments.run.rglob("manifest.json"))
    names = {folder: read_manifest(folder).facts.get("node") for folder in nodes}
    spent = {str(name): seconds(folder) for folder, name in names.items() if name is not None}
    trials = [value for name, value in spent.items() if name.startswith("finetune/")]
    files = (arguments.run / "evaluate").glob("*/results.json")
    results = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in files}
    trainings = {name: arguments.run / name for name in TRAININGS if (arguments.run / name).is_dir()}
    keep(
        f"chain-{arguments.name}",
        {
            "minutes": round(sum(spent.values()) / 60, 1),
            "seconds": {name: value for name, value in spent.items() if not name.startswith("finetune/")},
            "seconds of all trials": round(sum(trials), 1),
            "counts": {name: read_manifest(folder).facts["counts"] for name, folder in trainings.items()},
            "curves": {name: curve(folder) for name, folder in trainings.items()},
            "scores": {
                task: {row["encoder"]: row["score"] | {"seeds": row["seeds"]} for row in found["encoders"]}
                for task, found in results.items()
            },
            "verdicts": {task: found["verdicts"] for task, found in results.items()},
        },
    )


if __name__ == "__main__":
    main()
