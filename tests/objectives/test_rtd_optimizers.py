"""Every rule on a real generator and discriminator: optimizers apart, frozen layers, shared and disentangled tables, resuming."""

from pathlib import Path

import pytest
import torch
from rows import SPECIAL, VOCAB, batch, electra

from kitae.models.folder import read_parts
from kitae.objectives import table
from kitae.objectives.rtd import RtdConfig, RtdObjective
from kitae.tensor.random import seed_dropout
from kitae.train.checkpoint import Content, State, load, save, tensors
from kitae.train.config import TrainConfig
from kitae.train.optimizer import Optimizer

PLAIN = torch.device("cpu")
EMBED = "encoder.embed."


def made(rule: str, sharing: str) -> tuple[RtdObjective, Optimizer]:
    config = RtdConfig.model_validate({"embedding_sharing": sharing, "optimizers": "separate", "generator_learning_rate": 2e-3})
    objective = table.build(electra(), config, SPECIAL, VOCAB, 1)
    assert isinstance(objective, RtdObjective)
    settings = {"length": "3 steps", "precision": "bf16", "learning_rate": 1e-3, "freeze": {"embeddings": True, "layers": 1}}
    groups = objective.groups()
    return objective, Optimizer(objective, TrainConfig.model_validate(settings | {"optimizer": rule}), PLAIN, groups=groups)


def steps(objective: RtdObjective, optimizer: Optimizer, numbers: range) -> None:
    for step in numbers:
        prepared = objective.prepare(batch([[30], [17]], length=32, seed=step, step=step), 1)
        seed_dropout(1, "dropout", step, 0)
        optimizer.start_gradient()
        objective(prepared).total(objective.counts(prepared)).backward()
        optimizer.gradient()
        optimizer.clip()
        optimizer.step(1e-3)


@pytest.mark.parametrize(("rule", "sharing"), [("adamw", "disentangled"), ("lamb", "shared"), ("muon", "shared"), ("muon", "disentangled")])
def test_both_halves_train_above_their_frozen_layers_and_resume_to_the_bit(rule: str, sharing: str, tmp_path: Path) -> None:
    objective, optimizer = made(rule, sharing)
    before = {name: weight.clone() for name, weight in optimizer.weights().items()}
    steps(objective, optimizer, range(2))
    for name, weight in optimizer.weights().items():
        half, rest = name.split(".", 1)
        assert half in ("generator", "discriminator")
        still = rest.startswith((EMBED, "encoder.project.", "encoder.blocks.0."))
        assert torch.equal(weight, before[name]) == still, name
    weights, state = tensors(objective, optimizer.weights()), State(step=2, tokens_seen=0, seconds=0.0, world_size=1, seed=1, config={})
    model, averages = objective.describe(), optimizer.state()
    place = save(tmp_path, Content(weights=weights, optimizer=averages, model=model, state=state, permanent=frozenset()), {})
    token = f"{EMBED}token.weight"
    for part in read_parts(place).values():
        assert torch.equal(part.state[token], before[f"generator.{token}"]), "exact, not as it is in bf16"
    steps(objective, optimizer, range(2, 4))
    again, resumed = made(rule, sharing)
    load(place, again, resumed)
    steps(again, resumed, range(2, 4))
    for mine, theirs in ((resumed.weights(), optimizer.weights()), (resumed.state(), optimizer.state())):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
