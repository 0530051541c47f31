"""What only DeBERTa has: detection of replaced tokens, the enhanced mask decoder, and folders of which transformers knows a part."""

import json

import pytest
import torch
import transformers
from model_layouts import packed, padded
from model_pairs import inputs, make
from safetensors.torch import load_file, save_file

from kitae.core.errors import KitaeError
from kitae.models.deberta_heads import DebertaRtdHead
from kitae.models.families import FAMILIES, build_discriminator, build_masked_lm
from kitae.models.folder import Part, load, load_encoder, read_parts, write_huggingface
from kitae.models.presets import resolve_preset

ROWS = ((10, 20, 6), (36,), (3, 1, 25), (40,))


def tiny(name: str = "deberta-v3-tiny", **fields: object):
    """A model config and an own random state of it: new biases are 0, which would hide a swapped pair."""
    return resolve_preset(name, {"num_hidden_layers": 3, "initializer_range": 0.1, **fields}, 97, 40).encoder


def discriminator(config):
    return build_discriminator(config, torch.Generator().manual_seed(3)).eval()


@pytest.mark.parametrize("name", ["deberta-v3-tiny", "deberta-base"])
def test_every_position_is_judged_together_with_the_beginning_of_its_piece(name):
    model = discriminator(tiny(name, hidden_size=64))
    layout = packed(ROWS, 40)
    ids = torch.randint(5, 97, (4, 40)).masked_fill(~layout.mask_BL, 0)
    with torch.no_grad():
        whole = model(ids, layout)
        for row, start, end in layout.spans():
            alone_ids, _, alone, _ = padded(97, (end - start,))
            alone_ids = ids[row : row + 1, start:end]
            torch.testing.assert_close(model(alone_ids, alone)[0], whole[row, start:end], rtol=1e-5, atol=1e-5)


def test_a_hand_worked_detection():
    config = tiny(hidden_size=64)
    head = DebertaRtdHead(config)
    with torch.no_grad():
        head.dense.weight.copy_(torch.eye(64))
        head.dense.bias.fill_(5.0)
        head.norm.weight.fill_(1.0)
        head.norm.bias.zero_()
        head.out.weight.zero_()
        head.out.weight[0, 0] = 2.0
        head.out.bias.fill_(0.5)
        x = torch.zeros(1, 3, 64)
        x[0, 0, 0], x[0, 1, 1] = 1.0, 1.0
        logits = head(x, packed(((3,),), 3))
    # position 0: twice the same spike in dimension 0, normalized to sqrt(63); gelu of numbers above 5 is nearly the identity
    assert float(logits[0, 0]) == pytest.approx(2 * (5 + 63**0.5) + 0.5, rel=1e-4)
    # position 1: spikes in dimensions 0 and 1, normalized to sqrt(31) each
    assert float(logits[0, 1]) == pytest.approx(2 * (5 + 31**0.5) + 0.5, rel=1e-4)


@pytest.mark.parametrize("name", ["deberta-v3-tiny", "deberta-base"])
def test_a_discriminator_is_an_encoder_to_transformers_and_whole_to_us(name, tmp_path):
    config = tiny(name, hidden_size=64)
    model = discriminator(config)
    family = config.model_type
    write_huggingface(Part(family=family, head="rtd", config=config, state=model.state_dict()), tmp_path)
    assert "architectures" not in json.loads((tmp_path / "config.json").read_text())
    theirs, report = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert {key.split(".")[0] for key in report["unexpected_keys"]} == {"mask_predictions"}
    ids, mask, layout, _ = padded(97, (40, 17))
    with torch.no_grad():
        expected = theirs.eval()(**inputs(ids, mask)).last_hidden_state
        torch.testing.assert_close(model.encoder(ids, layout)[mask], expected[mask], rtol=1e-5, atol=1e-5)
    part = read_parts(tmp_path)["discriminator"]
    assert (part.head, part.config) == ("rtd", config)
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in part.state.items())
    with torch.no_grad():
        assert torch.equal(load(part)(ids, layout), model(ids, layout))


def microsoft(folder, **changes: object):
    """A folder as microsoft/deberta-v3-* publish them: no class is named; both heads and unused positions stand beside the encoder."""
    pair = make("deberta-v2", "mlm", folder, legacy=False, type_vocab_size=0, position_biased_input=False)
    state = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    size = pair.part.config.hidden_size
    for name, shape in (
        ("dense.weight", (size, size)), ("dense.bias", (size,)), ("LayerNorm.weight", (size,)), ("LayerNorm.bias", (size,)),
        ("classifier.weight", (1, size)), ("classifier.bias", (1,)),
    ):  # fmt: skip
        state[f"mask_predictions.{name}"] = torch.randn(shape)
    state["deberta.embeddings.position_embeddings.weight"] = torch.randn(40, size)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    raw = json.loads((folder / "config.json").read_text())
    del raw["architectures"], raw["legacy"]
    (folder / "config.json").write_text(json.dumps(raw | changes))
    return pair, state


