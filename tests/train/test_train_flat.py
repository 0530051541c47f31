"""Stopping when a held-out loss is flat: decided by what was measured alone, the same after any interruption."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from toy_training import Toy, ToyBatches, config

from kitae.core.artifact import checkpoints
from kitae.core.errors import KitaeError
from kitae.core.recipe import validate
from kitae.tensor.world import World
from kitae.train.config import FlatConfig, TrainConfig
from kitae.train.ending import is_flat
from kitae.train.loop import Fitted, fit
from kitae.train.monitor import read_metrics

CURVE = {step: 4.0 * 0.5 ** (step / 4) + 1.0 for step in range(100)}  # 2 % better at step 28 than at 26
RULE = {"loss": "mlm_loss", "every": "2 steps", "share": 0.02, "patience": 2}


def train(folder: Path, *, measure: Callable[[int], dict[str, float]], length: str = "60 steps", **rule: object) -> tuple[Toy, Fitted]:
    chosen = config(length=length, warmup="1 step", save_every="5 steps", evaluate_every="7 steps", until_flat=RULE | rule)
    toy = Toy()
    return toy, fit(toy, ToyBatches(), chosen, folder, world=World(), seed=7, attach={}, evaluate=measure)


def curve(step: int) -> dict[str, float]:
    """Two sources, whose mean is the curve; what is measured over both together does not count."""
    both = {"heldout/a/mlm_loss": CURVE[step] - 1, "heldout/b/mlm_loss": CURVE[step] + 1, "heldout/b/rtd_loss": 5.0}
    return both | {"heldout/mlm_loss": 9.0 - step / 100}


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([], False),
        ([3.0], False),
        ([3.0, 3.0], False),  # only one before the last two
        ([3.0, 3.0, 3.0], True),
        ([3.0, 2.9, 2.98], False),  # 2.9 is 3 % better
        ([3.0, 2.98, 2.98], True),
        ([3.0, 2.98, 2.96], False),
        ([3.0, 2.0, 2.5, 2.4], True),  # rising
        ([3.0, 2.0, 2.5, 1.9], False),
    ],
)
def test_flat_by_hand(losses: list[float], expected: bool) -> None:
    assert is_flat(FlatConfig(share=0.01, patience=2), 3.0, losses) is expected


def test_being_flat_at_the_level_of_the_beginning_does_not_count() -> None:
    rule = FlatConfig(share=0.01, patience=2, drop=0.1)
    plateau = [6.9, 6.89, 6.89, 6.88]
    assert is_flat(FlatConfig(share=0.01, patience=2), 7.0, plateau)
    assert not is_flat(rule, 7.0, plateau)
    assert not is_flat(rule, 7.0, [*plateau, 6.0, 5.0])
    assert is_flat(rule, 7.0, [*plateau, 6.0, 5.0, 5.0, 5.0])


def test_it_ends_at_the_first_flat_measurement_with_everything_written(tmp_path: Path) -> None:
    _, fitted = train(tmp_path / "run", measure=curve)
    steps = range(2, 62, 2)
    losses = [CURVE[step] for step in steps]
    expected = next(s for n, s in enumerate(steps, 1) if n > 2 and min(losses[n - 2 : n]) > min(losses[: n - 2]) * 0.98)
    assert 10 < expected < 60
    assert fitted.steps == expected
    assert fitted.evaluation == curve(expected)
    assert checkpoints(tmp_path / "run")[-1] == fitted.checkpoint
    measured = [record["step"] for record in read_metrics(tmp_path / "run") if record["kind"] == "evaluate"]
    assert measured == sorted({*range(0, expected + 1, 2), *range(7, expected + 1, 7)})


def test_a_run_cut_off_anywhere_decides_the_same(tmp_path: Path) -> None:
    _, fitted = train(tmp_path / "whole", measure=curve)
    before = (fitted.checkpoint / "weights.safetensors").read_bytes()
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    _, again = train(tmp_path / "again", measure=_never)
    assert (again.steps, again.evaluation) == (fitted.steps, fitted.evaluation), "a finished run stays finished"
    shutil.rmtree(fitted.checkpoint)  # killed between the decision and the last checkpoint
    assert checkpoints(tmp_path / "whole")
    _, cut = train(tmp_path / "whole", measure=curve)
    assert cut.steps == fitted.steps
    assert (cut.checkpoint / "weights.safetensors").read_bytes() == before


def _never(step: int) -> dict[str, float]:
    raise AssertionError(f"nothing is left to measure after step {step}")


def test_what_never_is_flat_ends_with_the_length(tmp_path: Path) -> None:
    _, fitted = train(tmp_path / "run", measure=lambda step: {"mlm_loss": 0.9**step}, length="12 steps")
    assert fitted.steps == 12


def test_the_warm_up_does_not_count(tmp_path: Path) -> None:
    chosen = config(length="40 steps", warmup="20 steps", until_flat=RULE)
    fitted = fit(Toy(), ToyBatches(), chosen, tmp_path, world=World(), seed=7, attach={}, evaluate=lambda step: {"mlm_loss": 1.0})
    assert fitted.steps == 24  # 20, 22, 24


@pytest.mark.parametrize("measure", [None, lambda step: {}, lambda step: {"heldout/a/rtd_loss": 1.0}])
def test_a_loss_that_nothing_measures_is_named(tmp_path: Path, measure: Callable[[int], Mapping[str, float]] | None) -> None:
    with pytest.raises(KitaeError, match='waits for the held-out loss "mlm_loss", which nothing measures: set corpus.holdout'):
        train(tmp_path, measure=measure)  # type: ignore[arg-type]


def test_another_rule_does_not_continue_a_run(tmp_path: Path) -> None:
    train(tmp_path, measure=curve)
    with pytest.raises(KitaeError, match=r"train\.config\.until_flat\.share"):
        train(tmp_path, measure=curve, share=0.03)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"every": "0 steps"}, "is no interval"),
        ({"share": 1.5}, "less than 1"),
        ({"patience": 0}, "greater than or equal to 1"),
        ({"los": "mlm_loss"}, 'did you mean "loss"'),
    ],
)
def test_rules_that_are_refused(rule: dict[str, object], message: str) -> None:
    with pytest.raises(KitaeError, match=message):
        validate(TrainConfig, {"length": "3 steps", "until_flat": rule}, "r.toml")
