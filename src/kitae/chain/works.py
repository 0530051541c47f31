"""The trainings of a recipe as work to be estimated: pre-training, adapting, and the trials of every task and encoder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kitae.chain.amounts import BYTES_PER_TOKEN, CONTEXT, FILL, Amount, amount
from kitae.chain.sizes import Size
from kitae.chain.status import State, Status
from kitae.core.errors import KitaeError
from kitae.core.graph import Node
from kitae.core.paths import locate
from kitae.data.random_rows import RandomRows
from kitae.models.cost import Parameters, body_parameters
from kitae.models.encoder import EncoderConfig
from kitae.models.presets import Architecture
from kitae.objectives.mlm import MaskingConfig
from kitae.procedures.baselines import BASELINES
from kitae.procedures.estimate import Work
from kitae.procedures.fitting import MOST_TOKENS
from kitae.procedures.trials import read_start, train_config
from kitae.stages.dataset import DatasetConfig
from kitae.stages.finetune import FinetuneConfig
from kitae.stages.pretrain import PretrainConfig
from kitae.tasks.records import TaskData, load
from kitae.train.config import TrainConfig, step_rows
from kitae.train.phases import phases_of
from kitae.train.schedule import steps_of

TEXTS = 500
"""Texts of a task whose lengths are looked at."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One line of the plan."""

    name: str
    """The node's, with the number of its phase; of trials "finetune/TASK/ENCODER"."""
    nodes: tuple[str, ...]
    """What is trained: one node, or all trials of a task and an encoder."""
    work: Work
    """Of one node."""
    amount: Amount | None = None
    """The text that is learnt, in passes; None for trials."""
    last: bool = True
    """Whether no other phase follows."""
    more: float = 1.0
    """What comes on top of the steps, as a factor of their time: a trial's predictions."""

    @property
    def epochs(self) -> float | None:
        """Passes over the text; None for trials and where the length is a time."""
        if self.amount is None or self.work.steps is None:
            return None
        return self.work.steps * self.work.rows * self.work.length * self.work.fill / self.amount.tokens


def trainings(found: Mapping[str, Status], sizes: Sequence[Size], output: Path) -> Iterator[Training]:
    """What the nodes train, in their order; those of which too little is known are left out."""
    known = {size.node: size for size in sizes}
    for name, status in found.items():
        config = status.node.config
        if isinstance(config, PretrainConfig):
            size = known.get(name) or known.get(status.node.parents.get("start", ""))
            if size is not None:
                known[name] = size
                yield from _pretraining(status.node, config, size, found, output)
    yield from _trials(found, known)


def _pretraining(node: Node, config: PretrainConfig, size: Size, found: Mapping[str, Status], output: Path) -> Iterator[Training]:
    dataset = found[node.parents["dataset"]]
    corpus = found[dataset.node.parents["corpus"]]
    assert isinstance(dataset.node.config, DatasetConfig)
    length = dataset.node.config.max_length
    done = {name: status.state is State.DONE for name, status in (("made", dataset), ("corpus_made", corpus))}
    whole, settings = amount(dataset.node, corpus.node, output, **done), config.learnt
    assert isinstance(settings, MaskingConfig), "every objective masks"
    phases = phases_of(config.train, length)
    for number, phase in enumerate(phases, start=1):
        text = None if whole is None or phase.sources else whole if phase.max_length == length else whole.repacked(phase.max_length)
        steps = steps_in_all(phase.config, phase.max_length, text)
        if steps is None and phase.config.budget is None:
            continue  # epochs of a text that nobody has counted
        saved = 0 if config.train.keep_last == 0 else config.train.keep_last + len(config.train.milestones)
        work = Work(
            architecture=size.architecture,
            objective=config.objective,
            learnt=settings,
            train=phase.config,
            length=phase.max_length,
            context=text.context if text is not None else CONTEXT * phase.max_length,
            fill=text.fill if text is not None else FILL,
            rows=phase.rows,
            micro_rows=phase.micro_rows,
            steps=steps,
            mask_rate=settings.mean_rate,
            shared=size.shared,
            pairs=size.pairs,
            checkpoints=saved if steps is None else min(saved, int(steps)),
        )
        name = f"{node.name}, phase {number}" if len(phases) > 1 else node.name
        yield Training(name=name, nodes=(node.name,), work=work, amount=text, last=number == len(phases))


