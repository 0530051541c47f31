"""The stage on a CUDA device; skipped where there is none."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_pretraining import losses, pretrain

from kitae.core.artifact import newest

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
EVEN = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_runs_are_equal_to_the_bit(tmp_path: Path, dataset: Path, precision: str) -> None:
    for name in ("a", "b"):
        pretrain(tmp_path / name, dataset, train={"device": "cuda", "precision": precision})
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    first, second = (load_file(newest(tmp_path / name) / "weights.safetensors") for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_agrees_with_the_cpu(tmp_path: Path, dataset: Path) -> None:
    pretrain(tmp_path / "cpu", dataset, config=EVEN)
    exact = losses(tmp_path / "cpu")
    for precision, tolerance in (("fp32", 1e-3), ("bf16", 0.02)):
        out = pretrain(tmp_path / precision, dataset, config=EVEN, train={"device": "cuda", "precision": precision})
        # the sampled replacements may differ where two probabilities are a rounding apart
        assert losses(tmp_path / precision) == pytest.approx(exact, rel=tolerance)
        assert out.counts["steps"] == 12


def test_compiled_run_agrees(tmp_path: Path, dataset: Path) -> None:
    common = {"device": "cuda", "precision": "bf16", "deterministic": False}
    pretrain(tmp_path / "plain", dataset, config=EVEN, train=common)
    for name, wanted in (("compiled", True), ("graphs", "graphs")):
        pretrain(tmp_path / name, dataset, config=EVEN, train={**common, "compile": wanted})
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "plain"), rel=0.02)
