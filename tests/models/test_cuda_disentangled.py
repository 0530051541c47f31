"""Disentangled attention on CUDA against the CPU in fp64; skipped where there is no CUDA device."""

import pytest
import torch
from model_layouts import packed
from torch import Tensor

from kitae.models.disentangled import RelativePlan, attend_relative, choose_relative, make_relative_plan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
LAYOUT = packed(((60, 70, 50), (200,), (3, 1, 190), (40, 160)), 200)
HEADS, SIZE, BUCKETS, SPAN = 2, 64, 32, 150


def plan_of(kind: str, device: str, dtype: torch.dtype) -> RelativePlan:
    return make_relative_plan(LAYOUT.to(device), kind=kind, dtype=dtype, buckets=BUCKETS, max_distance=SPAN)


def inputs_of(device: str, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 200, 3 * HEADS * SIZE), *((2 * BUCKETS, HEADS * SIZE),) * 2)
    drawn = [torch.randn(*shape, generator=generator) for shape in shapes]
    return [x.bfloat16().to(device, dtype).requires_grad_() for x in drawn]


def passed(kind: str, device: str, dtype: torch.dtype, given: tuple[bool, bool]) -> list[Tensor]:
    """Values at real tokens, and the gradients."""
    inputs = inputs_of(device, dtype)
    tables = [table if use else None for table, use in zip(inputs[1:], given, strict=True)]
    out = attend_relative(inputs[0], *tables, plan_of(kind, device, dtype), heads=HEADS, dropout=0.0)
    real = out.double().cpu()[LAYOUT.mask_BL]
    (real * torch.randn(real.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).sum().backward()
    return [real.detach(), *(x.grad.double().cpu() for x in inputs if x.grad is not None)]


@pytest.mark.parametrize("given", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [("flex", torch.bfloat16, 0.02), ("sdpa", torch.bfloat16, 0.02), ("flex", torch.float32, 1e-4), ("sdpa", torch.float32, 1e-5)],
)
def test_values_and_gradients(kind, dtype, tolerance, given):
    torch.backends.cuda.matmul.allow_tf32 = False
    exact = passed("dense", "cpu", torch.float64, given)
    for mine, right in zip(passed(kind, "cuda", dtype, given), exact, strict=True):
        assert float((mine - right).norm() / right.norm()) < tolerance


@pytest.mark.parametrize("kind", ["flex", "sdpa"])
def test_another_piece_changes_nothing(kind):
    qkv, *tables = (x.detach() for x in inputs_of("cuda", torch.bfloat16))
    other = qkv.clone()
    other[0, 60:130] = torch.randn_like(other[0, 60:130])
    plan = plan_of(kind, "cuda", torch.bfloat16)
    one, two = (attend_relative(x, *tables, plan, heads=HEADS, dropout=0.0) for x in (qkv, other))
    same = torch.ones(4, 200, dtype=torch.bool)
    same[0, 60:130] = False
    assert torch.equal(one[same], two[same])
    assert not torch.equal(one[~same], two[~same])


def test_dropout_follows_the_seed_and_has_the_right_mean():
    inputs = inputs_of("cuda", torch.float32)
    assert choose_relative("cuda", length=200, head_size=64, dtype=torch.float32, dropout=0.1) == "sdpa"
    plan = plan_of("sdpa", "cuda", torch.float32)
    draws = []
    for seed in (1, 1, *range(2, 200)):
        torch.manual_seed(seed)
        draws.append(attend_relative(*inputs, plan, heads=HEADS, dropout=0.1).detach())
    assert torch.equal(draws[0], draws[1])
    exact = attend_relative(*inputs, plan, heads=HEADS, dropout=0.0)
    mean = torch.stack(draws[1:]).mean(0)
    real = LAYOUT.mask_BL.cuda()
    assert float((mean - exact)[real].norm() / (draws[0] - exact)[real].norm()) < 0.1  # 1 / sqrt(199) = 0.07
