"""The published numbers of every preset, their parameter counts and costs, and refused overrides."""

from dataclasses import replace

import pytest
import torch
import transformers

from kitae.core.errors import KitaeError
from kitae.models.cost import count_parameters, flops_per_token, forward_flops_per_token
from kitae.models.families import bare, build_classifier, build_discriminator, build_masked_lm
from kitae.models.presets import PRESETS, resolve_preset


def shape(config) -> tuple[int, ...]:
    return (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.intermediate_size, config.embedding_width)


def size_of(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "encoder", "generator"),
    [
        ("electra-small-paper", (256, 12, 4, 1024, 128), (64, 12, 1, 256, 128)),
        ("electra-small", (256, 12, 4, 1024, 128), (256, 12, 4, 1024, 128)),
        ("electra-base", (768, 12, 12, 3072, 768), (256, 12, 4, 1024, 768)),
        ("electra-large", (1024, 24, 16, 4096, 1024), (256, 24, 4, 1024, 1024)),
        ("bert-small", (256, 12, 4, 1024, 256), None),
        ("bert-base", (768, 12, 12, 3072, 768), None),
        ("bert-large", (1024, 24, 16, 4096, 1024), None),
        ("deberta-base", (768, 12, 12, 3072, 768), None),
        ("deberta-v2-base", (768, 12, 12, 3072, 768), None),
        ("deberta-v2-large", (1024, 24, 16, 4096, 1024), None),
        ("deberta-v3-xsmall", (384, 12, 6, 1536, 384), (384, 6, 6, 1536, 384)),
        ("deberta-v3-small", (768, 6, 12, 3072, 768), (768, 3, 12, 3072, 768)),
        ("deberta-v3-base", (768, 12, 12, 3072, 768), (768, 6, 12, 3072, 768)),
        ("deberta-v3-large", (1024, 24, 16, 4096, 1024), (1024, 12, 16, 4096, 1024)),
        ("roberta-base", (768, 12, 12, 3072, 768), None),
        ("roberta-large", (1024, 24, 16, 4096, 1024), None),
        ("character-bert-base", (768, 12, 12, 3072, 768), None),
        ("character-bert-small", (256, 12, 4, 1024, 256), None),
    ],
)
def test_numbers(name, encoder, generator):
    architecture = resolve_preset(name, {}, 32768, 512)
    assert shape(architecture.encoder) == encoder
    assert (architecture.generator and shape(architecture.generator)) == generator
    kinds = {"deberta": 0, "roberta": 1}.get(name.split("-")[0], 2)
    assert architecture.encoder.type_vocab_size == kinds
    assert architecture.encoder.hidden_dropout_prob == architecture.encoder.attention_probs_dropout_prob == 0.1


JAPANESE = {  # as ku-nlp/deberta-v2-base-japanese is published
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "attention_head_size": 64, "intermediate_size": 3072,
    "conv_kernel_size": 3, "conv_act": "gelu", "position_buckets": 256, "max_relative_positions": -1, "norm_rel_ebd": "layer_norm",
    "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "share_att_key": True, "relative_attention": True,
    "layer_norm_eps": 1e-7, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 512,
    "type_vocab_size": 0, "vocab_size": 32000, "pad_token_id": 0, "hidden_act": "gelu", "initializer_range": 0.02,
}  # fmt: skip
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
V3 = {"conv_kernel_size": 0, "conv_act": "tanh", "enhanced_mask_decoder": True}  # microsoft's rtd_base.json, and how its generators predict
V1 = {"share_att_key": None, "position_buckets": None, "norm_rel_ebd": None, "conv_kernel_size": None, "conv_act": None}


@pytest.mark.parametrize(
    ("name", "differs"),
    [("deberta-v2-base", {}), ("deberta-v2-large", LARGE), ("deberta-v3-base", V3), ("deberta-v3-large", LARGE | V3), ("deberta-base", V1)],
)
def test_debertas_are_the_published_ones_field_by_field(name, differs):
    written = resolve_preset(name, {}, 32000, 512).encoder.huggingface()
    assert {key: written.get(key) for key in JAPANESE | differs} == JAPANESE | differs


@pytest.mark.parametrize(
    ("name", "length", "encoder", "generator", "total"),
    [  # as counted from the reference code
        ("electra-small", 128, 13_787_393, 13_787_264, 23_363_457),
        ("electra-small-paper", 128, 13_787_393, 4_860_608, 14_436_801),
        ("electra-base", 512, 111_207_937, 35_467_776, 121_113_601),
    ],
)
def test_parameter_counts(name, length, encoder, generator, total):
    counts = count_parameters(resolve_preset(name, {}, 32768, length))
    assert (counts.encoder, counts.generator, counts.total) == (encoder, generator, total)


