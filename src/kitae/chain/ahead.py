"""What would end a run after hours of work and can be known before: models, objectives, tokenizer, rows and labels that do not fit."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from kitae.chain.status import State, Status
from kitae.core.config import Config
from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.graph import Node
from kitae.core.paths import locate
from kitae.models.encoder import EncoderConfig
from kitae.models.presets import Architecture, resolve_preset
from kitae.objectives.rtd import RtdConfig
from kitae.objectives.sentence_order import check_order
from kitae.procedures.given import fitting
from kitae.procedures.sweep import check_search
from kitae.procedures.task_trial import TaskTrial
from kitae.procedures.trials import length_of, read_start
from kitae.procedures.words import check_reading
from kitae.stages.corpus import CorpusConfig
from kitae.stages.dataset import DatasetConfig
from kitae.stages.finetune import FinetuneConfig
from kitae.stages.pretrain import PretrainConfig, check_new, check_started, learnt_order
from kitae.stages.sweep import CandidateConfig
from kitae.stages.together import TogetherConfig
from kitae.stages.tokenizer import TokenizerConfig
from kitae.tasks.config import TaskConfig
from kitae.tasks.records import load
from kitae.tasks.shift import shifted
from kitae.train.branch import check_branch
from kitae.train.config import TrainConfig
from kitae.train.freezing import check_depths
from kitae.train.phases import longest
from kitae.train.sinks import check_sinks


def check_nodes(made: Iterable[Node], tokenizer: TokenizerConfig | None, dataset: DatasetConfig, where: str) -> None:
    """Raise KitaeError when a new model cannot learn its objective, from these rows, with this tokenizer, or a phase names no source."""
    nodes = {node.name: node for node in made}
    for node in nodes.values():
        config = node.config
        if not isinstance(config, PretrainConfig):
            continue
        pairs = dataset.pairs if dataset.packing == "pairs" else None
        try:
            check_order(learnt_order(config), pairs)
        except KitaeError as error:
            raise KitaeError(error.what, cure=error.cure, where=f"{where}, table [{node.name}.objective_config]") from error
        corpus = nodes[nodes[node.parents["dataset"]].parents["corpus"]].config
        assert isinstance(corpus, CorpusConfig)
        _check_sources(config.train, [source.label for source in corpus.source], f"{where}, table [{node.name}.train]")
        if config.train.decay_from is not None:
            check_branch(config.train.decay_from, f"{where}, table [{node.name}.train]")
        if config.start is not None:
            continue
        try:
            architecture = _begun(node, nodes, tokenizer, dataset)
            if architecture is not None and "start" not in node.parents:
                _check_model(config, architecture, tokenizer, dataset)
            if architecture is not None:
                _check_rows(architecture, longest(config.train, dataset.max_length))
                check_depths(config.train.freeze, _depths(config, architecture))
        except KitaeError as error:
            raise KitaeError(error.what, cure=error.cure, where=f"{where}, table [{node.name}]") from error
    for node in nodes.values():
        for config in _alone(node.config):
            architecture = _begun(node, nodes, tokenizer, dataset) if isinstance(config, TaskTrial) and "start" in node.parents else None
            if architecture is not None and isinstance(config, TaskTrial):
                _check_frozen_encoder(config, architecture.encoder, f"{where}, table [finetune]")
                length_of(config, architecture.encoder, where=f"{where}, table [finetune], task {config.task.name}")


def _begun(node: Node, nodes: Mapping[str, Node], tokenizer: TokenizerConfig | None, dataset: DatasetConfig) -> Architecture | None:
    """The numbers of the new model that a node begins with or goes on with; None when they are those of a folder."""
    while "start" in node.parents:
        node = nodes[node.parents["start"]]
    config = node.config
    if not isinstance(config, PretrainConfig) or config.model is None or config.start is not None:
        return None
    own = tokenizer is not None and tokenizer.from_ is None  # a folder's vocabulary is known when it is read
    vocab_size, word_bytes = (tokenizer.vocab_size, tokenizer.own_word_bytes) if tokenizer is not None and own else (1000, 0)
    return resolve_preset(config.model, config.config, vocab_size, longest(config.train, dataset.max_length), word_bytes=word_bytes)


def _check_rows(architecture: Architecture, rows: int) -> None:
    positions = architecture.encoder.positions
    if rows > positions:
        cure = f"give a phase of [pretrain] rows of {rows}, or take rows of {positions} or less here"
        raise KitaeError(f"its rows have {rows} tokens, but the model that it goes on with has {positions} positions", cure=cure)


def _depths(config: PretrainConfig, architecture: Architecture) -> dict[str, int]:
    """Layers of every model of an objective, by its part's name."""
    if config.objective == "mlm":
        return {"the encoder": architecture.encoder.num_hidden_layers}
    settings, generator = config.learnt, architecture.generator
    found = {"discriminator": architecture.encoder.num_hidden_layers}
    if generator is not None and not (isinstance(settings, RtdConfig) and settings.uniform_generator):
        found["generator"] = generator.num_hidden_layers
    return found


