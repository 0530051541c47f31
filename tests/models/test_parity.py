"""Equal numbers from equal weights: transformers' models against ours, on tiny random models of every family and head."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_layouts import packed
from model_pairs import CLASSES, FIRST, LENGTH, ORACLES, TEXTS, dropped, inputs, make
from torch import Tensor

from kitae.models.bert import BertConfig, BertEncoder
from kitae.models.convert import to_huggingface
from kitae.models.families import FAMILIES
from kitae.tensor.batch import Layout

LENGTHS = (40, 17, 29, 5)
NEAR = {"rtol": 1e-5, "atol": 1e-5}
PATHS = [(*row, path) for row in CLASSES for path in ORACLES[row[0]].paths]
SLOW = [(*row, path) for row in CLASSES for path in ORACLES[row[0]].slow]
ENCODERS = [(family, path) for family in ORACLES for path in ORACLES[family].paths]
HALF = 0.03
"""Largest error in bf16, as a share of the spread of the exact logits: bf16 has 8 bits, and three blocks add up their roundings."""


@pytest.mark.parametrize(("family", "head", "kind"), PATHS)
def test_hidden_states_and_logits(family, head, kind, tmp_path):
    pair = make(family, head, tmp_path)
    ids, mask, layout, kinds = pair.rows(LENGTHS)
    pair.ours.encoder.kind = kind
    with torch.no_grad():
        theirs = pair.theirs.base_model(**inputs(ids, mask, kinds), output_hidden_states=True).hidden_states
        ours = pair.ours.encoder.hidden_states(ids, layout, kinds)
        assert len(ours) == len(theirs) == 4
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine[mask], other[mask], **NEAR)
        torch.testing.assert_close(pair.our_logits(ids, layout, kinds), pair.their_logits(ids, mask, kinds), **NEAR)


@pytest.mark.parametrize(("family", "head", "kind"), PATHS)
def test_half_precision(family, head, kind, tmp_path):
    """Under autocast, as training runs: as near to the exact numbers as transformers' own model is."""
    pair = make(family, head, tmp_path)
    ids, mask, layout, kinds = pair.rows(LENGTHS)
    pair.ours.encoder.kind = kind
    with torch.no_grad():
        exact = pair.their_logits(ids, mask, kinds)
        with torch.autocast("cpu", torch.bfloat16):
            halves = [pair.our_logits(ids, layout, kinds).float()]
            if ORACLES[family].autocast:
                halves.append(pair.their_logits(ids, mask, kinds).float())
    error, *others = ((logits - exact).square().mean().sqrt() / exact.std() for logits in halves)
    assert 0 < error < HALF
    assert all(error < 2 * other for other in others)


@pytest.mark.parametrize(("family", "head", "kind"), SLOW)
def test_gradients_of_all_parameters(family, head, kind, tmp_path):
    pair = make(family, head, tmp_path)
    pair.theirs.double()
    pair.ours.double().encoder.kind = kind
    ids, mask, layout, kinds = pair.rows(LENGTHS)
    theirs = pair.their_logits(ids, mask, kinds)
    weights = torch.randn(theirs.shape, dtype=torch.float64)
    (theirs * weights).sum().backward()
    (pair.our_logits(ids, layout, kinds) * weights).sum().backward()
    rows = (*FAMILIES[family].rows, *FAMILIES[family].heads[head].rows)
    mine = to_huggingface({name: p.grad for name, p in pair.ours.named_parameters()}, rows, layers=3)
    mine = FAMILIES[family].outward(mine, pair.part.config)
    other = {name: p.grad for name, p in pair.theirs.named_parameters(remove_duplicate=False)}
    tied = dict(FAMILIES[family].heads[head].tied)
    assert set(mine) == set(other) - set(tied)
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, other[name], rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
        assert gradient.abs().max() > 0 or "key" in name, name


