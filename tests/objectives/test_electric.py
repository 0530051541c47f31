"""Electric: worked by hand, at its edges, and that it learns; what a checkpoint of it holds."""

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from rows import SPECIAL, VOCAB, Fixed, batch, bert, electra
from torch import Tensor, nn
from torch.nn import functional as F

from kitae.core.errors import KitaeError
from kitae.models.folder import read_parts, write_huggingface, write_kitae
from kitae.objectives import table
from kitae.objectives.electric import ElectricConfig, ElectricObjective
from kitae.objectives.rtd import RtdConfig
from kitae.tensor.batch import Batch, Texts


def electric(**fields: object) -> ElectricObjective:
    made = table.build(electra(), ElectricConfig.model_validate(fields), SPECIAL, VOCAB, 1)
    assert isinstance(made, ElectricObjective)
    return made


class Known(nn.Module):
    """A generator with these logits whatever it sees."""

    known = None

    def __init__(self, logits_RV: Tensor) -> None:
        super().__init__()
        self.logits_RV, self.table_VE = logits_RV, torch.eye(VOCAB)
        self.head = SimpleNamespace(transform=lambda x_RE: x_RE, bias=torch.zeros(VOCAB))

    def read(self, *inputs: object) -> Tensor:
        return self.logits_RV


def worked(*, sample: str) -> tuple[ElectricObjective, Batch, Tensor]:
    """One text of 3 tokens, the second chosen; the generator gives its label 1/4 and token 9 3/4, the others are uniform over V."""
    objective = electric(rate=1 / 3)
    plain = batch([[3]], length=6)
    ids = torch.tensor([[SPECIAL.cls, 20, 21, 22, SPECIAL.sep, SPECIAL.pad]])
    prepared = objective.prepare(plain.replace(ids_BL=ids), 1)
    picks = torch.tensor([2])
    targets = dict(prepared.targets) | {"picks": picks, "slots": picks, "labels": torch.tensor([21])}
    targets["uniform"] = torch.tensor([0.01 if sample == "other" else 0.99], dtype=torch.float64)
    logits = torch.zeros(5, VOCAB)
    logits[2] = -1e4
    logits[2, 9], logits[2, 21] = math.log(3), 0.0
    objective.generator, objective.discriminator = Known(logits), Fixed(torch.tensor([[0.0, 0.5, 2.0, -1.0, 0.0, 7.0]]))
    return objective, prepared.replace(targets=targets), ids


@pytest.mark.parametrize("sample", ["other", "label"])
def test_a_hand_worked_loss(sample: str) -> None:
    objective, prepared, ids = worked(sample=sample)
    assert torch.equal(prepared.ids_BL, ids), "the generator sees the text as it is"
    cloze, nce = objective(prepared).terms
    assert (cloze.name, cloze.count, cloze.weight) == ("cloze", 3, 1.0)
    assert (nce.name, nce.count, nce.weight) == ("nce", 5, 50.0)
    assert float(cloze.sum) == pytest.approx(2 * math.log(VOCAB) + math.log(4), rel=1e-6)
    noised = ids.clone()
    noised[0, 2] = 9 if sample == "other" else 21
    assert torch.equal(objective.discriminator.seen.ids_BL, noised)
    odds = math.log((1 / 3) / (2 / 3))
    even = -math.log(VOCAB) + odds  # log q of a uniform guess
    chosen = math.log(3 / 4 if sample == "other" else 1 / 4) + odds
    expected = math.log1p(math.exp(-(2.0 + chosen)))  # noise, even where the sample equals the original
    expected += sum(math.log1p(math.exp(energy + even)) for energy in (0.0, 0.5, -1.0, 0.0))
    assert float(nce.sum) == pytest.approx(expected, rel=1e-6)
    scores = objective.summarize(objective.measure(prepared))
    assert scores["nce_loss"] == pytest.approx(expected / 5, rel=1e-6)
    assert scores["cloze_loss"] == pytest.approx(float(cloze.sum) / 3, rel=1e-6)


def test_a_rate_that_changes_changes_the_odds_of_noise() -> None:
    objective, prepared, _ = worked(sample="other")
    found = []
    for rate, progress in (([[0.0, 0.5], [1.0, 0.1]], 0.5), (0.3, 1.0)):
        objective.config = ElectricConfig.model_validate({"rate": rate})
        found.append(float(objective(dataclasses.replace(prepared, progress=progress)).terms[1].sum))
    assert found[0] == pytest.approx(found[1], rel=1e-12)


class Energies(nn.Module):
    """A discriminator with one energy a token, whatever stands around it."""

    def __init__(self, energies_V: Tensor) -> None:
        super().__init__()
        self.energies_V = nn.Parameter(energies_V)

    def forward(self, texts: Batch) -> Tensor:
        return self.energies_V[texts.ids_BL]


