"""Settings of the training loop, and how a batch is cut into micro-batches."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from kitae.core.config import OPERATIONAL, Config, complaint
from kitae.core.duration import BatchSize, Duration
from kitae.core.errors import KitaeError
from kitae.train.curves import CurveConfig, Schedule
from kitae.train.growth import BatchWarmup, check_start
from kitae.train.monitor_config import MonitorConfig
from kitae.train.parallel_config import ParallelConfig
from kitae.train.phase_config import PhasesConfig, lengths
from kitae.train.rule_config import RuleConfig
from kitae.train.safety_config import SafetyConfig
from kitae.train.shares import check_shares

MICRO_TOKENS = 4096


class FlatConfig(Config):
    """When to stop before the length is up: when a held-out loss has become flat. A resumed training decides the same."""

    loss: str = "mlm_loss"
    """A loss that is measured on held-out text: "mlm_loss", "rtd_loss". Of several sources the mean counts."""
    every: Duration = Duration(0.1, "of length")
    """How often it is measured for this; what is measured during the warm-up does not count."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """A measurement that lowers the best loss so far by less than this share of it is no improvement."""
    patience: Annotated[int, Field(ge=1)] = 2
    """Stop when so many measurements in a row are no improvement."""

    drop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Being flat counts from when the loss has fallen by this share of what it was before the first step: new weights may stay at
    the frequencies of the tokens for a while before they learn more."""

    @field_validator("every")
    @classmethod
    def _an_interval(cls, value: Duration) -> Duration:
        if value.unit == "seconds" or value.amount <= 0:
            raise ValueError(f'"{value}" is no interval: write a positive number of steps, rows, tokens or epochs')
        return value


