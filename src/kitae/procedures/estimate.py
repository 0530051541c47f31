"""What a training will take, before it is run: time, memory by part, the largest micro-batch, checkpoints on disk.

The time is FLOPs over a device's peak and an MFU, or what a probe measured; memory is the formulas' (models/memory.py), or a probe's.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kitae.core.config import Config
from kitae.models.cost import Objective, Parameters, count_parameters, flops_per_token
from kitae.models.encoder import EncoderConfig
from kitae.models.memory import Pass, peak, persistent
from kitae.models.presets import Architecture
from kitae.procedures.machine import Machine
from kitae.train.config import TrainConfig
from kitae.train.promise import Memory, Promise

HEAP = 1.5
"""What activations take of a machine's memory for every byte of them: glibc's heap, which keeps what is freed, has gaps. Measured with
models of 1 to 12 million weights: 1.46 to 1.56; with every block by itself 1.01, for up to 40 % of the speed (benchmarks/estimate.py)."""
PER_LAYER = {"cpu": 2e-3, "cuda": 1.8e-3}
"""Seconds of a micro-batch that a layer takes however few tokens there are. A GPU works while the host gets the next kernels ready (an H200
took 43 ms for 24 narrow layers, whose FLOPs need 10); a CPU does one after the other."""
PER_WEIGHT = 4e-9
"""Seconds of an update for every weight, on a CPU."""
EXACT = {"fp64": 8}
"""Bytes of a saved number; 4 in every other precision."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One training, or one phase of it, as far as its cost goes."""

    architecture: Architecture
    objective: Objective
    train: TrainConfig
    length: int
    """Positions of a row."""
    context: float
    """Positions that a position attends to in the mean."""
    fill: float
    """Share of the positions that are not padding."""
    rows: int
    """Of a step, over all processes."""
    micro_rows: int
    steps: float | None
    """None for a wall-clock length."""
    mask_rate: float
    learnt: Config | None
    """The objective's settings; None for what is fine-tuned."""
    shared: bool
    """Whether both halves have one embedding module."""
    pairs: bool = False
    """Whether a masked language model judges pairs too."""
    checkpoints: int = 0
    """How many lie on the disk at the end."""
    parameters: Parameters | None = None
    """Where they are known otherwise than from the architecture."""

    @property
    def micro_batches(self) -> int:
        """Of a step."""
        return self.rows // self.micro_rows

    @property
    def flops_per_token(self) -> float:
        """Of training, per position of a full row."""
        return flops_per_token(self.architecture, self.context, self.objective, self.mask_rate)

    @functools.cached_property
    def counted(self) -> Parameters:
        """The numbers of parameters."""
        return self.parameters or count_parameters(self.architecture, self.objective, shared=self.shared, pairs=self.pairs)


class Measured(Config):
    """What a probe found of one process."""

    update: float
    """Seconds of a step beside its micro-batches."""
    micro_batch: float
    """Seconds of one micro-batch."""
    memory: dict[int, float]
    """Bytes beyond what was there before, by rows of a micro-batch: one or two sizes."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a training will take."""

    work: Work
    machine: Machine
    steps: float
    mfu: float
    memory: Memory
    """Of each device."""
    seconds: float
    """Of all steps."""
    largest: int
    """Rows of the largest micro-batch that fits; 0 when not even one does."""
    measured: bool

    @property
    def tokens(self) -> float:
        """Real tokens."""
        return self.steps * self.work.rows * self.work.length * self.work.fill

    @property
    def flops(self) -> float:
        """Of the whole training, without padding."""
        return self.tokens * self.work.flops_per_token

    @property
    def disk(self) -> float:
        """Bytes of its checkpoints."""
        return self.work.checkpoints * checkpoint_bytes(self.work)

    @property
    def promise(self) -> Promise:
        """The same for the training's folder."""
        return Promise(
            source="probe" if self.measured else "flops",
            device=self.machine.name,
            processes=self.machine.count,
            seconds=self.seconds,
            tokens_per_second=self.tokens / self.seconds,
            mfu=self.mfu,
            memory=self.memory,
        )


def estimate(work: Work, machine: Machine, *, mfu: float | None = None, measured: Measured | None = None) -> Estimate:
    """What `work` takes on `machine`; `mfu` None = what is usual for the model's width. A probe's numbers stand above both."""
    positions = work.rows * work.length
    whole = machine.peak(work.train.precision)
    rounds = math.ceil(work.micro_batches / machine.count)
    if measured is not None:
        step = measured.update + rounds * measured.micro_batch
    else:
        step = _step(work, machine, mfu, rounds)
    if work.steps is None:
        assert work.train.budget is not None, "a training without steps has a time"
        steps = work.train.budget / step
    else:
        steps = work.steps
    return Estimate(
        work=work,
        machine=machine,
        steps=steps,
        mfu=positions * work.fill * work.flops_per_token / (step * whole * machine.count),
        memory=memory(work, machine, measured),
        seconds=steps * step,
        largest=largest(work, machine, measured),
        measured=measured is not None,
    )