@pytest.mark.parametrize(("family", "pad"), [(family, pad) for family in ORACLES for pad in ORACLES[family].pads])
def test_padding_inside_the_text_gets_no_gradient_as_an_input(family, pad, tmp_path):
    pair = make(family, FIRST[family], tmp_path, pad_token_id=pad)
    pair.theirs.double()
    pair.ours.double()
    ids, mask, layout, kinds = pair.rows(LENGTHS)
    ids[:, 2] = ids[0, 7:9] = pad
    weights = torch.randn(int(mask.sum()), 32, dtype=torch.float64)
    tables = []
    for hidden, table in (
        (pair.theirs.base_model(**inputs(ids, mask, kinds))[0], pair.theirs.get_input_embeddings().weight),
        (pair.ours.encoder(ids, layout, kinds), pair.ours.encoder.table_VE),
    ):
        (hidden[mask] * weights).sum().backward()
        tables.append(table.grad)
    torch.testing.assert_close(tables[1], tables[0], rtol=1e-9, atol=1e-9)
    assert tables[1][pad].abs().max() == 0 < tables[1][8:].abs().max()


@pytest.mark.parametrize("family", ORACLES)
def test_segments_may_be_left_out(family, tmp_path):
    pair = make(family, FIRST[family], tmp_path)
    ids, mask, layout, _ = pair.rows(LENGTHS)
    with torch.no_grad():
        torch.testing.assert_close(pair.our_logits(ids, layout), pair.their_logits(ids, mask), **NEAR)


