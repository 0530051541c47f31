"""Amounts with a unit: how long to train ("400 steps", "3e9 tokens"), how large a batch is ("4096 tokens")."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

Unit = Literal["steps", "tokens", "epochs", "rows", "seconds", "of length"]

_UNITS: dict[str, tuple[Unit, float]] = {
    "step": ("steps", 1), "steps": ("steps", 1),
    "token": ("tokens", 1), "tokens": ("tokens", 1),
    "epoch": ("epochs", 1), "epochs": ("epochs", 1),
    "row": ("rows", 1), "rows": ("rows", 1),
    "s": ("seconds", 1), "second": ("seconds", 1), "seconds": ("seconds", 1),
    "m": ("seconds", 60), "h": ("seconds", 3600), "d": ("seconds", 86400),
    "of length": ("of length", 1),
}  # fmt: skip
_FORM = re.compile(r"\s*([0-9][0-9_]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?)\s*([a-z][a-z ]*?)\s*")


def _parse(text: str, what: str, example: str) -> tuple[float, Unit]:
    match = _FORM.fullmatch(text)
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is not {what}: write a number and a unit, {example}")
    unit, factor = _UNITS[match[2]]
    if not math.isfinite(float(match[1].replace("_", ""))):
        raise ValueError(f"{text!r} is too large: write a smaller number")
    return float(match[1].replace("_", "")) * factor, unit


@dataclass(frozen=True)
class Duration:
    """A length of training, such as "400 steps", "3e9 tokens", "2 epochs", "55m", or a share: "0.1 of length"."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """Raises ValueError when the text has no known unit."""
        return cls(*_parse(text, "a length", 'such as "400 steps", "3e9 tokens", "2 epochs", "55m" or "0.1 of length"'))

    def __str__(self) -> str:
        short = f"{self.amount:g}"
        return f"{short if float(short) == self.amount else repr(self.amount)} {self.unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _schema(cls)


@dataclass(frozen=True)
class BatchSize:
    """The size of one optimizer step over all processes, such as "128 rows" or "4096 tokens"."""

    amount: int
    unit: Literal["rows", "tokens"]

    @classmethod
    def parse(cls, text: str) -> "BatchSize":
        """Raises ValueError when the unit is neither rows nor tokens, or the amount not a positive whole number."""
        amount, unit = _parse(text, "a batch size", 'such as "128 rows" or "4096 tokens"')
        if amount < 1 or amount != int(amount) or unit not in ("rows", "tokens"):
            raise ValueError(f'{text!r} is not a batch size: write a whole number of rows or tokens, such as "128 rows"')
        return cls(int(amount), "rows" if unit == "rows" else "tokens")

    def rows(self, max_length: int) -> int:
        """Rows of `max_length` tokens; at least one."""
        return self.amount if self.unit == "rows" else max(1, self.amount // max_length)

    def __str__(self) -> str:
        return f"{self.amount} {self.unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _schema(cls)


def _schema(cls: type[Duration] | type[BatchSize]) -> CoreSchema:
    return core_schema.no_info_plain_validator_function(
        lambda value: value if isinstance(value, cls) else cls.parse(value) if isinstance(value, str) else _refuse(value),
        serialization=core_schema.plain_serializer_function_ser_schema(str),
    )


def _refuse(value: object) -> None:
    raise ValueError(f'{value!r} has no unit: write it with one and in quotes, such as "400 steps" or "128 rows"')
