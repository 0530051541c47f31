"""The optimizer against torch's AdamW and against the formula of the original."""

import math

import pytest
import torch
from toy_training import Toy, ToyBatches, config

from kitae.core.errors import KitaeError
from kitae.train.optimizer import Optimizer, layer_scales

CPU = torch.device("cpu")


def draw(parameters, step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]


def give(optimizer: Optimizer, gradients: list[torch.Tensor]) -> None:
    optimizer.start_gradient()
    for parameter, gradient in zip(list(dict.fromkeys(slot.parameter for slot in optimizer.flat.slots)), gradients, strict=True):
        (parameter * gradient.to(parameter.dtype)).sum().backward()


def test_corrected_updates_equal_torchs_adamw() -> None:
    toy, reference = Toy(), Toy().double()
    optimizer = Optimizer(toy, config(precision="fp64", weight_decay=0.1), CPU)
    names = [slot.name for slot in optimizer.flat.slots]
    by_name = dict(reference.named_parameters())
    ordered = [by_name[name] for name in names]
    groups = [{"params": [p], "weight_decay": 0.1 if p.ndim > 1 else 0.0} for p in ordered]
    adam = torch.optim.AdamW(groups, lr=0.01, eps=1e-6)
    for step in range(5):
        gradients = draw(ordered, step)
        give(optimizer, gradients)
        optimizer.step(0.01 * (step + 1))
        for group, p, gradient in zip(adam.param_groups, ordered, gradients):
            p.grad, group["lr"] = gradient, 0.01 * (step + 1)
        adam.step()
    for name, p in by_name.items():
        torch.testing.assert_close(dict(toy.named_parameters())[name], p, rtol=0, atol=1e-13, msg=name)


def test_uncorrected_updates_equal_the_original_formula() -> None:
    """optimization.py of google-research/electra: m / (sqrt(v) + epsilon) + decay * w, times the rate."""
    toy = Toy()
    optimizer = Optimizer(toy, config(precision="fp64", bias_correction=False), CPU)
    weights = {slot.name: slot.parameter.detach().clone() for slot in optimizer.flat.slots}
    m, v = ({name: torch.zeros_like(w) for name, w in weights.items()} for _ in range(2))
    for step in range(4):
        gradients = draw(weights.values(), step)
        give(optimizer, gradients)
        optimizer.step(0.02)
        for (name, w), g in zip(weights.items(), gradients):
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g * g
            decay = 0.01 if w.ndim > 1 else 0.0
            w -= 0.02 * (m[name] / (v[name].sqrt() + 1e-6) + decay * w)
    for slot in optimizer.flat.slots:
        torch.testing.assert_close(slot.parameter.detach(), weights[slot.name], rtol=0, atol=1e-12, msg=slot.name)


def test_clipping_scales_to_the_global_norm_and_leaves_small_gradients() -> None:
    toy = Toy()
    optimizer = Optimizer(toy, config(precision="fp64", clip=2.0), CPU)
    optimizer.flat.grad.copy_(torch.randn(optimizer.flat.grad.shape, dtype=torch.float64))
    before = optimizer.flat.grad.clone()
    norm = float(optimizer.clip())
    assert norm == pytest.approx(float(before.norm()), rel=1e-12)
    torch.testing.assert_close(optimizer.flat.grad, before * 2.0 / (norm + 1e-6), rtol=1e-12, atol=0)
    optimizer.flat.grad.copy_(before / norm)
    optimizer.clip()
    assert torch.equal(optimizer.flat.grad, before / norm)
    optimizer.flat.grad[3] = math.inf
    assert math.isinf(float(optimizer.clip()))


def test_bf16_keeps_exact_masters_and_adds_gradients_in_fp32() -> None:
    toy = Toy()
    exact = {name: p.detach().clone() for name, p in toy.named_parameters()}
    optimizer = Optimizer(toy, config(precision="bf16"), CPU)
    assert all(p.dtype == torch.bfloat16 for p in toy.parameters())
    assert toy.offset.dtype == torch.bfloat16
    for name, weight in optimizer.weights().items():
        assert torch.equal(weight, exact[name])
    optimizer.start_gradient()
    for value in (1.0, 2.0**-10):  # the sum needs 11 bits, bf16 has 8
        (toy.head.bias * value).sum().backward()
    slot = next(slot for slot in optimizer.flat.slots if slot.name == "head.bias")
    optimizer.flat.grad[optimizer.flat.slots[0].start] = math.nan  # left over from an earlier step
    assert not optimizer.gradient()[optimizer.flat.slots[0].start : optimizer.flat.slots[0].end].any()
    assert optimizer.flat.grad[slot.start : slot.end].tolist() == [1.0 + 2.0**-10] * 2
    for _ in range(3):  # too small for bf16 each, not for the masters
        optimizer.step(1e-5)
    assert not torch.equal(optimizer.weights()["head.bias"], exact["head.bias"])
    assert torch.equal(toy.head.bias, optimizer.weights()["head.bias"].to(torch.bfloat16))