class TrainConfig(RuleConfig, ParallelConfig, SafetyConfig, MonitorConfig, PhasesConfig):
    """How long, how fast and how exactly to train. Pre-training, adapting and fine-tuning share it."""

    length: Duration
    """How long to train: "400 steps", "3e9 tokens" (rows times their length), "1e6 rows" or "2 epochs". Or a wall-clock budget, "55m" or
    "20h": of steps, measurements and checkpoints over all pieces of the training, the last checkpoint included. Schedules then follow the
    time that is spent."""
    batch: BatchSize = BatchSize(128, "rows")
    """Size of one optimizer step over all processes: "128 rows" or "4096 tokens"."""
    micro_batch: BatchSize | None = None
    """Size of one forward pass, which is also the atom of randomness: masks, sampling and dropout are drawn per micro-batch.
    A batch is a whole number of them. Default: the divisor of the batch that comes nearest to 4096 tokens."""
    batch_warmup: BatchWarmup | None = None
    """Begin with smaller batches: { start = "32 rows", over = "0.1 of length" }. Lengths in rows, tokens and epochs count what is seen."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    """Highest learning rate, reached at the end of the warm-up."""
    schedule: Schedule = "linear"
    """After the warm-up: "linear", "polynomial" and "cosine" fall to the end of the length, "constant" stays, "warmup-stable-decay" stays
    and falls at the end, "inverse-square-root" falls for ever, whatever the length (its warm-up is its time scale)."""
    schedule_config: CurveConfig = CurveConfig()
    """Numbers of the schedule: { power = 0.5 }, { end = 0.1 }, { decay = "1000 steps" }, { warmup_form = "product" }."""
    warmup: Duration = Duration(0.1, "of length")
    """How long the learning rate rises linearly from zero: "0.1 of length", "1000 steps", "1e6 tokens", ... Of a wall-clock
    length "5m" or a share."""
    decay_from: Annotated[str | None, OPERATIONAL] = None
    """A checkpoint of another, longer training to go on from, so that only the decay of "warmup-stable-decay" is trained: with the same
    settings, data and learning rates up to there, the result is what this training would have come to from its start. (Where masks
    follow the length, they followed the other's.) Its content, not its place, enters the fingerprint."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay; norms and biases (every vector) have none."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay rates of the two running averages of AdamW and LAMB."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-6
    """Added to the root of the second average."""
    bias_correction: bool = True
    """Correct these averages for their start at zero; ELECTRA's original did not."""
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest global norm of the gradient; None clips nothing."""
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    """Of weights and activations. "bf16" and "fp16" keep fp32 master weights, gradients and optimizer state; "fp16" scales the loss."""
    device: Annotated[Literal["auto", "cpu", "cuda"], OPERATIONAL] = "auto"
    """Where to compute; "auto" takes CUDA when there is one."""
    compile: Annotated[bool | Literal["graphs"], OPERATIONAL] = False
    """Compile each layer with torch.compile: same samples, losses equal within rounding. Takes a minute to start. "graphs" also has CUDA
    replay a layer's kernels in one launch, for small models on a fast GPU; on a CPU it is the same as true."""
    activation_checkpointing: Annotated[bool, OPERATIONAL] = False
    """Keep of each layer only what goes into it, and work its inside out again in the backward pass: a part of the memory for a third
    to a half more time, and gradients that are equal to the bit."""
    deterministic: Annotated[bool, OPERATIONAL] = False
    """Choose only reproducible kernels: a resumed run on the same machine is then equal to the bit."""
    save_every: Annotated[Duration | None, OPERATIONAL] = Duration(0.1, "of length")
    """Write a checkpoint this often, and always at the end; None writes the last only."""
    save_async: Annotated[bool, OPERATIONAL] = True
    """Write checkpoints while training goes on, from a copy in memory (of weights and optimizer state, 12 bytes a weight for AdamW).
    Without it every checkpoint keeps the training waiting until it is written."""
    keep_last: Annotated[int, OPERATIONAL, Field(ge=0)] = 2
    """How many of the newest checkpoints stay; 0 writes none at all, for short trainings that are repeated rather than resumed."""
    milestones: Annotated[tuple[Duration, ...], OPERATIONAL] = ()
    """Points of the training whose checkpoints are written and stay for ever: ["1e9 tokens", "0.5 of length"]."""
    evaluate_every: Annotated[Duration | None, OPERATIONAL] = Duration(0.1, "of length")
    """Measure on held-out data this often, and always at the end; None measures at the end only."""
    probe_every: Annotated[Duration, OPERATIONAL] = Duration(0.25, "of length")
    """Fine-tune a copy of the weights this often, and at the end, where a table `probe` says on what."""
    until_flat: FlatConfig | None = None
    """Stop earlier, when a held-out loss has become flat: { loss = "mlm_loss", share = 0.01 }. Fits schedule = "constant"."""
    log_every: Annotated[Duration, OPERATIONAL] = Duration(10, "steps")
    """Write a line of metrics this often."""

    @field_validator("save_every", "evaluate_every", "probe_every", "log_every")
    @classmethod
    def _no_zero(cls, value: Duration | None) -> Duration | None:
        if value is not None and value.amount <= 0:
            raise ValueError(f'"{value}" is no interval: write a positive number of steps, rows, tokens or epochs')
        return value

    @field_validator("length")
    @classmethod
    def _no_share(cls, value: Duration) -> Duration:
        if value.unit == "of length" or value.amount <= 0:
            raise ValueError(f'"{value}" is no length: write a positive number of steps, rows, tokens or epochs, or a time ("55m")')
        return value

    @model_validator(mode="after")
    def _a_scale(self) -> Self:
        if self.loss_scale is not None and self.precision != "fp16":
            raise ValueError('settings of loss_scale need precision = "fp16"')
        return self

    @model_validator(mode="after")
    def _fixed_places(self) -> Self:
        """A replayed graph reads and writes the memory that it was recorded with."""
        moving = 'parallel = "fsdp2"' if self.parallel == "fsdp2" else "activation_checkpointing" if self.activation_checkpointing else ""
        if self.compile == "graphs" and moving:
            raise ValueError(f'compile = "graphs" does not go together with {moving}: set compile = true')
        return self

    @model_validator(mode="after")
    def _a_curve(self) -> Self:
        unread = self.schedule_config.unread(self.schedule)
        if unread:
            raise ValueError(
                f'schedule = "{self.schedule}" does not read schedule_config.{unread[0]}: remove it, or choose another schedule'
            )
        if self.schedule == "inverse-square-root" and not self.warmup.amount:
            raise ValueError('schedule = "inverse-square-root" falls as sqrt(warmup / done): give it a warmup')
        return self

    @model_validator(mode="after")
    def _one_kind_of_length(self) -> Self:
        """A rate is a function of the steps or of the time, never of both."""
        parts = {"warmup": self.warmup}
        if self.schedule == "warmup-stable-decay":
            parts["schedule_config.decay"] = self.schedule_config.decay
        for name, part in parts.items():
            if self.budget is None and part.unit == "seconds":
                raise ValueError(f'{name} = "{part}" is a time, but length = "{self.length}" is none: write steps, rows, tokens or a share')
            if self.budget is not None and part.unit not in ("seconds", "of length"):
                raise ValueError(f'{name} = "{part}" of a wall-clock length: write a time ("5m") or a share ("0.1 of length")')
        if (
            self.batch_warmup is not None
            and "seconds" in (self.batch_warmup.over.unit, self.length.unit)
            and (self.batch_warmup.over.unit in ("seconds", "of length"))
        ):
            raise ValueError("batch_warmup.over is a number of steps: write steps, rows, tokens or epochs")
        if self.budget is not None and self.decay_from is not None:
            raise ValueError("decay_from with a wall-clock length: write the length in steps, rows, tokens or epochs")
        if self.budget is None and any(item.unit == "seconds" for item in self.milestones):
            raise ValueError("milestones in wall-clock time need a wall-clock length: write steps, rows, tokens, epochs or shares")
        if self.budget is not None and self.until_flat is not None and self.until_flat.every.unit == "of length":
            raise ValueError("until_flat.every of a wall-clock length: write steps, rows, tokens or epochs")
        return self

    @model_validator(mode="after")
    def _phases(self) -> Self:
        if not self.phases:
            return self
        for name in ("batch_warmup", "until_flat", "decay_from"):
            if getattr(self, name) is not None:
                cure = "give the first phase a smaller batch" if name == "batch_warmup" else "remove one of them"
                raise ValueError(f"{name} does not go together with phases: {cure}")
        if self.budget is not None:
            raise ValueError("phases of a wall-clock length are not known: write the length in steps, rows, tokens or epochs")
        self.parts()
        return self

    def parts(self) -> "tuple[TrainConfig, ...]":
        """The settings of every phase, each as those of a training of its own; without phases these."""
        if not self.phases:
            return (self,)
        return tuple(self._part(number, length) for number, length in enumerate(lengths(self.phases, self.length)))

    def _part(self, number: int, length: Duration) -> "TrainConfig":
        phase = self.phases[number]
        own = {name: value for name, value in dict(phase).items() if value is not None and name in type(self).model_fields}
        if phase.schedule not in (None, self.schedule):
            own.setdefault("schedule_config", CurveConfig())
        if number:
            own["shares"] = None  # they are for the first phase's batch, and dealt in proportion later
        try:
            return type(self).model_validate({**dict(self), **own, "length": length, "phases": ()})
        except ValidationError as error:
            raise ValueError(f"phases.{number}: {complaint(error)}") from error

    @property
    def budget(self) -> float | None:
        """The length in seconds, when it is a time."""
        return self.length.amount if self.length.unit == "seconds" else None


def step_rows(config: TrainConfig, max_length: int) -> tuple[int, int]:
    """(rows of a step, rows of a micro-batch) for rows of `max_length` tokens.

    Raises KitaeError when the batch, the first one of a batch that grows, or somebody's share is no whole number of micro-batches.
    """
    rows, micro = _rows(config, max_length)
    if config.batch_warmup is not None:
        check_start(config.batch_warmup.start.rows(max_length), rows, micro)
    check_shares(config, rows, micro)
    return rows, micro


def _rows(config: TrainConfig, max_length: int) -> tuple[int, int]:
    rows = config.batch.rows(max_length)
    fitting = [size for size in range(1, rows + 1) if rows % size == 0]
    if config.micro_batch is None:
        return rows, min(fitting, key=lambda size: abs(math.log(size * max_length / MICRO_TOKENS)))
    micro = config.micro_batch.rows(max_length)
    if rows % micro:
        sizes = ", ".join(str(size) for size in sorted(fitting, key=lambda size: abs(size - micro))[:6])
        raise KitaeError(
            f"micro_batch = {micro} rows does not divide batch = {rows} rows",
            cure=f"take one of these: {sizes} rows",
            where="train.micro_batch",
        )
    return rows, micro
