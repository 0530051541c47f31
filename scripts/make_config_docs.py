"""Write docs/config.md: every setting of a recipe with its documentation, as `kitae show` prints it.

Run `python scripts/make_config_docs.py` after changing a setting; a test compares the page.
"""

from collections.abc import Iterator
from pathlib import Path

from kitae.chain.recipe import AdaptTable, FinetuneTable, Recipe
from kitae.chain.show import describe
from kitae.core.config import Config
from kitae.models.presets import PRESETS
from kitae.objectives.table import OBJECTIVES
from kitae.procedures.predict import PredictConfig
from kitae.stages.finetune import FinetuneSettings
from kitae.stages.table import STAGES, stage

PAGE = Path(__file__).parents[1] / "docs" / "config.md"
HEAD = """# Settings

Made by `python scripts/make_config_docs.py` from the documentation at the fields; do not edit by hand. `kitae show STAGE` prints the same.

A setting is semantic (it decides the result, and a changed value makes what was made with it stale) unless it is marked
*operational* (it changes how a result is made, not what it is). Unknown keys are refused. A path may start with `sample:` (the packaged
sample) or with a root of `[data]`. `base = "other.toml"` at the top of a recipe takes over what it does not say itself.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_recipe(), *_stages(), *_predict(), *_objectives(), *_presets()])


def _recipe() -> Iterator[str]:
    yield "## The recipe\n"
    yield from _table(Recipe, without=())
    yield "\n`[adapt]`: its `train` table is that of `[pretrain]`, its sources are those of `[corpus]`.\n"
    yield from _table(AdaptTable, without=())
    yield "\n`[finetune]`, beside the settings of every trial (stage finetune below):\n"
    yield from _table(FinetuneTable, without=tuple(FinetuneSettings.model_fields))
    yield ""


def _table(config: type[Config], *, without: tuple[str, ...]) -> Iterator[str]:
    yield "| key | what it is |\n|---|---|"
    for name, field in config.model_fields.items():
        if name not in without:
            text = " ".join((field.description or "").split()).replace("|", "\\|")
            yield f"| `{name}`{' (required)' if field.is_required() else ''} | {text} |"


def _stages() -> Iterator[str]:
    for name, row in STAGES.items():
        yield f"## {name}\n\n{row.line[0].upper()}{row.line[1:]}.\n"
        yield from _block(stage(name).config)


def _predict() -> Iterator[str]:
    yield "## predict\n\nWhat `kitae predict FOLDER SOURCE TARGET --set KEY=VALUE` heeds.\n"
    yield from _block(PredictConfig)


def _objectives() -> Iterator[str]:
    for name, row in OBJECTIVES.items():
        yield f"## objective_config of {name}\n\n{row.line[0].upper()}{row.line[1:]}.\n"
        yield from _block(row.config)


def _presets() -> Iterator[str]:
    yield "## Presets of `model`\n\n| preset | layers | hidden size | generator's width | note |\n|---|---:|---:|---:|---|"
    for name, preset in PRESETS.items():
        numbers = preset.encoder
        width = "" if preset.generator is None else f"{preset.generator.get('fraction', 1.0):.2g}"
        yield f"| `{name}` | {numbers['num_hidden_layers']} | {numbers['hidden_size']} | {width} | {preset.note} |"
    yield ""


def _block(config: type[Config]) -> Iterator[str]:
    yield "```text"
    yield from describe(config)
    yield "```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
