"""The loop on a CUDA device: resume to the bit, agreement with the CPU, refusal without an update; skipped where there is none."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_training import Toy, ToyBatches, config

from kitae.core.errors import KitaeError
from kitae.tensor.world import World
from kitae.train.loop import Fitted, fit
from kitae.train.monitor import read_metrics
from kitae.train.optimizer import Optimizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


def train(folder: Path, *, device: str = "cuda", toy: Toy | None = None, rate: float = 0.1, **fields: object) -> Fitted:
    world = World(device=torch.device(device, 0) if device == "cuda" else torch.device(device))
    return fit(toy or Toy(rate), ToyBatches(8, 4), config(**fields), folder, world=world, seed=7, attach={})


def losses(folder: Path) -> list[float]:
    return [float(str(r["loss"])) for r in read_metrics(folder) if r["kind"] == "train"]


@pytest.mark.parametrize(("precision", "rule"), [("fp32", "adamw"), ("bf16", "adamw"), ("bf16", "lamb"), ("bf16", "muon")])
def test_resumed_run_is_equal_to_the_bit(tmp_path: Path, precision: str, rule: str) -> None:
    options = {"length": "12 steps", "precision": precision, "optimizer": rule, "deterministic": True, "keep_last": 9}
    whole = train(tmp_path / "whole", **options)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for later in ("step-00000008", "step-00000012"):
        shutil.rmtree(tmp_path / "cut" / "checkpoints" / later)
    resumed = train(tmp_path / "cut", **options)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    for file in ("weights.safetensors", "optimizer.safetensors"):
        mine, theirs = load_file(resumed.checkpoint / file), load_file(whole.checkpoint / file)
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs), file


def test_agrees_with_the_cpu(tmp_path: Path) -> None:
    train(tmp_path / "cpu", device="cpu", rate=0.0, precision="fp64")
    for precision, tolerance in (("fp64", 1e-9), ("fp32", 1e-4), ("bf16", 0.02)):
        train(tmp_path / precision, rate=0.0, precision=precision)
        assert losses(tmp_path / precision) == pytest.approx(losses(tmp_path / "cpu"), rel=tolerance)


def test_a_gradient_that_is_not_finite_changes_no_weight(tmp_path: Path) -> None:
    toy = Toy(bad_step=6)
    with pytest.raises(KitaeError, match="step 6 is not finite"):
        train(tmp_path / "bad", toy=toy, deterministic=True)
    train(tmp_path / "good", deterministic=True, save_every="6 steps", keep_last=9)
    good = load_file(tmp_path / "good" / "checkpoints" / "step-00000006" / "weights.safetensors")
    assert all(torch.equal(weight.cpu(), good[name]) for name, weight in toy.named_parameters())


@pytest.mark.parametrize("rule", ["adamw", "lamb", "muon"])
def test_no_rule_waits_for_the_device(rule: str) -> None:
    device = torch.device("cuda", 0)
    optimizer = Optimizer(Toy(), config(optimizer=rule, precision="bf16"), device)
    optimizer.flat.grad.fill_(0.01)
    before = optimizer.flat.master.clone()
    for wanted in (True, False):
        unless = torch.full((), wanted, device=device)
        torch.cuda.set_sync_debug_mode("error")
        try:
            optimizer.clip()
            optimizer.step(0.01, unless=unless)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.equal(optimizer.flat.master, before) == wanted
