"""Write docs/config.md: every setting of a recipe with its documentation, as `kitae show` prints it.

Run `python scripts/make_config_docs.py` after changing a setting; a test compares the page.
"""

from collections.abc import Container, Iterator, Mapping
from pathlib import Path

from kitae.chain.finetune_table import FinetuneTable
from kitae.chain.recipe import AdaptTable, Recipe
from kitae.chain.show import MODELS, describe
from kitae.core.config import Config
from kitae.models.cost import count_parameters
from kitae.models.encoder import EncoderConfig
from kitae.models.families import FAMILIES
from kitae.models.presets import PRESETS, fields, resolve_preset
from kitae.objectives.table import OBJECTIVES
from kitae.procedures.measure import MeasureConfig
from kitae.procedures.predict import PredictConfig
from kitae.stages.finetune import FinetuneSettings
from kitae.stages.table import STAGES, stage
from kitae.tasks.formats import FORMATS
from kitae.tasks.kinds import KINDS

PAGE = Path(__file__).parents[1] / "docs" / "config.md"
HEAD = """# Settings

Made by `python scripts/make_config_docs.py` from the documentation at the fields; do not edit by hand. `kitae show NAME` prints the same of
a stage, an objective, a model family, a kind of task or a format of labelled files.

A setting is semantic (it decides the result, and a changed value makes what was made with it stale) unless it is marked
*operational* (it changes how a result is made, not what it is). Unknown keys are refused. A path may start with `sample:` (the packaged
sample) or with a root of `[data]`. `base = "other.toml"` at the top of a recipe takes over what it does not say itself.
"""
MODEL_HEAD = """## config of every model

Fields of `[pretrain.config]` and `[presets.NAME]`. A preset gives the sizes; a new `hidden_size` brings one head for each 64 of it and a
feed-forward part as many times as wide as the preset's, unless they are given too. ELECTRA and DeBERTa-v3 have a table `generator` beside:
`fraction` of the width, `layers` (a number, or a share such as 0.5), or fields as here. Vocabulary and positions come from tokenizer and
dataset.
"""
PRESET_HEAD = """## Presets of `model`

Parameters in millions with the head of pre-training, for 32,768 tokens and 512 positions; halves that share embeddings count them once.
"""


def page() -> str:
    """The whole page."""
    return "\n".join(
        [HEAD, *_recipe(), *_stages(), *_predict(), *_measure(), *_objectives(), *_kinds(), *_formats(), *_models(), *_presets()]
    )


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


def _measure() -> Iterator[str]:
    yield "## evaluate FOLDER TEXT\n\nWhat `kitae evaluate FOLDER TEXT ... --set KEY=VALUE` heeds.\n"
    yield from _block(MeasureConfig)


def _objectives() -> Iterator[str]:
    for name, row in OBJECTIVES.items():
        yield f"## objective_config of {name}\n\n{row.line[0].upper()}{row.line[1:]}.\n"
        yield from _block(row.config)


def _kinds() -> Iterator[str]:
    for name, kind in KINDS.items():
        yield f"## kind_config of {name}\n\n{kind.line[0].upper()}{kind.line[1:]}.\n"
        yield from _block(kind.options)


def _formats() -> Iterator[str]:
    by_config: dict[type[Config], list[str]] = {}
    for name, row in FORMATS.items():
        by_config.setdefault(row.config, []).append(name)
    for config, names in by_config.items():
        yield f"## format_config of {', '.join(names)}\n"
        yield from (f"- `{name}`: {FORMATS[name].line}" for name in names)
        yield ""
        if config.model_fields:
            yield from _block(config)


def _models() -> Iterator[str]:
    common = set(EncoderConfig.model_fields) & set(fields(MODELS[0]))
    yield MODEL_HEAD
    yield from _block(EncoderConfig, without=set(EncoderConfig.model_fields) - common)
    for config, names in _configs().items():
        yield f"## config of {' and '.join(FAMILIES[name].title for name in names)}\n"
        yield from _block(config, without=(set(config.model_fields) - set(fields(names[0]))) | common)


def _configs() -> Mapping[type[Config], list[str]]:
    """The families by their class of settings."""
    found: dict[type[Config], list[str]] = {}
    for name in MODELS:
        found.setdefault(FAMILIES[name].config, []).append(name)
    return found


def _presets() -> Iterator[str]:
    yield PRESET_HEAD
    yield "| preset | layers | hidden size | generator: layers, hidden size | parameters | note |\n|---|---:|---:|---|---:|---|"
    for name, preset in PRESETS.items():
        made = resolve_preset(name, {}, 32768, 512)
        half = made.generator
        width = "" if half is None else f"{half.num_hidden_layers}, {half.hidden_size}"
        numbers = f"{made.encoder.num_hidden_layers} | {made.encoder.hidden_size} | {width} | {count_parameters(made).total / 1e6:.1f}"
        yield f"| `{name}` | {numbers} | {preset.note} |"
    yield ""


def _block(config: type[Config], *, without: Container[str] = ()) -> Iterator[str]:
    yield "```text"
    yield from describe(config, without=without)
    yield "```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
