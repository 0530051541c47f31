"""Saving in the background: the same files, nothing of later steps in them, one at a time, and failures where the training sees them."""

import errno
import os
import threading
from pathlib import Path

import pytest
from toy_training import Toy, ToyBatches, config

from kitae.core.artifact import checkpoints, read_manifest, verify
from kitae.core.errors import KitaeError
from kitae.tensor.batch import Batch
from kitae.tensor.world import World
from kitae.train import checkpoint
from kitae.train.checkpoint import PERMANENT
from kitae.train.loop import Fitted, fit

FILES = ("weights.safetensors", "optimizer.safetensors", "model.json", "state.json")


def train(folder: Path, batches: ToyBatches | None = None, **fields: object) -> Fitted:
    return fit(Toy(), batches or ToyBatches(), config(**fields), folder, world=World(), seed=7, attach={})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_written_is_what_was_at_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    """Though the weights have moved on by the time of writing."""
    real, later = checkpoint.save, {4: threading.Event(), 8: threading.Event()}

    class Watching(ToyBatches):
        def micro(self, step: int, micro: int) -> Batch:
            if step - 3 in later:  # two updates after that checkpoint
                later[step - 3].set()
            return super().micro(step, micro)

    def late(folder: Path, content: checkpoint.Content, attach: dict[str, Path]) -> Path:
        if content.state.step in later:
            assert later[content.state.step].wait(30)
        return real(folder, content, attach)

    fields = {"precision": precision, "deterministic": True, "length": "12 steps", "keep_last": 9, "milestones": ["8 steps"]}
    train(tmp_path / "sync", save_async=False, **fields)
    monkeypatch.setattr(checkpoint, "save", late)
    train(tmp_path / "async", Watching(), **fields)
    ours, theirs = checkpoints(tmp_path / "async"), checkpoints(tmp_path / "sync")
    assert [path.name for path in ours] == [path.name for path in theirs] == ["step-00000004", "step-00000008", "step-00000012"]
    for one, two in zip(ours, theirs, strict=True):
        verify(one)
        for name in FILES[:3]:
            assert (one / name).read_bytes() == (two / name).read_bytes()
    assert [read_manifest(path).facts[PERMANENT] for path in ours] == [False, True, False]


def test_the_next_save_waits_for_the_one_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, running, most = checkpoint.save, [0], [0]

    def slow(folder: Path, content: checkpoint.Content, attach: dict[str, Path]) -> Path:
        running[0] += 1
        most[0] = max(most[0], running[0])
        threading.Event().wait(0.02)
        running[0] -= 1
        return real(folder, content, attach)

    monkeypatch.setattr(checkpoint, "save", slow)
    train(tmp_path, save_every="1 step", length="8 steps", keep_last=9)
    assert len(checkpoints(tmp_path)) == 8
    assert most == [1]


@pytest.mark.parametrize("last", [False, True])
def test_a_save_that_fails_stops_the_training_within_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: bool) -> None:
    real, made = checkpoint.save, threading.Event()
    bad = 20 if last else 8

    def full(folder: Path, content: checkpoint.Content, attach: dict[str, Path]) -> Path:
        if content.state.step < bad:
            return real(folder, content, attach)
        made.set()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Watching(ToyBatches):
        def micro(self, step: int, micro: int) -> Batch:
            assert step <= bad, "the training goes on"
            if step == bad:  # the step that goes on while the save fails
                assert made.wait(30)
                threading.Event().wait(0.02)
            return super().micro(step, micro)

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(KitaeError, match="the disk is full: free some space and run again: the earlier checkpoints are intact"):
        train(tmp_path, Watching(), keep_last=9)
    assert [path.name for path in checkpoints(tmp_path)] == [f"step-{step:08d}" for step in range(4, bad, 4)]


def test_another_error_lets_a_save_come_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = checkpoint.save

    class Failing(ToyBatches):
        def micro(self, step: int, micro: int) -> Batch:
            if step == 4:
                raise RuntimeError("the data end here")
            return super().micro(step, micro)

    def slow(folder: Path, content: checkpoint.Content, attach: dict[str, Path]) -> Path:
        threading.Event().wait(0.1)
        return real(folder, content, attach)

    monkeypatch.setattr(checkpoint, "save", slow)
    with pytest.raises(RuntimeError, match="the data end here"):
        train(tmp_path, Failing())
    (only,) = checkpoints(tmp_path)
    verify(only)


def test_an_old_checkpoint_goes_after_the_new_one_is_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    real = checkpoint.prune

    def watched(folder: Path, keep_last: int, milestones: frozenset[int]) -> None:
        seen.append([path.name[-2:] for path in checkpoints(folder)])
        real(folder, keep_last, milestones)

    monkeypatch.setattr(checkpoint, "prune", watched)
    train(tmp_path, keep_last=1, length="12 steps")
    assert seen == [["04"], ["04", "08"], ["08", "12"]]
