"""Dropout, look-up and attention: exact shares, exact gradients, dispatch, the same bits twice."""

import pytest
import torch
from model_layouts import packed
from torch import Tensor
from torch.nn import functional as F

from kitae.models.attention import AttentionPlan, BlockAttention, attend, choose, make_plan
from kitae.models.bert import BertConfig, BertEncoder
from kitae.models.families import build_masked_lm
from kitae.models.layers import activated_linear, drop, dropout, dropout_add, gelu_tanh, lookup, random_bytes
from kitae.tensor.batch import Layout

ROWS = ((10, 20, 6), (36,), (3, 1, 25))


def test_random_bytes_cover_all_values_evenly():
    drawn = random_bytes(1_000_003, 7)
    assert drawn.shape == (1_000_003,)
    counts = torch.bincount(drawn.long() + 128, minlength=256).double()
    chi = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert 160 < chi < 360  # 255 degrees of freedom


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.003, 0.999])
def test_the_mean_rate_of_many_calls_is_exact(rate):
    torch.manual_seed(3)
    calls = 4000
    rates = torch.tensor([1 - 1 / drop(1, rate=rate).factor for _ in range(calls)]).double()
    goal = min(rate, 255 / 256)
    assert len(rates.unique()) == (1 if goal * 256 == int(goal * 256) else 2)
    assert (rates * 256 - goal * 256).abs().max() < 1
    assert abs(float(rates.mean()) - goal) < 4.5 * 0.5 / 256 / calls**0.5 + 1e-9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.003])
def test_dropout_share_and_scale(rate, dtype):
    torch.manual_seed(1)
    drops = drop(1_000_000, rate=rate)
    keep, factor = drops.keep(torch.Size((1000, 1000)), dtype), drops.factor
    assert set(keep.unique().tolist()) == {0.0, 1.0}
    true = 1 - 1 / factor
    assert abs(true - rate) < 1 / 256
    assert abs(float(keep.double().mean()) - (1 - true)) < 5 * (rate / 1e6) ** 0.5
    x = torch.randn(1000, 1000).to(dtype)
    torch.manual_seed(1)
    out = dropout(x, rate, True)
    expected = torch.where(out == 0, 0.0, x.double() * factor)
    torch.testing.assert_close(out.double(), expected, rtol=4e-3 if dtype == torch.bfloat16 else 1e-6, atol=0)
    if dtype == torch.bfloat16 and rate < 0.01:
        return  # one ulp of bf16 is 1/128: products with 1 + 1/256 cannot keep their mean
    # The factor itself is not rounded to bf16 (1.109375 for 1/0.9): the mean error would show it.
    tolerance = 3e-4 if dtype == torch.bfloat16 else 1e-6
    ratio = (out.double().abs().sum() / (expected.abs().sum())).item()
    assert abs(ratio - 1) < tolerance
    torch.manual_seed(1)
    added = dropout_add(x, torch.zeros_like(x), rate, True)
    kept = added != 0
    assert abs((added.double()[kept].abs().sum() / (x.double()[kept].abs().sum() * factor)).item() - 1) < tolerance


def test_dropout_follows_the_global_generator_and_stops_outside_training():
    x = torch.randn(50, 50)
    torch.manual_seed(5)
    first, second = dropout(x, 0.1, True), dropout(x, 0.1, True)
    torch.manual_seed(5)
    assert torch.equal(first, dropout(x, 0.1, True))
    assert not torch.equal(first, second)
    assert dropout(x, 0.1, False) is x
    assert torch.equal(dropout_add(x, x, 0.1, False), 2 * x)


def seeded(function):
    def again(*arguments: Tensor) -> Tensor:
        torch.manual_seed(2)
        return function(*arguments)

    return again


