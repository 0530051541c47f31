"""LAMB and Muon against their formulas in fp64 and against torch; what all rules promise: no update, resuming, groups."""

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from toy_training import Toy, ToyBatches, config

from kitae.core.errors import KitaeError
from kitae.core.recipe import validate
from kitae.tensor.groups import ParameterGroup
from kitae.tensor.world import World
from kitae.train.config import TrainConfig
from kitae.train.loop import fit
from kitae.train.monitor import read_metrics
from kitae.train.optimizer import Optimizer

CPU = torch.device("cpu")
RULES = ("adamw", "lamb", "muon")
PARTS = {"qkv": 3, "up": 2}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(6, 18), nn.Linear(6, 6)
        self.up, self.down = nn.Linear(6, 20), nn.Linear(10, 6)  # gated
        self.norm = nn.LayerNorm(6)


class Model(nn.Module):
    """Weights under the names of an encoder; 36 elements and others are no multiple of what weights are aligned to."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.project = nn.Embedding(7, 4), nn.Linear(4, 6)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(6, 3)
        generator = torch.Generator().manual_seed(1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
        nn.init.zeros_(self.blocks[0].out.weight)  # a norm of zero


def parts_of(name: str, tensor: Tensor) -> tuple[Tensor, ...]:
    """Views of the weights that lie in one."""
    return tensor.chunk(next((count for key, count in PARTS.items() if f".{key}." in name), 1))


def gradients(optimizer: Optimizer, step: int) -> dict[str, Tensor]:
    """Draw, and give to the optimizer as if a backward pass had."""
    generator = torch.Generator().manual_seed(step)
    weights = sorted(optimizer.weights().items())
    drawn = {name: torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w.dtype) for name, w in weights}
    for slot in optimizer.flat.slots:
        optimizer.flat.grad[slot.start : slot.end] = drawn[slot.name].reshape(-1)
    return drawn


Formula = Callable[[str, Tensor, Tensor, int, float], None]


def compare(settings: TrainConfig, formula: Formula, tolerance: float, no: Tensor | None) -> None:
    model = Model()
    optimizer = Optimizer(model, settings, CPU)
    weights = {name: weight.clone() for name, weight in optimizer.weights().items()}
    for step in range(1, 5):
        drawn = gradients(optimizer, step)
        optimizer.step(0.02 * step, unless=no)
        for name, weight in weights.items():
            for number, (part, grad) in enumerate(zip(parts_of(name, weight), parts_of(name, drawn[name]), strict=True)):
                formula(f"{name} {number}", part, grad, step, 0.02 * step)
    for name, weight in optimizer.weights().items():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=tolerance, msg=name)
    assert torch.equal(optimizer.flat.work, optimizer.flat.master)


@pytest.mark.parametrize("no", [None, torch.tensor(False)])
@pytest.mark.parametrize("corrects", [True, False])
@pytest.mark.parametrize("adapts", ["matrices", "all"])
def test_lamb_equals_the_formula_of_the_paper(corrects: bool, adapts: str, no: Tensor | None) -> None:
    """Algorithm 2, per matrix; queries, keys and values are a matrix each, as in apex's FusedLAMB over a model that has three."""
    averages: dict[str, tuple[Tensor, Tensor]] = {}

    def formula(name: str, w: Tensor, g: Tensor, step: int, rate: float) -> None:
        m, v = averages.get(name, (torch.zeros_like(w), torch.zeros_like(w)))
        m, v = averages[name] = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        first, second = (1 - 0.9**step, 1 - 0.99**step) if corrects else (1.0, 1.0)
        r = m / first / ((v / second).sqrt() + 1e-6) + (0.1 * w if w.ndim > 1 else 0.0)
        trust = float(w.norm() / r.norm()) if (w.ndim > 1 or adapts == "all") and w.any() else 1.0
        w -= rate * trust * r

    settings = config(
        optimizer="lamb", lamb={"adapts": adapts}, precision="fp64", weight_decay=0.1, betas=(0.9, 0.99), bias_correction=corrects
    )
    compare(settings, formula, 1e-12, no)