@pytest.mark.parametrize("name", ["bert-small", "bert-base", "bert-large", "electra-large"])
def test_parameter_counts_are_those_of_transformers(name):
    architecture = resolve_preset(name, {}, 32768, 512)
    fields = architecture.encoder.model_dump(exclude={"embedding_size"} if architecture.family == "bert" else set())
    with torch.device("meta"):
        if architecture.family == "bert":
            theirs = transformers.BertForMaskedLM(transformers.BertConfig(**fields))
        else:
            theirs = transformers.ElectraForPreTraining(transformers.ElectraConfig(**fields))
    theirs.tie_weights()
    assert count_parameters(architecture).encoder == sum(parameter.numel() for parameter in theirs.parameters())


@pytest.mark.parametrize(
    ("name", "kind", "vocab"),
    [
        ("deberta-base", "Deberta", 50265),
        ("deberta-v2-base", "DebertaV2", 32000),
        ("deberta-v2-large", "DebertaV2", 32000),
        ("deberta-v3-base", "DebertaV2", 128100),
    ],
)
def test_parameter_counts_of_deberta_are_those_of_transformers(name, kind, vocab):
    config = resolve_preset(name, {}, vocab, 512).encoder
    with torch.device("meta"):
        theirs = getattr(transformers, f"{kind}ForMaskedLM")(getattr(transformers, f"{kind}Config")(**config.huggingface()))
    theirs.tie_weights()
    decoder = 512 * config.hidden_size if config.enhanced_mask_decoder else 0  # a table that transformers has no use for
    assert size_of(bare(config, "mlm")) - decoder == size_of(theirs)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("deberta-v3-xsmall", 22), ("deberta-v3-small", 44), ("deberta-v3-base", 86), ("deberta-v3-large", 304)],
)
def test_published_backbones_of_deberta_v3(name, millions):
    """microsoft/DeBERTa's README counts the discriminator with its head and unused positions, without the token table."""
    config = resolve_preset(name, {}, 128100, 512).encoder
    assert round((size_of(bare(config, "rtd")) + (512 - 128100) * config.hidden_size) / 1e6) == millions


def test_published_size_of_a_japanese_deberta():
    """ku-nlp's 373 million parameters have the tied output table a second time."""
    config = resolve_preset("deberta-v2-large", {}, 32000, 512).encoder
    assert round((size_of(bare(config, "mlm")) + 32000 * config.hidden_size) / 1e6) == 373


@pytest.mark.parametrize(
    ("name", "vocab", "length", "millions"),
    [
        ("electra-small-paper", 30522, 128, 70),
        ("electra-small", 30522, 128, 127),
        ("electra-base", 30522, 128, 611),
        ("electra-base", 30522, 512, 668),
        ("electra-large", 30522, 512, 2169),
        ("bert-base", 30522, 128, 545),
        ("bert-base", 30522, 512, 588),
        ("bert-large", 30522, 128, 1880),
        ("deberta-v2-base", 32000, 512, 730),
        ("deberta-v2-large", 32000, 512, 2446),
        ("deberta-v3-base", 128100, 512, 1151),
    ],
)
def test_flops_per_token(name, vocab, length, millions):
    architecture = resolve_preset(name, {}, vocab, length)
    objective = "rtd" if architecture.generator else "mlm"
    rate = 0.25 if name == "electra-large" else 0.15
    assert flops_per_token(architecture, length, objective, rate) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(("name", "published"), [("roberta-base", 124_697_433), ("roberta-large", 355_412_057)])
def test_roberta_has_the_parameters_of_the_published_models(name, published):
    architecture = resolve_preset(name, {}, 50265, 512, pad_token_id=1)
    config = architecture.encoder
    assert (config.max_position_embeddings, config.positions, config.layer_norm_eps) == (514, 512, 1e-5)
    with torch.device("meta"):
        theirs = transformers.RobertaForMaskedLM(transformers.RobertaConfig(**config.huggingface()))
    theirs.tie_weights()
    assert count_parameters(architecture).encoder == sum(parameter.numel() for parameter in theirs.parameters()) == published


def test_counts_and_costs_of_what_an_objective_makes_of_a_preset():
    architecture = resolve_preset("electra-small-paper", {}, 32768, 128)
    embeddings = 32768 * 128 + 128 * 128 + 2 * 128 + 2 * 128
    shared, apart = (count_parameters(architecture, "rtd", shared=shared) for shared in (True, False))
    assert apart.total - shared.total == embeddings
    towers = count_parameters(architecture, "electric")
    body = 128 * 64 + 64 + 12 * (4 * 64 * 64 + 2 * 64 * 256 + 9 * 64 + 256)
    assert towers.generator - shared.generator == body + 64 * 128, "one more tower, and twice as wide a way into the head"
    assert count_parameters(architecture, "mlm").generator == 0
    alone = count_parameters(replace(architecture, generator=None), "rtd")
    assert (alone.encoder, alone.total, alone.generator) == (shared.encoder, shared.encoder, 0)
    plain, electric = (flops_per_token(architecture, 128, objective) for objective in ("rtd", "electric"))
    generator = 6 * (12 * (4 * 64**2 + 2 * 64 * 256) + 128 * 64) + 12 * 12 * 64 * 128
    logits = 6 * (2 * 64 * 128 + 128 * 32768) - 6 * 0.15 * (64 * 128 + 128 * 32768)
    assert electric - plain == pytest.approx(generator + logits)
    assert flops_per_token(replace(architecture, generator=None), 128, "rtd") < plain


