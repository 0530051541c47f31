"""ModernBERT: configs of two versions of transformers, windows, pooling, initial weights, long texts."""

import json

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_layouts import packed, padded
from model_pairs import CLASSES, inputs, make
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kitae.core.errors import KitaeError
from kitae.models.cost import count_parameters, flops_per_token
from kitae.models.families import FAMILIES, build_classifier, build_masked_lm
from kitae.models.folder import read_parts, write_huggingface
from kitae.models.modernbert_config import ModernBertConfig
from kitae.models.presets import resolve_preset
from kitae.models.settings import to_config

NEAR = {"rtol": 1e-5, "atol": 1e-5}
OLD = {  # what transformers 4.48 to 4.57 write (this one is ModernBERT-base's, as it was published)
    "architectures": ["ModernBertForMaskedLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 50281,
    "classifier_activation": "gelu", "classifier_bias": False, "classifier_dropout": 0.0, "classifier_pooling": "mean",
    "cls_token_id": 50281, "decoder_bias": True, "deterministic_flash_attn": False, "embedding_dropout": 0.0, "eos_token_id": 50282,
    "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "gradient_checkpointing": False, "hidden_activation": "gelu",
    "hidden_size": 768, "initializer_cutoff_factor": 2.0, "initializer_range": 0.02, "intermediate_size": 1152, "layer_norm_eps": 1e-05,
    "local_attention": 128, "local_rope_theta": 10000.0, "max_position_embeddings": 8192, "mlp_bias": False, "mlp_dropout": 0.0,
    "model_type": "modernbert", "norm_bias": False, "norm_eps": 1e-05, "num_attention_heads": 12, "num_hidden_layers": 22,
    "pad_token_id": 50283, "position_embedding_type": "absolute", "sep_token_id": 50282, "tie_word_embeddings": True,
    "torch_dtype": "float32", "transformers_version": "4.47.0.dev0", "vocab_size": 50368,
}  # fmt: skip
PLAIN = {"rope_type": "default"}


def read(raw: dict[str, object]) -> ModernBertConfig:
    config = to_config({"model_type": "modernbert", **raw}, FAMILIES["modernbert"], where="config.json")
    assert isinstance(config, ModernBertConfig)
    return config


def test_configs_of_both_versions_are_one():
    old = read(OLD)
    assert (old.global_attn_every_n_layers, old.global_rope_theta, old.local_rope_theta, old.classifier_pooling) == (
        3,
        160000,
        10000,
        "mean",
    )
    theirs = transformers.ModernBertConfig(
        **{key: value for key, value in OLD.items() if key not in ("torch_dtype", "transformers_version")}
    )
    new = json.loads(theirs.to_json_string())
    assert "layer_types" in new
    assert "rope_parameters" in new
    assert read({**new, "global_attn_every_n_layers": 3}) == read(new) == old
    assert read({**OLD, "position_embedding_type": "sans_pos"}) == old, "as mmBERT has it"
    assert read({}) == old.model_copy(update={"classifier_pooling": "cls"}), "absent keys mean what they mean to transformers"


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        ({"local_rope_theta": None, "global_rope_theta": 5.0}, {"local_rope_theta": 5.0}),
        ({"initializer_cutoff_factor": None}, {"initializer_cutoff_factor": 3.0}),
        ({"layer_types": ["full_attention"] * 4, "num_hidden_layers": 4}, {"global_attn_every_n_layers": 1}),
        ({"layer_types": ["full_attention", "sliding_attention"], "num_hidden_layers": 2}, {"global_attn_every_n_layers": 3}),
        (
            {"layer_types": ["full_attention", "sliding_attention"] * 2, "num_hidden_layers": 4, "global_attn_every_n_layers": 3},
            {"global_attn_every_n_layers": 2},
        ),
        ({"rope_parameters": {"full_attention": {"rope_theta": 7.0}, "sliding_attention": None}}, {"global_rope_theta": 7.0}),
    ],
)
def test_what_a_key_means(raw, fields):
    config = read(raw)
    assert {key: getattr(config, key) for key in fields} == fields


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"layer_types": ["sliding_attention", "full_attention"], "num_hidden_layers": 2}, "layer_types"),
        ({"rope_parameters": {"full_attention": {**PLAIN, "rope_type": "yarn", "factor": 4.0}}}, "rope_parameters"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"hidden_activation": "silu"}, "hidden_activation"),
        ({"hidden_act": "gelu"}, 'unknown key "hidden_act"'),
        ({"num_attention_heads": 7}, "not a multiple"),
        ({"hidden_size": 36, "num_attention_heads": 4}, "is odd"),
        ({"vocab_size": 9}, "pad_token_id 50283 is none"),
    ],
)
def test_refused_configs(raw, said):
    with pytest.raises(KitaeError) as caught:
        read(raw)
    assert said in str(caught.value)


