"""Disentangled attention against transformers' modules: values and gradients, every form of the relative terms."""

import pytest
import torch
from model_layouts import packed, padded
from torch import Tensor, nn
from transformers import DebertaConfig, DebertaV2Config
from transformers.models.deberta.modeling_deberta import DisentangledSelfAttention as FirstAttention
from transformers.models.deberta.modeling_deberta import build_relative_position as first_distances
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention as SecondAttention
from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

from kitae.models.disentangled import attend_relative, choose_relative, log_bucket, make_relative_plan
from kitae.tensor.batch import Layout

HEADS, EXACT = 2, 1e-9
HEAD_SIZES = (4, 8, 12)
"""By number of relative terms: transformers rounds sqrt(size * terms) to fp32, so that only whole roots compare in fp64."""
ROWS = ((10, 20, 6), (36,), (3, 1, 25))
BOTH = ("c2p", "p2c")
KINDS = ("dense", "block", "spans", "sdpa")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def ours(module: nn.Module, x: Tensor, table: Tensor, layout: Layout, kind: str, *, buckets: int, span: int) -> Tensor:
    """kitae's attention with the projections of transformers' module."""
    terms = {}
    if isinstance(module, FirstAttention):
        width = x.shape[-1]
        weight = module.in_proj.weight.view(HEADS, 3, width // HEADS, width).transpose(0, 1).reshape(3 * width, width)
        qkv = x @ weight.T + torch.cat([module.q_bias, torch.zeros(width, dtype=x.dtype), module.v_bias])
        makers = {"c2p": "pos_proj", "p2c": "pos_q_proj"}
    else:
        qkv = torch.cat([module.query_proj(x), module.key_proj(x), module.value_proj(x)], -1)
        makers = {"c2p": "key_proj", "p2c": "query_proj"} if module.share_att_key else {"c2p": "pos_key_proj", "p2c": "pos_query_proj"}
    for name, maker in makers.items():
        terms[name] = getattr(module, maker)(table) if name in module.pos_att_type else None
    plan = make_relative_plan(layout, kind=kind, dtype=x.dtype, buckets=buckets, max_distance=span)
    return attend_relative(qkv, terms["c2p"], terms["p2c"], plan, heads=HEADS, dropout=0.0)


def compare(module: nn.Module, distances: Tensor, layout: Layout, kind: str, *, buckets: int, span: int) -> None:
    """Values at real tokens, and gradients to states, position table and every parameter."""
    module = module.double().eval()
    for seed, parameter in enumerate(module.parameters()):
        parameter.data.copy_(random(*parameter.shape, seed=seed).data * 0.4)
    shape, width = layout.pieces_BL.shape, HEADS * HEAD_SIZES[len(module.pos_att_type)]
    x, table = random(*shape, width, seed=50), random(2 * (buckets or span), width, seed=51)
    weights, real = random(*shape, width, seed=52).detach(), layout.mask_BL
    inputs = [x, table, *module.parameters()]
    theirs = module(x, layout.block_mask_BLL[:, None], relative_pos=distances, rel_embeddings=table)[0]
    mine = ours(module, x, table, layout, kind, buckets=buckets, span=span)
    torch.testing.assert_close(mine[real], theirs[real], rtol=EXACT, atol=EXACT)
    found = [torch.autograd.grad((out * weights)[real].sum(), inputs, allow_unused=True) for out in (mine, theirs)]
    for one, other in zip(*found, strict=True):
        if other is None:
            assert one is None
        else:
            torch.testing.assert_close(one, other, rtol=EXACT, atol=EXACT)
    if shape[1] > 1 and module.pos_att_type:
        assert found[1][1].abs().max() > 1e-3, "the position table is learnt"


LAYOUTS = {
    "padded": padded(50, (30, 1, 17))[2],
    "packed": packed(ROWS, 36),
    "one": packed(((1,),), 1),
    "full": packed(((23,), (23,)), 23),
    "blocks": packed(((5, 270), (275,)), 280),
    "many": packed(((20, 15), (36,), (0,)) * 6, 36),
    "masked": packed(((130, 3, 3, 3, 3, 3), (145,)), 150),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("buckets", "span", "terms"),
    [(8, 24, BOTH), (64, 512, BOTH), (0, 9, BOTH), (8, 200, ("c2p",)), (0, 64, ("p2c",)), (8, 24, ())],
)
def test_the_second_form(kind, layout, buckets, span, terms):
    """DeBERTa-v2 and v3: with and without buckets, rows longer and shorter than them, each term alone."""
    for share in (True, False):
        config = DebertaV2Config(
            hidden_size=HEADS * HEAD_SIZES[len(terms)],
            num_attention_heads=HEADS,
            relative_attention=True,
            max_relative_positions=span,
            position_buckets=buckets or -1,
            pos_att_type=list(terms),
            share_att_key=share,
        )
        x = torch.zeros(1, LAYOUTS[layout].pieces_BL.shape[1], 1)
        distances = build_relative_position(x, x, bucket_size=buckets or -1, max_position=span)
        compare(SecondAttention(config), distances, LAYOUTS[layout], kind, buckets=buckets, span=span)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["padded", "packed", "blocks"])
