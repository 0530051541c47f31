"""Published models whose tables have more rows than the vocabulary has tokens, and those that have fewer."""

import logging
from pathlib import Path

import pytest
import torch
from tiny_pretraining import TOKENS, pretrain

from kitae.core.artifact import newest
from kitae.core.errors import KitaeError
from kitae.models.families import build_discriminator, build_headed, build_masked_lm
from kitae.models.folder import Part, read_parts, write_huggingface
from kitae.models.presets import resolve_preset
from kitae.tensor.batch import Layout
from kitae.tokenization.tokenizer import Tokenizer

ROWS = 128
"""Rows of the padded tables; the vocabulary has 65 tokens."""
TRAIN = {"length": "4 steps", "save_every": "4 steps", "evaluate_every": "4 steps", "weight_decay": 0.0}


def starts(folder: Path, dataset: Path, *, preset: str, rows: int) -> Path:
    """A Hugging Face folder of a preset with so many rows and the data set's tokenizer; surplus tokens are likely."""
    architecture = resolve_preset(preset, {}, rows, 32)
    parts = {"encoder" if architecture.generator is None else "generator": build_masked_lm(architecture.generator or architecture.encoder)}
    if architecture.generator is not None:
        parts["discriminator"] = build_discriminator(architecture.encoder)
    for name, model in parts.items():
        if name != "discriminator":
            with torch.no_grad():
                model.head.bias[len(TOKENS) :] = 20.0
        head = "rtd" if name == "discriminator" else "mlm"
        place = folder if len(parts) == 1 else folder / name
        write_huggingface(Part(family=architecture.family, head=head, config=model.config, state=model.state_dict()), place)
        Tokenizer.load(dataset / "tokenizer").save(place)
    return folder


@pytest.mark.parametrize("preset", ["bert-tiny", "roberta-tiny", "electra-tiny"])
def test_rows_beyond_the_vocabulary_are_neither_predicted_nor_taught(preset, dataset, tmp_path, caplog):
    start = starts(tmp_path / "start", dataset, preset=preset, rows=ROWS)
    before = read_parts(start)
    objective = "rtd" if preset.startswith("electra") else "mlm"
    settings = {"objective_config": {"embedding_sharing": "none"}} if objective == "rtd" else {}
    with caplog.at_level(logging.INFO):
        trained = pretrain(tmp_path / "adapt", dataset, start=start, model=None, objective=objective, train=TRAIN, **settings)
    assert "has 128 rows for 65 tokens: the others stay unused" in caplog.text
    scores = trained.counts["heldout"]
    assert scores["heldout/news/mlm_loss"] < 10, "surplus tokens, of which the biases are 20, would take all the probability"
    after = read_parts(newest(trained.path))
    for name, part in before.items():
        table, later = part.state["encoder.embed.token.weight"], after[name].state["encoder.embed.token.weight"]
        assert later.shape == table.shape
        assert torch.equal(later[len(TOKENS) :], table[len(TOKENS) :]), name
        assert not torch.equal(later[: len(TOKENS)], table[: len(TOKENS)]), name


def test_logits_end_with_the_vocabulary():
    model = build_headed(resolve_preset("bert-tiny", {}, ROWS, 32).encoder, "pretraining").eval()
    ids, layout = torch.randint(5, 65, (2, 9)), Layout.padded(torch.ones(2, 9, dtype=torch.bool))
    with torch.no_grad():
        whole = model(ids, layout, None, torch.tensor([3, 12]))
        model.known = 65
        assert torch.equal(model(ids, layout, None, torch.tensor([3, 12])), whole[:, :65])
        assert torch.equal(model.with_order(ids, layout, None, torch.tensor([3, 12]), torch.tensor([0]))[0], whole[:, :65])


@pytest.mark.parametrize("preset", ["bert-tiny", "electra-tiny"])
def test_fewer_rows_than_tokens_are_refused(preset, dataset, tmp_path):
    start = starts(tmp_path / "start", dataset, preset=preset, rows=64)
    with pytest.raises(KitaeError, match="knows 64 tokens, the data set's tokenizer has 65"):
        pretrain(tmp_path / "adapt", dataset, start=start, model=None, objective="rtd" if preset == "electra-tiny" else "mlm", train=TRAIN)
