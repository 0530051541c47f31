"""Updates that are not applied: what is not finite, spikes; the same decisions after a resume; steps that predict nothing."""

import json
import logging
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toy_training import Toy, ToyBatches, config

from kitae.core.artifact import checkpoints
from kitae.core.errors import KitaeError
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss
from kitae.tensor.world import World
from kitae.train.checkpoint import read_state
from kitae.train.loop import Fitted, fit
from kitae.train.monitor import read_metrics
from kitae.train.optimizer import Optimizer
from kitae.train.policy import Policy, PolicyState, Verdict
from kitae.train.update import Updates

CPU = torch.device("cpu")


class Poisoned(Toy):
    """The gradient of one weight is not finite in the second micro-batch of some steps; the loss is."""

    def __init__(self, *steps: int, head_rate: float | None = None) -> None:
        super().__init__(head_rate=head_rate)
        self.steps = steps

    def forward(self, batch: Batch) -> Loss:
        found = super().forward(batch)
        if batch.step not in self.steps or batch.micro != 1:
            return found
        poison = (self.blocks[1].mlp.weight * 0).sum()
        poison.register_hook(lambda grad: grad * torch.nan)
        first, *rest = found.terms
        return Loss(terms=(type(first)(name=first.name, sum=first.sum + poison, count=first.count), *rest))


def train(folder: Path, toy: Toy | None = None, **fields: object) -> Fitted:
    fields = {"deterministic": True, "keep_last": 99} | fields
    return fit(toy or Toy(), ToyBatches(8, 4), config(**fields), folder, world=World(), seed=7, attach={})


def records(folder: Path, kind: str) -> list[dict[str, object]]:
    return [record for record in read_metrics(folder) if record["kind"] == kind]


def content(fitted: Fitted) -> dict[str, Tensor]:
    return {f"{file} {k}": v for file in ("weights", "optimizer") for k, v in load_file(fitted.checkpoint / f"{file}.safetensors").items()}


def assert_resumes_alike(folder: Path, whole: Fitted, toys: object, cuts: tuple[int, ...], **fields: object) -> None:
    """Cut off after so many steps and run again, the training ends equal to the bit, with the same records."""
    assert callable(toys)
    for cut in cuts:
        shutil.copytree(folder / "whole", folder / f"cut {cut}")
        for path in checkpoints(folder / f"cut {cut}"):
            if int(path.name.removeprefix("step-")) > cut:
                shutil.rmtree(path)
        again = train(folder / f"cut {cut}", toys(), **fields)
        first, second = content(whole), content(again)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert records(folder / f"cut {cut}", "skipped") == records(folder / "whole", "skipped")
        assert read_state(again.checkpoint).policy == read_state(whole.checkpoint).policy


@pytest.mark.parametrize("rule", ["adamw", "lamb", "muon"])
def test_what_is_not_finite_is_passed_over_and_named(tmp_path: Path, rule: str, caplog: pytest.LogCaptureFixture) -> None:
    fields = {"non_finite": "skip", "optimizer": rule}
    whole = train(tmp_path / "whole", Poisoned(5, 9), **fields)
    first, second = records(tmp_path / "whole", "skipped")
    assert (first["step"], second["step"]) == (6, 10)
    assert (first["why"], first["rows"], first["weight"]) == ("not finite", [44, 45, 46, 47], "blocks.1.mlp.weight")
    assert "step 5 is skipped" in caplog.text
    assert "rows 44, 45, 46, 47, first at blocks.1.mlp.weight of the one group of all weights" in caplog.text
    before, after = (load_file(tmp_path / "whole" / "checkpoints" / f"step-{n:08d}" / "weights.safetensors") for n in (4, 8))
    assert not torch.equal(before["head.weight"], after["head.weight"])
    assert read_state(whole.checkpoint).policy.skipped == whole.skipped == 2
    assert all(torch.isfinite(tensor).all() for tensor in content(whole).values())
    assert_resumes_alike(tmp_path, whole, lambda: Poisoned(5, 9), (4, 8) if rule == "adamw" else (8,), **fields)