@pytest.mark.parametrize(("span", "terms"), [(64, BOTH), (9, BOTH), (9, ("c2p",)), (64, ("p2c",))])
def test_the_first_form(kind, layout, span, terms):
    """DeBERTa (v1)."""
    config = DebertaConfig(
        hidden_size=HEADS * HEAD_SIZES[len(terms)],
        num_attention_heads=HEADS,
        relative_attention=True,
        max_relative_positions=span,
        pos_att_type=list(terms),
    )
    x = torch.zeros(1, LAYOUTS[layout].pieces_BL.shape[1], 1)
    compare(FirstAttention(config), first_distances(x, x), LAYOUTS[layout], kind, buckets=0, span=span)


@pytest.mark.parametrize(("buckets", "span"), [(256, 512), (8, 16), (6, 16), (6, 20), (32, 128), (320, 1280), (4, 12)])
def test_buckets_are_those_of_transformers(buckets, span):
    x = torch.zeros(1, 1500, 1)
    theirs = build_relative_position(x, x, bucket_size=buckets, max_position=span)[0]
    distances = torch.arange(1500)[:, None] - torch.arange(1500)
    assert torch.equal(log_bucket(distances, buckets=buckets, max_distance=span), theirs), "rounding is theirs too"
    assert int(log_bucket(torch.tensor(span - 1), buckets=buckets, max_distance=span)) == buckets - 1


@pytest.mark.parametrize("span", [1, 2, 5, 64, 128, 129])
def test_models_of_short_rows_have_an_own_bucket_for_every_distance(span):
    distances = torch.arange(1 - span, span)
    assert torch.equal(log_bucket(distances, buckets=256, max_distance=span), distances)
    x = torch.zeros(1, span, 1)
    theirs = build_relative_position(x, x, bucket_size=256, max_position=span)[0]
    assert torch.equal(log_bucket(torch.arange(span)[:, None] - torch.arange(span), buckets=256, max_distance=span), theirs)


def drawn(kind: str, layout: Layout, rate: float, dtype: torch.dtype = torch.float64, seed: int = 3) -> list[Tensor]:
    """Values at real tokens and gradients of one pass with dropout; the same inputs in every call."""
    heads, size, buckets, span = 2, 8, 8, 40
    qkv = random(*layout.pieces_BL.shape, 3 * heads * size, seed=1)
    tables = [random(2 * buckets, heads * size, seed=2), random(2 * buckets, heads * size, seed=3)]
    plan = make_relative_plan(layout, kind=kind, dtype=dtype, buckets=buckets, max_distance=span)
    torch.manual_seed(seed)
    out = attend_relative(qkv.to(dtype), *(table.to(dtype) for table in tables), plan, heads=heads, dropout=rate)
    real = out[layout.mask_BL].double()
    weights = random(*real.shape, seed=4).detach()
    return [real.detach(), *torch.autograd.grad((real * weights).sum(), [qkv, *tables])]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_short_rows_drop_what_the_dense_form_drops(layout):
    for one, other in zip(drawn("block", LAYOUTS[layout], 0.2), drawn("dense", LAYOUTS[layout], 0.2), strict=True):
        torch.testing.assert_close(one, other, rtol=EXACT, atol=EXACT)
    assert layout == "one" or not torch.equal(drawn("block", LAYOUTS[layout], 0.2)[0], drawn("block", LAYOUTS[layout], 0.2, seed=4)[0])