def test_what_is_written_says_it_in_both_ways(tmp_path):
    pair = make("modernbert", "mlm", tmp_path / "theirs", global_attn_every_n_layers=2, num_hidden_layers=5)
    write_huggingface(pair.part, tmp_path / "ours")
    raw = json.loads((tmp_path / "ours" / "config.json").read_text())
    five = {key: value for key, value in raw.items() if key not in ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")}
    four = {key: value for key, value in raw.items() if key not in ("layer_types", "rope_parameters")}
    assert read(five) == read(four) == pair.part.config
    for folder in (tmp_path / "ours", tmp_path / "four"):
        if folder.name == "four":
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps(four))
            (folder / "model.safetensors").symlink_to(tmp_path / "ours" / "model.safetensors")
        theirs = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
        assert theirs.config.layer_types == ["full_attention", "sliding_attention"] * 2 + ["full_attention"]
        ids, mask, _, _ = padded(97, (40, 17))
        with torch.no_grad():
            before, after = (model(input_ids=ids, attention_mask=mask.long()).logits for model in (pair.theirs, theirs))
        assert torch.equal(before[mask], after[mask])


def test_bare_encoder(tmp_path):
    pair = make("modernbert", "mlm", tmp_path / "headed")
    pair.theirs.base_model.save_pretrained(tmp_path / "bare")
    (part,) = read_parts(tmp_path / "bare").values()
    assert part.head == "none"
    assert all(torch.equal(tensor, pair.part.state[name]) for name, tensor in part.state.items())
    write_huggingface(part, tmp_path / "again")
    again, report = transformers.AutoModel.from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not any(report.values())
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in pair.theirs.base_model.state_dict().items())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    head=st.sampled_from(["mlm", "sequence"]),
    kind=st.sampled_from(["block", "spans", "sdpa", "dense"]),
    heads=st.integers(1, 4),
    size=st.sampled_from([2, 4, 8]),
    layers=st.integers(1, 5),
    inner=st.integers(1, 40),
    window=st.sampled_from([1, 2, 3, 8, 100]),
    every=st.integers(1, 5),
    biases=st.tuples(*[st.booleans()] * 5),
    acts=st.tuples(*[st.sampled_from(["gelu", "gelu_new", "relu"])] * 2),
    pooling=st.sampled_from(["cls", "mean"]),
    thetas=st.tuples(*[st.sampled_from([10.0, 1e4, 3e6])] * 2),
    lengths=st.lists(st.integers(1, 19), min_size=1, max_size=4),
)
def test_odd_numbers(tmp_path_factory, head, kind, heads, size, layers, inner, window, every, biases, acts, pooling, thetas, lengths):
    names = ("norm_bias", "attention_bias", "mlp_bias", "decoder_bias", "classifier_bias")
    pair = make(
        "modernbert",
        head,
        tmp_path_factory.mktemp("odd"),
        hidden_size=heads * size,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=inner,
        local_attention=window,
        global_attn_every_n_layers=every,
        hidden_activation=acts[0],
        classifier_activation=acts[1],
        classifier_pooling=pooling,
        global_rope_theta=thetas[0],
        local_rope_theta=thetas[1],
        **dict(zip(names, biases, strict=True)),
    )
    ids, mask, layout, _ = padded(97, tuple(lengths))
    pair.theirs.double()
    pair.ours.double().encoder.kind = kind
    with torch.no_grad():
        theirs, ours = pair.theirs(**inputs(ids, mask)).logits, pair.ours(ids, layout)
    if head == "mlm":
        theirs, ours = theirs[mask], ours[mask]
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", ["block", "spans", "sdpa", "dense"])
@pytest.mark.parametrize(("head", "pooling"), [("mlm", "cls"), ("sequence", "cls"), ("sequence", "mean")])
def test_packed_rows_equal_single_documents(head, pooling, kind, tmp_path):
    pair = make("modernbert", head, tmp_path, classifier_pooling=pooling)
    pair.ours.encoder.kind = kind
    layout = packed(((10, 20, 6), (36,), (3, 1, 25), (40,)), 40)
    ids = torch.randint(5, 97, (4, 40)).masked_fill(~layout.mask_BL, 0)
    with torch.no_grad():
        whole = pair.ours(ids, layout)
        for number, (row, start, end) in enumerate(layout.spans()):
            alone = pair.theirs(input_ids=ids[row : row + 1, start:end]).logits
            mine = whole[number : number + 1] if head == "sequence" else whole[row : row + 1, start:end]
            torch.testing.assert_close(mine, alone, **NEAR)


