"""What would end a run after hours of work and can be known before: models, objectives, tokenizer, rows and labels that do not fit."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from kitae.chain.status import State, Status
from kitae.core.errors import KitaeError
from kitae.core.graph import Node
from kitae.core.paths import locate
from kitae.models.presets import resolve_preset
from kitae.objectives.sentence_order import check_order
from kitae.procedures.classifier import check_length
from kitae.procedures.trials import read_start
from kitae.procedures.words import check_reading
from kitae.stages.dataset import DatasetConfig
from kitae.stages.finetune import FinetuneConfig
from kitae.stages.pretrain import PretrainConfig, check_new, check_started, learnt_order
from kitae.stages.tokenizer import TokenizerConfig
from kitae.tasks.config import TaskConfig
from kitae.tasks.records import load
from kitae.train.sinks import check_sinks


def check_nodes(made: Iterable[Node], tokenizer: TokenizerConfig | None, dataset: DatasetConfig, where: str) -> None:
    """Raise KitaeError when a new model cannot learn its objective, from these rows, with this tokenizer."""
    for node in made:
        config = node.config
        if not isinstance(config, PretrainConfig):
            continue
        pairs = dataset.pairs if dataset.packing == "pairs" else None
        try:
            check_order(learnt_order(config), pairs)
        except KitaeError as error:
            raise KitaeError(error.what, cure=error.cure, where=f"{where}, table [{node.name}.objective_config]") from error
        if config.model is None or config.start is not None or "start" in node.parents:
            continue
        try:
            _check_model(config, tokenizer, dataset)
        except KitaeError as error:
            raise KitaeError(error.what, cure=error.cure, where=f"{where}, table [{node.name}]") from error


def _check_model(config: PretrainConfig, tokenizer: TokenizerConfig | None, dataset: DatasetConfig) -> None:
    assert config.model is not None, "asked of new models only"
    vocab_size, word_bytes = (
        (tokenizer.vocab_size, tokenizer.own_word_bytes) if tokenizer is not None and tokenizer.from_ is None else (1000, 0)
    )
    architecture = resolve_preset(config.model, config.config, vocab_size, dataset.max_length, word_bytes=word_bytes)
    check_new(config, architecture, paired=dataset.packing == "pairs")
    if tokenizer is not None and tokenizer.from_ is None:  # a folder's is known when it is read
        check_reading(architecture.encoder, tokenizer.algorithm, word_bytes)


def look_ahead(found: Mapping[str, Status], nodes: Sequence[Node]) -> None:
    """Read labelled data and outside models. Raises KitaeError as their readers do, when a model does not fit what it shall do, and when a
    training shall log to a package that is not installed."""
    rows = next((node.config.max_length for node in nodes if isinstance(node.config, DatasetConfig)), 0)
    looked: set[tuple[str, type]] = set()
    for status in found.values():
        config = status.node.config
        if status.state is State.DONE or not isinstance(config, FinetuneConfig | PretrainConfig):
            continue
        if isinstance(config, PretrainConfig):
            check_sinks(config.train.log_to)
        task = _task_of(config)
        if task is not None and (task.name, TaskConfig) not in looked:
            looked.add((task.name, TaskConfig))
            load(task)
        if config.start is None or (config.start, type(config)) in looked:
            continue
        looked.add((config.start, type(config)))
        try:
            _check_outside(config, locate(config.start), rows)
        except KitaeError as error:
            raise KitaeError(
                error.what, cure=error.cure, where=error.where or f"{config.start}, where {status.node.name} starts"
            ) from error


def _task_of(config: FinetuneConfig | PretrainConfig) -> TaskConfig | None:
    if isinstance(config, FinetuneConfig):
        return config.task
    return None if config.probe is None else config.probe.chosen


def _check_outside(config: FinetuneConfig | PretrainConfig, start: Path, rows: int) -> None:
    if isinstance(config, PretrainConfig):
        check_started(config, start, rows)
        return
    part = read_start(start).part
    if config.max_length is not None:
        check_length(config.max_length, part, where=str(start))
