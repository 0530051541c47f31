"""Activation checkpointing: gradients equal to the bit in every family, dropout included, for a part of the memory."""

from pathlib import Path

import pytest
import torch
from forms import FORMS, Texts, build
from safetensors.torch import load_file
from torch import Tensor

from kitae.models.encoder import Encoder
from kitae.objectives.protocol import Objective
from kitae.tensor.random import seed_dropout
from kitae.tensor.world import World
from kitae.train.config import TrainConfig
from kitae.train.loop import fit


def gradients(objective: Objective, form: str) -> tuple[Tensor, dict[str, Tensor], int]:
    """The loss of a micro-batch, its gradients, and the bytes that are kept for the backward pass outside of blocks that are recomputed."""
    prepared = objective.prepare(Texts(form).micro(3, 1), 1)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    seed_dropout(1, "dropout", 3, 1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = objective(prepared).total(objective.counts(prepared))
    total.backward()
    return total.detach(), {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}, sum(kept.values())


def encoders(objective: Objective) -> list[Encoder]:
    return [part for part in objective.modules() if isinstance(part, Encoder)]


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_equal_to_the_bit(form: str) -> None:
    plain, again = build(form).train(), build(form).train()
    for encoder in encoders(again):
        encoder.checkpoint_blocks()
    for objective in (plain, again):
        if form == "electra":  # nothing below the second block has a gradient
            for encoder in encoders(objective):
                encoder.embed.requires_grad_(False)
                encoder.blocks[0].requires_grad_(False)
    (loss, found, kept), (second, others, left) = gradients(plain, form), gradients(again, form)
    assert torch.equal(loss, second)
    assert found.keys() == others.keys()
    assert all(torch.equal(grad, others[name]) for name, grad in found.items())
    assert left < 0.75 * kept  # of tiny models, whose heads count for much


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_is_equal_to_the_bit(precision: str, tmp_path: Path) -> None:
    weights = []
    for wanted in (False, True):
        plain = {"length": "3 steps", "batch": "6 rows", "learning_rate": 1e-3, "precision": precision, "activation_checkpointing": wanted}
        config = TrainConfig.model_validate(plain | {"deterministic": True})
        fitted = fit(build("electra"), Texts("electra"), config, tmp_path / str(wanted), world=World(), seed=3, attach={})
        weights.append(load_file(fitted.checkpoint / "weights.safetensors"))
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
