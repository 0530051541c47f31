"""Old checkpoints go, milestones stay, whatever happened to an earlier process."""

from pathlib import Path

import pytest
from toy_training import Toy, ToyBatches, config

from kitae.chain.execute import OWNER, _own
from kitae.core.artifact import checkpoints, verify
from kitae.core.errors import KitaeError
from kitae.tensor.batch import Batch
from kitae.tensor.world import World
from kitae.train.loop import Fitted, fit


def train(folder: Path, **fields: object) -> Fitted:
    return fit(Toy(), ToyBatches(), config(**fields), folder, world=World(), seed=7, attach={})


def steps(folder: Path) -> list[int]:
    return [int(path.name[5:]) for path in checkpoints(folder)]


def test_what_a_killed_process_could_not_remove_goes_with_the_next(tmp_path: Path) -> None:
    train(tmp_path, length="12 steps", keep_last=9)
    half = tmp_path / "checkpoints" / ".step-00000002.old"
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"half")
    train(tmp_path, length="12 steps", keep_last=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()] == ["step-00000012"]


def test_nothing_is_removed_behind_a_damaged_checkpoint(tmp_path: Path) -> None:
    """The newest is damaged; before it is made again, the one before is all there is."""
    train(tmp_path, length="12 steps", keep_last=9)
    (checkpoints(tmp_path)[-1] / "weights.safetensors").write_bytes(b"")

    class Ending(ToyBatches):
        def micro(self, step: int, micro: int) -> Batch:
            if step == 11:
                raise InterruptedError
            return super().micro(step, micro)

    with pytest.raises(InterruptedError):
        fit(Toy(), Ending(), config(length="12 steps", keep_last=1), tmp_path, world=World(), seed=7, attach={})
    assert steps(tmp_path) == [4, 8, 12]
    train(tmp_path, length="12 steps", keep_last=1)
    assert steps(tmp_path) == [12]
    verify(checkpoints(tmp_path)[-1])


def test_a_milestone_of_earlier_settings_stays(tmp_path: Path) -> None:
    train(tmp_path, length="12 steps", keep_last=9, milestones=["4 steps"])
    train(tmp_path, length="12 steps", keep_last=1)
    assert steps(tmp_path) == [4, 12]


def test_an_output_whose_owner_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """By its name, with the cure; a process that dies cannot leave it so."""
    (tmp_path / OWNER).write_text("")
    with pytest.raises(KitaeError, match=r"kitae\.json is damaged.*remove this file"):
        _own(tmp_path, Path("r.toml"))
