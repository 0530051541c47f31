"""Schedules of the learning rate: traces of whole trainings against closed formulas, in every unit."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError
from toy_training import Toy, ToyBatches, config

from kitae.core.errors import KitaeError
from kitae.tensor.world import World
from kitae.train.config import TrainConfig
from kitae.train.loop import fit
from kitae.train.monitor import read_metrics
from kitae.train.schedule import rate, rate_of_step, timetable

TOTAL, WARMUP, DECAY, PEAK = 20, 5, 8, 0.04
"""In steps of 8 rows, 96 tokens, a fifth of an epoch."""


def left(t: float) -> float:
    return (TOTAL - t) / (TOTAL - WARMUP)


def rising(fall: Callable[[float], float]) -> Callable[[float], float]:
    return lambda t: t / WARMUP if t < WARMUP else fall(t)


def stable(form: Callable[[float], float]) -> Callable[[float], float]:
    return rising(lambda t: form((t - (TOTAL - DECAY)) / DECAY) if t > TOTAL - DECAY else 1.0)


FORMULAS: dict[str, tuple[dict[str, object], Callable[[float], float]]] = {
    "linear": ({}, rising(left)),
    "linear to a tenth": ({"schedule": "linear", "schedule_config": {"end": 0.1}}, rising(lambda t: 0.1 + 0.9 * left(t))),
    "polynomial": ({"schedule": "polynomial", "schedule_config": {"power": 2.5}}, rising(lambda t: left(t) ** 2.5)),
    "root to a fifth": (
        {"schedule": "polynomial", "schedule_config": {"power": 0.5, "end": 0.2}},
        rising(lambda t: 0.2 + 0.8 * math.sqrt(left(t))),
    ),
    "cosine": ({"schedule": "cosine"}, rising(lambda t: 0.5 * (1 + math.cos(math.pi * (t - WARMUP) / (TOTAL - WARMUP))))),
    "constant": ({"schedule": "constant"}, rising(lambda t: 1.0)),
    "inverse square root": ({"schedule": "inverse-square-root"}, lambda t: min(t / WARMUP, math.sqrt(WARMUP / t))),
    "stable, linear": ({"schedule": "warmup-stable-decay", "schedule_config": {"decay": "8 steps"}}, stable(lambda g: 1 - g)),
    "stable, cosine": (
        {"schedule": "warmup-stable-decay", "schedule_config": {"decay": "64 rows", "decay_form": "cosine", "end": 0.1}},
        stable(lambda g: 0.1 + 0.9 * (1 + math.cos(math.pi * g)) / 2),
    ),
    "stable, root": (
        {"schedule": "warmup-stable-decay", "schedule_config": {"decay": "0.4 of length", "decay_form": "1-sqrt"}},
        stable(lambda g: 1 - math.sqrt(g)),
    ),
    "ELECTRA": ({"schedule_config": {"warmup_form": "product"}}, lambda t: min(1, t / WARMUP) * (1 - t / TOTAL)),
    "ELECTRA's power": (
        {"schedule": "polynomial", "schedule_config": {"power": 2.0, "warmup_form": "product"}},
        lambda t: min(1, t / WARMUP) * (1 - t / TOTAL) ** 2,
    ),
    "NVIDIA's LAMB": (
        {"schedule": "polynomial", "schedule_config": {"power": 0.5, "warmup_form": "cut"}},
        rising(lambda t: (1 - t / TOTAL) ** 0.5),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_the_trace_of_a_whole_training_is_the_closed_formula(tmp_path: Path, name: str) -> None:
    given, formula = FORMULAS[name]
    settings = config(**{"length": "20 steps", "warmup": "5 steps", "learning_rate": PEAK, "keep_last": 0, **given})
    fit(Toy(), ToyBatches(), settings, tmp_path / "run", world=World(), seed=1, attach={})
    trace = [record["learning_rate"] for record in read_metrics(tmp_path / "run") if record["kind"] == "train"]
    assert trace == pytest.approx([PEAK * formula(step + 0.5) for step in range(TOTAL)], rel=1e-12)


@pytest.mark.parametrize("length", ["20 steps", "160 rows", "1920 tokens", "4 epochs"])
@pytest.mark.parametrize("warmup", ["5 steps", "40 rows", "480 tokens", "1 epoch", "0.25 of length"])
@pytest.mark.parametrize("decay", ["8 steps", "64 rows", "768 tokens", "1.6 epochs", "0.4 of length"])
def test_every_unit_gives_the_same_trace(length: str, warmup: str, decay: str) -> None:
    settings = config(length=length, warmup=warmup, schedule="warmup-stable-decay", schedule_config={"decay": decay}, learning_rate=PEAK)
    times = timetable(settings, ToyBatches())
    formula = FORMULAS["stable, linear"][1]
    assert [rate_of_step(settings, times, step) for step in range(TOTAL)] == pytest.approx([PEAK * formula(t + 0.5) for t in range(TOTAL)])


def test_a_length_that_is_no_whole_number_of_steps_ends_above_zero() -> None:
    settings = config(length="81 rows", warmup="12 rows", learning_rate=1.0)
    times = timetable(settings, ToyBatches())
    assert [rate_of_step(settings, times, step) for step in range(11)] == pytest.approx(
        [min((t + 0.5) / 1.5, (11 - t - 0.5) / 9.5) for t in range(11)]
    )


@pytest.mark.parametrize("name", ["polynomial", "cosine", "stable, linear", "inverse square root", "NVIDIA's LAMB"])
def test_the_corners_of_a_schedule(name: str) -> None:
    settings = config(learning_rate=1.0, **FORMULAS[name][0])
    assert rate(settings, 0.0, 0.25, 0.4) == 0
    assert rate(settings, 0.25, 0.25, 0.4) == pytest.approx(0.75**0.5 if "LAMB" in name else 1)
    assert rate(settings, 1.0, 0.25, 0.4) == pytest.approx(0.5 if "inverse" in name else 0, abs=1e-15)
    assert rate(settings, 1.0, 1.0, 0.0) == 1, "a training that is all warm-up"


def test_without_a_warmup_the_highest_rate_comes_first() -> None:
    for given, _ in FORMULAS.values():
        if given.get("schedule") != "inverse-square-root":
            assert rate(config(learning_rate=1.0, **given), 0.0, 0.0, 0.4) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": "cosine", "schedule_config": {"power": 2}}, "does not read schedule_config.power"),
        ({"schedule": "constant", "schedule_config": {"end": 0.1}}, "does not read schedule_config.end"),
        ({"schedule_config": {"decay": "4 steps"}}, "does not read schedule_config.decay"),
        ({"schedule": "warmup-stable-decay", "schedule_config": {"warmup_form": "product"}}, "does not read schedule_config.warmup_form"),
        ({"schedule": "warmup-stable-decay", "schedule_config": {"decay": "0 steps"}}, "no length of a decay"),
        ({"schedule": "inverse-square-root", "warmup": "0 steps"}, "give it a warmup"),
        ({"schedule": "wsd"}, "warmup-stable-decay"),
    ],
)
def test_numbers_that_a_schedule_does_not_read_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**fields)


def test_a_decay_that_does_not_fit_is_refused() -> None:
    settings = config(length="20 steps", warmup="5 steps", schedule="warmup-stable-decay", schedule_config={"decay": "128 rows"})
    with pytest.raises(KitaeError, match=r"the warm-up \(5 steps\) and the decay \(16 steps\) are longer than the training \(20 steps\)"):
        timetable(settings, ToyBatches())


def test_settings_come_back_from_json_exactly() -> None:
    settings = config(length="1234567 steps", warmup="0.1234567890123 of length", schedule_config={"end": 0.3})
    again = TrainConfig.model_validate_json(settings.model_dump_json())
    assert again == settings
    assert str(config(length="3e9 tokens").length) == "3e+09 tokens"
