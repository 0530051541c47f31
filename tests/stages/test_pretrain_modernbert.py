"""The stage pretrain with ModernBERT: it learns, goes on from transformers' folder, and has no half that it could lack."""

import shutil
from pathlib import Path

import pytest
from tiny_pretraining import losses, pretrain

from kitae.core.artifact import newest
from kitae.core.errors import KitaeError
from kitae.models.folder import read_parts, write_huggingface


def test_it_learns_and_goes_on_from_a_huggingface_folder(dataset: Path, tmp_path: Path) -> None:
    modern = {"model": "modernbert-tiny", "objective": "mlm", "objective_config": {"rate": 0.3}, "config": {"local_attention": 4}}
    longer = {"length": "25 steps", "save_every": "25 steps", "evaluate_every": "25 steps", "learning_rate": 1e-2}
    trained = pretrain(tmp_path / "pretrain", dataset, train=longer, **modern)
    seen = [float(str(loss)) for loss in losses(trained.path)]
    assert seen[-1] < seen[0] - 1.0
    place = newest(trained.path)
    part = read_parts(place)["encoder"]
    write_huggingface(part, tmp_path / "huggingface")
    shutil.copytree(place / "tokenizer", tmp_path / "huggingface", dirs_exist_ok=True)
    adapted = pretrain(tmp_path / "adapt", dataset, start=tmp_path / "huggingface", model=None, objective="mlm")
    assert float(str(losses(adapted.path)[0])) < seen[2]
    assert read_parts(newest(adapted.path))["encoder"].config == part.config


def test_what_it_cannot_learn(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match="needs a generator"):
        pretrain(tmp_path / "rtd", dataset, model="modernbert-tiny")
    with pytest.raises(KitaeError, match="for BERT, RoBERTa and ELECTRA only"):
        pretrain(tmp_path / "informed", dataset, model="modernbert-tiny", objective="mlm", initialization="informed")
