"""How the work of a step is dealt to processes. Nothing here changes what is learnt."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from kitae.core.config import OPERATIONAL, Config
from kitae.core.duration import Duration

Rows = Annotated[int, Field(ge=0)]


class ParallelConfig(Config):
    """Settings of trainings on several processes; every one of them is operational."""

    shares: Annotated[Literal["auto"] | tuple[Rows, ...] | dict[str, Rows] | None, OPERATIONAL] = None
    """Rows of a batch that each machine computes, by its number or host name ({ "0" = 80, "1" = 80, "2" = 48, "3" = 48 }; whatever its
    number of devices), or each process, by its rank ([40, 40, 24]): whole micro-batches that come to the batch. "auto" measures at the
    start how fast each process is. Default: in turn. Every token weighs the same whoever computes it; one process alone computes all."""

    parallel: Annotated[Literal["ddp", "fsdp2"], OPERATIONAL] = "ddp"
    """How several processes share the work. "ddp": each holds the whole model. "fsdp2": each holds its share of weights, gradients and
    optimizer state, and sees a layer whole only while it works on it: for models that fill a GPU. Equal results within rounding, and
    the same checkpoints; one process is the same with both."""
    hang_limit: Annotated[Duration, OPERATIONAL] = Duration(600, "seconds")
    """Of several processes, one that does the same thing (a micro-batch, its data) for longer than this is named, and all end; the same
    command then goes on from the newest checkpoint. Starting, measuring and saving may take ten times as long."""

    @model_validator(mode="before")
    @classmethod
    def _automatic_batch(cls, given: Any) -> Any:
        """`batch = "auto"` is the default batch, dealt by measured speed: what is in a batch hangs on no machine."""
        if isinstance(given, dict) and given.get("batch") == "auto":
            rest = {name: value for name, value in given.items() if name != "batch"}
            return rest | {"shares": rest.get("shares") or "auto"}
        return given

    @field_validator("hang_limit")
    @classmethod
    def _some_time(cls, value: Duration) -> Duration:
        if value.unit != "seconds" or value.amount <= 0:
            raise ValueError(f'"{value}" is no time: write "10m" or "90s"')
        return value

    @field_validator("shares")
    @classmethod
    def _some_share(
        cls, value: Literal["auto"] | tuple[int, ...] | dict[str, int] | None
    ) -> Literal["auto"] | tuple[int, ...] | dict[str, int] | None:
        if value is None or value == "auto":
            return value
        if not sum(value.values() if isinstance(value, dict) else value):
            raise ValueError("shares of no rows: name the rows of every machine or process")
        if isinstance(value, dict) and any(name.isdecimal() for name in value) and set(value) != {str(i) for i in range(len(value))}:
            raise ValueError(f"machines are numbered from 0 to {len(value) - 1} here, or all named by their host names")
        return value

    @model_validator(mode="after")
    def _measured_apart(self) -> Self:
        if self.parallel == "fsdp2" and self.shares == "auto":
            raise ValueError('shares = "auto" times every process by itself, but with parallel = "fsdp2" they work in step: name the rows')
        return self