@pytest.mark.parametrize("kind", ["block", "spans"])
def test_gradients_of_means_in_any_order(kind, tmp_path):
    """Texts of packed rows in an order of the task's, as fine-tuning asks for them: values and gradients of all parameters."""
    pair = make("modernbert", "sequence", tmp_path, classifier_pooling="mean")
    pair.theirs.double()
    pair.ours.double().encoder.kind = kind
    layout = packed(((10, 20, 6), (36,), (3, 1, 25), (40,)), 40)
    ids = torch.randint(5, 97, (4, 40)).masked_fill(~layout.mask_BL, 0)
    order = torch.randperm(len(layout.spans())).tolist()
    chosen = [layout.spans()[number] for number in order[:6]]
    weights = torch.randn(6, 3, dtype=torch.float64)
    alone = torch.cat([pair.theirs(input_ids=ids[row : row + 1, start:end]).logits for row, start, end in chosen])
    (alone * weights).sum().backward()
    logits = pair.ours(ids, layout, None, torch.tensor([row * 40 + start for row, start, _ in chosen]))
    torch.testing.assert_close(logits, alone, rtol=1e-9, atol=1e-9)
    (logits * weights).sum().backward()
    theirs = pair.theirs.get_input_embeddings().weight.grad
    torch.testing.assert_close(pair.ours.encoder.embed.token.weight.grad, theirs, rtol=1e-9, atol=1e-9)
    other = pair.theirs.base_model.layers[1].attn.Wqkv.weight.grad
    torch.testing.assert_close(pair.ours.encoder.blocks[1].qkv.weight.grad, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["block", "spans", "sdpa", "dense"])
def test_half_precision(kind, tmp_path):
    """bf16 weights: as near to the exact logits as transformers' own, which errs by about 2 % of their spread."""
    pair = make("modernbert", "mlm", tmp_path)
    ids, mask, layout, _ = padded(97, (40, 17, 29, 5))
    pair.ours.encoder.kind = kind
    with torch.no_grad():
        exact = pair.theirs(**inputs(ids, mask)).logits[mask]
        theirs = pair.theirs.bfloat16()(**inputs(ids, mask)).logits[mask].float()
        ours = pair.ours.bfloat16()(ids, layout)[mask].float()
    error, other = (float((logits - exact).norm() / exact.norm()) for logits in (ours, theirs))
    assert 0 < error < 0.03
    assert error < 1.5 * other


def test_texts_longer_than_the_window_and_than_a_short_row(tmp_path):
    """700 tokens, where a CPU goes over to blocks of queries by itself; window and piece are cut at many places."""
    pair = make("modernbert", "mlm", tmp_path, max_position_embeddings=700, local_attention=50)
    layout = packed(((700,), (300, 33, 360), (1, 64, 630)), 700)
    ids = torch.randint(5, 97, (3, 700)).masked_fill(~layout.mask_BL, 0)
    assert pair.ours.encoder.chosen(layout, torch.float32) == "spans"
    with torch.no_grad():
        whole = pair.ours(ids, layout)
        for row, start, end in layout.spans():
            alone = pair.theirs(input_ids=ids[row : row + 1, start:end]).logits
            torch.testing.assert_close(whole[row : row + 1, start:end], alone, **NEAR)


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation makes, backward and temporary ones too."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        made = [
            tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in tree_leaves(out) if isinstance(tensor, torch.Tensor)
        ]
        self.elements = max(self.elements, *made, 0)
        return out


def test_8192_tokens():
    """Forward and backward: nothing is as large as a hundredth of 8,192 x 8,192 for every head."""
    config = ModernBertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, max_position_embeddings=8192,
        local_attention=32, pad_token_id=0,
    )  # fmt: skip
    model = build_masked_lm(config)
    ids = torch.randint(5, 60, (1, 8192))
    with Largest() as largest:
        model(ids, packed(((8192,),), 8192), None, torch.arange(0, 8192, 64)).square().mean().backward()
    assert 8192 * 2 * 96 <= largest.elements < 8192 * 2 * 110, "scores: three blocks of 32 keys for each query and head"
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