def test_energies_of_minus_log_p_are_where_the_loss_rests() -> None:
    """Texts of one token, by p; as many positions with noise, by q. Only at E = -log p, normalized, the gradient is zero."""
    p, q = torch.tensor([15, 10, 5]), torch.tensor([6, 9, 15])
    tokens = torch.tensor([20, 21, 22])
    objective = electric(rate=0.5)
    prepared = objective.prepare(batch([[1]] * 60, length=3), 1)
    ids = prepared.ids_BL.clone()
    ids[:, 1] = torch.cat([tokens.repeat_interleave(p), tokens[torch.arange(30) % 3]])  # what stands where noise goes does not matter
    picks = 3 * torch.arange(30, 60) + 1
    noise = (torch.arange(30, dtype=torch.float64) + 0.5) / 30
    targets = dict(prepared.targets) | {"picks": picks, "slots": picks, "labels": ids.flatten()[picks], "uniform": noise}
    logits = torch.full((180, VOCAB), -1e4)
    logits[:, tokens] = (q / 30).log()
    objective.generator = Known(logits)
    energies = torch.zeros(VOCAB)
    energies[tokens] = -(p / 30).log()
    objective.discriminator = Energies(energies)
    objective(prepared.replace(ids_BL=ids, targets=targets)).terms[1].sum.backward()
    gradient = objective.discriminator.energies_V.grad
    torch.testing.assert_close(gradient[tokens], torch.zeros(3), atol=2e-5, rtol=0)
    with torch.no_grad():
        objective.discriminator.energies_V[tokens] += 0.1
    gradient.zero_()
    objective(prepared.replace(ids_BL=ids, targets=targets)).terms[1].sum.backward()
    assert bool((gradient[tokens] > 0.1).all()), "too unlikely: the loss wants them lower"


def test_rows_beyond_the_vocabulary_are_neither_predicted_nor_taught() -> None:
    parts = table.build(electra(vocab=VOCAB + 12), ElectricConfig(), SPECIAL, VOCAB + 12, 1).parts()
    objective = table.load(parts, ElectricConfig(embedding_sharing="none"), SPECIAL, VOCAB).double()
    prepared = objective.prepare(batch([[20], [9]], length=24), 1)
    cloze = objective(prepared).terms[0].sum
    generator = objective.models()["generator"]
    with torch.no_grad():
        logits = generator.head(generator.encoder(Texts(prepared.ids_BL, prepared.layout)), generator.table_VE)
        words = prepared.words_BL >= 0
        expected = F.cross_entropy(logits[words][:, :VOCAB], prepared.ids_BL[words], reduction="sum")
    assert float(cloze.detach()) == pytest.approx(float(expected), rel=1e-12)
    cloze.backward()
    gradient = generator.encoder.embed.token.weight.grad
    assert gradient[:VOCAB].any()
    assert not gradient[VOCAB:].any()


@pytest.mark.parametrize("sharing", ["none", "disentangled"])
def test_each_loss_teaches_its_own_half(sharing: str) -> None:
    objective = electric(embedding_sharing=sharing)
    prepared = objective.prepare(batch([[20], [9]], length=24), 1)
    for number, (own, other) in enumerate((("generator", "discriminator"), ("discriminator", "generator"))):
        objective.zero_grad()
        objective(prepared).terms[number].sum.backward()
        found = {name: p.grad is not None and bool(p.grad.any()) for name, p in objective.named_parameters()}
        assert not any(any_gradient for name, any_gradient in found.items() if name.startswith(f"{other}."))
        assert any(any_gradient for name, any_gradient in found.items() if name.startswith(f"{own}."))


def test_noise_has_its_share_and_is_a_function_of_batch_and_seed() -> None:
    objective = electric(rate=0.25)
    plain = batch([[20, 18], [38]], length=42, step=3)
    prepared = objective.prepare(plain, 1)
    assert objective.counts(prepared) == {"cloze": 76, "nce": 82}
    assert len(prepared.targets["picks"]) == 19
    again = objective.prepare(plain, 1).targets
    assert all(torch.equal(value, again[name]) for name, value in prepared.targets.items())
    for other in (objective.prepare(plain, 2), objective.prepare(dataclasses.replace(plain, step=4), 1)):
        assert not any(torch.equal(other.targets[name], prepared.targets[name]) for name in ("picks", "labels", "uniform"))
    real = prepared.targets["real"]
    assert torch.equal(real.index_select(0, prepared.targets["slots"]), prepared.targets["picks"])
    plain.ids_BL[0, 5:8] = SPECIAL.unk
    assert objective.counts(objective.prepare(plain, 1)) == {"cloze": 73, "nce": 82}, "[UNK] has nothing to tell"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", ["all chosen", "a row with nothing to choose", "nothing chosen"])
