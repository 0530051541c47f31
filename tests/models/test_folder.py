"""Whole folders: ours to Hugging Face's and back, kitae checkpoints, and every way in which a folder can be wrong."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import transformers
from model_layouts import padded
from model_pairs import CLASSES, FIRST, ORACLES, edit, inputs, make
from safetensors.torch import load_file, save_file

from kitae.core.errors import KitaeError
from kitae.models.families import FAMILIES, build_discriminator, build_masked_lm
from kitae.models.family import LABELLED
from kitae.models.folder import FORMAT, Part, describe, load, load_encoder, read_parts, write_huggingface
from kitae.models.presets import resolve_preset
from kitae.models.settings import to_config
from kitae.models.sharing import share_embeddings


def reweigh(folder, change):
    state = load_file(folder / "model.safetensors")
    state = {name: tensor.clone() for name, tensor in state.items()}
    with torch.no_grad():
        changed = change(state)
    state = changed if type(changed) is dict else state
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(("family", "head"), CLASSES)
def test_round_trip_through_transformers(family, head, tmp_path):
    pair = make(family, head, tmp_path / "theirs")
    write_huggingface(pair.part, tmp_path / "ours")
    auto = getattr(transformers, FAMILIES[family].heads[head].auto)
    theirs, report = auto.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert type(theirs) is CLASSES[family, head]
    assert not any(report.values()), report
    again_pair = replace(pair, theirs=theirs.eval())
    ids, mask, layout, kinds = pair.rows((40, 17))
    with torch.no_grad():
        torch.testing.assert_close(pair.our_logits(ids, layout, kinds), again_pair.their_logits(ids, mask, kinds), rtol=1e-5, atol=1e-5)
    assert theirs.config.id2label[0] == "label 0" or head not in LABELLED
    again = read_parts(tmp_path / "ours")
    name = {"mlm": "generator", "rtd": "discriminator"}.get(head, "encoder") if family == "electra" else "encoder"
    assert set(again) == {name}
    assert again[name].config == pair.part.config
    assert again[name].labels == (("label 0", "label 1", "label 2") if head in LABELLED else ())
    assert set(again[name].state) == set(pair.part.state)
    assert all(torch.equal(tensor, pair.part.state[key]) for key, tensor in again[name].state.items())
    before, after = (json.loads((tmp_path / which / "config.json").read_text()) for which in ("theirs", "ours"))
    assert {key: value for key, value in after.items() if before.get(key, value) != value} == {}


@pytest.mark.parametrize("family", ORACLES)
def test_bare_encoders(family, tmp_path):
    pair = make(family, FIRST[family], tmp_path / "headed")
    bare = transformers.AutoModel.from_config(pair.theirs.config).eval()
    bare.save_pretrained(tmp_path / "bare")
    (part,) = read_parts(tmp_path / "bare").values()
    assert part.head == "none"
    encoder = FAMILIES[family].encoder(part.config).eval()
    load_encoder(encoder, part)
    ids, mask, layout, kinds = pair.rows((40, 17))
    with torch.no_grad():
        theirs = bare(**inputs(ids, mask, kinds)).last_hidden_state
        torch.testing.assert_close(encoder(ids, layout, kinds)[mask], theirs[mask], rtol=1e-5, atol=1e-5)
    with pytest.raises(KitaeError, match="without a head"):
        load(part)
    write_huggingface(part, tmp_path / "again")
    _, report = transformers.AutoModel.from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not report["unexpected_keys"]
    assert not [name for name in report["missing_keys"] if not name.startswith("pooler")]


@pytest.mark.parametrize("family", ORACLES)
def test_absent_keys_mean_what_they_mean_to_transformers(family):
    def read(raw):
        return to_config({"model_type": family, **raw}, FAMILIES[family], where="config.json")

    assert read({}) == read(ORACLES[family].config().to_dict())


@pytest.mark.parametrize("family", ORACLES)
def test_sharded(family, tmp_path):
    pair = make(family, FIRST[family], tmp_path / "one")
    pair.theirs.save_pretrained(tmp_path / "many", max_shard_size="10KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    (part,) = read_parts(tmp_path / "many").values()
    assert all(torch.equal(tensor, pair.part.state[name]) for name, tensor in part.state.items())
    next(iter(sorted((tmp_path / "many").glob("*.safetensors")))).unlink()
    with pytest.raises(KitaeError, match="missing"):
        read_parts(tmp_path / "many")


def test_a_model_of_bert_for_pretraining(tmp_path):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, max_position_embeddings=40
    )
    theirs = transformers.BertForPreTraining(config).eval()
    theirs.save_pretrained(tmp_path)
    ids, mask, layout, kinds = padded(97, (40, 17))
    (part,) = read_parts(tmp_path).values()
    with torch.no_grad():
        logits = theirs(input_ids=ids, attention_mask=mask.long(), token_type_ids=kinds).prediction_logits
        torch.testing.assert_close(load(part)(ids, layout, kinds)[mask], logits[mask], rtol=1e-5, atol=1e-5)


def test_old_names_and_explicit_ties_are_accepted(tmp_path):
    pair = make("bert", "mlm", tmp_path)

    def age(state):
        state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"].clone()
        state["bert.embeddings.position_ids"] = torch.arange(40)[None]
        return {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v for k, v in state.items()}

    reweigh(tmp_path, age)
    (part,) = read_parts(tmp_path).values()
    assert all(torch.equal(tensor, pair.part.state[name]) for name, tensor in part.state.items())
    reweigh(tmp_path, lambda state: state["cls.predictions.decoder.weight"].add_(1))
    with pytest.raises(KitaeError, match=r"decoder.weight differs"):
        read_parts(tmp_path)


def alone(family, head) -> bool:
    """Whether no other head of the family that is looked for earlier has the same weights."""
    forms = FAMILIES[family].heads
    return next(name for name, form in forms.items() if form.rows == forms[head].rows) == head


@pytest.mark.parametrize(("family", "head"), [row for row in CLASSES if alone(*row) and row[1] != "choice"])
def test_architecture_may_be_missing(family, head, tmp_path):
    pair = make(family, head, tmp_path)
    edit(tmp_path, architectures=None)
    (part,) = read_parts(tmp_path).values()
    assert (part.head, part.labels) == (head, pair.part.labels)
    assert set(part.state) == set(pair.part.state)


def test_a_choice_without_its_architecture_is_not_taken_for_a_classifier(tmp_path):
    make("bert", "choice", tmp_path)  # the weights have the same names, but one output
    edit(tmp_path, architectures=None)
    with pytest.raises(KitaeError, match=r"head.out.weight has the shape \(1, 32\), not \(3, 32\)"):
        read_parts(tmp_path)


def test_taggers_of_older_versions_have_a_pooler_that_they_do_not_use(tmp_path):
    for family, head in (("bert", "token"), ("bert", "span"), ("roberta", "token")):
        pair = make(family, head, tmp_path / family / head)
        pooler = {f"{family}.pooler.dense.weight": torch.ones(32, 32), f"{family}.pooler.dense.bias": torch.ones(32)}
        reweigh(pair.folder, lambda state, pooler=pooler: {**state, **pooler})
        (part,) = read_parts(pair.folder).values()
        assert set(part.state) == set(pair.part.state)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
        ({"is_decoder": True}, "is_decoder = True"),
        ({"tie_word_embeddings": False}, "weight head.table is missing"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "auto_map"),
        ({"hidden_act": "silu"}, "hidden_act"),
        ({"rotary": True}, 'unknown key "rotary"'),
        ({"model_type": "gpt2"}, '"gpt2" is not supported'),
        ({"architectures": ["BertForNextSentencePrediction"]}, "BertForNextSentencePrediction is not supported"),
        ({"num_attention_heads": 5}, "not a multiple"),
        ({"vocab_size": 98}, "has the shape (97, 32), not (98, 32)"),
        ({"num_hidden_layers": 4}, "blocks.3.attn_norm.bias (and 11 more) is missing"),
        ({"num_hidden_layers": 2}, "weights have no place in this model: bert.encoder.layer.2"),
    ],
)
def test_refused_configs(changes, said, tmp_path):
    make("bert", "mlm", tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(KitaeError) as caught:
        read_parts(tmp_path)
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.update({"bert.extra.weight": torch.ones(2)}), "bert.extra.weight"),
        (lambda state: state.pop("bert.encoder.layer.1.attention.self.key.weight"), "attention.self"),
        (lambda state: state.pop("cls.predictions.bias"), "weight head.bias is missing"),
        (lambda state: state["bert.encoder.layer.0.output.dense.bias"].fill_(float("nan")), "blocks.0.down.bias holds numbers"),
        (lambda state: state.update({"cls.predictions.bias": torch.ones(3)}), "head.bias has the shape (3,), not (97,)"),
    ],
)
def test_refused_weights(change, said, tmp_path):
    make("bert", "mlm", tmp_path)
    reweigh(tmp_path, change)
    with pytest.raises(KitaeError) as caught:
        read_parts(tmp_path)
    assert said in str(caught.value)


def test_refused_files(tmp_path):
    pair = make("electra", "rtd", tmp_path / "model")
    with pytest.raises(KitaeError, match="does not exist"):
        read_parts(tmp_path / "nowhere")
    with pytest.raises(KitaeError, match="holds no model"):
        read_parts(tmp_path)
    weights = tmp_path / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(KitaeError, match=r"model.safetensors is damaged"):
        read_parts(tmp_path / "model")
    weights.rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(KitaeError, match="pickled") as caught:
        read_parts(tmp_path / "model")
    assert "save_pretrained" in caught.value.cure
    (tmp_path / "model" / "pytorch_model.bin").unlink()
    with pytest.raises(KitaeError, match=r"model.safetensors is missing"):
        read_parts(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{")
    with pytest.raises(KitaeError, match="not JSON"):
        read_parts(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    pair.theirs.save_pretrained(tmp_path / "model" / "generator")
    with pytest.raises(KitaeError, match="head rtd"):
        read_parts(tmp_path / "model")


def test_a_checkpoint_of_both_halves(tmp_path):
    architecture = resolve_preset("electra-small-paper", {"num_hidden_layers": 1}, 300, 64)
    assert architecture.generator is not None
    module = torch.nn.Module()
    module.generator = build_masked_lm(architecture.generator, torch.Generator().manual_seed(1))
    module.discriminator = build_discriminator(architecture.encoder, torch.Generator().manual_seed(2))
    share_embeddings(module.generator, module.discriminator)
    save_file({name: tensor.clone() for name, tensor in module.state_dict().items()}, tmp_path / "weights.safetensors")
    state = module.generator.state_dict()
    generator = Part(family="electra", head="mlm", config=architecture.generator, state=state)
    discriminator = Part(family="electra", head="rtd", config=architecture.encoder, state=module.discriminator.state_dict())
    described = {"format": FORMAT, "parts": {"generator": describe(generator), "discriminator": describe(discriminator)}}
    (tmp_path / "model.json").write_text(json.dumps(described))
    parts = read_parts(tmp_path)
    assert set(parts) == {"generator", "discriminator"}
    for name, part in parts.items():
        assert (part.config, part.head) == {
            "generator": (architecture.generator, "mlm"),
            "discriminator": (architecture.encoder, "rtd"),
        }[name]
        own = getattr(module, name).state_dict()
        assert set(part.state) == set(own)
        assert all(torch.equal(tensor, own[key]) for key, tensor in part.state.items())
        write_huggingface(part, tmp_path / "pair" / name)
    again = read_parts(tmp_path / "pair")
    assert all(torch.equal(again[name].state[key], tensor) for name, part in parts.items() for key, tensor in part.state.items())
    save_file({**load_file(tmp_path / "weights.safetensors"), "stray": torch.ones(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(KitaeError, match="stray"):
        read_parts(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"format": 9, "parts": {}}))
    with pytest.raises(KitaeError, match="format 9"):
        read_parts(tmp_path)


def test_a_model_without_segments_exports(tmp_path):
    config = resolve_preset("electra-tiny", {"type_vocab_size": 0}, 200, 32).encoder
    model = build_discriminator(config).eval()
    write_huggingface(Part(family="electra", head="rtd", config=config, state=model.state_dict()), tmp_path)
    theirs = transformers.AutoModelForPreTraining.from_pretrained(tmp_path).eval()
    ids, mask, layout, _ = padded(200, (32, 9))
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask.long()).logits
        torch.testing.assert_close(model(ids, layout)[mask], expected[mask], rtol=1e-5, atol=1e-5)
