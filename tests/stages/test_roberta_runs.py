"""RoBERTa through the real stages: positions count from behind [PAD], wherever the vocabulary has it."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from tiny_pretraining import TOKENS, pretrain, write_dataset

from kitae.core.artifact import Inputs, Out, newest
from kitae.core.errors import KitaeError
from kitae.models.folder import load, read_parts
from kitae.models.roberta import RobertaConfig
from kitae.stages.export import ExportConfig
from kitae.stages.export import run as export
from kitae.tensor.batch import Layout, Texts

ELSEWHERE = ("[CLS]", "[UNK]", "[SEP]", "[PAD]", "[MASK]", *TOKENS[5:])
"""The same vocabulary with [PAD] at 3, as many sentencepiece models have it."""
TRAIN = {"length": "4 steps", "save_every": "4 steps", "evaluate_every": "4 steps"}


@pytest.mark.parametrize(("tokens", "pad"), [(TOKENS, 0), (ELSEWHERE, 3)])
def test_trained_exported_and_loaded_in_transformers(tokens, pad, tmp_path):
    dataset = write_dataset(tmp_path / "dataset", tokens=tokens)
    trained = pretrain(tmp_path / "pretrain", dataset, model="roberta-tiny", objective="mlm", train=TRAIN)
    place = newest(trained.path)
    part = read_parts(place)["encoder"]
    assert isinstance(part.config, RobertaConfig)
    assert (part.config.pad_token_id, part.config.positions, part.config.max_position_embeddings) == (pad, 32, 33 + pad)
    assert trained.counts["heldout"]["heldout/news/mlm_loss"] > 0  # type: ignore[index]
    out = Out(path=tmp_path / "export")
    out.path.mkdir()
    export(ExportConfig(), Inputs(parents={"pretrain": trained.path}, seed=1), out)
    folder = out.path / "pretrain"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs, report = transformers.AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    assert type(theirs) is transformers.RobertaForMaskedLM
    texts = ["w1 w2 [MASK] w4", " ".join(f"w{i % 60}" for i in range(50)), "w9"]
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    assert batch["input_ids"].shape == (3, 32), "the longest text fills the model"
    assert "token_type_ids" not in batch, "one kind of segment has no second row to look up"
    mask = batch["attention_mask"].bool()
    assert (batch["input_ids"][~mask] == pad).all()
    with torch.no_grad():
        expected = theirs.eval()(**batch).logits
        ours = load(part)(Texts(batch["input_ids"], Layout.padded(mask)))
        torch.testing.assert_close(ours[mask], expected[mask], rtol=1e-5, atol=1e-5)
        pairs = theirs(**tokenizer("w1 w2", "w3", return_tensors="pt")).logits
    assert torch.isfinite(pairs).all()
    again = read_parts(folder)["encoder"]
    assert again.config == part.config
    assert all(torch.equal(tensor, part.state[name]) for name, tensor in again.state.items())
    raw = json.loads((folder / "config.json").read_text())
    assert (raw["model_type"], raw["architectures"], raw["layer_norm_eps"]) == ("roberta", ["RobertaForMaskedLM"], 1e-5)


def test_continued_from_its_own_export_and_not_with_another_pad(tmp_path):
    dataset = write_dataset(tmp_path / "dataset", tokens=ELSEWHERE)
    trained = pretrain(tmp_path / "pretrain", dataset, model="roberta-tiny", objective="mlm", initialization="informed", train=TRAIN)
    out = Out(path=tmp_path / "export")
    out.path.mkdir()
    export(ExportConfig(), Inputs(parents={"pretrain": trained.path}, seed=1), out)
    adapted = pretrain(tmp_path / "adapt", dataset, start=out.path / "pretrain", model=None, objective="mlm", train=TRAIN)
    assert read_parts(newest(adapted.path))["encoder"].config == read_parts(newest(trained.path))["encoder"].config
    config = out.path / "pretrain" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"pad_token_id": 2}))
    with pytest.raises(KitaeError, match=r"the tokenizer's \[PAD\] is token 3, the model's is 2"):
        pretrain(tmp_path / "wrong", dataset, start=out.path / "pretrain", model=None, objective="mlm", train=TRAIN)


def test_too_long_texts_are_refused_by_positions_and_not_by_rows_of_the_table(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", tokens=ELSEWHERE)
    trained = pretrain(tmp_path / "pretrain", dataset, model="roberta-tiny", objective="mlm", train=TRAIN)
    longer = write_dataset(tmp_path / "longer", tokens=ELSEWHERE, max_length=34)
    with pytest.raises(KitaeError, match="the encoder has 32 positions, the data set's rows have 34"):
        pretrain(tmp_path / "adapt", longer, start=trained.path, model=None, objective="mlm", train=TRAIN)
