"""The trials of a recipe as work to be estimated: of every task, encoder, candidate of a sweep and point of a learning curve."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import commonpath

from kitae.chain.amounts import BYTES_PER_TOKEN
from kitae.chain.sizes import Size
from kitae.chain.status import State, Status
from kitae.chain.training import Training
from kitae.core.artifact import Inputs
from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.core.graph import Node
from kitae.core.paths import locate
from kitae.models.cost import Parameters, body_parameters
from kitae.models.encoder import EncoderConfig
from kitae.models.presets import Architecture
from kitae.procedures.baselines import BASELINES
from kitae.procedures.estimate import Work
from kitae.procedures.sweep import TRIALS
from kitae.procedures.task_trial import TaskTrial, examples_of
from kitae.procedures.trials import epochs_of, length_of, read_start, train_config
from kitae.stages.finetune import FinetuneConfig
from kitae.stages.sweep import CandidateConfig
from kitae.stages.together import TogetherConfig
from kitae.tasks.kinds import kind_of, options_of
from kitae.tasks.records import TaskData
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.rule_config import FreezeConfig

TEXTS = 500
"""Examples of a task whose lengths are looked at."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What is known of the start of trials."""

    encoder: EncoderConfig
    tokenizer: Tokenizer | None


def trial_works(found: Mapping[str, Status], known: Mapping[str, Size], output: Path) -> Iterator[Training]:
    """One line for all trials that are alike: of one task, encoder, number of examples and epochs, and all candidates or none."""
    groups: dict[tuple[object, ...], list[tuple[Node, TaskTrial, Begun]]] = {}
    starts: dict[str, Begun | None] = {}
    planned = [(name, status, config) for name, status in found.items() for config in _trained(status.node.config)]
    for name, status, config in planned:
        kind = name.rpartition("/")[0]
        if kind not in starts:
            starts[kind] = _begun(status.node, config, found, known, output)
        begun = starts[kind]
        if begun is not None:
            config = _as_planned(config, status.node, found)
            data = (config.task.name, "" if config.learn_from is None else config.learn_from.name, config.label_count)
            alike = (status.node.stage, *data, config.epochs, config.frozen, begun.encoder.model_dump_json())
            groups.setdefault(alike, []).append((status.node, config, begun))
    read: dict[tuple[object, ...], TaskData | None] = {}
    for about, members in groups.items():
        config = members[0][1]
        if about[1:4] not in read:
            read[about[1:4]] = _loaded(config)
        examples = read[about[1:4]]
        if examples is not None and examples.train:
            name = commonpath({node.name.rpartition("/")[0] for node, _, _ in members})
            if members[0][0].stage == "together":
                name += f", {config.task.name}"
            if isinstance(config, CandidateConfig):
                name += f", {config.epochs} epochs"
            yield _trial(name, [node for node, _, _ in members], config, examples, members[0][2])


def _trained(config: Config) -> tuple[TaskTrial, ...]:
    """The trial of a node, if it is one that is trained; of a trial of several tasks the trials that they would be alone."""
    if isinstance(config, TogetherConfig):
        return config.alone
    if not isinstance(config, TaskTrial) or config.encoder in BASELINES or (isinstance(config, FinetuneConfig) and config.trained):
        return ()
    return (config,)


def _as_planned(config: TaskTrial, node: Node, found: Mapping[str, Status]) -> TaskTrial:
    """With the epochs that a sweep or a search may come to at most, and what is frozen."""
    tried = [found[name].node.config for name in node.parents.values()]
    epochs = [one.search.epochs if one.search else (one.epochs,) for one in (*tried, config) if isinstance(one, CandidateConfig)]
    changes: dict[str, object] = {"epochs": max(map(max, epochs))} if epochs else {}
    if config.frozen:
        changes["freeze"] = FreezeConfig(encoder=True)
    return config.model_copy(update=changes)


def _trial(name: str, nodes: Sequence[Node], config: TaskTrial, data: TaskData, begun: Begun) -> Training:
    encoder = begun.encoder
    most = length_of(config, encoder)
    features = _lengths(data, begun.tokenizer, most)
    looked = len(data.train[:TEXTS])
    sizes = [size for texts in features for size in texts]
    mean, longest = sum(sizes) / len(sizes), max(8, round(max(sizes)))
    learnt = len(data.learned) * len(features) / looked
    per_epoch = math.ceil(learnt / config.batch)
    epochs = epochs_of(config, per_epoch)
    texts = min(config.micro_batch or config.batch, config.batch) * len(sizes) / len(features)
    rows = max(1, round(texts * mean / longest))  # texts share rows as long as the longest
    counted = body_parameters(encoder) + encoder.hidden_size**2
    work = Work(
        architecture=Architecture(encoder=encoder),
        objective="mlm",
        learnt=None,
        train=train_config(config, per_epoch),
        length=longest,
        context=mean,
        fill=min(1.0, texts * mean / (rows * longest)),
        rows=rows * -(-config.batch // min(config.micro_batch or config.batch, config.batch)),
        micro_rows=rows,
        steps=float(epochs * per_epoch),
        mask_rate=0.0,
        shared=False,
        parameters=Parameters(encoder=counted, total=counted),
    )
    looks = epochs if config.protocol == "as published" else 1
    tested, trials = looks * len(data.test), 1
    if isinstance(config, CandidateConfig):
        tested = 0
        trials = (config.search.trials or TRIALS) * len(config.seeds) if config.search is not None else 1
    predicted = (epochs * len(data.validation) + tested) / (3 * epochs * len(data.learned))
    return Training(name=name, nodes=tuple(node.name for node in nodes), work=work, more=trials * (1 + predicted))


def _lengths(data: TaskData, tokenizer: Tokenizer | None, most: int) -> list[list[float]]:
    """Tokens of the texts of every feature of the first training examples; by their bytes where no tokenizer is there yet."""
    examples = data.train[:TEXTS]
    if tokenizer is not None:
        kind, options = kind_of(data.config), options_of(data.config)
        made = (kind.features(example, tokenizer, data.labels, options, max_length=most, learn=False) for example in examples)
        return [[float(len(text.ids)) for text in feature.texts] for features in made for feature in features]
    texts = [[" ".join((e.text, e.second or "", choice)) for choice in e.choices or ("",)] for e in examples]
    return [[min(most, len(text.strip().encode()) / BYTES_PER_TOKEN + 2) for text in some] for some in texts]


def _loaded(config: TaskTrial) -> TaskData | None:
    try:
        return examples_of(config, Inputs(parents={}, seed=1))
    except (KitaeError, OSError):  # `run` says what is wrong
        return None


def _begun(node: Node, config: TaskTrial, found: Mapping[str, Status], known: Mapping[str, Size], output: Path) -> Begun | None:
    parent = node.parents.get("start", "")
    made = parent in found and found[parent].state is State.DONE
    if config.start is not None or made:
        try:
            start = read_start(output / parent if config.start is None else locate(config.start))
            return Begun(encoder=start.part.config, tokenizer=start.tokenizer)
        except (KitaeError, OSError):
            return None
    size = known.get(parent)
    return None if size is None else Begun(encoder=size.architecture.encoder, tokenizer=None)
