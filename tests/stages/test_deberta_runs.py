"""DeBERTa through the real stages: masked language modelling, and DeBERTaV3's pair with disentangled embeddings."""

import json
from pathlib import Path

import torch
import transformers
from tiny_pretraining import losses, pretrain

from kitae.core.artifact import Inputs, Out, newest
from kitae.models.families import build_discriminator
from kitae.models.folder import Part, load, read_parts, write_huggingface
from kitae.models.presets import resolve_preset
from kitae.stages.export import ExportConfig
from kitae.stages.export import run as export
from kitae.tensor.batch import Layout
from kitae.tokenization.tokenizer import Tokenizer

TRAIN = {"length": "4 steps", "save_every": "4 steps", "evaluate_every": "4 steps"}
V3 = {"embedding_sharing": "disentangled", "optimizers": "separate", "discriminator_weight": 10.0, "replacement": [1.0, 0.0, 0.0]}


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
        ours = load(part)(batch["input_ids"], Layout.padded(mask))
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
            ours = load(parts[name]).encoder(ids, Layout.padded(mask))
            torch.testing.assert_close(ours, theirs(input_ids=ids).last_hidden_state, rtol=1e-5, atol=1e-5)
    again = read_parts(folder)
    for name, part in parts.items():
        assert all(torch.equal(tensor, part.state[key]) for key, tensor in again[name].state.items())
    assert json.loads((folder / "generator" / "config.json").read_text())["enhanced_mask_decoder"] is True
    settings = {"model": None, "objective": "rtd", "objective_config": V3, "train": TRAIN}
    adapted = pretrain(tmp_path / "adapt", dataset, start=folder, **settings)
    halves = pretrain(tmp_path / "halves", dataset, start=folder / "discriminator", start_generator=str(folder / "generator"), **settings)
    assert set(read_parts(newest(adapted.path))) == {"generator", "discriminator"}
    assert losses(halves.path) == losses(adapted.path)


def test_a_discriminator_alone_gets_a_generator(dataset: Path, tmp_path: Path) -> None:
    """One as Microsoft published it, whose config.json says nothing of the decoder that all their generators have."""
    encoder = resolve_preset(
        "deberta-v3-tiny", {"enhanced_mask_decoder": False, "generator": {"enhanced_mask_decoder": True}}, 65, 32
    ).encoder
    model = build_discriminator(encoder)
    write_huggingface(Part(family="deberta-v2", head="rtd", config=model.config, state=model.state_dict()), tmp_path / "start")
    Tokenizer.load(dataset / "tokenizer").save(tmp_path / "start")
    regrow = {"length": "4 steps"}
    out = pretrain(tmp_path / "adapt", dataset, start=tmp_path / "start", model=None, objective_config=V3, regrow=regrow, train=TRAIN)
    before, after = read_parts(tmp_path / "start")["discriminator"], read_parts(newest(out.path))["generator"].config
    assert (after.hidden_size, after.num_hidden_layers, after.enhanced_mask_decoder) == (64, 2, True)  # type: ignore[attr-defined]
    (grown,) = read_parts(newest(out.path / "regrow")).values()
    assert torch.equal(grown.state["encoder.embed.token.weight"], before.state["encoder.embed.token.weight"])
    assert not torch.equal(grown.state["encoder.embed_norm.weight"], before.state["encoder.embed_norm.weight"]), "each half's own"
