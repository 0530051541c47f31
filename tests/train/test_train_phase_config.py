"""Settings of phases: what each phase inherits, how lengths add up, and what is refused in one line."""

import pytest
from pydantic import ValidationError

from kitae.core.errors import KitaeError
from kitae.train.config import TrainConfig
from kitae.train.phases import longest, phases_of


def made(**fields: object) -> TrainConfig:
    return TrainConfig.model_validate(fields)


def test_a_phase_inherits_what_it_does_not_say() -> None:
    config = made(
        optimizer="lamb",
        batch="64 rows",
        micro_batch="8 rows",
        learning_rate=6e-3,
        schedule="polynomial",
        schedule_config={"power": 0.5},
        warmup="0.3 of length",
        phases=[
            {"length": "70 steps"},
            {"length": "15 steps", "max_length": 512, "batch": "32 rows", "learning_rate": 4e-3, "warmup": "2 steps", "sources": ["a"]},
            {"length": "15 steps", "schedule": "linear"},
        ],
    )
    first, second, third = phases_of(config, 128)
    assert (first.max_length, first.rows, first.micro_rows, first.sources) == (128, 64, 8, ())
    assert (second.max_length, second.rows, second.micro_rows, second.sources) == (512, 32, 8, ("a",))
    assert (first.config.learning_rate, second.config.learning_rate) == (6e-3, 4e-3)
    assert (str(first.config.warmup), str(second.config.warmup)) == ("0.3 of length", "2 steps")
    assert (second.config.schedule, second.config.schedule_config.power) == ("polynomial", 0.5)
    assert (third.config.schedule, third.config.schedule_config.power) == ("linear", 1.0)  # numbers of another schedule are not taken
    assert all(phase.config.optimizer == "lamb" and not phase.config.phases for phase in (first, second, third))
    assert [phase.steps() for phase in (first, second, third)] == [70, 15, 15]
    assert str(config.length) == "100 steps"
    assert longest(config, 128) == 512
    assert longest(made(length="1 step"), 128) == 128


def test_a_training_without_phases_is_one_phase_and_keeps_its_identity() -> None:
    config = made(length="3e6 tokens", batch="32 rows")
    (only,) = phases_of(config, 128)
    assert only.config is config
    assert only.steps() == 733
    assert "phases" not in config.semantic()
    assert "phases" in made(phases=[{"length": "2 steps"}]).semantic()


@pytest.mark.parametrize(
    ("length", "parts", "steps"),
    [
        ("20 steps", (0.9, 0.1), [18, 2]),
        ("7 steps", (0.5, 0.5), [4, 3]),
        ("10 steps", (1 / 3, 1 / 3, 1 / 3), [3, 4, 3]),
        ("3 steps", (0.9, 0.1), [3, 1]),  # no phase is empty
        ("4096 tokens", (0.75, 0.25), [12, 1]),  # 8 rows of 32, and of 128
    ],
)
def test_shares_of_steps_are_whole_steps_that_add_up(length: str, parts: tuple[float, ...], steps: list[int]) -> None:
    rows = [32, *(128 for _ in parts[1:])]
    phases = [{"length": f"{part} of length", "max_length": row} for part, row in zip(parts, rows)]
    assert [phase.steps() for phase in phases_of(made(length=length, batch="8 rows", phases=phases), 32)] == steps


def test_epochs_are_known_once_rows_are() -> None:
    first, second = phases_of(made(phases=[{"length": "2 epochs"}, {"length": "1 epoch"}], batch="8 rows"), 32)
    assert (first.steps(), second.steps()) == (None, None)
    assert (first.steps(41), second.steps(41)) == (11, 6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"phases": [{"length": "5 steps"}, {"length": "2 epochs"}]}, "epochs and steps: write them all in one unit"),
        ({"length": "5 steps", "phases": [{"length": "0.5 of length"}]}, "0.5 of the length together: make it 1"),
        (
            {"length": "5 steps", "phases": [{"length": "3 steps"}]},
            'the phases have 3 steps together, and length = "5 steps": remove length',
        ),
        ({"length": "5m", "phases": [{"length": "1 of length"}]}, "phases of a wall-clock length"),
        ({"phases": [{"length": "5m"}]}, "is a time, and phases have none"),
        ({"phases": [{"length": "0 steps"}]}, "is no length"),
        ({"phases": [{"length": "3 steps"}, {"length": "3 steps", "warmup": "5m"}]}, "phases.1: warmup"),
        ({"phases": [{"length": "3 steps", "schedule_config": {"power": 0.5}}]}, "phases.0: schedule"),
        ({"phases": [{"length": "3 steps", "sources": ["a", "b", "a"]}]}, '"a" is named twice'),
        ({"phases": [{"length": "0.5 of length"}, {"length": "0.5 of length"}]}, "Field required"),
        ({"phases": [{"length": "3 steps"}], "batch_warmup": {"start": "4 rows"}}, "batch_warmup does not go together with phases"),
        ({"phases": [{"length": "3 steps"}], "until_flat": {}}, "until_flat does not go together with phases"),
        ({"phases": [{"length": "3 steps"}], "decay_from": "run"}, "decay_from does not go together with phases"),
        ({"phases": [{"length": "3 steps", "max_length": 4}]}, "greater than or equal to 8"),
        ({"phases": [{"length": "3 steps", "optimizer": "lamb"}]}, "Extra inputs"),
    ],
)
def test_what_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        made(**fields)
    assert message in str(caught.value)


def test_a_batch_that_cannot_be_cut_is_refused() -> None:
    config = made(batch="64 rows", micro_batch="16 rows", phases=[{"length": "3 steps"}, {"length": "3 steps", "batch": "24 rows"}])
    with pytest.raises(KitaeError, match="micro_batch = 16 rows does not divide batch = 24 rows"):
        phases_of(config, 128)