def test_long_rows_drop_at_the_right_rate():
    layout = packed(((9, 7),), 16)
    exact = drawn("spans", layout, 0.0)[0]
    draws = torch.stack([drawn("spans", layout, 0.2, seed=seed)[0] for seed in range(400)])
    deviation = draws.std(0) / 400**0.5
    assert ((draws.mean(0) - exact) / deviation).abs().max() < 4.5


@pytest.mark.parametrize("kind", ["block", "spans"])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_gradients_against_numbers(kind, rate):
    layout = packed(((2, 3), (4, 1)), 6)
    plan = make_relative_plan(layout, kind=kind, dtype=torch.float64, buckets=0, max_distance=4)

    def seeded(*inputs: Tensor) -> Tensor:
        torch.manual_seed(2)
        return attend_relative(*inputs, plan, heads=2, dropout=rate)

    assert torch.autograd.gradcheck(seeded, (random(2, 6, 12), random(8, 4, seed=1), random(8, 4, seed=2)))


@pytest.mark.parametrize("kind", ["block", "spans", "sdpa", "dense"])
@pytest.mark.parametrize("layout", ["packed", "blocks", "masked", "many"])
def test_half_precision(kind, layout):
    for one, exact in zip(drawn(kind, LAYOUTS[layout], 0.0, torch.bfloat16), drawn("dense", LAYOUTS[layout], 0.0), strict=True):
        assert float((one - exact).norm() / exact.norm()) < 0.015


@pytest.mark.parametrize("kind", ["block", "spans"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_bits_twice_on_two_threads(kind, dtype):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    found = [drawn(kind, LAYOUTS["blocks"], 0.1, dtype) for _ in range(3)]
    torch.set_num_threads(threads)
    for again in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], again, strict=True))


