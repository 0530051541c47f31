"""Settings of phases: parts of one training, each with rows, batches and a learning rate of its own."""

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from kitae.core.config import LATER, Config
from kitae.core.duration import BatchSize, Duration
from kitae.train.curves import CurveConfig, Schedule

WHOLE = 1e-6
"""How far the sum of shares may be from 1."""


class PhaseConfig(Config):
    """One phase. What it does not say is as in the whole training's settings."""

    length: Duration
    """How long it is: "7038 steps", "3e9 tokens", ..., or a share of the training's length: "0.9 of length". All phases in one unit."""
    max_length: Annotated[int, Field(ge=8)] | None = None
    """Positions of a row, special tokens included; the default is the dataset's. Rows of another length are packed anew from the same token
    shards when the training begins, which makes no dataset stale. A new model gets positions for the longest rows of all phases."""
    batch: BatchSize | None = None
    """Size of one optimizer step."""
    micro_batch: BatchSize | None = None
    """Size of one forward pass; the default is the training's, and without one the divisor of the batch nearest to 4096 tokens."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Highest learning rate."""
    schedule: Schedule | None = None
    """How the learning rate goes on after the warm-up. It begins anew in every phase."""
    schedule_config: CurveConfig | None = None
    """Numbers of the schedule; the default is the training's, and for another `schedule` than the training's there are none."""
    warmup: Duration | None = None
    """How long the learning rate rises from zero; shares are of the phase."""
    sources: tuple[str, ...] = ()
    """Names of the corpus's sources whose text is learnt; none named = all. Repeats and weights stay as they are among them."""

    @field_validator("length")
    @classmethod
    def _a_length(cls, value: Duration) -> Duration:
        if value.amount <= 0:
            raise ValueError(
                f'"{value}" is no length: write a positive number of steps, rows, tokens or epochs, or a share ("0.9 of length")'
            )
        if value.unit == "seconds":
            raise ValueError(f'"{value}" is a time, and phases have none: write steps, rows, tokens, epochs or a share ("0.9 of length")')
        return value

    @field_validator("sources")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        double = [name for name in value if value.count(name) > 1]
        if double:
            raise ValueError(f'"{double[0]}" is named twice: name it once')
        return value


class PhasesConfig(Config):
    """The mix-in of a training's settings that has phases."""

    phases: Annotated[tuple[PhaseConfig, ...], LATER] = ()
    """Parts of the training one after another, each with rows, a batch and a learning-rate schedule of its own:
    [{ length = "0.9 of length" }, { length = "0.1 of length", max_length = 512, batch = "128 rows" }]. What a phase leaves out is as here.
    Weights and the optimizer's averages go on, and steps are counted through. `length` may be left out when the phases' lengths are no
    shares: it is their sum."""

    @model_validator(mode="before")
    @classmethod
    def _summed(cls, given: Any) -> Any:
        """Fill in the length that phases add up to; what is wrong with them is for the validators of the fields."""
        if not isinstance(given, dict) or given.get("length") is not None:
            return given
        lengths = [_length(phase) for phase in given.get("phases") or ()]
        known = [length for length in lengths if length is not None]
        units = sorted({length.unit for length in known})
        if not known or len(known) < len(lengths) or units in (["of length"], ["seconds"]):
            return given
        if len(units) > 1:
            raise ValueError(f"phases count their lengths in {' and '.join(units)}: write them all in one unit")
        return {**given, "length": Duration(sum(length.amount for length in known), known[0].unit)}


def _length(phase: object) -> Duration | None:
    found = phase.length if isinstance(phase, PhaseConfig) else phase.get("length") if isinstance(phase, Mapping) else None
    try:
        return Duration.parse(found) if isinstance(found, str) else found if isinstance(found, Duration) else None
    except ValueError:
        return None


def lengths(phases: tuple[PhaseConfig, ...], length: Duration) -> tuple[Duration, ...]:
    """The lengths of the phases in the unit of the whole; shares of steps are whole steps that add up to it.

    Raises ValueError when they do not add up to the length.
    """
    units = sorted({phase.length.unit for phase in phases})
    if len(units) > 1:
        raise ValueError(f"phases count their lengths in {' and '.join(units)}: write them all in one unit")
    amounts = [phase.length.amount for phase in phases]
    whole = sum(amounts)
    if units != ["of length"]:
        if units != [length.unit] or abs(whole - length.amount) > WHOLE * length.amount:
            raise ValueError(f'the phases have {Duration(whole, phases[0].length.unit)} together, and length = "{length}": remove length')
        return tuple(phase.length for phase in phases)
    if abs(whole - 1) > WHOLE:
        raise ValueError(f"the phases are {whole:g} of the length together: make it 1")
    ends = [length.amount * end for end in accumulate(amounts, initial=0.0)]
    if length.unit == "steps":
        ends = [float(round(end)) for end in ends]
    least = 1.0 if length.unit == "steps" else 0.0
    return tuple(Duration(max(least, end - begin), length.unit) for begin, end in pairwise(ends))
