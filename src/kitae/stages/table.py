"""The table of stages, and the one resolver that imports a stage when it is needed (it keeps `kitae --help` light)."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from kitae.core.artifact import Inputs, Out
from kitae.core.config import Config
from kitae.core.errors import KitaeError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Row:
    """One stage of the table."""

    line: str
    """What it does."""
    where: str
    """Its module."""
    config: str
    """Its settings class there."""
    resumable: bool = False
    """It works in its final folder and continues there after an interruption; others appear whole or not at all."""
    trained: bool = False
    """Its artifact holds trained weights and is never replaced silently."""
    verb: bool = True
    """Whether `kitae STAGE RECIPE` runs up to it; what only serves another stage is reached with --until."""


STAGES: dict[str, Row] = {
    "corpus": Row(line="read, clean, split, drop: raw text to documents", where="kitae.stages.corpus", config="CorpusConfig"),
    "tokenizer": Row(line="train a vocabulary, or take one", where="kitae.stages.tokenizer", config="TokenizerConfig"),
    "dataset": Row(line="documents to token shards and packed rows", where="kitae.stages.dataset", config="DatasetConfig"),
    "pretrain": Row(
        line="pre-train an encoder, or adapt one to a domain",
        where="kitae.stages.pretrain",
        config="PretrainConfig",
        resumable=True,
        trained=True,
    ),
    "finetune": Row(line="one trial: an encoder, a task, a seed", where="kitae.stages.finetune", config="FinetuneConfig", trained=True),
    "together": Row(
        line="one trial of several tasks at once",
        where="kitae.stages.together",
        config="TogetherConfig",
        trained=True,
        verb=False,
    ),
    "sweep": Row(line="what validation says of a candidate's settings", where="kitae.stages.sweep", config="CandidateConfig", verb=False),
    "evaluate": Row(line="compare the trials of a task", where="kitae.stages.evaluate", config="EvaluateConfig"),
    "curve": Row(line="learning curves of a task's comparisons", where="kitae.stages.curve", config="CurveConfig", verb=False),
    "overview": Row(line="one table over all tasks", where="kitae.stages.overview", config="OverviewConfig", verb=False),
    "export": Row(line="Hugging Face folders of what was trained", where="kitae.stages.export", config="ExportConfig"),
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage, imported."""

    version: int
    config: type[Config]
    sources: Callable[[Config], tuple[str, ...]]
    run: Callable[[Config, Inputs, Out], None]
    resumable: bool
    trained: bool


def stage(name: str) -> Stage:
    """Import a stage. Raises KitaeError for an unknown name."""
    if name not in STAGES:
        raise KitaeError(f'there is no stage "{name}"', cure=did_you_mean(name, STAGES))
    row = STAGES[name]
    module = importlib.import_module(row.where)
    config: type[Config] = getattr(module, row.config)
    return Stage(
        version=module.VERSION, config=config, sources=module.sources, run=module.run, resumable=row.resumable, trained=row.trained
    )
