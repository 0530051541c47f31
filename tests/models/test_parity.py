"""Equal numbers from equal weights: transformers' BERT and ELECTRA against ours, on tiny random models."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_layouts import packed, padded
from model_pairs import CLASSES, make
from torch import Tensor

from kitae.models.bert import BertConfig, BertEncoder
from kitae.models.convert import to_huggingface
from kitae.models.families import FAMILIES
from kitae.tensor.batch import Layout

LENGTHS = (40, 17, 29, 5)
NEAR = {"rtol": 1e-5, "atol": 1e-5}


def their_logits(pair, ids: Tensor, mask: Tensor, kinds: Tensor) -> Tensor:
    return pair.theirs(**pair.inputs(ids, mask, kinds)).logits


def real(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits of real tokens; those of whole texts as they are."""
    return logits[mask] if logits.shape[:2] == mask.shape else logits


@pytest.mark.parametrize(("family", "head"), CLASSES)
@pytest.mark.parametrize("kind", ["block", "spans", "sdpa", "dense"])
def test_hidden_states_and_logits(family, head, kind, tmp_path):
    pair = make(family, head, tmp_path)
    ids, mask, layout, kinds = padded(97, LENGTHS)
    pair.ours.encoder.kind = kind
    with torch.no_grad():
        theirs = pair.theirs(**pair.inputs(ids, mask, kinds), output_hidden_states=True)
        ours = pair.ours.encoder.hidden_states(ids, layout, kinds)
        logits = pair.ours(ids, layout, kinds)
    assert len(ours) == len(theirs.hidden_states) == 4
    for mine, other in zip(ours, theirs.hidden_states, strict=True):
        torch.testing.assert_close(mine[mask], other[mask], **NEAR)
    torch.testing.assert_close(real(logits, mask), real(theirs.logits, mask), **NEAR)


@pytest.mark.parametrize(("family", "head"), CLASSES)
@pytest.mark.parametrize("kind", ["block", "spans"])
def test_gradients_of_all_parameters(family, head, kind, tmp_path):
    pair = make(family, head, tmp_path)
    pair.theirs.double()
    pair.ours.double().encoder.kind = kind
    ids, mask, layout, kinds = padded(97, LENGTHS)
    weights = torch.randn(real(their_logits(pair, ids, mask, kinds), mask).shape, dtype=torch.float64)
    (real(their_logits(pair, ids, mask, kinds), mask) * weights).sum().backward()
    (real(pair.ours(ids, layout, kinds), mask) * weights).sum().backward()
    rows = (*FAMILIES[family].rows, *FAMILIES[family].heads[head].rows)
    mine = to_huggingface({name: p.grad for name, p in pair.ours.named_parameters()}, rows, layers=3)
    other = {name: p.grad for name, p in pair.theirs.named_parameters()}
    tied = dict(FAMILIES[family].heads[head].tied)
    assert set(mine) == set(other) - set(tied)
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, other[name], rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
        assert gradient.abs().max() > 0 or "key" in name, name


