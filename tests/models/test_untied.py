"""Vocabulary heads with an output table of their own (tie_word_embeddings = false) against transformers'."""

import json

import pytest
import torch
import transformers
from model_pairs import CLASSES, make
from safetensors.torch import load_file

from kitae.core.errors import KitaeError
from kitae.models.cost import count_parameters
from kitae.models.families import FAMILIES, build_masked_lm
from kitae.models.folder import Part, load, read_parts, write_huggingface, write_kitae
from kitae.models.presets import resolve_preset

HEADS = [family for family, head in CLASSES if head == "mlm"]


@pytest.mark.parametrize("family", HEADS)
def test_logits_gradients_and_folders(family, tmp_path):
    """The random weights of the pair differ in everything that a tied model has once: both tables, and both names of the bias."""
    pair = make(family, "mlm", tmp_path / "theirs", tie_word_embeddings=False)
    assert not torch.equal(pair.ours.head.table, pair.ours.encoder.table_VE)
    pair.theirs.double()
    pair.ours.double()
    ids, mask, layout, kinds = pair.rows((40, 17))
    theirs, ours = pair.their_logits(ids, mask, kinds), pair.our_logits(ids, layout, kinds)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    weights = torch.randn(theirs.shape, dtype=torch.float64)
    for logits in (theirs, ours):
        (logits * weights).sum().backward()
    for mine, other in (
        (pair.ours.head.table, pair.theirs.get_output_embeddings().weight),
        (pair.ours.head.bias, pair.theirs.get_output_embeddings().bias),
        (pair.ours.encoder.table_VE, pair.theirs.get_input_embeddings().weight),
    ):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-6, atol=1e-6)
    write_huggingface(pair.part, tmp_path / "ours")
    again, report = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    segments = {} if kinds is None else {"token_type_ids": kinds}
    with torch.no_grad():
        torch.testing.assert_close(again.double().eval()(ids, mask.long(), **segments).logits[mask], theirs.detach(), rtol=1e-6, atol=1e-6)
        read = load(*read_parts(tmp_path / "ours").values()).double()
        torch.testing.assert_close(read(ids, layout, kinds)[mask], theirs.detach(), rtol=1e-6, atol=1e-6)


def test_bert_with_its_head_for_pairs(tmp_path):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, tie_word_embeddings=False
    )
    theirs = transformers.BertForPreTraining(config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    (part,) = read_parts(tmp_path / "theirs").values()
    write_huggingface(part, tmp_path / "ours")
    before, after = (load_file(tmp_path / which / "model.safetensors") for which in ("theirs", "ours"))
    assert set(before) == set(after)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items() if name != "cls.predictions.bias")


@pytest.mark.parametrize("family", HEADS)
def test_a_new_model_has_two_tables(family, tmp_path):
    name = {"deberta": "deberta-base", "xlm-roberta": "roberta-tiny", "camembert": "roberta-tiny"}.get(family, f"{family}-tiny")
    numbers = {"hidden_size": 64, "num_hidden_layers": 2}
    tied, untied = (resolve_preset(name, numbers | {"tie_word_embeddings": tie}, 300, 32).encoder for tie in (True, False))
    model = build_masked_lm(untied)
    width = untied.embedding_width
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in build_masked_lm(tied).parameters()) + 300 * width
    table, wanted = model.head.table, untied.initializer_range / (2 if family == "modernbert" else 1)  # there by 1 over root 2 x layers
    assert float(table.std()) == pytest.approx(0.88 * wanted, rel=0.02)  # a normal distribution cut at two deviations
    write_kitae("encoder", Part(family=untied.model_type, head="mlm", config=untied, state=model.state_dict()), tmp_path)
    (again,) = read_parts(tmp_path).values()
    assert torch.equal(again.state["head.table"], table)
    assert again.config == untied
    assert FAMILIES[family].heads["mlm"].output


def test_plan_counts_both_tables():
    tied, untied = (count_parameters(resolve_preset("bert-small", {"tie_word_embeddings": tie}, 32768, 128)) for tie in (True, False))
    assert untied.encoder - tied.encoder == 32768 * 256


def test_what_cannot_be_untied(tmp_path):
    for fields in ({"legacy": False}, {"enhanced_mask_decoder": True}):
        with pytest.raises(KitaeError, match="Microsoft's vocabulary head"):
            resolve_preset("deberta-v2-base", {"tie_word_embeddings": False, **fields}, 300, 64)
    with pytest.raises(KitaeError, match="tie_word_embeddings"):
        resolve_preset("character-bert-tiny", {"tie_word_embeddings": True}, 300, 64)
    pair = make("bert", "sequence", tmp_path, tie_word_embeddings=False)  # of no matter to a head without a vocabulary
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is False
    assert pair.part.head == "sequence"
