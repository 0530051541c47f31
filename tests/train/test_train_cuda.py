"""The loop on a CUDA device: resume to the bit, agreement with the CPU, refusal without an update; skipped where there is none."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_training import Toy, ToyBatches, config

from kitae.core.errors import KitaeError
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss
from kitae.tensor.world import World
from kitae.train.loop import Fitted, fit
from kitae.train.monitor import read_metrics
from kitae.train.optimizer import Optimizer
from kitae.train.policy import Policy, PolicyState

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


def train(folder: Path, *, device: str = "cuda", toy: Toy | None = None, rate: float = 0.1, **fields: object) -> Fitted:
    world = World(device=torch.device(device, 0) if device == "cuda" else torch.device(device))
    return fit(toy or Toy(rate), ToyBatches(8, 4), config(**fields), folder, world=world, seed=7, attach={})


def losses(folder: Path) -> list[float]:
    return [float(str(r["loss"])) for r in read_metrics(folder) if r["kind"] == "train"]


@pytest.mark.parametrize(
    ("precision", "rule"), [("fp32", "adamw"), ("bf16", "adamw"), ("fp16", "adamw"), ("bf16", "lamb"), ("bf16", "muon")]
)
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
    for precision, tolerance in (("fp64", 1e-9), ("fp32", 1e-4), ("bf16", 0.02), ("fp16", 0.02)):
        scale = {"loss_scale": {"initial": 1024}} if precision == "fp16" else {}
        train(tmp_path / precision, rate=0.0, precision=precision, **scale)
        assert losses(tmp_path / precision) == pytest.approx(losses(tmp_path / "cpu"), rel=tolerance)


def test_a_gradient_that_is_not_finite_changes_no_weight(tmp_path: Path) -> None:
    toy = Toy(bad_step=6)
    with pytest.raises(KitaeError, match="step 6 is not finite"):
        train(tmp_path / "bad", toy=toy, deterministic=True)
    train(tmp_path / "good", deterministic=True, save_every="6 steps", keep_last=9)
    good = load_file(tmp_path / "good" / "checkpoints" / "step-00000006" / "weights.safetensors")
    assert all(torch.equal(weight.cpu(), good[name]) for name, weight in toy.named_parameters())


def test_a_skipped_step_is_made_good_while_the_next_one_is_under_way(tmp_path: Path) -> None:
    """The step's rows are sought when the next one's gradient is there already, which is then worked out again."""
    found = []
    for device in ("cpu", "cuda"):
        train(
            tmp_path / device,
            device=device,
            toy=Toy(0.0, bad_step=6, spike_step=14),
            non_finite="skip",
            spikes={"window": 8},
            precision="fp64",
        )
        records = [record for record in read_metrics(tmp_path / device) if record["kind"] == "skipped"]
        found.append([(record["step"], record["why"], record.get("rows"), record.get("weight")) for record in records])
    assert found[0] == found[1]
    assert [(step, why) for step, why, *_ in found[0]] == [(7, "not finite"), (15, "spike")]
    last = [[record for record in read_metrics(tmp_path / device) if record["kind"] == "train"][-1]["loss"] for device in ("cpu", "cuda")]
    assert last[0] == pytest.approx(last[1], rel=1e-9)


def test_graphs_learn_what_plain_layers_learn(tmp_path: Path) -> None:
    for name, wanted in (("plain", False), ("graphs", "graphs")):
        train(tmp_path / name, rate=0.0, compile=wanted)
    assert losses(tmp_path / "graphs") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)


def test_no_decision_waits_for_the_device() -> None:
    device = torch.device("cuda", 0)
    policy = Policy(config(precision="fp16", spikes={"window": 4}), device, PolicyState())
    sums, norm = torch.ones(3, dtype=torch.float64, device=device), torch.ones((), device=device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        ruling = policy.rule(sums, norm)
        policy.unscale(sums)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert float(ruling.verdict) == 0


class Wide(Toy):
    """Takes a share of the device's free memory for every row."""

    def forward(self, batch: Batch) -> Loss:
        self.held = torch.empty(int(len(batch.rows) * self.room / 5.5), dtype=torch.uint8, device=batch.ids_BL.device)
        return super().forward(batch)


def test_a_full_device_is_refused_with_what_fits(tmp_path: Path) -> None:
    toy = Wide()
    toy.room = torch.cuda.mem_get_info()[0]
    with pytest.raises(KitaeError, match=r"12 rows of 12 positions does not fit into the memory of .* GiB of cuda:0; 4 rows do"):
        fit(toy, ToyBatches(24, 12), config(), tmp_path, world=World(device=torch.device("cuda", 0)), seed=7, attach={})


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
