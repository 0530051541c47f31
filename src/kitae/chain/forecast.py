"""What `kitae plan` says before anything is run: trainings with their time, memory and cost, sizes side by side, room on the disk."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kitae.chain.amounts import BYTES_PER_TOKEN
from kitae.chain.recipe import Recipe
from kitae.chain.sizes import Size, budgets, side_by_side, sizes
from kitae.chain.space import disk
from kitae.chain.status import State, Status
from kitae.chain.training import Training
from kitae.chain.wording import bytes_text, count_text, short, time_text
from kitae.chain.works import resized, trainings
from kitae.core.artifact import read_manifest
from kitae.core.errors import KitaeError
from kitae.procedures.estimate import Estimate, Measured, Work, estimate
from kitae.procedures.machine import PlanConfig, machine
from kitae.procedures.measured_steps import probe, probe_key, remember, remembered
from kitae.tensor.devices import TERA

log = logging.getLogger(__name__)
MOST_EPOCHS, LEAST_EPOCHS = 40.0, 1.0
"""Outside of these a plan warns: what is seen more often teaches next to nothing (Muennighoff et al. 2023, arXiv:2305.16264), and less
than one pass leaves text unread."""
TINY = 1 << 20
"""Rows of a micro-batch beyond which it does not matter how many fit."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table to print; the first column and those in `words` hold words, the others numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Everything that is printed with the nodes."""

    grids: tuple[Grid, ...]
    notes: tuple[str, ...]
    """What the numbers stand on."""
    warnings: tuple[str, ...]
    room: Mapping[str, str]
    """Of every node: the size of its artifact."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One training and what it will take."""

    training: Training
    told: Estimate
    took: float | None = None
    """Seconds that it took, when it is done already."""
    trials_at_once: int = 1

    @property
    def name(self) -> str:
        """With the number of equal trainings."""
        count = len(self.training.nodes)
        return f"{self.training.name} x {count}" if count > 1 else self.training.name

    @property
    def seconds(self) -> float:
        """Of all equal trainings; trials are dealt out to the devices."""
        return -(-len(self.training.nodes) // self.trials_at_once) * self.told.seconds * self.training.more

    def cost(self, config: PlanConfig) -> float:
        """In the currency of the price."""
        return self.seconds / 3600 * self.told.machine.count * self.trials_at_once * (config.price_per_hour or 0.0)


def forecast(recipe: Recipe, found: Mapping[str, Status]) -> Forecast:
    """What the recipe's nodes will take; with `plan.probe` real steps are measured first, and remembered.

    Raises KitaeError for mistakes in the table [plan].
    """
    output, config = Path(recipe.output), recipe.plan
    models = list(sizes([status.node for status in found.values()], output))
    planned = list(trainings(found, models, output))
    if config.probe_seconds:
        _probe(planned, config, found, output)
    known = remembered(output)
    lines = [_line(training, config, found, output, known) for training in planned]
    grids = [_models(models), _times(lines, config), _memory(lines)]
    warnings = list(_warnings(lines))
    if config.sizes:
        grids.append(_side_by_side(recipe, lines, found))
    room, together = disk(found, {node: line.told for line in lines for node in line.training.nodes}, output)
    timed = [
        f"{name} trains for {hours:.2f} hours of wall-clock time, its last checkpoint included"
        for name, hours in budgets([status.node for status in found.values()])
    ]
    notes = [*timed, *_notes(lines, config), f"on the disk, when all is made: {bytes_text(together)}"]
    return Forecast(grids=tuple(grid for grid in grids if grid.rows), notes=tuple(notes), warnings=tuple(warnings), room=room)


def _probe(planned: Sequence[Training], config: PlanConfig, found: Mapping[str, Status], output: Path) -> None:
    """Measure what is not made yet, every kind of step once."""
    due: dict[str, Work] = {}
    for training in planned:
        on = machine(config.device, training.work.train.device)
        if not on.here:
            what = f'plan.probe measures this machine, but plan.device = "{config.device}" is not here'
            raise KitaeError(what, cure="leave one of the two out", where="table [plan]")
        made = all(found[name].state is State.DONE for name in training.nodes)
        if training.work.learnt is not None and not made:
            due.setdefault(probe_key(training.work, on), training.work)
    if not due:
        return
    kind = machine(config.device, planned[0].work.train.device).kind
    log.info("measuring real steps of %d trainings, for %.0f seconds at most", len(due), config.probe_seconds)
    measured = probe(due, kind, seconds=config.probe_seconds)
    remember(output, measured)


def _line(training: Training, config: PlanConfig, found: Mapping[str, Status], output: Path, known: Mapping[str, Measured]) -> Line:
    on = machine(config.device, training.work.train.device)
    trials = on.count if training.amount is None and training.work.learnt is None else 1
    alone = replace(on, count=1) if trials > 1 else on
    measured = known.get(probe_key(training.work, on)) if config.mfu is None else None
    told = estimate(training.work, alone, mfu=config.mfu, measured=measured)
    took = None
    if all(found[name].state is State.DONE for name in training.nodes):
        took = sum(float(str(read_manifest(output / name).facts.get("seconds", 0.0))) for name in training.nodes)
    return Line(training=training, told=told, took=took, trials_at_once=trials)


def _models(models: Sequence[Size]) -> Grid:
    rows = []
    for size in models:
        parts = [f"{name} {count / 1e6:.1f}" for name, count in size.parts.items()]
        together = [f"together {size.total / 1e6:.1f}"] if size.total is not None and len(parts) > 1 else []
        rows.append((size.node, size.model, f"{size.vocab_size:,}", ", ".join(parts + together)))
    return Grid(columns=("model", "preset or folder", "vocabulary", "parameters (millions)"), rows=tuple(rows), words=frozenset((1, 3)))


def _times(lines: Sequence[Line], config: PlanConfig) -> Grid:
    columns = ["training", "steps", "tokens", "epochs", "MFLOP/token", "PFLOP", "MFU", "tokens/s", "time"]
    priced = config.price_per_hour is not None
    rows = []
    for line in lines:
        told, epochs = line.told, line.training.epochs
        row = [line.name, f"{told.steps:,.0f}", count_text(told.tokens), "" if epochs is None else short(epochs)]
        row += [short(told.work.flops_per_token / 1e6), short(told.flops * len(line.training.nodes) / 1e15)]
        row += [f"{told.mfu:.2f}", f"{told.tokens / told.seconds:,.0f}"]
        row.append(time_text(line.seconds) if line.took is None else f"took {time_text(line.took)}" if line.training.last else "")
        rows.append(tuple(row + ([f"{line.cost(config):,.2f}"] if priced and line.took is None else [""] if priced else [])))
    due = [line for line in lines if line.took is None]
    if len(due) > 1:
        row = ["together", *[""] * 7, time_text(sum(line.seconds for line in due))]
        rows.append(tuple(row + ([f"{sum(line.cost(config) for line in due):,.2f}"] if priced else [])))
    return Grid(columns=tuple(columns + (["cost"] if priced else [])), rows=tuple(rows))


def _memory(lines: Sequence[Line]) -> Grid:
    rows = []
    for line in lines:
        held = line.told.memory
        parts = (held.weights, held.gradients, held.optimizer, held.activations, held.logits, held.saving, held.total)
        rows.append((line.training.name, *map(bytes_text, parts), f"{line.told.work.micro_rows:,}", _fitting(line.told)))
    columns = ("memory", "weights", "gradients", "optimizer", "activations", "logits", "saving", "together", "rows", "at most")
    return Grid(columns=columns, rows=tuple(rows))


def _fitting(told: Estimate) -> str:
    return "any" if told.largest >= TINY - 1 else f"{told.largest:,}"


def _side_by_side(recipe: Recipe, lines: Sequence[Line], found: Mapping[str, Status]) -> Grid:
    """One line for every size that the recipe's [pretrain] could have."""
    config = recipe.plan
    line = next((line for line in lines if line.training.name.partition(" ")[0] == "pretrain"), None)
    columns = ["size", "layers", "hidden", "parameters", "MFLOP/token", "PFLOP", "memory", "rows at most", "tokens/s", "time"]
    priced = config.price_per_hour is not None
    rows = []
    for size in side_by_side(config.sizes, recipe.presets, {name: status.node for name, status in found.items()}, Path(recipe.output)):
        if line is None:  # nobody knows how long it trains
            continue
        training = resized(line.training, size)
        encoder = size.architecture.encoder
        told = estimate(training.work, line.told.machine, mfu=_likely(line.told, encoder.hidden_size, config))
        row = [size.node, str(encoder.num_hidden_layers), str(encoder.hidden_size), f"{told.work.counted.total / 1e6:.1f} M"]
        row += [short(told.work.flops_per_token / 1e6), short(told.flops / 1e15), bytes_text(told.memory.total), _fitting(told)]
        row += [f"{told.tokens / told.seconds:,.0f}", time_text(told.seconds)]
        cost = Line(training=training, told=told).cost(config)
        rows.append(tuple(row + ([f"{cost:,.2f}"] if priced else [])))
    return Grid(columns=tuple(columns + (["cost"] if priced else [])), rows=tuple(rows))


def _likely(told: Estimate, width: int, config: PlanConfig) -> float | None:
    """The MFU of another width where one was measured: as much above or below what is usual."""
    if not told.measured:
        return config.mfu
    own = told.machine.usual_mfu(told.work.architecture.encoder.hidden_size)
    return min(1.0, told.mfu * told.machine.usual_mfu(width) / own)


def _notes(lines: Sequence[Line], config: PlanConfig) -> Iterator[str]:
    for name, precision in dict.fromkeys((line.told.machine.name, line.training.work.train.precision) for line in lines):
        here = [line for line in lines if (line.told.machine.name, line.training.work.train.precision) == (name, precision)]
        on, probed = here[0].told.machine, any(line.told.measured for line in here)
        peak = f"{on.peak(precision) / TERA:,.3g} TFLOP/s in {precision}" + (" (measured)" if on.here and on.kind == "cpu" else "")
        many = " each" if on.count > 1 else ""
        if probed:
            yield f"{name}, {peak}{many}: real steps were measured"
            continue
        stated = (
            f"an MFU of {config.mfu:g}, as plan.mfu says" if config.mfu is not None else "the MFU that is usual for the width of a model"
        )
        better = "; --set plan.probe=true measures real steps" if on.here else ""
        yield f"{name}, {peak}{many}: times are FLOPs over this peak and {stated}{better}"
    guessed = [line.training.name for line in lines if line.training.amount is not None and not line.training.amount.exact]
    if guessed:
        yield (
            f"passes of {', '.join(guessed)} are a guess from the size of the text, {BYTES_PER_TOKEN} bytes a token, before filters; "
            "they are exact when the dataset is made"
        )
    if lines:
        yield "times are of training steps and of a trial's predictions: text, tokenizer, held-out measurements and checkpoints come on top"


def _warnings(lines: Sequence[Line]) -> Iterator[str]:
    for line in lines:
        name, epochs, told = line.training.name, line.training.epochs, line.told
        if line.took is not None:
            continue
        if epochs is not None and epochs > MOST_EPOCHS:
            yield f"{name} sees its text {epochs:,.0f} times: what is read more than {MOST_EPOCHS:.0f} times teaches next to nothing"
        if epochs is not None and epochs < LEAST_EPOCHS:
            yield f"{name} sees {epochs:.0%} of its text: train longer, or give it less"
        if told.largest < told.work.micro_rows:
            cure = f'train.micro_batch = "{told.largest} rows" at most' if told.largest else "a smaller model, or shorter rows"
            room = f"{told.machine.name}, which gives {bytes_text(told.machine.memory)}"
            yield f"{name} needs {bytes_text(told.memory.total)} of {room}: {cure}"
        idle = told.machine.count - told.work.micro_batches
        if idle > 0:
            has = "one micro-batch" if told.work.micro_batches == 1 else f"{told.work.micro_batches} micro-batches"
            cure = "make train.micro_batch smaller, or train.batch larger"
            yield f"{name} leaves {idle} of {told.machine.count} devices idle, because a step has {has}: {cure}"
        if told.machine.lacks(told.work.train.precision):
            yield f"{told.machine.name} has no units for {told.work.train.precision}: {name} will be as slow as in fp32"