def test_a_skipped_step_moves_nothing_and_is_not_counted_by_the_optimizer(tmp_path: Path) -> None:
    """The step after a skipped one is what it would be if the optimizer had never seen the skipped one."""
    fields = {"non_finite": "skip", "save_every": "1 step", "length": "8 steps", "schedule": "constant", "warmup": "0 steps"}
    train(tmp_path / "run", Poisoned(5), **fields)
    kept = [load_file(path / "weights.safetensors") for path in checkpoints(tmp_path / "run")[4:6]]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])
    state = load_file(tmp_path / "run" / "checkpoints" / "step-00000007" / "optimizer.safetensors")
    moved = load_file(tmp_path / "run" / "checkpoints" / "step-00000007" / "weights.safetensors")["head.bias"]
    corrected = state["exp_avg.head.bias"] / (1 - 0.9**6), state["exp_avg_sq.head.bias"] / (1 - 0.999**6)
    expected = kept[1]["head.bias"] - 0.01 * corrected[0] / (corrected[1].sqrt() + 1e-6)
    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-7)


def test_a_run_that_stopped_goes_on_by_skipping(tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match=r'step 5 is not finite.*rows 44, 45, 46, 47, first at blocks.1.mlp.weight of the group "rest"'):
        train(tmp_path / "run", Poisoned(5, head_rate=0.02))
    assert checkpoints(tmp_path / "run")[-1].name == "step-00000004"
    fitted = train(tmp_path / "run", Poisoned(5, head_rate=0.02), non_finite="skip")
    assert fitted.steps == 20


def test_too_many_in_a_row_stop_the_run(tmp_path: Path) -> None:
    toy = Poisoned(3, 5, 6, 7)
    with pytest.raises(KitaeError, match="step 7 is not finite.*number 3 in a row"):
        train(tmp_path / "run", toy, non_finite="skip", non_finite_limit=3, save_every="1 step")
    assert checkpoints(tmp_path / "run")[-1].name == "step-00000007"
    with pytest.raises(KitaeError, match="step 7 is not finite.*number 3 in a row"):  # counted over the resume
        train(tmp_path / "run", Poisoned(3, 5, 6, 7), non_finite="skip", non_finite_limit=3, save_every="1 step")