def test_gradients_against_numbers():
    x, y = (torch.randn(7, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(seeded(lambda a: dropout(a, 0.3, True)), x)
    assert torch.autograd.gradcheck(seeded(lambda a, b: dropout_add(a, b, 0.3, True)), (x, y))
    qkv = torch.randn(2, 6, 12, dtype=torch.float64, requires_grad=True)
    bias = make_plan(packed(((2, 3), (4, 1)), 6), kind="block", dtype=torch.float64).bias_BLL
    for rate in (0.0, 0.3):
        assert torch.autograd.gradcheck(seeded(lambda a, rate=rate: BlockAttention.apply(a, bias, 2, rate)), qkv)


def test_attention_dropout_has_the_right_mean():
    qkv = torch.randn(1, 16, 24, dtype=torch.float64)
    layout = packed(((9, 7),), 16)
    plan = make_plan(layout, kind="block", dtype=qkv.dtype)
    exact = attend(qkv, plan, heads=2, dropout=0.0)
    torch.manual_seed(0)
    draws = torch.stack([attend(qkv, plan, heads=2, dropout=0.2) for _ in range(4000)])
    deviation = draws.std(0) / 4000**0.5
    assert ((draws.mean(0) - exact) / deviation).abs().max() < 4.5


def test_lookup_adds_up_in_fp32():
    table = torch.randn(4, 3).bfloat16().requires_grad_()
    ids = torch.zeros(2000, dtype=torch.long)
    lookup(ids, table).backward(torch.ones(2000, 3, dtype=torch.bfloat16))
    assert table.grad is not None
    assert table.grad.dtype == torch.bfloat16
    assert table.grad[0].tolist() == [2000.0] * 3  # a running sum in bf16 stops at 256
    assert table.grad[1:].abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lookup_gives_padding_no_gradient(dtype):
    ids = torch.tensor([[2, 0, 2, 1]])
    gradients = []
    for function in (lookup, torch.compile(lookup, backend="aot_eager", fullgraph=True)):
        table = torch.randn(4, 3).to(dtype).requires_grad_()
        function(ids, table, 2).sum().backward()
        gradients.append(table.grad.tolist())
    assert gradients == [[[1.0] * 3, [1.0] * 3, [0.0] * 3, [0.0] * 3]] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["block", "spans", "sdpa"])
def test_paths_agree_with_the_dense_one(kind, dtype):
    torch.manual_seed(0)
    layout = packed(ROWS, 36)
    qkv = torch.randn(3, 36, 48, requires_grad=True)
    weights = torch.randn(3, 36, 16)
    results = []
    for which, precision in ((kind, dtype), ("dense", torch.float64)):
        qkv.grad = None
        out = attend(qkv.to(precision), make_plan(layout, kind=which, dtype=precision), heads=4, dropout=0.0)
        (out * weights)[layout.mask_BL].sum().backward()
        results.append((out.double()[layout.mask_BL], qkv.grad))
    tolerance = 0.06 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(results[0][0], results[1][0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=tolerance, atol=tolerance)


def test_choice_of_path():
    assert choose("cpu", length=512, head_size=64, dtype=torch.float32) == "block"
    assert choose("cpu", length=513, head_size=64, dtype=torch.float32) == "spans"
    assert choose("cpu", length=512, head_size=64, dtype=torch.float32, compiled=True) == "dense"
    assert choose("cuda", length=128, head_size=64, dtype=torch.bfloat16) == "varlen"
    assert choose("cuda", length=128, head_size=64, dtype=torch.float32) == "sdpa"
    for head_size in (85, 200, 256, 512):
        assert choose("cuda", length=128, head_size=head_size, dtype=torch.bfloat16) == "sdpa", (
            "flash attention takes multiples of 8 below 200"
        )
    assert choose("cuda", length=128, head_size=64, dtype=torch.bfloat16, capability=(7, 5)) == "sdpa", "none on a T4"
    assert choose("cuda", length=128, head_size=64, dtype=torch.bfloat16, capability=(12, 0)) == "varlen"
    assert make_plan(Layout.padded(torch.ones(1, 512)), kind="block", dtype=torch.float32).bias_BLL is None


def saved(node, name: str) -> torch.autograd.graph.Node | None:
    """The first node of this name that leads to a tensor."""
    return (
        node
        if node is None or node.name() == name
        else next((found for other, _ in node.next_functions if (found := saved(other, name))), None)
    )


@pytest.mark.parametrize(
    ("dropout", "causal", "window"), [(0.0, False, None), (0.1, False, None), (0.0, True, None), (0.0, False, 17), (0.1, False, 0)]
)
def test_what_flash_attention_is_asked_for(dropout, causal, window):
    """On the device without numbers: names, order and types of the arguments, forward and backward."""
    plan = AttentionPlan(kind="varlen", bounds=torch.empty(5, dtype=torch.int32, device="meta"), longest=128, window=window, causal=causal)
    qkv = torch.empty(2, 128, 3 * 128, device="meta", dtype=torch.bfloat16, requires_grad=True)
    out = attend(qkv, plan, heads=2, dropout=dropout)
    assert out.shape == (2, 128, 128)
    asked = saved(out.grad_fn, "FlashAttentionBackward0")
    assert (asked is None) == (not dropout and not causal and window is None), "plain attention goes through varlen_attn"
    if asked is not None:
        reach = (-1 if window is None else window) % (1 << 64)  # shown without a sign
        assert (asked._saved_dropout_p, asked._saved_is_causal, asked._saved_max_q, asked._saved_max_k) == (dropout, causal, 128, 128)
        assert (asked._saved_window_size_left, asked._saved_window_size_right) == (reach, reach)
    out.sum().backward()
    assert qkv.grad is not None
    assert qkv.grad.shape == qkv.shape


def test_spans_cover_padding_and_empty_rows():
    layout = packed(((3, 2), (), (6,)), 6)
    assert make_plan(layout, kind="spans", dtype=torch.float32).spans == ((0, 0, 3), (0, 3, 5), (0, 5, 6), (1, 0, 6), (2, 0, 6))


@pytest.mark.parametrize("kind", ["block", "spans"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_training_step_gives_the_same_bits_twice(kind, dtype):
    config = BertConfig(vocab_size=300, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
    layout = packed(ROWS * 4, 36)
    ids = torch.randint(5, 300, layout.pieces_BL.shape)
    picks = torch.tensor([3, 3, 5, 40, 41])
    gradients = []
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    for _ in range(3):
        model = build_masked_lm(config).to(dtype).train()
        model.encoder.kind = kind
        torch.manual_seed(9)
        F.cross_entropy(model(ids, layout, None, picks).float(), ids.flatten()[picks]).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.set_num_threads(threads)
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


def gated(x: Tensor) -> Tensor:
    active, gate = x.chunk(2, dim=-1)
    return F.gelu(active) * gate


@pytest.mark.parametrize("activation", [F.gelu, gelu_tanh, F.relu, gated], ids=["gelu", "tanh", "relu", "gated"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_an_activation_worked_out_again_gives_the_same_bits(activation, bias, dtype):
    torch.manual_seed(2)
    layer = torch.nn.Linear(16 if activation is gated else 32, 8, bias=bias, dtype=dtype)
    x = torch.randn(3, 5, 32, dtype=dtype)
    ways = []
    for way in (lambda x: layer(activation(x)), lambda x: activated_linear(x, layer, activation)):
        entered = x.clone().requires_grad_()
        out = way(entered)
        ways.append((out, *torch.autograd.grad((out.double() ** 2).sum(), (entered, *layer.parameters()))))
    assert all(torch.equal(plain, thrifty) for plain, thrifty in zip(*ways, strict=True))


@pytest.mark.parametrize("frozen", ["x", "weight", "both"])
def test_what_is_frozen_gets_no_gradient(frozen):
    layer = torch.nn.Linear(6, 4)
    layer.weight.requires_grad_(frozen == "x")
    x = torch.randn(2, 6, requires_grad=frozen == "weight")
    activated_linear(x, layer, F.gelu).sum().backward()
    assert (x.grad is None) == (frozen != "weight")
    assert (layer.weight.grad is None) == (frozen != "x")
    assert torch.equal(layer.bias.grad, torch.full((4,), 2.0))


def test_neither_masks_nor_activated_states_are_kept_for_the_backward_pass():
    encoder = BertEncoder(BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128))
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        encoder.train()(torch.randint(5, 50, (2, 36)), packed(ROWS[:2], 36))
    wide = [tensor for tensor in kept if tensor.shape[-1] == 128 and tensor.shape[0] == 2]
    assert len(wide) == 1, "the states before the activation, and nothing else of that width"
    assert not any(set(tensor.unique().tolist()) == {0.0, 1.0} for tensor in kept if tensor.is_floating_point() and tensor.dim() > 2)