def _step(work: Work, machine: Machine, mfu: float | None, rounds: int) -> float:
    """Seconds of a step: FLOPs over the peak and the stated MFU; with the usual one, what few tokens cost beside."""
    flops = work.micro_rows * work.length * work.flops_per_token
    again = 4 / 3 if work.train.activation_checkpointing else 1.0  # the forward pass, a third, is made twice
    peak_flops = machine.peak(work.train.precision)
    if mfu is not None:
        return rounds * again * flops / (peak_flops * mfu)
    halves = [half for half in (work.architecture.encoder, work.architecture.generator) if half is not None]
    beside = again * PER_LAYER[machine.kind] * sum(half.num_hidden_layers for half in halves)
    product = again * flops / (peak_flops * machine.usual_mfu(work.architecture.encoder.hidden_size))
    if machine.kind == "cuda":
        return rounds * max(product, beside)
    return rounds * (product + beside) + PER_WEIGHT * work.counted.total


def memory(work: Work, machine: Machine, measured: Measured | None = None) -> Memory:
    """Bytes of each device, part by part. What a probe measured beyond (or below) the formulas is counted with the activations."""
    train, counted = work.train, work.counted.total
    frozen = min(frozen_parameters(work), counted)
    matrices = _matrices(work.architecture.encoder) + (_matrices(work.architecture.generator) if work.architecture.generator else 0)
    held = persistent(counted - frozen, frozen, matrices=matrices, precision=train.precision, optimizer=train.optimizer)
    moment = peak(work.architecture, work.objective, _pass(work, machine), shared=work.shared)
    divided = machine.count if train.parallel == "fsdp2" else 1  # the layer that is gathered counts little
    heap = HEAP if machine.kind == "cpu" else 1.0
    copied = machine.kind == "cpu" and work.train.save_async and work.checkpoints > 0
    found = Memory(
        weights=held.weights / divided,
        gradients=held.gradients / divided,
        optimizer=held.optimizer / divided,
        activations=heap * moment.activations,
        logits=heap * moment.logits,
        saving=checkpoint_bytes(work) if copied else 0.0,
    )
    if measured is None or not measured.memory:
        return found
    rest = found.total - found.activations - found.saving  # a probe saves nothing
    return found.model_copy(update={"activations": max(_line(measured.memory, work.micro_rows) - rest, 0.0)})


def largest(work: Work, machine: Machine, measured: Measured | None = None) -> int:
    """Rows of the largest micro-batch that a device takes."""
    if measured is not None and len(measured.memory) > 1:
        most = 1 << 20
        low, high = (_line(measured.memory, rows) for rows in (0, most))
        return max(0, int((machine.memory - low) / max((high - low) / most, 1.0)))

    def fits(rows: int) -> bool:
        return memory(replace(work, micro_rows=rows, parameters=work.counted), machine).total <= machine.memory

    low, high = 0, 1
    while high < 1 << 20 and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def checkpoint_bytes(work: Work) -> float:
    """One checkpoint: exact weights, and what the optimizer must remember of those that are trained."""
    counted = work.counted.total
    frozen = min(frozen_parameters(work), counted)
    matrices = _matrices(work.architecture.encoder) if work.train.optimizer == "muon" else 0
    return EXACT.get(work.train.precision, 4) * (counted + 2 * (counted - frozen) - matrices)


def frozen_parameters(work: Work) -> float:
    """Weights that `train.freeze` names, of both halves."""
    freeze, halves = work.train.freeze, [work.architecture.encoder, work.architecture.generator]
    total = 0.0
    for number, half in enumerate(filter(None, halves)):
        if (freeze.embeddings or freeze.encoder) and not (number and work.shared):
            total += half.embedding_width * (half.vocab_size + half.positions + half.segment_kinds)
        total += (half.num_hidden_layers if freeze.encoder else min(freeze.layers, half.num_hidden_layers)) * _layer(half)
    return total


def _layer(c: EncoderConfig) -> float:
    return 4 * c.hidden_size**2 + 2 * c.hidden_size * c.intermediate_size


def _matrices(c: EncoderConfig) -> float:
    return c.num_hidden_layers * _layer(c)


def _pass(work: Work, machine: Machine) -> Pass:
    freeze = work.train.freeze
    return Pass(
        rows=work.micro_rows,
        length=work.length,
        context=work.context,
        mask_rate=work.mask_rate,
        precision=work.train.precision,
        device=machine.kind,
        frozen_embeddings=freeze.embeddings or freeze.encoder,
        frozen_layers=work.architecture.encoder.num_hidden_layers if freeze.encoder else freeze.layers,
        recompute=work.train.activation_checkpointing,
    )


def _line(points: Mapping[int, float], at: int) -> float:
    """The straight line through one point (as a share) or two."""
    (low, first), (high, second) = min(points.items()), max(points.items())
    if low == high:
        return first * at / low
    return first + (at - low) * (second - first) / (high - low)