@pytest.mark.parametrize("pad", [0, 6])
@pytest.mark.parametrize("family", ["bert", "electra"])
def test_padding_inside_the_text_gets_no_gradient_as_an_input(family, pad, tmp_path):
    pair = make(family, "mlm", tmp_path, pad_token_id=pad)
    pair.theirs.double()
    pair.ours.double()
    ids, mask, layout, kinds = padded(97, LENGTHS)
    ids[:, 2] = ids[0, 7:9] = pad
    weights = torch.randn(int(mask.sum()), 32, dtype=torch.float64)
    tables = []
    for hidden, table in (
        (
            pair.theirs.base_model(input_ids=ids, attention_mask=mask.long(), token_type_ids=kinds)[0],
            pair.theirs.get_input_embeddings().weight,
        ),
        (pair.ours.encoder(ids, layout, kinds), pair.ours.table_VE),
    ):
        (hidden[mask] * weights).sum().backward()
        tables.append(table.grad)
    torch.testing.assert_close(tables[1], tables[0], rtol=1e-9, atol=1e-9)
    assert tables[1][pad].abs().max() == 0 < tables[1][8:].abs().max()


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_segments_may_be_left_out(family, tmp_path):
    pair = make(family, "sequence", tmp_path)
    ids, mask, layout, _ = padded(97, LENGTHS)
    with torch.no_grad():
        theirs = pair.theirs(input_ids=ids, attention_mask=mask.long()).logits
        torch.testing.assert_close(pair.ours(ids, layout), theirs, **NEAR)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    family_head=st.sampled_from([key for key in sorted(CLASSES) if key[0] in ("bert", "electra")]),
    heads=st.integers(1, 5),
    size=st.sampled_from([1, 3, 8]),
    layers=st.integers(0, 3),
    embedding=st.sampled_from([None, 5, 16]),
    inner=st.integers(1, 40),
    act=st.sampled_from(["gelu", "gelu_new", "relu"]),
    eps=st.sampled_from([1e-12, 1e-5, 1e-2]),
    kinds=st.integers(1, 3),
    labels=st.integers(1, 4),
    vocab=st.integers(11, 60),
    lengths=st.lists(st.integers(1, 19), min_size=1, max_size=4),
)
def test_odd_numbers(tmp_path_factory, family_head, heads, size, layers, embedding, inner, act, eps, kinds, labels, vocab, lengths):
    family, head = family_head
    fields = {"embedding_size": embedding or heads * size} if family == "electra" else {}
    pair = make(
        family,
        head,
        tmp_path_factory.mktemp("odd"),
        labels=labels,
        vocab_size=vocab,
        hidden_size=heads * size,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=inner,
        hidden_act=act,
        layer_norm_eps=eps,
        type_vocab_size=kinds,
        max_position_embeddings=19,
        **fields,
    )
    ids, mask, layout, segments = padded(vocab, tuple(lengths), segments=kinds > 1)
    pair.theirs.double()
    pair.ours.double()  # widths of 1 to 5 with a LayerNorm amplify fp32's rounding without limit
    with torch.no_grad():
        theirs = real(their_logits(pair, ids, mask, segments), mask)
        ours = real(pair.ours(ids, layout, segments), mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def split(layout: Layout, ids: Tensor) -> list[tuple[int, int, int, Tensor]]:
    return [(row, start, end, ids[row : row + 1, start:end]) for row, start, end in layout.spans()]


@pytest.mark.parametrize("kind", ["block", "spans", "sdpa", "dense"])
@pytest.mark.parametrize("head", ["mlm", "rtd", "sequence"])
def test_packed_rows_equal_single_documents(head, kind, tmp_path):
    pair = make("electra", head, tmp_path)
    pair.ours.encoder.kind = kind
    layout = packed(((10, 20, 6), (36,), (3, 1, 25), (40,)), 40)
    ids = torch.randint(5, 97, (4, 40)).masked_fill(~layout.mask_BL, 0)
    with torch.no_grad():
        whole = pair.ours(ids, layout)
        for number, (row, start, end, document) in enumerate(split(layout, ids)):
            alone = pair.theirs(input_ids=document).logits
            mine = whole[number : number + 1] if head == "sequence" else whole[row : row + 1, start:end]
            torch.testing.assert_close(mine, alone, **NEAR)


@pytest.mark.parametrize("kind", ["block", "spans", "sdpa", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_document_of_the_row_changes_no_bit(kind, dtype):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=200, hidden_size=64, num_hidden_layers=3, num_attention_heads=2, intermediate_size=128)
    encoder = BertEncoder(config).eval().to(dtype)
    encoder.kind = kind
    layout = packed(((40, 50, 30), (100, 28), (7, 100)), 128)
    ids = torch.randint(5, 200, (3, 128)).masked_fill(~layout.mask_BL, 0)
    other = ids.clone()
    other[0, 40:90] = torch.randint(5, 200, (50,))
    other[1, 100:128] = torch.randint(5, 200, (28,))
    with torch.no_grad():
        before, after = encoder(ids, layout), encoder(other, layout)
    same = ids == other
    same[0, 40:90] = same[1, 100:128] = False
    assert torch.equal(before[same], after[same])
    assert not torch.equal(before[0, 40:90], after[0, 40:90])


def test_no_segments_at_all():
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, type_vocab_size=0)
    encoder = BertEncoder(config)
    assert not [name for name in encoder.state_dict() if "segment" in name]
    assert encoder(torch.ones(1, 5, dtype=torch.long), Layout.padded(torch.ones(1, 5, dtype=torch.bool))).shape == (1, 5, 16)