def _check_frozen_encoder(config: TaskTrial, encoder: EncoderConfig, where: str) -> None:
    try:
        check_depths(config.freeze, {"the encoder": encoder.num_hidden_layers})
    except KitaeError as error:
        raise KitaeError(error.what, cure=error.cure, where=where) from error


def _check_sources(train: TrainConfig, known: Sequence[str], where: str) -> None:
    for number, phase in enumerate(train.phases):
        for name in phase.sources:
            if name not in known:
                what = f'phases.{number}.sources names "{name}", which is no source of its corpus'
                raise KitaeError(what, cure=did_you_mean(name, known), where=where)


def _check_model(config: PretrainConfig, architecture: Architecture, tokenizer: TokenizerConfig | None, dataset: DatasetConfig) -> None:
    check_new(config, architecture, paired=dataset.packing == "pairs")
    if tokenizer is not None and tokenizer.from_ is None:
        check_reading(architecture.encoder, tokenizer.algorithm, tokenizer.own_word_bytes)


def look_ahead(found: Mapping[str, Status], nodes: Sequence[Node]) -> None:
    """Read labelled data and outside models. Raises KitaeError as their readers do, when a model does not fit what it shall do, and when a
    training shall log to a package that is not installed."""
    rows = next((node.config.max_length for node in nodes if isinstance(node.config, DatasetConfig)), 0)
    looked: set[tuple[str, type]] = set()
    planned = [(status, config) for status in found.values() for config in _alone(status.node.config)]
    for status, config in planned:
        if status.state is State.DONE or not isinstance(config, TaskTrial | PretrainConfig):
            continue
        if isinstance(config, PretrainConfig):
            check_sinks(config.train.log_to)
        if isinstance(config, CandidateConfig) and config.search is not None:
            check_search(config.search)
        task = _task_of(config)
        source = config.learn_from if isinstance(config, TaskTrial) else None
        about = "" if task is None else task.name if source is None else f"{source.name} to {task.name}"
        if task is not None and (about, TaskConfig) not in looked:
            looked.add((about, TaskConfig))
            data = load(task)
            if source is not None:
                shifted(load(source), data)
        if config.start is None or (config.start, type(config)) in looked:
            continue
        looked.add((config.start, type(config)))
        try:
            _check_outside(config, locate(config.start), rows)
        except KitaeError as error:
            raise KitaeError(
                error.what, cure=error.cure, where=error.where or f"{config.start}, where {status.node.name} starts"
            ) from error


def _alone(config: Config) -> tuple[Config, ...]:
    """The node's settings; of a trial of several tasks those that each would have alone."""
    return config.alone if isinstance(config, TogetherConfig) else (config,)


def _task_of(config: TaskTrial | PretrainConfig) -> TaskConfig | None:
    if isinstance(config, TaskTrial):
        return config.task
    return None if config.probe is None else config.probe.chosen


def _check_outside(config: TaskTrial | PretrainConfig, start: Path, rows: int) -> None:
    if isinstance(config, PretrainConfig):
        check_started(config, start, longest(config.train, rows))
        return
    if isinstance(config, FinetuneConfig) and config.trained:
        fitting(load(config.task), start)
        return
    part = read_start(start).part
    _check_frozen_encoder(config, part.config, str(start))
    length_of(config, part.config, where=str(start))
