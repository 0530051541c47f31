"""The stage pretrain with the settings of DeBERTaV3, and with uniform replacements: resumed, exported, adapted."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_pretraining import losses, pretrain

from kitae.core.artifact import checkpoints, newest
from kitae.core.errors import Stopped
from kitae.data.sampler import Sampler
from kitae.models.folder import read_parts

V3 = {
    "embedding_sharing": "disentangled", "optimizers": "separate", "generator_learning_rate": 1e-3, "discriminator_weight": 10.0,
    "replacement": [1.0, 0.0, 0.0],
}  # fmt: skip


def test_the_form_of_deberta_goes_on_bit_equal_and_can_be_adapted(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"objective_config": V3, "initialization": "informed", "config": {"generator": {"layers": 1}}}
    train = {"precision": "bf16", "length": "8 steps"}
    whole = pretrain(tmp_path / "whole", dataset, train=train, **settings)
    micro = Sampler.micro

    def stopping(self: Sampler, step: int, number: int):
        if (step, number) == (5, 1):
            signal.raise_signal(signal.SIGTERM)
        return micro(self, step, number)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Sampler, "micro", stopping)
        pretrain(tmp_path / "cut", dataset, train=train, **settings)
    shutil.rmtree(checkpoints(tmp_path / "cut")[-1])  # back to step 4, as after a kill
    cut = pretrain(tmp_path / "cut", dataset, train=train, **settings)
    assert losses(cut.path) == losses(whole.path)
    for name in ("weights.safetensors", "optimizer.safetensors"):
        assert (newest(cut.path) / name).read_bytes() == (newest(whole.path) / name).read_bytes()

    stored = load_file(newest(whole.path) / "weights.safetensors")
    token = stored["generator.encoder.embed.token.weight"] + stored["discriminator.encoder.embed.token.delta"]
    parts = read_parts(newest(whole.path))
    assert torch.equal(parts["discriminator"].state["encoder.embed.token.weight"], token)
    assert parts["generator"].config.num_hidden_layers == 1
    small = {"length": "1 step", "learning_rate": 1e-9}
    adapted = pretrain(tmp_path / "adapted", dataset, start=whole.path, objective_config={"embedding_sharing": "shared"}, train=small)
    after = read_parts(newest(adapted.path))["generator"].state["encoder.embed.token.weight"]
    torch.testing.assert_close(after, token, rtol=0, atol=1e-8)


def test_uniform_replacements_leave_a_discriminator_that_can_be_adapted(dataset: Path, tmp_path: Path) -> None:
    settings = {"objective_config": {"uniform_generator": True}, "train": {"length": "2 steps"}}
    made = pretrain(tmp_path / "uniform", dataset, **settings)
    place = newest(made.path)
    assert set(read_parts(place)) == {"discriminator"}
    assert set(json.loads((place / "model.json").read_text())) == {"format", "parts"}
    assert float(str(made.counts["flops_per_token"])) > 0
    assert "heldout/news/rtd_auc" in made.counts["heldout"]  # type: ignore[operator]
    again = pretrain(tmp_path / "again", dataset, start=made.path, **settings)
    assert set(read_parts(newest(again.path))) == {"discriminator"}
    regrown = pretrain(tmp_path / "with", dataset, start=made.path, train={"length": "2 steps"})
    assert set(read_parts(newest(regrown.path))) == {"generator", "discriminator"}