@pytest.mark.parametrize(("family", "head"), CLASSES)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    heads=st.integers(1, 5),
    layers=st.integers(0, 3),
    inner=st.integers(1, 40),
    labels=st.integers(1, 4),
    vocab=st.integers(11, 60),
    pad=st.integers(0, 10),
    lengths=st.lists(st.integers(1, 19), min_size=1, max_size=4),
    data=st.data(),
)
def test_odd_numbers(tmp_path_factory, family, head, heads, layers, inner, labels, vocab, pad, lengths, data):
    oracle = ORACLES[family]
    own = data.draw(st.fixed_dictionaries(dict(oracle.odd)), label="own")
    pair = make(
        family,
        head,
        tmp_path_factory.mktemp("odd"),
        labels=labels,
        length=19,
        vocab_size=vocab,
        hidden_size=heads * data.draw(st.sampled_from(oracle.sizes), label="size"),
        num_attention_heads=heads,
        num_hidden_layers=max(layers, oracle.layers),
        intermediate_size=inner,
        pad_token_id=pad,
        **own,
    )
    ids, mask, layout, segments = pair.rows(tuple(lengths))
    pair.theirs.double()
    pair.ours.double()  # widths of 1 to 5 with a LayerNorm amplify fp32's rounding without limit
    row = packed((tuple(lengths),), sum(lengths))  # the same texts in one row
    kinds = None if segments is None else segments[mask][None]
    with torch.no_grad():
        theirs = pair.their_logits(ids, mask, segments)
        torch.testing.assert_close(pair.our_logits(ids, layout, segments), theirs, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(pair.our_logits(ids[mask][None], row, kinds), theirs, rtol=1e-6, atol=1e-6)


RATES = {
    "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2, "classifier_dropout": 0.3, "pooler_dropout": 0.4, "cls_dropout": 0.3,
    "embedding_dropout": 0.5, "attention_dropout": 0.2, "mlp_dropout": 0.1, "summary_last_dropout": 0.3,
}  # fmt: skip


@pytest.mark.parametrize(("family", "head"), CLASSES)
def test_dropout_falls_where_transformers_drops(family, head, tmp_path, monkeypatch):
    """In training: the rate and the number of elements of every dropout, in order, with a rate of its own for each field."""
    known = ORACLES[family].config().to_dict() | dict.fromkeys(FAMILIES[family].config.model_fields)
    pair = make(family, head, tmp_path, **{name: rate for name, rate in RATES.items() if name in known})
    ids, mask, layout, kinds = pair.rows(LENGTHS)
    theirs: list[tuple[float, int]] = []

    def noted(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if training and p:
            theirs.append((p, x.numel()))
        return x

    monkeypatch.setattr(torch.nn.functional, "dropout", noted)
    ours = dropped(monkeypatch)
    pair.theirs.set_attn_implementation("eager")
    pair.theirs.train()
    pair.ours.train().encoder.kind = "dense"
    torch.testing.assert_close(pair.our_logits(ids, layout, kinds), pair.their_logits(ids, mask, kinds), **NEAR)
    assert ours == theirs
    assert len({rate for rate, _ in ours}) > 1


def split(layout: Layout, ids: Tensor) -> list[tuple[int, int, int, Tensor]]:
    return [(row, start, end, ids[row : row + 1, start:end]) for row, start, end in layout.spans()]


@pytest.mark.parametrize(("family", "head", "kind"), PATHS)
def test_packed_rows_equal_single_documents(family, head, kind, tmp_path):
    pair = make(family, head, tmp_path)
    pair.ours.encoder.kind = kind
    layout = packed(((10, 20, 6), (36,), (3, 1, 25), (40,)), LENGTH)
    pad = pair.part.config.pad_token_id
    ids = torch.randint(7, 97, (4, LENGTH)).masked_fill(~layout.mask_BL, pad)
    kinds = torch.randint(0, 2, ids.shape) if pair.part.config.segment_kinds > 1 else None
    with torch.no_grad():
        whole = pair.ours(ids, layout, kinds)
        for number, (row, start, end, document) in enumerate(split(layout, ids)):
            segments = None if kinds is None else kinds[row : row + 1, start:end]
            alone = pair.their_logits(document, torch.ones_like(document, dtype=torch.bool), segments)
            torch.testing.assert_close(whole[number : number + 1] if head in TEXTS else whole[row, start:end], alone, **NEAR)


@pytest.mark.parametrize(("family", "kind"), ENCODERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_document_of_the_row_changes_no_bit(family, kind, dtype, tmp_path):
    pair = make(family, FIRST[family], tmp_path, length=128, vocab_size=200, hidden_size=64, num_attention_heads=2, intermediate_size=128)
    encoder = pair.ours.encoder.to(dtype)
    encoder.kind = kind
    layout = packed(((40, 50, 30), (100, 28), (7, 100)), 128)
    ids = torch.randint(7, 200, (3, 128)).masked_fill(~layout.mask_BL, pair.part.config.pad_token_id)
    other = ids.clone()
    other[0, 40:90] = torch.randint(7, 200, (50,))
    other[1, 100:128] = torch.randint(7, 200, (28,))
    with torch.no_grad():
        before, after = encoder(ids, layout), encoder(other, layout)
    same = ids == other
    same[0, 40:90] = same[1, 100:128] = False
    assert torch.equal(before[same], after[same])
    assert not torch.equal(before[0, 40:90], after[0, 40:90])


def test_no_segments_at_all():
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, type_vocab_size=0)
    encoder, zeros = BertEncoder(config).eval(), BertEncoder(config.model_copy(update={"type_vocab_size": 1})).eval()
    assert not [name for name in encoder.state_dict() if "segment" in name]
    zeros.load_state_dict(encoder.state_dict() | {"embed.segment.weight": torch.zeros(1, 16)})
    ids, layout = torch.arange(1, 6)[None], Layout.padded(torch.ones(1, 5, dtype=torch.bool))
    assert torch.equal(encoder(ids, layout), zeros(ids, layout))


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2"])
def test_segments_of_pairs_are_no_matter_to_a_model_that_knows_one_kind(family, tmp_path):
    pair = make(family, "sequence", tmp_path, type_vocab_size=1)
    ids, mask, layout, _ = pair.rows(LENGTHS)
    kinds = torch.randint(0, 2, ids.shape)
    with torch.no_grad():
        torch.testing.assert_close(pair.ours(ids, layout, kinds), pair.their_logits(ids, mask), **NEAR)
