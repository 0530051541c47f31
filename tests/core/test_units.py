"""Amounts with units, and settings that refuse what they do not know."""

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kitae.core.config import LATER, OPERATIONAL, Config
from kitae.core.duration import BatchSize, Duration


class Inner(Config):
    rate: float = 0.1
    workers: Annotated[int, OPERATIONAL] = 2


class Outer(Config):
    inner: Inner = Inner()
    several: tuple[Inner, ...] = ()
    length: Duration = Duration.parse("400 steps")


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("400 steps", 400, "steps"),
        ("1 step", 1, "steps"),
        ("3e9 tokens", 3e9, "tokens"),
        ("2.5 epochs", 2.5, "epochs"),
        ("55m", 3300, "seconds"),
        ("1.5h", 5400, "seconds"),
        ("0.1 of length", 0.1, "of length"),
        ("1_000 steps", 1000, "steps"),
    ],
)
def test_durations(text: str, amount: float, unit: str) -> None:
    assert Duration.parse(text) == Duration(amount, unit)


@pytest.mark.parametrize("text", ["400", "steps", "-3 steps", "4 stepps", "", "1e steps", "nan steps", "55 minutes"])
def test_durations_without_a_known_unit_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a length"):
        Duration.parse(text)


@given(st.integers(1, 10**12), st.sampled_from(["steps", "tokens", "epochs", "rows"]))
def test_durations_round_trip(amount: int, unit: str) -> None:
    first = Duration.parse(f"{amount} {unit}")
    assert Duration.parse(f"{first.amount:.0f} {first.unit}") == first


def test_batch_sizes_in_rows() -> None:
    assert BatchSize.parse("128 rows").rows(512) == 128
    assert BatchSize.parse("4096 tokens").rows(128) == 32
    assert BatchSize.parse("10 tokens").rows(128) == 1
    for wrong in ("0 rows", "1.5 rows", "3 steps"):
        with pytest.raises(ValueError, match="batch size"):
            BatchSize.parse(wrong)


def test_operational_fields_stay_out_of_the_semantic_settings_at_every_depth() -> None:
    outer = Outer(several=(Inner(rate=0.2, workers=8),), inner=Inner(workers=4))
    assert outer.semantic() == {"inner": {"rate": 0.1}, "several": [{"rate": 0.2}], "length": "400 steps"}


class Grown(Inner):
    rule: Annotated[int | None, LATER] = None


def test_fields_that_came_later_change_what_is_set_and_nothing_else() -> None:
    assert Grown().semantic() == Inner().semantic()
    assert Grown(rule=3).semantic() == {"rate": 0.1, "rule": 3}


def test_settings_are_closed_and_frozen() -> None:
    with pytest.raises(ValidationError, match="rat"):
        Inner(rat=0.2)
    with pytest.raises(ValidationError):
        Inner().rate = 0.5