def test_a_folder_of_microsoft_as_discriminator(tmp_path):
    _, state = microsoft(tmp_path)
    part = read_parts(tmp_path)["discriminator"]
    assert part.head == "rtd"
    assert torch.equal(part.state["head.out.weight"], state["mask_predictions.classifier.weight"])
    assert load(part)(*padded(97, (9,))[::2]).shape == (1, 9)


@pytest.mark.parametrize(
    ("architecture", "head"), [("DebertaV2Model", "none"), ("DebertaV2ForMaskedLM", "mlm"), ("DebertaV2ForPreTraining", None)]
)
def test_a_folder_of_microsoft_as_what_it_says_it_is(architecture, head, tmp_path):
    pair, state = microsoft(tmp_path, architectures=[architecture])
    if head is None:
        with pytest.raises(KitaeError, match="DebertaV2ForPreTraining is not supported"):
            read_parts(tmp_path)
        return
    part = read_parts(tmp_path)["encoder"]
    assert part.head == head
    encoder = FAMILIES["deberta-v2"].encoder(part.config).eval()
    load_encoder(encoder, part)
    ids, mask, layout, _ = padded(97, (40, 17))
    with torch.no_grad():
        expected = pair.theirs.deberta(**inputs(ids, mask)).last_hidden_state
        torch.testing.assert_close(encoder(ids, layout)[mask], expected[mask], rtol=1e-5, atol=1e-5)
        if head == "mlm":  # the names tell the layout of the head, whatever `legacy` says
            torch.testing.assert_close(load(part)(ids, layout)[mask], pair.their_logits(ids, mask), rtol=1e-5, atol=1e-5)
    save_file(state | {"mask_prediction.weight": torch.ones(2)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(KitaeError, match=r"no place in this model: mask_prediction\.weight"):
        read_parts(tmp_path)


def test_the_decoder_in_packed_rows():
    model = build_masked_lm(tiny(), torch.Generator().manual_seed(3)).eval()
    layout = packed(ROWS, 40)
    ids = torch.randint(5, 97, (4, 40)).masked_fill(~layout.mask_BL, 0)
    picks = torch.tensor([3, 14, 33, 50, 90])
    with torch.no_grad():
        whole = model(ids, layout)
        torch.testing.assert_close(model(ids, layout, None, picks), whole.flatten(0, 1)[picks], rtol=1e-5, atol=1e-5)
        for row, start, end in layout.spans():
            alone = model(ids[row : row + 1, start:end], padded(97, (end - start,))[2])
            torch.testing.assert_close(alone[0], whole[row, start:end], rtol=1e-5, atol=1e-5)


def test_a_model_with_the_decoder_is_an_encoder_to_transformers_and_whole_to_us(tmp_path, caplog):
    config = tiny()
    model = build_masked_lm(config, torch.Generator().manual_seed(3)).eval()
    write_huggingface(Part(family="deberta-v2", head="mlm", config=config, state=model.state_dict()), tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert {"lm_predictions.lm_head.dense.weight", "deberta.embeddings.position_embeddings.weight"} <= names  # Microsoft's names
    _, report = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    _, report = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert report["missing_keys"], "without the decoder the head would give other numbers: transformers must say that it lacks one"
    part = read_parts(tmp_path)["encoder"]
    assert (part.head, part.config) == ("mlm", config)
    ids, _, layout, _ = padded(97, (40, 17))
    with torch.no_grad():
        assert torch.equal(load(part)(ids, layout), model(ids, layout))


def test_a_pair_of_folders(tmp_path):
    architecture = resolve_preset("deberta-v3-tiny", {}, 97, 40)
    halves = {"generator": build_masked_lm(architecture.generator), "discriminator": build_discriminator(architecture.encoder)}
    for (name, model), head in zip(halves.items(), ("mlm", "rtd"), strict=True):
        write_huggingface(Part(family="deberta-v2", head=head, config=model.config, state=model.state_dict()), tmp_path / name)
    parts = read_parts(tmp_path)
    assert {name: part.head for name, part in parts.items()} == {"generator": "mlm", "discriminator": "rtd"}
    assert parts["generator"].config.num_hidden_layers == 2
    (tmp_path / "generator").rename(tmp_path / "g")
    (tmp_path / "discriminator").rename(tmp_path / "generator")
    with pytest.raises(KitaeError, match="generator/ holds a model with the head rtd"):
        read_parts(tmp_path)


def test_the_decoder_with_compiled_blocks():
    torch.compiler.reset()
    plain, compiled = (build_masked_lm(tiny(num_hidden_layers=4), torch.Generator().manual_seed(3)).train() for _ in range(2))
    compiled.encoder.compiled = True
    for block in compiled.encoder.blocks:
        block.compile(backend="aot_eager", fullgraph=True)
    ids, mask, layout, _ = padded(97, (40, 17))
    logits = []
    for model in (plain, compiled):
        torch.manual_seed(4)  # the same elements are dropped
        logits.append(model(ids, layout)[mask])
        logits[-1].square().sum().backward()
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-4)
    for (name, mine), other in zip(compiled.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-2, msg=lambda text, name=name: f"{name}: {text}")
