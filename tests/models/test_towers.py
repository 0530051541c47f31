"""Causal attention on every path, and the two-tower encoder: what each position may know."""

import pytest
import torch
from model_layouts import packed
from torch.nn import functional as F

from kitae.models.attention import attend, make_plan
from kitae.models.families import build_masked_lm
from kitae.models.towers import TwoTowerConfig
from kitae.tensor.batch import Texts

ROWS = ((10, 20, 6), (36,), (3, 1, 25))
LAYOUT = packed(ROWS, 36)
KINDS = ("block", "spans", "sdpa", "dense")


def small(**fields: object) -> TwoTowerConfig:
    numbers = {
        "vocab_size": 50, "hidden_size": 24, "embedding_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 40, "max_position_embeddings": 36, "initializer_range": 0.2,
    }  # fmt: skip
    return TwoTowerConfig.model_validate(numbers | fields)


@pytest.mark.parametrize("kind", KINDS)
def test_causal_attention_by_hand(kind: str) -> None:
    qkv = torch.randn(3, 36, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weights = torch.randn(3, 36, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = attend(qkv, make_plan(LAYOUT, kind=kind, dtype=qkv.dtype, causal=True), heads=2, dropout=0.0)
    expected = torch.zeros_like(found)
    for row, start, end in LAYOUT.spans():
        for place in range(start, end):
            query, key, value = (qkv[row, start : end + 1].view(-1, 3, 2, 4)[:, part] for part in range(3))
            query, key, value = query[place - start], key[: place - start + 1], value[: place - start + 1]
            shares = torch.softmax(torch.einsum("nh,snh->ns", query, key) / 2, dim=1)
            expected[row, place] = torch.einsum("ns,snh->nh", shares, value).flatten()
    mask = LAYOUT.mask_BL
    torch.testing.assert_close(found[mask], expected[mask], atol=1e-12, rtol=0)
    gradients = [torch.autograd.grad((x * weights)[mask].sum(), qkv, retain_graph=True)[0] for x in (found, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", ["block", "spans"])
def test_causal_dropout_never_looks_ahead(kind: str) -> None:
    qkv = torch.randn(3, 36, 24, dtype=torch.float64)
    plan = make_plan(LAYOUT, kind=kind, dtype=qkv.dtype, causal=True)
    changed = qkv.clone()
    changed[1, 20:] += 1.0
    made = []
    for each in (qkv, changed):
        torch.manual_seed(3)
        made.append(attend(each, plan, heads=2, dropout=0.3))
    assert torch.equal(made[0][1, :20], made[1][1, :20])
    assert not torch.equal(made[0][1, 20:], made[1][1, 20:])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("kind", ["varlen", "sdpa"])
def test_causal_attention_on_cuda(kind: str) -> None:
    """Values and gradients against plain operations in fp64."""
    layout = packed(((60, 70, 50), (200,), (3, 1, 190)), 200)
    qkv = torch.randn(3, 200, 384, generator=torch.Generator().manual_seed(1)).bfloat16()
    weights = torch.randn(3, 200, 128, generator=torch.Generator().manual_seed(2)).double()
    found = []
    for which, device, dtype in (("dense", "cpu", torch.float64), (kind, "cuda", torch.bfloat16)):
        leaf = qkv.to(device, dtype).requires_grad_()
        made = attend(leaf, make_plan(layout.to(device), kind=which, dtype=dtype, causal=True), heads=2, dropout=0.0).double().cpu()
        (made * weights)[layout.mask_BL].sum().backward()
        assert leaf.grad is not None
        found.append((made.detach()[layout.mask_BL], leaf.grad.double().cpu()[layout.mask_BL]))
    for mine, exact in zip(found[1], found[0], strict=True):
        assert float((mine - exact).norm() / exact.norm()) < 0.02


def test_plans_without_causality_are_as_before() -> None:
    assert make_plan(packed(((36,),), 36), kind="block", dtype=torch.float32).bias_BLL is None
    for kind in KINDS:
        assert not make_plan(LAYOUT, kind=kind, dtype=torch.float32).causal


@pytest.mark.parametrize("kind", KINDS)
def test_a_position_knows_everything_around_it_but_not_itself(kind: str) -> None:
    encoder = build_masked_lm(small()).encoder.double().eval()
    encoder.kind = kind
    ids = torch.randint(5, 50, (3, 36), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        before = encoder(Texts(ids, LAYOUT))
        for row, start, end, place in ((0, 10, 30, 17), (0, 10, 30, 10), (0, 10, 30, 29), (2, 3, 4, 3), (1, 0, 36, 35)):
            other = ids.clone()
            other[row, place] = 5 + (other[row, place] - 4) % 45
            changed = (encoder(Texts(other, LAYOUT)) != before).any(dim=2)
            expected = torch.zeros_like(changed)
            expected[row, start:end] = True
            expected[row, place] = False
            assert torch.equal(changed & LAYOUT.mask_BL, expected)


def test_contexts_are_the_causal_states_beside_the_position() -> None:
    """Built anew for each position: the left stack on the text before it, the right one on the text behind it, from its end."""
    model = build_masked_lm(small()).double().eval()
    encoder, ids = model.encoder, torch.randint(5, 50, (1, 7), generator=torch.Generator().manual_seed(4))
    layout = packed(((7,),), 7)
    with torch.no_grad():
        found = encoder(Texts(ids, layout))[0]
        embedded = encoder.embed(ids, layout.positions_BL)
        for place in range(7):
            for side, text in (("left", embedded[:, :place]), ("right", embedded[:, place + 1 :].flip(1))):
                half = found[place, :24] if side == "left" else found[place, 24:]
                if not text.shape[1]:
                    assert not half.any()
                    continue
                plan = make_plan(packed(((text.shape[1],),), text.shape[1]), kind="dense", dtype=torch.float64, causal=True)
                *_, state = getattr(encoder, side).states(text, plan)
                torch.testing.assert_close(half, state[0, -1], atol=1e-12, rtol=0)
        logits = F.linear(model.head.transform(found), encoder.table_VE, model.head.bias)
        torch.testing.assert_close(model(Texts(ids, layout))[0], logits, atol=1e-12, rtol=0)
        assert torch.equal(list(encoder.states(Texts(ids, layout)))[-1][0], found)
        assert len(encoder.hidden_states(Texts(ids, layout))) == 3


def test_pieces_of_a_packed_row_are_as_if_alone() -> None:
    encoder = build_masked_lm(small()).encoder.double().eval()
    ids = torch.randint(5, 50, (3, 36), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        together = encoder(Texts(ids, LAYOUT))
        for row, start, end in LAYOUT.spans():
            alone = encoder(Texts(ids[row : row + 1, start:end], packed(((end - start,),), end - start)))
            torch.testing.assert_close(together[row, start:end], alone[0], atol=1e-12, rtol=0)
