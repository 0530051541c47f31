"""The decay of a warm-up-stable-decay schedule, begun at a checkpoint of another, longer training."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from toy_training import Toy, ToyBatches, config

from kitae.core.artifact import checkpoints
from kitae.core.errors import KitaeError
from kitae.tensor.world import World
from kitae.train.loop import Fitted, fit

STABLE = {"schedule": "warmup-stable-decay", "warmup": "3 steps", "precision": "fp64", "milestones": ["10 steps"]}


def run(folder: Path, *, seed: int = 1, **fields: object) -> Fitted:
    return fit(Toy(), ToyBatches(), config(**(STABLE | fields)), folder, world=World(), seed=seed, attach={})


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    run(folder, length="40 steps", schedule_config={"decay": "8 steps"})
    return folder / "checkpoints/step-00000010"


@pytest.mark.parametrize("before", ["warmup-stable-decay", "constant"])
def test_a_branched_decay_ends_as_if_it_had_been_meant_from_the_start(tmp_path: Path, long: Path, before: str) -> None:
    place = long
    if before == "constant":
        run(tmp_path / "long", length="1e3 rows", schedule="constant", keep_last=99, save_every="5 steps", until_flat=None, milestones=[])
        place = tmp_path / "long/checkpoints/step-00000010"
    short = {"length": "16 steps", "schedule_config": {"decay": "5 steps", "decay_form": "1-sqrt"}}
    run(tmp_path / "whole", **short)
    branched = run(tmp_path / "branched", **short, decay_from=str(place))
    assert branched.steps == 16
    assert [path.name for path in checkpoints(tmp_path / "branched")] == ["step-00000012", "step-00000016"]
    one, two = (load_file(checkpoints(tmp_path / name)[-1] / "weights.safetensors") for name in ("whole", "branched"))
    assert all(torch.allclose(one[name], two[name], rtol=1e-10, atol=1e-12) for name in one)
    state = [json.loads((checkpoints(tmp_path / name)[-1] / "state.json").read_text()) for name in ("whole", "branched")]
    assert state[0]["tokens_seen"] == state[1]["tokens_seen"]


def test_a_branch_that_was_cut_off_goes_on_with_its_own_checkpoint(tmp_path: Path, long: Path) -> None:
    short = {"length": "16 steps", "schedule_config": {"decay": "5 steps"}, "keep_last": 9, "decay_from": str(long)}
    run(tmp_path / "one", **short)
    before = (tmp_path / "one/checkpoints/step-00000012/state.json").stat().st_mtime_ns
    for late in checkpoints(tmp_path / "one")[1:]:
        late.rename(tmp_path / late.name)
    run(tmp_path / "one", **short)
    assert (tmp_path / "one/checkpoints/step-00000012/state.json").stat().st_mtime_ns == before
    one, two = (load_file(path / "weights.safetensors") for path in (tmp_path / "step-00000016", checkpoints(tmp_path / "one")[-1]))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": "16 steps", "learning_rate": 0.02}, "other settings: train.training.config.learning_rate: 0.01 -> 0.02"),
        ({"length": "16 steps", "seed": 2}, "other settings: train.training.seed"),
        ({"length": "10 steps", "schedule_config": {"decay": "2 steps"}}, "has 10 steps, and this training ends after 10"),
        ({"length": "16 steps", "schedule_config": {"decay": "8 steps"}}, "learnt step 8 at a rate of 0.01"),
        ({"length": "16 steps", "warmup": "4 steps", "schedule_config": {"decay": "4 steps"}}, "learnt step 0 at a rate of"),
        ({"length": "16 steps", "schedule": "linear"}, "learnt step 3 at a rate of 0.01"),
    ],
)
def test_a_checkpoint_that_this_training_would_not_have_come_through_is_refused(
    tmp_path: Path, long: Path, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(KitaeError, match=message):
        run(tmp_path / "run", decay_from=str(long), **fields)  # type: ignore[arg-type]
    assert not checkpoints(tmp_path / "run")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, long: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(KitaeError, match="no checkpoint of a training"):
        run(tmp_path / "run", length="16 steps", decay_from=str(tmp_path))
    with pytest.raises(ValidationError, match="decay_from with a wall-clock length"):
        config(length="55m", decay_from=str(long))


def test_a_damaged_record_of_the_other_training_is_refused(tmp_path: Path, long: Path) -> None:
    shutil.copytree(long.parent.parent, tmp_path / "long")
    (tmp_path / "long/identity.json").write_text('{"train": ', encoding="utf-8")
    with pytest.raises(KitaeError, match=r"identity.json is damaged"):
        run(tmp_path / "run", length="16 steps", decay_from=str(tmp_path / "long/checkpoints" / long.name))