def test_new_weights_are_drawn_as_transformers_draws_them():
    fields = {"vocab_size": 900, "hidden_size": 256, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 320}
    fields |= {"pad_token_id": 0, "initializer_cutoff_factor": 2.5, "attention_bias": True, "norm_bias": True}
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for head, model in (
        ("mlm", build_masked_lm(ModernBertConfig(**fields), torch.Generator().manual_seed(1))),
        ("sequence", build_classifier(ModernBertConfig(**fields), 64, generator=torch.Generator().manual_seed(1))),
    ):
        assert torch.equal(before, torch.get_rng_state()), "the global generator was used"
        theirs = CLASSES["modernbert", head](transformers.ModernBertConfig(**fields, num_labels=64)).state_dict()
        torch.set_rng_state(before)
        family = FAMILIES["modernbert"]
        names = {ours: str(other) for ours, other in (*family.rows, *family.heads[head].rows)}
        for name, tensor in model.state_dict().items():
            number = next((part for part in name.split(".") if part.isdigit()), "")
            base, leaf = (name, "") if name == "head.bias" else name.rsplit(".", 1)
            other = names[base.replace(f".{number}.", ".{}.")].format(number) + (leaf and f".{leaf}")
            spread = float(theirs[other].std())
            assert float(tensor.std()) == pytest.approx(spread, rel=0.05), name
            assert float(tensor.abs().max()) == pytest.approx(float(theirs[other].abs().max()), rel=0.02), name


def test_the_same_bits_twice():
    config = ModernBertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, local_attention=40,
        attention_dropout=0.1, mlp_dropout=0.1, classifier_pooling="mean", pad_token_id=0,
    )  # fmt: skip
    layout = packed(((100, 130, 60), (290,), (3, 1, 250)), 300)
    ids = torch.randint(5, 300, layout.pieces_BL.shape)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    gradients = []
    for _ in range(3):
        model = build_classifier(config, 5).train()
        model.encoder.kind = "spans"
        torch.manual_seed(9)
        model(ids, layout).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.set_num_threads(threads)
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


@pytest.mark.parametrize(
    ("name", "vocab", "encoder", "millions"),
    [("modernbert-base", 50368, 149_014_272, 150), ("modernbert-large", 50368, 394_781_696, 396), ("modernbert-small", 32768, 0, 0)],
)
def test_parameters_are_those_published_and_those_of_transformers(name, vocab, encoder, millions):
    architecture = resolve_preset(name, {}, vocab, 8192)
    with torch.device("meta"):
        theirs = transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**architecture.encoder.model_dump()))
    theirs.tie_weights()
    count = sum(parameter.numel() for parameter in theirs.parameters())
    assert count_parameters(architecture).encoder == count
    if encoder:
        assert sum(parameter.numel() for parameter in theirs.base_model.parameters()) == encoder
        assert round(count / 1e6) == millions


def test_numbers_of_the_presets():
    def shape(name):
        c = resolve_preset(name, {}, 50368, 8192).encoder
        return (
            c.hidden_size,
            c.num_hidden_layers,
            c.num_attention_heads,
            c.intermediate_size,
            c.local_attention,
            c.global_attn_every_n_layers,
        )

    assert shape("modernbert-base") == (768, 22, 12, 1152, 128, 3)
    assert shape("modernbert-large") == (1024, 28, 16, 2624, 128, 3)
    assert shape("modernbert-small") == (384, 12, 6, 576, 128, 3)
    assert resolve_preset("modernbert-base", {}, 50368, 8192).encoder == read(OLD).model_copy(update={"pad_token_id": 0})
    wide = resolve_preset("modernbert-small", {"hidden_size": 512}, 100, 64).encoder
    assert (wide.num_attention_heads, wide.intermediate_size) == (8, 768), "the inner width keeps the preset's proportion"


@pytest.mark.parametrize(
    ("name", "length", "millions"), [("base", 1024, 825), ("base", 700, 801), ("large", 1024, 2308), ("base", 64, 742)]
)
def test_flops_per_token(name, length, millions):
    architecture = resolve_preset(f"modernbert-{name}", {}, 50368, 8192)
    assert flops_per_token(architecture, length, "mlm", 0.3) / 1e6 == pytest.approx(millions, rel=0.005)