def test_edges_are_finite(case: str, dtype: torch.dtype) -> None:
    objective = electric(rate=0.99 if case == "all chosen" else 0.15).to(dtype)
    rows = {"all chosen": [[14], [3, 9]], "a row with nothing to choose": [[], [14]], "nothing chosen": [[1], [1]]}[case]
    prepared = objective.prepare(batch(rows, length=18), 1)
    assert len(prepared.targets["picks"]) == {"all chosen": 26, "a row with nothing to choose": 2, "nothing chosen": 0}[case]
    total = objective(prepared).total(objective.counts(prepared))
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in objective.parameters())
    assert all(math.isfinite(score) for score in objective.summarize(objective.measure(prepared)).values())


def trained(texts: Batch, steps: int, learning_rate: float, **fields: object) -> ElectricObjective:
    objective = electric(**fields)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=learning_rate, weight_decay=0.0)
    for step in range(steps):
        prepared = objective.prepare(dataclasses.replace(texts, step=step), 1)
        optimizer.zero_grad()
        objective(prepared).total(objective.counts(prepared)).backward()
        optimizer.step()
    return objective.eval()


def test_32_sentences_are_learned_by_heart() -> None:
    texts = batch([[10]] * 32, length=12, seed=5)
    objective = trained(texts, 100, 5e-3, discriminator_weight=1.0)
    scores = objective.summarize(objective.measure(objective.prepare(texts, 2)))
    assert scores["cloze_accuracy"] > 0.95
    assert scores["nce_loss"] < 0.5  # nearly every sample is the original by now: that it is noise is a matter of its share


def test_sentences_learned_by_heart_are_likelier_than_shuffled_ones() -> None:
    """The generator stays as it is: one that knew the sentences by heart too would give no noise to tell them from."""
    texts = batch([[10]] * 8, length=12, seed=5)
    objective = trained(texts, 250, 3e-3, generator_weight=0.0, rate=0.5)
    random, shuffled = np.random.default_rng(1), texts.ids_BL.clone()
    for row in shuffled:
        row[1:11] = row[1:11][torch.from_numpy(random.permutation(10))]
    with torch.no_grad():
        real, mixed = (-objective.discriminator(Texts(ids, texts.layout))[:, 1:11].sum(dim=1) for ids in (texts.ids_BL, shuffled))
    assert bool((real > mixed + 3).all())
    assert objective.summarize(objective.measure(objective.prepare(texts, 2)))["nce_auc"] > 0.9


def test_a_checkpoint_holds_both_towers_and_starts_again(tmp_path: Path) -> None:
    objective = electric().eval()
    parts = objective.parts()
    assert tuple(parts[name].config.model_type for name in ("generator", "discriminator")) == ("electric", "electra")
    for tower in ("left", "right"):
        assert f"encoder.{tower}.blocks.1.qkv.weight" in parts["generator"].state
    write_kitae("generator", parts["generator"], tmp_path / "generator")
    write_huggingface(parts["discriminator"], tmp_path / "discriminator")
    again = table.load(read_parts(tmp_path), objective.config, SPECIAL, VOCAB).eval()
    prepared = objective.prepare(batch([[30], [20]], length=32), 1)
    for first, second in zip(objective(prepared).terms, again(prepared).terms, strict=True):
        assert float(first.sum) == float(second.sum)
    assert again.describe() == objective.describe()


def test_starts_and_settings_that_cannot_be_are_refused() -> None:
    parts = electric().parts()
    with pytest.raises(KitaeError, match='set objective = "electric"'):
        table.load(parts, RtdConfig(), SPECIAL, VOCAB)
    with pytest.raises(KitaeError, match="the generator is missing"):
        table.load({"discriminator": parts["discriminator"]}, ElectricConfig(), SPECIAL, VOCAB)
    with pytest.raises(KitaeError, match="no two towers"):
        table.load(table.build(electra(), RtdConfig(), SPECIAL, VOCAB, 1).parts(), ElectricConfig(), SPECIAL, VOCAB)
    with pytest.raises(KitaeError, match="no generator for the family"):
        table.build(bert(), ElectricConfig(), SPECIAL, VOCAB, 1)
    with pytest.raises(ValidationError, match="replacement has no effect"):
        ElectricConfig(replacement=(0.8, 0.1, 0.1))
    for rate in (1.0, ((0.0, 1.0), (1.0, 0.15))):
        with pytest.raises(ValidationError, match="leaves no token"):
            ElectricConfig(rate=rate)
