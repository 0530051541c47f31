"""The trainings of a recipe as work to be estimated: pre-training, adapting, and the trials of every task and encoder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kitae.chain.amounts import CONTEXT, FILL, Amount, amount
from kitae.chain.sizes import Size
from kitae.chain.status import State, Status
from kitae.chain.training import Training
from kitae.chain.trial_works import trial_works
from kitae.core.graph import Node
from kitae.data.random_rows import RandomRows
from kitae.objectives.mlm import MaskingConfig
from kitae.procedures.estimate import Work
from kitae.stages.dataset import DatasetConfig
from kitae.stages.pretrain import PretrainConfig
from kitae.train.config import TrainConfig, step_rows
from kitae.train.phases import phases_of
from kitae.train.schedule import steps_of


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
    yield from trial_works(found, known, output)


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


def resized(training: Training, size: Size) -> Training:
    """The same training of another model."""
    return replace(training, name=size.model, work=replace(training.work, architecture=size.architecture, shared=size.shared))
