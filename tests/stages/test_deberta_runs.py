"""DeBERTa through the real stages: masked language modelling, and DeBERTaV3's pair with disentangled embeddings."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from tiny_pretraining import pretrain, write_dataset

from kitae.core.artifact import Inputs, Out, newest
from kitae.models.folder import load, read_parts
from kitae.stages.export import ExportConfig
from kitae.stages.export import run as export
from kitae.tensor.batch import Layout, Texts

TRAIN = {"length": "4 steps", "save_every": "4 steps", "evaluate_every": "4 steps"}
V3 = {"embedding_sharing": "disentangled", "optimizers": "separate", "discriminator_weight": 10.0, "replacement": [1.0, 0.0, 0.0]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "dataset")


def exported(trained: Out, folder: Path) -> Path:
    out = Out(path=folder / "export")
    out.path.mkdir()
    export(ExportConfig(), Inputs(parents={"pretrain": trained.path}, seed=1), out)
    return out.path / "pretrain"


def test_trained_exported_and_loaded_in_transformers(dataset: Path, tmp_path: Path) -> None:
    trained = pretrain(tmp_path / "pretrain", dataset, model="deberta-v2-tiny", objective="mlm", train=TRAIN)
    part = read_parts(newest(trained.path))["encoder"]
    folder = exported(trained, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs, report = transformers.AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    batch = tokenizer(["w1 w2 [MASK] w4", "w9"], padding=True, return_tensors="pt")
    mask = batch["attention_mask"].bool()
    with torch.no_grad():
        ours = load(part)(Texts(batch["input_ids"], Layout.padded(mask)))
        torch.testing.assert_close(ours[mask], theirs.eval()(**batch).logits[mask], rtol=1e-5, atol=1e-5)
    adapted = pretrain(tmp_path / "adapt", dataset, start=folder, model=None, objective="mlm", train=TRAIN)
    assert read_parts(newest(adapted.path))["encoder"].config == part.config


def test_a_pair_with_disentangled_embeddings(dataset: Path, tmp_path: Path) -> None:
    trained = pretrain(tmp_path / "pretrain", dataset, model="deberta-v3-tiny", objective="rtd", objective_config=V3, train=TRAIN)
    assert trained.counts["heldout"]["heldout/news/rtd_loss"] > 0  # type: ignore[index]
    parts = read_parts(newest(trained.path))
    folder = exported(trained, tmp_path)
    said = (folder / "discriminator" / "README.md").read_text(encoding="utf-8")
    assert "AutoModel." in said
    assert "reads the encoder alone" in said
    for name in ("generator", "discriminator"):
        theirs = transformers.AutoModel.from_pretrained(folder / name).eval()
        assert type(theirs) is transformers.DebertaV2Model
        ids = torch.arange(5, 25)[None]
        mask = torch.ones_like(ids, dtype=torch.bool)
        with torch.no_grad():
            ours = load(parts[name]).encoder(Texts(ids, Layout.padded(mask)))
            torch.testing.assert_close(ours, theirs(input_ids=ids).last_hidden_state, rtol=1e-5, atol=1e-5)
    again = read_parts(folder)
    for name, part in parts.items():
        assert all(torch.equal(tensor, part.state[key]) for key, tensor in again[name].state.items())
    assert json.loads((folder / "generator" / "config.json").read_text())["enhanced_mask_decoder"] is True
    adapted = pretrain(tmp_path / "adapt", dataset, start=folder, model=None, objective="rtd", objective_config=V3, train=TRAIN)
    assert set(read_parts(newest(adapted.path))) == {"generator", "discriminator"}