def steps_in_all(train: TrainConfig, length: int, text: Amount | None) -> float | None:
    """Updates of a training on rows of `length`; None for a time, and for epochs of an unknown text."""
    units = {train.length.unit} | ({train.batch_warmup.over.unit} if train.batch_warmup is not None else set())
    if train.budget is not None or (text is None and "epochs" in units):
        return None
    rows, micro_rows = step_rows(train, length)
    batches = RandomRows(
        rows=rows,
        micro_rows=micro_rows,
        length=length,
        context=length,
        vocab_size=1 << 10,
        rows_per_epoch=None if text is None else round(text.rows(length)),
    )
    return float(steps_of(train.length, train, batches))


def _trials(found: Mapping[str, Status], known: Mapping[str, Size]) -> Iterator[Training]:
    """One line for all trials of a task whose encoders are alike."""
    groups: dict[tuple[str, str], list[tuple[Node, FinetuneConfig, EncoderConfig]]] = {}
    encoders: dict[str, EncoderConfig | None] = {}
    for name, status in found.items():
        config = status.node.config
        if isinstance(config, FinetuneConfig) and config.encoder not in BASELINES:
            kind = name.rpartition("/")[0]
            if kind not in encoders:
                encoders[kind] = _encoder(status.node, config, known)
            encoder = encoders[kind]
            if encoder is not None:
                groups.setdefault((config.task.name, encoder.model_dump_json()), []).append((status.node, config, encoder))
    data: dict[str, TaskData | None] = {}
    for (task, _), members in groups.items():
        if task not in data:
            data[task] = _loaded(members[0][1])
        texts, kinds = data[task], {node.name.rpartition("/")[0] for node, _, _ in members}
        if texts is not None and texts.train:
            name = next(iter(kinds)) if len(kinds) == 1 else f"finetune/{task}"
            yield _trial(name, [node for node, _, _ in members], members[0][1], texts, members[0][2])


def _trial(name: str, nodes: Sequence[Node], config: FinetuneConfig, data: TaskData, encoder: EncoderConfig) -> Training:
    most = min(config.max_length or MOST_TOKENS, encoder.positions, MOST_TOKENS)
    sizes = [min(most, len(example.text.encode()) / BYTES_PER_TOKEN + 2) for example in data.train[:TEXTS]]
    mean, longest = sum(sizes) / len(sizes), max(8, round(max(sizes)))
    per_epoch = -(-len(data.train) // config.batch)
    texts = min(config.micro_batch or config.batch, config.batch)
    rows = max(1, round(texts * mean / longest))  # texts share rows as long as the longest
    counted = body_parameters(encoder) + encoder.hidden_size**2
    train = train_config(config, per_epoch)
    work = Work(
        architecture=Architecture(encoder=encoder),
        objective="mlm",
        learnt=None,
        train=train,
        length=longest,
        context=mean,
        fill=min(1.0, texts * mean / (rows * longest)),
        rows=rows * -(-config.batch // texts),
        micro_rows=rows,
        steps=float(config.epochs * per_epoch),
        mask_rate=0.0,
        shared=False,
        parameters=Parameters(encoder=counted, total=counted),
    )
    predicted = (config.epochs * len(data.validation) + len(data.test)) / (3 * config.epochs * len(data.train))
    return Training(name=name, nodes=tuple(node.name for node in nodes), work=work, more=1 + predicted)


def _loaded(config: FinetuneConfig) -> TaskData | None:
    try:
        return load(config.task)
    except (KitaeError, OSError):  # `run` says what is wrong
        return None


def _encoder(node: Node, config: FinetuneConfig, known: Mapping[str, Size]) -> EncoderConfig | None:
    if config.start is None:
        size = known.get(node.parents.get("start", ""))
        return None if size is None else size.architecture.encoder
    try:
        return read_start(locate(config.start)).part.config
    except (KitaeError, OSError):
        return None


def resized(training: Training, size: Size) -> Training:
    """The same training of another model."""
    return replace(training, name=size.model, work=replace(training.work, architecture=size.architecture, shared=size.shared))
