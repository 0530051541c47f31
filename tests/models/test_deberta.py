"""DeBERTa's options one by one against transformers, its convolution in packed rows, and its numbers refused."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_layouts import packed
from model_pairs import make
from pydantic import ValidationError

from kitae.core.errors import KitaeError
from kitae.models.convert import to_huggingface
from kitae.models.deberta import Convolution
from kitae.models.deberta_config import DebertaV2Config
from kitae.models.families import FAMILIES
from kitae.models.folder import read_parts
from kitae.train.optimizer import layer_scales

PLAIN = {"position_buckets": -1, "norm_rel_ebd": "none", "share_att_key": False, "conv_kernel_size": 0, "position_biased_input": True}
OPTIONS = {
    "c2p": ("deberta-v2", {**PLAIN, "pos_att_type": ["c2p"]}),
    "p2c": ("deberta-v2", {**PLAIN, "pos_att_type": ["p2c"]}),
    "both": ("deberta-v2", PLAIN),
    "no relative positions": ("deberta-v2", {**PLAIN, "relative_attention": False, "pos_att_type": None}),
    "shared keys, c2p": ("deberta-v2", {"pos_att_type": "c2p"}),
    "shared keys, p2c": ("deberta-v2", {"pos_att_type": "p2c"}),
    "buckets without norm": ("deberta-v2", {"norm_rel_ebd": "none", "share_att_key": False}),
    "beyond the reach": ("deberta-v2", {"max_relative_positions": 12}),
    "beyond the reach, no buckets": ("deberta-v2", {"position_buckets": -1, "max_relative_positions": 9}),
    "wide convolution": ("deberta-v2", {"conv_kernel_size": 5, "conv_act": "tanh", "conv_groups": 4}),
    "embeddings of their own width": ("deberta-v2", {"embedding_size": 24}),
    "Microsoft's names": ("deberta-v2", {"legacy": False}),
    "v1, c2p": ("deberta", {"pos_att_type": ["c2p"]}),
    "v1, p2c": ("deberta", {"pos_att_type": ["p2c"]}),
    "v1 beyond the reach": ("deberta", {"max_relative_positions": 9, "position_biased_input": False}),
    "v1, no relative positions": ("deberta", {"relative_attention": False, "pos_att_type": None}),
    "v1, Microsoft's names": ("deberta", {"legacy": False, "type_vocab_size": 0}),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_gradients_with_every_option(option, tmp_path):
    family, fields = OPTIONS[option]
    pair = make(family, "mlm", tmp_path, **fields)
    pair.theirs.double()
    pair.ours.double()
    ids, mask, layout, kinds = pair.rows((40, 17, 29, 5))
    theirs = pair.their_logits(ids, mask, kinds)
    ours = pair.our_logits(ids, layout, kinds)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    weights = torch.randn(theirs.shape, dtype=torch.float64)
    (theirs * weights).sum().backward()
    (ours * weights).sum().backward()
    rows = (*FAMILIES[family].rows, *FAMILIES[family].heads["mlm"].rows)
    mine = to_huggingface({name: p.grad for name, p in pair.ours.named_parameters()}, rows, layers=3)
    mine = FAMILIES[family].outward(mine, pair.part.config)
    other = {name: p.grad for name, p in pair.theirs.named_parameters()}
    assert set(mine) == set(other) - {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, other[name], rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
        assert gradient.abs().max() > 0 or "key" in name, name


@pytest.mark.parametrize(("family", "fields"), [("deberta", {}), ("deberta-v2", PLAIN)])
def test_a_table_of_positions_that_no_term_reads(family, fields, tmp_path):
    pair = make(family, "sequence", tmp_path, **{**fields, "pos_att_type": None})
    assert "encoder.relative.weight" in pair.part.state
    ids, mask, layout, kinds = pair.rows((40, 17))
    with torch.no_grad():
        torch.testing.assert_close(pair.our_logits(ids, layout, kinds), pair.their_logits(ids, mask, kinds), rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    width=st.sampled_from([1, 3, 5, 7]),
    groups=st.sampled_from([1, 2, 4]),
    rows=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
)
def test_convolution_of_packed_rows(width, groups, rows, seed):
    torch.manual_seed(seed)
    config = DebertaV2Config(vocab_size=9, hidden_size=8, num_attention_heads=2, conv_kernel_size=width, conv_groups=groups)
    conv = Convolution(config).double()
    layout = packed(tuple(map(tuple, rows)), max(map(sum, rows)) + 1)
    x = torch.randn(*layout.pieces_BL.shape, 8, dtype=torch.float64)
    whole = conv.convolve(x, layout.pieces_BL)
    for row, start, end in layout.spans():
        alone = torch.nn.functional.conv1d(
            x[row, start:end].T[None], conv.kernel.weight, conv.kernel.bias, padding=width // 2, groups=groups
        )
        torch.testing.assert_close(whole[row, start:end], alone[0].T, rtol=1e-10, atol=1e-10)


def test_texts_longer_than_max_position_embeddings(tmp_path):
    """Without absolute positions nothing ends there: as in transformers, distances go on to the last rows of the table."""
    pair = make("deberta-v2", "mlm", tmp_path, length=64, position_buckets=16, type_vocab_size=0)
    assert pair.part.config.positions == 64
    ids, mask, layout, _ = pair.rows((600, 90))
    pair.theirs.double()
    pair.ours.double()
    with torch.no_grad():
        theirs = pair.their_logits(ids, mask)
        torch.testing.assert_close(pair.our_logits(ids, layout), theirs, rtol=1e-9, atol=1e-9)
        row = packed(((600, 90),), 690)
        torch.testing.assert_close(pair.our_logits(ids[mask][None], row), theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hidden_size": 30}, "not a multiple"),
        ({"pos_att_type": ["c2p", "p2p"], "relative_attention": True}, "pos_att_type"),
        ({"pos_att_type": ["c2p", "c2p"], "relative_attention": True}, "twice"),
        ({"pos_att_type": ["c2p"]}, "needs relative_attention"),
        ({"norm_rel_ebd": "layer_norm"}, "needs relative_attention"),
        ({"conv_kernel_size": 4}, "is even"),
        ({"conv_groups": 3}, "not a multiple of conv_groups"),
        ({"position_buckets": 1}, "position_buckets 1"),
        ({"position_buckets": 16, "max_relative_positions": 9}, "give at least 10"),
        ({"embedding_size": 8, "legacy": False}, "legacy = false"),
        ({"pad_token_id": 50}, "none of the 50 tokens"),
        ({"enhanced_mask_decoder": True}, "position_biased_input = false"),
        ({"enhanced_mask_decoder": True, "position_biased_input": False, "num_hidden_layers": 1}, "at least two blocks"),
        ({"enhanced_mask_decoder": True, "position_biased_input": False, "embedding_size": 8}, "as wide as hidden_size"),
        ({"enhanced_mask_decoder": True, "position_biased_input": False, "legacy": False}, "leave legacy at true"),
    ],
)
def test_refused_numbers(fields, said):
    with pytest.raises(ValidationError) as caught:
        DebertaV2Config.model_validate({"vocab_size": 50, "hidden_size": 32, "num_attention_heads": 4, **fields})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"attention_head_size": 5}, "attention_head_size = 5"),
        ({"pooler_hidden_size": 5}, "pooler_hidden_size = 5"),
        ({"talking_head": True}, "talking_head = True"),
        ({"position_buckets": 4}, 'unknown key "position_buckets"'),
    ],
)
def test_refused_config_json(fields, said, tmp_path):
    make("deberta", "mlm", tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | fields))
    with pytest.raises(KitaeError) as caught:
        read_parts(tmp_path)
    assert said in str(caught.value)
    assert caught.value.where == str(tmp_path / "config.json")


def test_what_lies_beside_the_blocks_learns_as_slowly_as_embeddings(tmp_path):
    pair = make("deberta-v2", "sequence", tmp_path, embedding_size=24)
    scales = layer_scales({name: p.shape for name, p in pair.ours.named_parameters()}, 0.5)
    below = {name.split(".")[1] for name, scale in scales.items() if scale == 0.5**4}
    assert below == {"embed", "embed_norm", "project", "relative", "relative_norm", "conv"}
    assert {name.split(".")[0] for name, scale in scales.items() if scale == 1.0} == {"head"}
