"""Sliding windows in blocks: exact values and gradients, dropout, and nothing from beyond the window or the piece."""

import pytest
import torch
from model_layouts import packed

from kitae.models.attention import attend, make_plan
from kitae.models.rotary import rotate, rotation
from kitae.models.windows import SMALLEST, BandedAttention, band

ROWS = ((30, 70, 20), (128,), (3, 1, 100), (64, 64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [0, 1, 5, 31, 32, 33, 64, 126])
def test_every_path_equals_the_dense_one(window, dtype):
    torch.manual_seed(0)
    layout = packed(ROWS, 130)
    qkv = torch.randn(4, 130, 48, requires_grad=True)
    weights = torch.randn(4, 130, 16)
    exact: list[torch.Tensor] = []
    for kind, precision in (("dense", torch.float64), ("block", dtype), ("spans", dtype), ("sdpa", dtype)):
        qkv.grad = None
        plan = make_plan(layout, kind=kind, dtype=precision, window=window)
        assert plan.kind == ("banded" if kind == "spans" else kind)
        out = attend(qkv.to(precision), plan, heads=4, dropout=0.0)
        (out * weights)[layout.mask_BL].sum().backward()
        results = [out.detach().double()[layout.mask_BL], qkv.grad.double()]
        exact = exact or results
        tolerance = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 0.08}[dtype]  # the gradient is fp32 at best
        for mine, right in zip(results, exact, strict=True):
            torch.testing.assert_close(mine, right, rtol=tolerance, atol=tolerance)


def test_the_dense_path_sees_the_window_by_hand():
    """Values that form an identity matrix show the probabilities: equal for equal scores, none beyond two positions or the piece."""
    qkv = torch.zeros(1, 8, 24)
    qkv[..., 16:] = torch.eye(8)
    shown = attend(qkv, make_plan(packed(((5, 3),), 8), kind="dense", dtype=qkv.dtype, window=2), heads=1, dropout=0.0)[0]
    third, quarter = [1 / 3] * 3, [1 / 4] * 4
    expected = [third + [0] * 5, quarter + [0] * 4, [0.2] * 5 + [0] * 3, [0, *quarter, 0, 0, 0], [0, 0, *third, 0, 0, 0]]
    torch.testing.assert_close(shown, torch.tensor([*expected, *[[0] * 5 + third] * 3], dtype=torch.float32))


def test_gradients_against_numbers():
    qkv = torch.randn(2, 7, 12, dtype=torch.float64, requires_grad=True)
    layout = packed(((2, 5), (6,)), 7)
    bias = band(layout.pieces_BL, window=2, dtype=torch.float64)
    assert bias.shape == (2, 2, SMALLEST, 3 * SMALLEST)

    def banded(x: torch.Tensor, rate: float) -> torch.Tensor:
        torch.manual_seed(2)
        return BandedAttention.apply(x, bias, 2, rate)

    for rate in (0.0, 0.3):
        assert torch.autograd.gradcheck(lambda x, rate=rate: banded(x, rate), qkv)
    turn = rotation(layout.positions_BL, theta=100.0, head_size=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: rotate(x, turn, heads=2), qkv)


def test_dropout_has_the_right_mean():
    qkv = torch.randn(1, 40, 24, dtype=torch.float64)
    plan = make_plan(packed(((25, 15),), 40), kind="spans", dtype=qkv.dtype, window=3)
    exact = attend(qkv, plan, heads=2, dropout=0.0)
    torch.manual_seed(0)
    draws = torch.stack([attend(qkv, plan, heads=2, dropout=0.2) for _ in range(1500)])
    deviation = draws.std(0) / 1500**0.5
    assert ((draws.mean(0) - exact) / deviation).abs().max() < 4.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_beyond_the_window_changes_a_bit(dtype):
    layout = packed(((200,), (90, 110)), 200)
    plan = make_plan(layout, kind="spans", dtype=dtype, window=40)
    qkv = torch.randn(2, 200, 48).to(dtype)
    other = qkv.clone()
    other[0, 100] = torch.nan
    other[1, 90:] = torch.randn(110, 48).to(dtype)
    before, after = attend(qkv, plan, heads=2, dropout=0.0), attend(other, plan, heads=2, dropout=0.0)
    assert torch.equal(before[0, :20], after[0, :20]), "farther than a block and the window"
    assert bool(after[0, 60:141].isnan().all()), "within the window"
    assert torch.equal(before[1, :90], after[1, :90])


def test_a_window_that_no_piece_notices_costs_nothing():
    layout = packed(((30, 20), (25,)), 50)
    for kind in ("block", "spans"):
        assert make_plan(layout, kind=kind, dtype=torch.float32, window=29).kind == kind
    plain = make_plan(layout, kind="block", dtype=torch.float32)
    assert torch.equal(make_plan(layout, kind="block", dtype=torch.float32, window=29).bias_BLL, plain.bias_BLL)
    assert not torch.equal(make_plan(layout, kind="block", dtype=torch.float32, window=28).bias_BLL, plain.bias_BLL)


def test_short_rows_are_one_product_and_longer_ones_blocks():
    for length, kind in ((319, "block"), (320, "banded"), (512, "banded")):
        assert make_plan(packed(((length,),), length), kind="block", dtype=torch.float32, window=64).kind == kind
    assert make_plan(packed(((512,),), 512), kind="dense", dtype=torch.float32, window=64).kind == "dense"


def test_rotation_by_hand():
    """Position 3 turns plane p by 3 * theta^(-p / 2); values stay. Angles of half-precision models are not rounded."""
    turn, half = (rotation(torch.tensor([[3]]), theta=16.0, head_size=4, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert torch.equal(turn.cos_BLP, half.cos_BLP)
    assert torch.equal(turn.sin_BLP, half.sin_BLP)
    x = torch.tensor([[[1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 5.0, 6.0, 1.0, 2.0, 3.0, 4.0]]])
    first, second = torch.tensor(3.0), torch.tensor(0.75)
    query = [first.cos(), 2 * second.cos(), first.sin(), 2 * second.sin()]
    key = [-5 * first.sin(), -6 * second.sin(), 5 * first.cos(), 6 * second.cos()]
    torch.testing.assert_close(rotate(x, turn, heads=1), torch.tensor([[[*query, *key, 1.0, 2.0, 3.0, 4.0]]]))