@pytest.mark.parametrize("kind", ["block", "spans", "dense", "sdpa", "flex"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_piece_changes_nothing(kind, dtype):
    layout, heads = packed(((70, 60, 20), (10, 2, 3, 1)), 150), 2
    plan = make_relative_plan(layout, kind=kind, dtype=dtype, buckets=16, max_distance=100)
    qkv, other = (random(2, 150, 48, seed=seed).detach().to(dtype) for seed in (1, 2))
    other[0, :70], other[0, 130:], other[1] = qkv[0, :70], qkv[0, 130:], qkv[1]
    tables = [random(32, 16, seed=seed).detach().to(dtype) for seed in (3, 4)]
    one, two = (attend_relative(x, *tables, plan, heads=heads, dropout=0.0) for x in (qkv, other))
    same = torch.ones(2, 150, dtype=torch.bool)
    same[0, 70:130] = False
    assert torch.equal(one[same], two[same])
    assert not torch.equal(one[~same], two[~same])


@pytest.mark.parametrize("kind", ["block", "spans"])
def test_without_gradients_the_same_bits(kind):
    layout = LAYOUTS["blocks"]
    plan = make_relative_plan(layout, kind=kind, dtype=torch.float32, buckets=8, max_distance=40)
    inputs = [random(*shape, seed=5).float() for shape in ((*layout.pieces_BL.shape, 24), (16, 8), (16, 8))]
    with torch.no_grad():
        plain = attend_relative(*inputs, plan, heads=2, dropout=0.0)
    assert not plain.requires_grad
    assert torch.equal(plain, attend_relative(*inputs, plan, heads=2, dropout=0.0))


@pytest.mark.parametrize("layout", ["packed", "padded", "blocks"])
@pytest.mark.parametrize("given", [(True, True), (True, False), (False, True), (False, False)])
def test_flex_attention(given, layout, monkeypatch):
    """Its plain form on a CPU; torch refuses gradients there although the operations are at hand, so the guard is lifted."""
    monkeypatch.setattr(torch.nn.attention.flex_attention, "_validate_device", lambda *_: None)
    b, length = LAYOUTS[layout].pieces_BL.shape
    inputs = [random(b, length, 24, seed=1), *(random(16, 8, seed=seed) if one else None for seed, one in enumerate(given, start=2))]
    weights, results = random(b, length, 8, seed=9).detach(), []
    for kind in ("flex", "dense"):
        plan = make_relative_plan(LAYOUTS[layout], kind=kind, dtype=torch.float64, buckets=8, max_distance=30)
        out = attend_relative(*inputs, plan, heads=2, dropout=0.0)
        results.append([out, *torch.autograd.grad((out * weights).sum(), [x for x in inputs if x is not None])])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=EXACT, atol=EXACT)


def chosen(device: str, *, length: int = 512, head_size: int = 64, dtype: torch.dtype = torch.bfloat16, **others: object) -> str:
    return choose_relative(device, length=length, head_size=head_size, dtype=dtype, **{"dropout": 0.0, **others})


def test_choice_of_path():
    assert chosen("cpu", dropout=0.1) == "block"
    assert chosen("cpu", length=513, dropout=0.1) == "spans"
    assert chosen("cpu", length=513, compiled=True) == "dense"
    assert chosen("cuda") == "flex"
    assert chosen("cuda", dropout=0.1) == "sdpa", "FlexAttention has no dropout"
    assert chosen("cuda", head_size=16) == "flex"
    assert chosen("cuda", head_size=15) == "sdpa", "FlexAttention takes no small heads"
    assert chosen("cuda", dtype=torch.float64) == "sdpa", "FlexAttention adds up in fp32"
    torch.use_deterministic_algorithms(True)
    try:
        assert chosen("cuda") == "sdpa", "FlexAttention adds gradients up in any order"
    finally:
        torch.use_deterministic_algorithms(False)


def test_rows_go_whole_or_piece_by_piece():
    def chunks(layout: Layout) -> list[tuple[int, int, int, bool]]:
        plan = make_relative_plan(layout, kind="block", dtype=torch.float32, buckets=0, max_distance=8)
        return [(chunk.start, chunk.count, chunk.length, chunk.bias is None) for chunk in plan.chunks]

    assert chunks(packed(((150,), (150,), (150,), (150,)), 150)) == [(0, 3, 150, True), (450, 1, 150, True)]
    assert chunks(packed(((75, 75), (150,)), 150)) == [(0, 1, 75, True), (75, 1, 75, True), (150, 1, 150, True)]
    assert chunks(packed(((50, 50, 50), (30, 20, 100)), 150)) == [(0, 2, 150, False)]


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_dense_form_compiles(backend):
    """The same numbers and the same dropped elements, and the same bits twice on two threads."""
    torch.compiler.reset()
    layout, rate = LAYOUTS["packed"], 0.1
    plan = make_relative_plan(layout, kind="dense", dtype=torch.float32, buckets=8, max_distance=40)
    inputs = [random(3, 36, 48, seed=1), random(16, 16, seed=2), random(16, 16, seed=3)]
    inputs = [x.detach().float().requires_grad_() for x in inputs]
    compiled = torch.compile(attend_relative, backend=backend, fullgraph=True)
    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(2)
    for function in (attend_relative, compiled, compiled):
        torch.manual_seed(4)
        out = function(*inputs, plan, heads=2, dropout=rate)
        found.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    torch.set_num_threads(threads)
    for plain, one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, plain, rtol=1e-4, atol=1e-5)
        assert torch.equal(one, other)
