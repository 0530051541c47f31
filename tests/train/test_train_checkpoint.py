"""Checkpoints: complete or absent, also when the disk is full."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_training import Toy, ToyBatches, config

from kitae.core.artifact import checkpoints, newest, verify
from kitae.core.errors import KitaeError
from kitae.tensor.world import World
from kitae.train.checkpoint import claim, latest, prune
from kitae.train.loop import fit
from kitae.train.monitor import read_metrics


def train(folder: Path, toy: Toy | None = None, attach: dict[str, Path] | None = None, **fields: object) -> Path:
    return fit(toy or Toy(), ToyBatches(), config(**fields), folder, world=World(), seed=7, attach=attach or {}).checkpoint


def test_what_a_checkpoint_holds(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.txt").write_text("a\n")
    toy = Toy()
    path = train(tmp_path / "run", toy, {"tokenizer": tmp_path / "tokenizer"}, length="3 steps", precision="bf16")
    manifest = verify(path)
    assert {"weights.safetensors", "optimizer.safetensors", "model.json", "state.json", "tokenizer/vocab.txt"} == set(manifest.files)
    weights = load_file(path / "weights.safetensors")
    assert set(weights) == set(toy.state_dict())
    assert weights["head.weight"].dtype == torch.float32
    assert torch.equal(weights["head.weight"].to(torch.bfloat16), toy.head.weight)
    assert torch.equal(weights["embed.weight"], weights["tied.weight"])
    state = json.loads((path / "state.json").read_text())
    assert (state["step"], state["seed"], state["world_size"]) == (3, 7, 1)
    assert json.loads((path / "model.json").read_text())["parts"]["encoder"]["family"] == "toy"
    assert newest(tmp_path / "run") == path
    (tmp_path / "tokenizer" / "vocab.txt").write_text("b\n")
    with pytest.raises(KitaeError, match=r"train\.attached\.tokenizer"):
        train(tmp_path / "run", toy, {"tokenizer": tmp_path / "tokenizer"}, length="3 steps", precision="bf16")


def test_the_last_and_the_milestones_stay(tmp_path: Path) -> None:
    train(tmp_path, save_every="2 steps", keep_last=2, milestones=["3 steps", "0.5 of length"])
    assert [int(path.name[5:]) for path in checkpoints(tmp_path)] == [3, 10, 18, 20]


def test_no_checkpoint_at_all_when_asked(tmp_path: Path) -> None:
    assert not train(tmp_path, keep_last=0).exists()
    assert checkpoints(tmp_path) == []


def test_a_removal_that_fails_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    train(tmp_path, keep_last=9)
    monkeypatch.setattr(shutil, "rmtree", refuse)
    prune(tmp_path, 1, frozenset())
    assert "could not be removed: Permission denied" in caplog.text
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000020"]


def test_all_checkpoints_damaged_is_an_error_and_not_a_new_start(tmp_path: Path) -> None:
    train(tmp_path, length="8 steps")
    for path in checkpoints(tmp_path):
        os.truncate(path / "weights.safetensors", 10)
    with pytest.raises(KitaeError, match="all 2 checkpoints are damaged"):
        train(tmp_path, length="8 steps")
    assert latest(tmp_path / "nothing") is None


def test_a_damaged_record_is_refused_by_its_line_and_a_cut_off_end_is_not(tmp_path: Path) -> None:
    train(tmp_path, length="8 steps")
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]) + bytes(300) + b"\n" + b'{"kind": "tr')
    assert len(read_metrics(tmp_path)) == len(lines) - 2  # what a loss of power leaves
    path.write_bytes(b"".join([*lines[:2], b'{"kind": "train"}\n', *lines[3:]]))
    with pytest.raises(KitaeError, match=r"metrics\.jsonl is damaged in line 3: restore it"):
        train(tmp_path, length="8 steps")


def test_a_folder_is_claimed_once_it_holds_a_checkpoint(tmp_path: Path) -> None:
    claim(tmp_path, "stage", {"a": 1})
    claim(tmp_path, "stage", {"a": 2})
    train(tmp_path, length="1 step")
    claim(tmp_path, "stage", {"a": 2})
    with pytest.raises(KitaeError, match=r"stage\.a: 2 -> 3"):
        claim(tmp_path, "stage", {"a": 3})


def test_another_model_is_refused(tmp_path: Path) -> None:
    class Other(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.extra = torch.nn.Linear(2, 2)

    train(tmp_path, length="1 step")
    with pytest.raises(KitaeError, match=r"does not fit this model: it lacks extra\.bias, extra\.weight"):
        train(tmp_path, Other(), length="1 step")
    train(tmp_path / "other", Other(), length="1 step")
    with pytest.raises(KitaeError, match=r"does not fit this model: it also has extra\.bias, extra\.weight"):
        train(tmp_path / "other", length="1 step")


def test_a_leftover_of_an_interrupted_save_is_swept_away(tmp_path: Path) -> None:
    leftover = tmp_path / "checkpoints" / ".step-00000004.12345678.part"
    leftover.mkdir(parents=True)
    (leftover / "weights.safetensors").write_bytes(b"half")
    train(tmp_path, length="1 step")
    assert not leftover.exists()


@pytest.mark.parametrize("part", ["weights", "optimizer"])
def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path: Path, part: str) -> None:
    """A small tmpfs where mounting is permitted, a limit on file sizes elsewhere."""
    run = tmp_path / "disk" / "run"
    run.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path / "disk"], capture_output=True).returncode == 0
    try:
        good = train(run, length="10 steps", save_every="10 steps", keep_last=9) if mounted else None
        size = sum(file.stat().st_size for file in good.rglob("*")) if good else 0
        if mounted:
            free = shutil.disk_usage(tmp_path / "disk").free
            ballast = free - (2048 if part == "weights" else int(0.6 * size))
            (tmp_path / "disk" / "ballast").write_bytes(b"x" * (ballast // 4096 * 4096))
            (run / "identity.json").unlink()  # so that the run may be lengthened in this test
        script = Path(__file__).with_name("toy_training.py")
        limit = None if mounted else (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)))
        options = json.dumps({"config": {"length": "20 steps", "save_every": "5 steps", "keep_last": 9}})
        done = subprocess.run([sys.executable, script, run, options], capture_output=True, text=True, preexec_fn=limit)
        assert done.returncode == 2, done.stderr
        assert "disk is full" in done.stderr
        assert "Traceback" not in done.stderr
        assert checkpoints(run) == ([good] if good else [])
        assert [path for path in (run / "checkpoints").iterdir() if path.is_dir()] == ([good] if good else [])
        if good:
            verify(good)
    finally:
        if mounted:
            subprocess.run(["umount", tmp_path / "disk"], check=True)