def test_frozen_weights_stay_and_nothing_to_train_is_refused() -> None:
    toy = Toy()
    toy.embed.requires_grad_(False)
    optimizer = Optimizer(toy, config(precision="bf16"), CPU)
    assert "embed.weight" in optimizer.weights()
    assert torch.equal(optimizer.weights()["embed.weight"], Toy().embed.weight)
    assert all(slot.name != "embed.weight" for slot in optimizer.flat.slots)
    toy.requires_grad_(False)
    with pytest.raises(KitaeError, match="frozen"):
        Optimizer(toy, config(), CPU)


def test_layers_learn_slower_towards_the_embeddings() -> None:
    names = (
        "encoder.embed.token.weight",
        "encoder.project.weight",
        "encoder.blocks.0.out.weight",
        "encoder.blocks.1.out.weight",
        "head.out.weight",
    )
    assert list(layer_scales(dict.fromkeys(names, torch.Size([1])), 0.5).values()) == [0.125, 0.125, 0.25, 0.5, 1.0]
    toy = Toy()
    optimizer = Optimizer(toy, config(layer_decay=0.5, weight_decay=0.0, precision="fp64"), CPU)
    before = {name: weight.clone() for name, weight in optimizer.weights().items()}
    optimizer.flat.grad.fill_(1.0)
    optimizer.step(0.1)
    moved = {name: float((before[name] - weight).mean()) for name, weight in optimizer.weights().items()}
    for name, factor in (("embed.weight", 0.125), ("blocks.0.mlp.weight", 0.25), ("blocks.1.mlp.bias", 0.5), ("head.weight", 1.0)):
        assert moved[name] == pytest.approx(0.1 * factor, rel=1e-4)


def test_groups_are_clipped_and_paced_apart() -> None:
    """Two groups in one optimizer are two optimizers over halves of the module."""
    toy, plain = Toy(head_rate=0.03), Toy()
    settings = config(precision="fp64", clip=0.5, weight_decay=0.1)
    optimizer = Optimizer(toy, settings, CPU, groups=toy.groups())
    halves = []
    for names in (group.parameters for group in toy.groups()):
        half = Toy()
        for name, parameter in half.named_parameters():
            parameter.requires_grad_(name in names)
        halves.append((half, Optimizer(half, settings, CPU), names))
    assert len(optimizer.state()) == len(Optimizer(plain, settings, CPU).state())
    for step in range(4):
        named = dict(zip(optimizer.weights(), draw(optimizer.weights().values(), step), strict=True))
        give(optimizer, [named[slot.name] for slot in optimizer.flat.slots])
        norm = optimizer.clip()
        optimizer.step(0.01)
        apart = []
        for rate, (_, other, _) in zip((0.03, 0.01), halves, strict=True):
            give(other, [named[slot.name] for slot in other.flat.slots])
            apart.append(float(other.clip()))
            other.step(rate)
        assert float(norm) == pytest.approx(math.hypot(*apart), rel=1e-12)
        assert min(apart) > 0.5, "both are clipped"
    for half, _, names in halves:
        for name, parameter in half.named_parameters():
            if name in names:
                torch.testing.assert_close(dict(toy.named_parameters())[name], parameter, rtol=0, atol=1e-13, msg=name)


def test_one_group_that_is_not_finite_stops_all() -> None:
    toy = Toy(head_rate=0.03)
    optimizer = Optimizer(toy, config(precision="fp64", clip=0.5), CPU, groups=toy.groups())
    optimizer.flat.grad[0] = math.nan
    assert not math.isfinite(float(optimizer.clip()))


def test_every_batch_of_the_toy_is_a_pure_function() -> None:
    a, b = ToyBatches().micro(3, 1), ToyBatches().micro(3, 1)
    assert torch.equal(a.ids_BL, b.ids_BL)
    assert torch.equal(Toy().prepare(a, 1).targets["masked"], Toy().prepare(b, 1).targets["masked"])