def test_mini_costs_what_it_says():
    architecture = resolve_preset("electra-mini", {}, 16000, 256)
    assert 5e6 < flops_per_token(architecture, 256, "rtd") / 3 < 6e6
    assert forward_flops_per_token(architecture.encoder, 256) < 5e6


def test_overrides_and_their_derivations():
    wide = resolve_preset("electra-small-paper", {"hidden_size": 512, "hidden_dropout_prob": 0.0, "generator": {"fraction": 0.5}}, 100, 64)
    assert shape(wide.encoder) == (512, 12, 8, 2048, 128)
    assert wide.generator is not None
    assert shape(wide.generator) == (256, 12, 4, 1024, 128)
    assert wide.generator.hidden_dropout_prob == 0.0
    own = resolve_preset("electra-tiny", {"generator": {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1}}, 100, 64)
    assert own.generator is not None
    assert shape(own.generator) == (32, 1, 4, 128, 64)
    thirds = resolve_preset("electra-base", {"generator": {"fraction": 0.33333}}, 100, 64)  # google-research/electra's own number
    assert thirds.generator is not None
    assert shape(thirds.generator) == (256, 12, 4, 1024, 768)
    for layers, number in ((0.5, 6), (3, 3), (1, 1), (1.0, 12), (0.01, 1)):
        halved = resolve_preset("electra-base", {"generator": {"fraction": 1.0, "layers": layers}}, 100, 64)
        assert halved.generator is not None
        assert shape(halved.generator) == (768, number, 12, 3072, 768)
    assert resolve_preset("bert-tiny", {"type_vocab_size": 0}, 100, 64).encoder.type_vocab_size == 0


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("electra-smal", {}, 'did you mean "electra-small"'),
        ("gpt", {}, "known are bert-base"),
        ("bert-base", {"hiden_size": 3}, 'did you mean "hidden_size"'),
        ("bert-base", {"vocab_size": 3}, "cannot be set"),
        ("bert-base", {"generator": {"fraction": 0.5}}, "has no generator"),
        ("bert-base", {"hidden_size": "wide"}, "hidden_size"),
        ("bert-base", {"num_attention_heads": 7}, "not a multiple"),
        ("bert-base", {"embedding_size": 128}, "only ELECTRA"),
        ("electra-base", {"generator": {"fraction": 2}}, "not a share"),
        ("electra-base", {"generator": {"fractoin": 0.2}}, 'did you mean "fraction"'),
        ("electra-base", {"generator": {"embedding_size": 12}}, "differ in embedding_size"),
        ("electra-base", {"generator": 0.5}, "not a table"),
        ("electra-base", {"generator": {"layers": 0}}, "generator.layers = 0 is no number of layers"),
        ("electra-base", {"generator": {"layers": 1.5}}, "share of the discriminator's layers"),
        ("electra-base", {"generator": {"layers": True}}, "no number of layers"),
    ],
)
def test_refused(name, overrides, said):
    with pytest.raises(KitaeError) as caught:
        resolve_preset(name, overrides, 1000, 128)
    assert said in str(caught.value)


def test_every_preset_resolves():
    for name in PRESETS:
        assert count_parameters(resolve_preset(name, {}, 8000, 128)).total > 0


def test_new_weights():
    architecture = resolve_preset("electra-tiny", {"initializer_range": 0.05}, 500, 64)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build_discriminator(architecture.encoder, torch.Generator().manual_seed(1)).state_dict()
    again = build_discriminator(architecture.encoder, torch.Generator().manual_seed(1)).state_dict()
    other = build_discriminator(architecture.encoder, torch.Generator().manual_seed(2)).state_dict()
    assert torch.equal(before, torch.get_rng_state()), "the global generator was used"
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.dense.weight"], other["head.dense.weight"])
    token = first["encoder.embed.token.weight"]
    assert token.abs().max() <= 0.1
    assert float(token.std()) == pytest.approx(0.05 * 0.8796, rel=0.02)  # the deviation of a normal cut at two
    assert first["encoder.blocks.0.qkv.bias"].abs().max() == 0
    assert first["encoder.blocks.1.mlp_norm.weight"].unique().tolist() == [1.0]
    assert build_masked_lm(architecture.encoder).state_dict()["head.bias"].abs().max() == 0
    assert build_classifier(architecture.encoder, 7).head.out.weight.shape == (7, 64)


@pytest.mark.parametrize("name", ["bert-tiny", "electra-tiny", "roberta-tiny", "deberta-base", "deberta-v2-tiny", "deberta-v3-tiny"])
def test_new_biases_are_zero(name):
    """DeBERTa's first version has some that are no layer's own `bias`."""
    config = resolve_preset(name, {"hidden_size": 64, "num_hidden_layers": 4}, 100, 64).encoder
    state = build_masked_lm(config).state_dict()
    biases = [name for name in state if name.endswith("bias")]
    assert len(biases) > 10
    assert not [name for name in biases if state[name].abs().max() > 0]
