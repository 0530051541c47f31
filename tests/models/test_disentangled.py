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

from kitae.models.disentangled import attend_relative, log_bucket, make_relative_plan
from kitae.tensor.batch import Layout

HEADS, EXACT = 2, 1e-9
HEAD_SIZES = (4, 8, 12)
"""By number of relative terms: transformers rounds sqrt(size * terms) to fp32, so that only whole roots compare in fp64."""
ROWS = ((10, 20, 6), (36,), (3, 1, 25))
KINDS = ("dense", "block", "spans")


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
    "masked": packed(((130, 3, 3, 3, 3, 3), (145,)), 150),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("buckets", "span"), [(0, 64), (0, 9), (8, 24), (8, 200), (64, 512)])
@pytest.mark.parametrize("terms", [("c2p", "p2c"), ("c2p",), ("p2c",), ()], ids="+".join)
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
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("span", [64, 9])
@pytest.mark.parametrize("terms", [("c2p", "p2c"), ("c2p",), ("p2c",)], ids="+".join)
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


@pytest.mark.parametrize(("buckets", "span"), [(256, 512), (8, 16), (6, 20), (32, 128), (320, 1280), (4, 12)])
def test_buckets_are_those_of_transformers(buckets, span):
    x = torch.zeros(1, 1500, 1)
    theirs = build_relative_position(x, x, bucket_size=buckets, max_position=span)[0]
    distances = torch.arange(1500)[:, None] - torch.arange(1500)
    assert torch.equal(log_bucket(distances, buckets=buckets, max_distance=span), theirs)
    assert int(log_bucket(torch.tensor(span - 1), buckets=buckets, max_distance=span)) == buckets - 1