def hidden(name: str, weight: Tensor) -> bool:
    return name.startswith("blocks.") and weight.ndim > 1


@pytest.mark.parametrize("no", [None, torch.tensor(False)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_equals_its_formula_and_leaves_the_rest_to_adamw(nesterov: bool, no: Tensor | None) -> None:
    kept: dict[str, Tensor] = {}

    def orthogonal(x: Tensor) -> Tensor:
        if x.shape[0] > x.shape[1]:
            return orthogonal(x.T).T
        x = x / x.norm()
        for _ in range(3):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        return x

    def formula(name: str, w: Tensor, g: Tensor, step: int, rate: float) -> None:
        if hidden(name, w):
            m = kept[name] = 0.9 * kept.get(name, torch.zeros_like(w)) + 0.1 * g
            step_ = orthogonal(0.9 * m + 0.1 * g if nesterov else m)
            w *= 1 - 4 * rate * 0.1
            w -= 4 * rate * 0.2 * math.sqrt(max(w.shape)) * step_
            return
        m = kept[name] = 0.9 * kept.get(name, torch.zeros_like(w)) + 0.1 * g
        v = kept[f"{name} squares"] = 0.999 * kept.get(f"{name} squares", torch.zeros_like(w)) + 0.001 * g * g
        r = m / (1 - 0.9**step) / ((v / (1 - 0.999**step)).sqrt() + 1e-6)
        w -= rate * (r + (0.01 * w if w.ndim > 1 else 0.0))

    muon = {"learning_rate": 0.04, "momentum": 0.9, "nesterov": nesterov, "iterations": 3, "weight_decay": 0.1}
    compare(config(optimizer="muon", muon=muon, precision="fp64"), formula, 1e-12, no)


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_muon_moves_as_torchs(adjust: str) -> None:
    """In half precision both iterate in bf16 over fp32 masters; steps of 0.02 are equal up to its rounding."""
    optimizer = Optimizer(Model(), config(optimizer="muon", muon={"adjust": adjust}, precision="bf16", weight_decay=0.1), CPU)
    started = {name: weight.clone() for name, weight in optimizer.weights().items() if hidden(name, weight)}
    mine = {f"{name} {i}": nn.Parameter(part.clone()) for name, w in started.items() for i, part in enumerate(parts_of(name, w))}
    theirs = torch.optim.Muon(mine.values(), lr=0.02, weight_decay=0.1, adjust_lr_fn=adjust)
    for step in range(3):
        drawn = gradients(optimizer, step)
        optimizer.step(0.02)
        for name in started:
            for i, part in enumerate(parts_of(name, drawn[name])):
                mine[f"{name} {i}"].grad = part
        theirs.step()
    for name, before in started.items():
        for i, (part, first) in enumerate(zip(parts_of(name, optimizer.weights()[name]), parts_of(name, before), strict=True)):
            moved, expected = part - first, mine[f"{name} {i}"].detach() - first
            assert float((moved - expected).norm() / expected.norm()) < 0.01, name
    state = optimizer.state()
    assert {name for name in state if "muon" in name} == {f"muon_momentum.{name}" for name in started}
    assert "exp_avg.embed.weight" in state
    assert "exp_avg.project.weight" in state


@pytest.mark.parametrize("precision", ["bf16", "fp64"])
@pytest.mark.parametrize("rule", RULES)
def test_an_update_that_does_not_happen_leaves_no_trace(rule: str, precision: str) -> None:
    one, other = (Optimizer(Model(), config(optimizer=rule, precision=precision), CPU) for _ in range(2))
    for step in range(4):
        for optimizer in (one, other):
            gradients(optimizer, step)
            optimizer.step(0.01, unless=torch.tensor(False))
        gradients(one, 9)
        for slot in one.flat.slots:
            one.flat.grad[slot.start] = math.nan
        one.step(0.01, unless=torch.tensor(True))
        for mine, theirs in ((one.weights(), other.weights()), (one.state(), other.state())):
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert torch.equal(one.flat.work, other.flat.work)


@pytest.mark.parametrize("rule", ["lamb", "muon"])
def test_groups_are_optimizers_of_their_own(rule: str) -> None:
    """As those of a generator and a discriminator: apart in clipping and rate, whatever the rule."""
    settings = config(optimizer=rule, precision="fp64", clip=0.5)
    names = [name for name, _ in Model().named_parameters()]
    upper = frozenset(name for name in names if name.startswith(("blocks.1.", "head.")))
    groups = (
        ParameterGroup(name="lower", parameters=frozenset(names) - upper, learning_rate=0.03),
        ParameterGroup(name="upper", parameters=upper),
    )
    both, halves = Optimizer(Model(), settings, CPU, groups=groups), []
    for group in groups:
        half = Model()
        for name, parameter in half.named_parameters():
            parameter.requires_grad_(name in group.parameters)
        halves.append(Optimizer(half, settings, CPU))
    for step in range(3):
        for optimizer, rate in ((both, 0.01), (halves[0], 0.03), (halves[1], 0.01)):
            gradients(optimizer, step)
            optimizer.clip()
            optimizer.step(rate)
    for group, half in zip(groups, halves, strict=True):
        for name in group.parameters:
            torch.testing.assert_close(both.weights()[name], half.weights()[name], rtol=0, atol=1e-13, msg=name)


def test_state_of_another_rule_is_refused() -> None:
    def made(**fields: object) -> Optimizer:
        return Optimizer(Model(), config(**fields), CPU)

    for rule in RULES:
        for other in set(RULES) - {rule}:
            optimizer, found = made(optimizer=rule), made(optimizer=other)
            found.flat.master.zero_()
            with pytest.raises(KitaeError, match=f"but {rule} keeps"):
                optimizer.load(found.weights(), found.state(), 3)
            assert optimizer.flat.master.any(), "nothing was taken"
    free, frozen = made(), made(freeze={"layers": 1})
    with pytest.raises(KitaeError, match="blocks.0"):
        frozen.load(free.weights(), free.state(), 3)


def test_muon_without_matrices_and_settings_of_another_rule_are_refused() -> None:
    with pytest.raises(KitaeError, match="none is trained"):
        Optimizer(Model(), config(optimizer="muon", freeze={"layers": 2}), CPU)
    for fields in ({"muon": {}}, {"optimizer": "muon", "lamb": {}}, {"electra_layer_decay": True}):
        with pytest.raises(KitaeError, match="need"):
            validate(TrainConfig, {"length": "1 step", **fields}, "train")


def learn(folder: Path, **fields: object) -> tuple[Path, list[float]]:
    fitted = fit(Toy(), ToyBatches(), config(**fields), folder, world=World(), seed=7, attach={})
    return fitted.checkpoint, [float(str(record["loss"])) for record in read_metrics(folder) if record["kind"] == "train"]


def equal(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("rule", ["lamb", "muon"])
def test_every_rule_learns_and_resumes_to_the_bit(tmp_path: Path, rule: str) -> None:
    options = {"optimizer": rule, "length": "40 steps", "save_every": "10 steps", "keep_last": 9, "precision": "bf16"}
    whole, losses = learn(tmp_path / "whole", **options)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5]), losses
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for later in ("step-00000030", "step-00000040"):
        shutil.rmtree(tmp_path / "cut" / "checkpoints" / later)
    resumed, again = learn(tmp_path / "cut", **options)
    assert again == losses
    for file in ("weights.safetensors", "optimizer.safetensors"):
        assert equal(load_file(resumed / file), load_file(whole / file)), file