def test_a_spike_is_skipped_once_and_again_after_a_resume(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fields = {"spikes": {"window": 8}, "length": "24 steps"}
    whole = train(tmp_path / "whole", Toy(spike_step=13), **fields)
    (event,) = records(tmp_path / "whole", "skipped")
    assert (event["step"], event["why"]) == (14, "spike")
    assert "step 13 is skipped: a spike (loss " in caplog.text
    kept = [load_file(tmp_path / "whole" / "checkpoints" / f"step-{n:08d}" / "weights.safetensors") for n in (12, 16)]
    assert not torch.equal(kept[0]["head.weight"], kept[1]["head.weight"])
    assert_resumes_alike(tmp_path, whole, lambda: Toy(spike_step=13), (4, 12, 16), **fields)


def test_without_the_rule_the_spike_is_learnt(tmp_path: Path) -> None:
    """The test above can fail."""
    train(tmp_path / "run", Toy(spike_step=13))
    assert not records(tmp_path / "run", "skipped")


def rulings(values: list[float], **spikes: object) -> list[int]:
    policy = Policy(config(spikes=spikes), CPU, PolicyState())
    return [int(policy.rule(torch.tensor([v, v], dtype=torch.float64), torch.tensor(1.0 + i % 2)).verdict) for i, v in enumerate(values)]


def test_the_rule_by_hand() -> None:
    calm = [1.0, 2.0, 1.0, 2.0]  # mean 1.5, standard deviation 0.577
    assert rulings([*calm, 1.5 + 5.9 * 0.5774], sigma=6, window=8) == [0, 0, 0, 0, 0]
    assert rulings([*calm, 1.5 + 6.1 * 0.5774], sigma=6, window=8) == [0, 0, 0, 0, Verdict.SPIKE]
    assert rulings([*calm[:3], 1e6], sigma=6, window=8) == [0, 0, 0, 0]  # too few before it
    assert rulings([*calm, 50.0, 50.0, 50.0], sigma=6, window=8) == [0, 0, 0, 0, Verdict.SPIKE, 0, 0]  # it has joined the window
    assert rulings([1e9, *calm, 50.0], sigma=6, window=4) == [0, 0, 0, 0, 0, Verdict.SPIKE]  # what is older has left it
    assert rulings([*calm, float("nan"), 9.0], sigma=6, window=8) == [0, 0, 0, 0, Verdict.NOT_FINITE, Verdict.SPIKE]


def test_what_is_kept_is_json_and_exact() -> None:
    settings = config(spikes={"window": 4})
    policy = Policy(settings, CPU, PolicyState())
    values = torch.rand(9, 2, dtype=torch.float64).tolist()
    for loss, norm in values[:6]:
        policy.rule(torch.tensor([loss], dtype=torch.float64), torch.tensor(norm, dtype=torch.float64))
    state = PolicyState.model_validate(json.loads(policy.state(skipped=0, in_a_row=0, empty={}).model_dump_json()))
    assert (state.seen, len(state.losses)) == (6, 4)
    again = Policy(settings, CPU, state)
    for loss, norm in values[6:]:
        for one in (policy, again):
            one.rule(torch.tensor([loss], dtype=torch.float64), torch.tensor(norm, dtype=torch.float64))
    assert again.state(skipped=0, in_a_row=0, empty={}) == policy.state(skipped=0, in_a_row=0, empty={})


class Greedy(Toy):
    """Takes memory for more rows than there is."""

    def __init__(self, fit: int) -> None:
        super().__init__()
        self.fit, self.tried = fit, list[int]()

    def forward(self, batch: Batch) -> Loss:
        self.tried.append(len(batch.rows))
        if len(batch.rows) > self.fit:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(batch)


@pytest.mark.parametrize(
    ("rows", "fit", "said", "cure", "tried"),
    [
        (24, 5, "; 4 rows do", 'set micro_batch = "4 rows" in a new output', [12, 4, 8, 6]),
        (24, 1, "; 1 row does", 'set micro_batch = "1 rows" in a new output', [12, 4, 2, 1]),
        (24, 0, ", and neither does one of 1", "set activation_checkpointing = true", [12, 4, 2, 1]),
    ],
)
def test_a_micro_batch_without_room_is_refused_with_one_that_fits(
    tmp_path: Path, rows: int, fit: int, said: str, cure: str, tried: list[int]
) -> None:
    toy = Greedy(fit)
    with pytest.raises(KitaeError) as refused:
        fit_in(tmp_path, toy, rows)
    assert refused.value.what == f"a micro-batch of 12 rows of 12 positions does not fit into the memory of cpu{said}"
    assert cure in str(refused.value.cure)
    assert toy.tried == tried


def fit_in(folder: Path, toy: Toy, rows: int) -> None:
    fit(toy, ToyBatches(rows, rows // 2), config(), folder, world=World(), seed=7, attach={})


class Unmasked(Toy):
    """Masks nothing in some steps, as where every token is unknown."""

    def prepare(self, batch: Batch, seed: int) -> Batch:
        found = super().prepare(batch, seed)
        if batch.step not in (6, 7):
            return found
        return found.replace(targets={**found.targets, "masked": torch.zeros_like(found.targets["masked"])})


def test_steps_that_predict_nothing_are_counted_and_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fitted = train(tmp_path / "run", Unmasked())
    assert caplog.text.count("nothing to predict") == 1
    assert 'step 6 has nothing to predict for "mlm" (rows 48, 49, ' in caplog.text
    found = records(tmp_path / "run", "empty")
    assert [(record["step"], record["term"], record["so_far"]) for record in found] == [(7, "mlm", 1), (8, "mlm", 2)]
    assert read_state(fitted.checkpoint).policy.empty == {"mlm": 2}
    assert all(torch.isfinite(tensor).all() for tensor in content(fitted).values())
    assert [record["mlm_loss"] for record in records(tmp_path / "run", "train")][6:8] == [0.0, 0.0]


def test_fp16_scales_the_loss_and_resumes_its_scale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fields = {"precision": "fp16", "loss_scale": {"initial": 2.0**24, "growth_interval": 3}, "length": "24 steps"}
    with caplog.at_level(logging.INFO):
        whole = train(tmp_path / "whole", **fields)
    scales = [float(str(record["loss_scale"])) for record in records(tmp_path / "whole", "train")]
    skipped = {int(str(record["step"])) for record in records(tmp_path / "whole", "skipped")}
    assert {record["why"] for record in records(tmp_path / "whole", "skipped")} == {"overflow"}
    assert "step 0 is skipped: the gradient overflowed at a loss scale of 1.67772e+07" in caplog.text
    assert scales[0] == 2.0**24
    assert len(skipped) > 4
    calm, grew = 0, 0
    for step, (before, after) in enumerate(pairwise(scales), start=1):
        calm = 0 if step in skipped else (calm + 1) % 3
        grows = calm == 0 and step not in skipped
        assert after == before * (0.5 if step in skipped else 2.0 if grows else 1.0)
        grew += grows
    assert grew > 2
    assert read_state(whole.checkpoint).policy.skipped == len(skipped)
    assert_resumes_alike(tmp_path, whole, Toy, (4, 12), **fields)


def test_fp16_and_fp32_learn_the_same(tmp_path: Path) -> None:
    for precision, fields in (("fp32", {}), ("fp16", {"loss_scale": {"initial": 1024}})):
        train(tmp_path / precision, precision=precision, length="40 steps", save_every=None, **fields)
    losses = [[float(str(record["loss"])) for record in records(tmp_path / precision, "train")] for precision in ("fp32", "fp16")]
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)


def test_below_the_least_scale_an_overflow_is_a_fault(tmp_path: Path) -> None:
    scale = {"initial": 4, "least": 2}
    with pytest.raises(KitaeError, match=r"step 6 is not finite.*rows 52, 53, 54, 55, first at blocks.1.mlp.weight"):
        train(tmp_path / "run", Poisoned(5, 6), precision="fp16", loss_scale=scale)
    (event,) = records(tmp_path / "run", "skipped")
    assert (event["why"], event["loss_scale"]) == ("overflow", 4.0)


def test_a_loss_that_is_not_finite_is_no_overflow(tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match=r"step 5 is not finite.* rows 44, 45, 46, 47"):
        train(tmp_path / "run", Toy(bad_step=5), precision="fp16", loss_scale={"initial": 1024})


def test_a_scale_without_fp16_is_refused() -> None:
    with pytest.raises(ValueError, match='loss_scale need precision = "fp16"'):
        config(loss_scale={"initial": 8})


def test_a_step_may_be_settled_when_the_next_gradient_is_there(tmp_path: Path) -> None:
    """As on a device: rows of the skipped step are sought then, and the next gradient is worked out again."""
    weights = []
    for settles in (True, False):
        toy, batches = Poisoned(3), ToyBatches(8, 4)
        optimizer = Optimizer(toy, config(non_finite="skip"), CPU)
        first = toy.prepare(batches.micro(0, 0), 7)
        updates = Updates(toy, optimizer, World(), seed=7, first=first, folder=tmp_path, state=PolicyState())
        for step in range(6):
            updates.make(step, [toy.prepare(batches.micro(step, micro), 7) for micro in range(2)], 0.01, most=2)
            if settles:
                updates.settle()
        updates.settle()
        (event,) = updates.events()
        assert (event.step, event.values["rows"]) == (4, [28, 29, 30, 31])
        weights.append({name: tensor.clone() for name, tensor in optimizer.weights().items()})
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
