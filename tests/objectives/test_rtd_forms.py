"""Forms of replaced token detection: disentangled embeddings, uniform replacements, wrong tokens only, smoothed labels, two optimizers."""

import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from rows import SPECIAL, VOCAB, batch, bert, electra
from torch import nn
from torch.nn import functional as F

from kitae.core.errors import KitaeError
from kitae.models.folder import read_parts, write_huggingface
from kitae.models.informed import inform
from kitae.models.presets import Architecture, resolve_preset
from kitae.objectives import table
from kitae.objectives.detection import binary_losses, uniform_ids
from kitae.objectives.rtd import RtdConfig, RtdObjective
from kitae.tensor.batch import Texts
from kitae.train.checkpoint import Content, State, load, save, tensors
from kitae.train.config import TrainConfig
from kitae.train.optimizer import Optimizer

SHARED = "encoder.embed."
PLAIN = torch.device("cpu")


def rtd(**fields: object) -> RtdObjective:
    made = table.build(electra(), RtdConfig.model_validate(fields), SPECIAL, VOCAB, 1)
    assert isinstance(made, RtdObjective)
    return made


def train_config(precision: str) -> TrainConfig:
    return TrainConfig.model_validate({"length": "3 steps", "precision": precision, "learning_rate": 1e-3})


def steps(objective: RtdObjective, optimizer: Optimizer, numbers: range) -> None:
    for step in numbers:
        prepared = objective.prepare(batch([[30], [17]], length=32, seed=step, step=step), 1)
        optimizer.start_gradient()
        objective(prepared).total(objective.counts(prepared)).backward()
        optimizer.gradient()
        optimizer.clip()
        optimizer.step(1e-3)


def deberta() -> Architecture:
    """Embeddings that are narrower than the states, and position tables, which the presets do not have."""
    small = {
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "embedding_size": 32,
        "position_biased_input": True,
        "enhanced_mask_decoder": False,
    }
    return resolve_preset("deberta-v3-tiny", {**small, "generator": {"fraction": 0.5}}, VOCAB, 64)


@pytest.mark.parametrize("architecture", [electra(), deberta()], ids=["electra", "deberta"])
@pytest.mark.parametrize("sharing", ["shared", "disentangled", "none"])
def test_where_the_discriminators_gradient_goes(sharing: str, architecture: Architecture) -> None:
    config = RtdConfig(embedding_sharing=sharing, document_weight=1.0)
    objective = table.build(architecture, config, SPECIAL, VOCAB, 1)
    assert isinstance(objective, RtdObjective)
    prepared = objective.prepare(batch([[30]], length=32), 1)
    terms = {term.name: term.sum for term in objective(prepared).terms}
    (terms["rtd"] + terms["document"]).backward()
    found = {name: p.grad is not None and bool(p.grad.any()) for name, p in objective.named_parameters()}
    into_generator = [name for name, any_gradient in found.items() if any_gradient and name.startswith("generator.")]
    if sharing == "shared":
        assert f"generator.{SHARED}token.weight" in into_generator
        assert all(name.startswith(f"generator.{SHARED}") for name in into_generator)
    else:
        assert not into_generator
    if sharing == "disentangled":
        assert found[f"discriminator.{SHARED}token.delta"]
        assert found[f"discriminator.{SHARED}position.delta"]
        assert f"discriminator.{SHARED}token.weight" not in found


def test_the_difference_starts_at_zero_and_the_generator_moves_the_discriminators_table() -> None:
    objective = rtd(embedding_sharing="disentangled")
    generator, own = objective.generator.encoder.embed, objective.discriminator.encoder.embed
    for name in ("token", "position"):
        assert not getattr(own, name).delta.any()
        assert torch.equal(getattr(own, name).weight, getattr(generator, name).weight)
    assert own.segment is not generator.segment
    assert own.norm is not generator.norm
    with torch.no_grad():
        generator.token.weight[7] += 1.0
        own.token.delta[8] += 2.0
    expected = generator.token.weight.clone()
    expected[8] += 2.0
    assert torch.equal(own.token.weight, expected)
    inform(objective.models().values(), torch.zeros(VOCAB))
    assert torch.equal(own.position.weight, generator.position.weight)


def test_a_disentangled_step_by_hand() -> None:
    """What the discriminator's table loses in a plain gradient step is the generator's step plus its own."""
    objective = rtd(embedding_sharing="disentangled", discriminator_weight=3.0).double()
    prepared = objective.prepare(batch([[30]], length=32), 1)
    total = objective(prepared).total(objective.counts(prepared))
    before = objective.discriminator.encoder.table_VE.detach().clone()
    delta, base = objective.discriminator.encoder.embed.token.delta, objective.generator.encoder.embed.token.weight
    gradients = torch.autograd.grad(total, (delta, base))
    with torch.no_grad():
        delta -= 0.1 * gradients[0]
        base -= 0.1 * gradients[1]
    expected = before - 0.1 * (gradients[0] + gradients[1])
    torch.testing.assert_close(objective.discriminator.encoder.table_VE, expected, atol=1e-15, rtol=0)
    assert gradients[0].any()
    assert gradients[1].any()


def saved(folder: Path, module: nn.Module, optimizer: Optimizer, *, step: int) -> Path:
    state = State(step=step, tokens_seen=0, seconds=0.0, world_size=1, seed=1, config={})
    weights = tensors(module, optimizer.weights())
    return save(
        folder, Content(weights=weights, optimizer=optimizer.state(), model=module.describe(), state=state, permanent=frozenset()), {}
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_disentangled_checkpoint_resumes_bit_equal_and_reads_as_whole_tables(precision: str, tmp_path: Path) -> None:
    whole = rtd(embedding_sharing="disentangled")
    through = Optimizer(whole, train_config(precision), PLAIN)
    steps(whole, through, range(2))
    place = saved(tmp_path, whole, through, step=2)
    steps(whole, through, range(2, 4))

    again = rtd(embedding_sharing="disentangled")
    optimizer = Optimizer(again, train_config(precision), PLAIN)
    load(place, again, optimizer)
    exact = {name: value.clone() for name, value in optimizer.weights().items()}
    steps(again, optimizer, range(2, 4))
    for name, value in through.weights().items():
        assert torch.equal(value, optimizer.weights()[name]), name

    parts = read_parts(place)
    sums = {
        name: exact[f"generator.{SHARED}{name}.weight"] + exact[f"discriminator.{SHARED}{name}.delta"] for name in ("token", "position")
    }
    for name, expected in sums.items():
        assert torch.equal(parts["discriminator"].state[f"{SHARED}{name}.weight"], expected)
        assert not torch.equal(expected, exact[f"generator.{SHARED}{name}.weight"])
    write_huggingface(parts["discriminator"], tmp_path / "hf")
    exported = read_parts(tmp_path / "hf")["discriminator"]
    assert torch.equal(exported.state[f"{SHARED}token.weight"], sums["token"])
    adapted = table.load(parts, RtdConfig(embedding_sharing="disentangled"), SPECIAL, VOCAB)
    torch.testing.assert_close(adapted.models()["discriminator"].encoder.table_VE, sums["token"], atol=1e-7, rtol=0)
    assert adapted.models()["discriminator"].encoder.embed.token.delta.any()
    again = adapted.parts()["discriminator"].state[f"{SHARED}token.weight"]
    torch.testing.assert_close(again, sums["token"], atol=1e-7, rtol=0)
    assert torch.equal(adapted.parts()["discriminator"].state[f"{SHARED}norm.weight"], exact[f"discriminator.{SHARED}norm.weight"])


def test_a_checkpoint_without_its_difference_is_refused(tmp_path: Path) -> None:
    objective = rtd(embedding_sharing="disentangled")
    optimizer = Optimizer(objective, train_config("fp32"), PLAIN)
    place = saved(tmp_path, objective, optimizer, step=1)
    described = (place / "model.json").read_text()
    assert '"discriminator.encoder.embed.token": "generator.encoder.embed.token"' in described
    (place / "model.json").write_text(described.replace('"generator.encoder.embed.token"', '"generator.encoder.embed.tokens"'))
    with pytest.raises(KitaeError, match="discriminator.encoder.embed.token.delta or what it adds to is missing"):
        read_parts(place)


def test_uniform_replacements_need_no_generator() -> None:
    objective = rtd(uniform_generator=True, rate=0.5)
    assert objective.generator is None
    assert set(objective.parts()) == {"discriminator"}
    prepared = objective.prepare(batch([[4]], length=8), 1)
    picks, labels = prepared.targets["picks"], prepared.targets["labels"]
    ids, replaced = objective.corrupted(prepared)
    drawn = [int(u * VOCAB) for u in prepared.targets["uniform"].tolist()]
    assert ids[0, picks].tolist() == drawn
    assert replaced[0, picks].tolist() == [a != b for a, b in zip(drawn, labels.tolist(), strict=True)]
    assert objective.counts(prepared) == {"rtd": 6}
    (term,) = objective(prepared).terms
    logits = objective.discriminator(Texts(ids, prepared.layout))
    expected = F.binary_cross_entropy_with_logits(logits[0, :6], replaced[0, :6].float(), reduction="sum")
    assert float(term.sum) == pytest.approx(float(expected), rel=1e-6)
    assert "mlm_loss" not in objective.summarize(objective.measure(prepared))
    again = table.load(rtd().parts(), RtdConfig(uniform_generator=True), SPECIAL, VOCAB)
    assert set(again.models()) == {"discriminator"}
    assert set(table.load(objective.parts(), RtdConfig(uniform_generator=True), SPECIAL, VOCAB).models()) == {"discriminator"}


def test_uniform_draws_cover_the_vocabulary_evenly_and_may_leave_the_label_out() -> None:
    uniform = (torch.arange(1200, dtype=torch.float64) + 0.5) / 1200
    labels = torch.full((1200,), 3)
    assert torch.bincount(uniform_ids(uniform, labels, 6, wrong_only=False)).tolist() == [200] * 6
    assert torch.bincount(uniform_ids(uniform, labels, 6, wrong_only=True)).tolist() == [240, 240, 240, 0, 240, 240]
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert uniform_ids(ends, torch.tensor([0, 5]), 6, wrong_only=True).tolist() == [1, 4]


@pytest.mark.parametrize("uniform", [False, True])
def test_correct_tokens_can_be_disallowed(uniform: bool) -> None:
    objective = rtd(disallow_correct=True, rate=0.5, uniform_generator=uniform)
    prepared = objective.prepare(batch([[30], [17]], length=32), 1)
    if not uniform:
        with torch.no_grad():  # certain of one token that is often right
            objective.generator.head.bias[int(prepared.targets["labels"][0])] = 1e4
    replaced = objective.corrupted(prepared)[1].flatten()
    assert bool(replaced[prepared.targets["picks"]].all())
    assert int(replaced.sum()) == len(prepared.targets["picks"])


def test_the_temperature_flattens_what_is_sampled_and_not_the_loss() -> None:
    plain, hot = rtd(rate=1.0), rtd(rate=1.0, temperature=1e6)
    with torch.no_grad():
        for objective in (plain, hot):
            objective.generator.head.bias[7] = 50.0
    prepared = plain.prepare(batch([[30], [17]], length=32), 1)
    assert (plain.corrupted(prepared)[0].flatten()[prepared.targets["picks"]] == 7).all()
    drawn = [int(u * VOCAB) for u in prepared.targets["uniform"].tolist()]
    assert hot.corrupted(prepared)[0].flatten()[prepared.targets["picks"]].tolist() == drawn, "so hot that all tokens are equally likely"
    assert torch.equal(plain(prepared).terms[0].sum, hot(prepared).terms[0].sum)


def test_smoothed_labels_by_hand() -> None:
    logits = torch.tensor([math.log(3), math.log(3)])  # replaced: 3/4
    losses = binary_losses(logits, torch.tensor([True, False]), smoothing=0.2)
    expected = [0.9 * math.log(4 / 3) + 0.1 * math.log(4), 0.1 * math.log(4 / 3) + 0.9 * math.log(4)]
    assert losses.tolist() == pytest.approx(expected)
    plain, smoothed = rtd(), rtd(discriminator_label_smoothing=0.2)
    prepared = plain.prepare(batch([[30]], length=32), 1)
    assert float(plain(prepared).terms[1].sum) != float(smoothed(prepared).terms[1].sum)
    assert plain.measure(prepared)["rtd_sum"] == smoothed.measure(prepared)["rtd_sum"], "scores are without it"


def test_the_generators_targets_can_be_smoothed_too() -> None:
    plain, smoothed = rtd(), rtd(generator_label_smoothing=0.2)
    prepared = plain.prepare(batch([[30]], length=32), 1)
    logits = plain.generator(prepared, prepared.targets["picks"])
    expected = F.cross_entropy(logits, prepared.targets["labels"], reduction="sum", label_smoothing=0.2)
    assert float(smoothed(prepared).terms[0].sum) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert torch.equal(smoothed.corrupted(prepared)[0], plain.corrupted(prepared)[0]), "samples know nothing of it"
    assert plain.measure(prepared)["mlm_sum"] == smoothed.measure(prepared)["mlm_sum"], "scores are without it"


def test_separate_optimizers_are_the_halves() -> None:
    assert rtd().groups() == ()
    generator, discriminator = rtd(optimizers="separate", generator_learning_rate=0.5).groups()
    assert (generator.name, generator.learning_rate, discriminator.learning_rate) == ("generator", 0.5, None)
    objective = rtd(optimizers="separate")
    names = {name for name, _ in objective.named_parameters()}
    assert generator.parameters | discriminator.parameters == names
    assert not generator.parameters & discriminator.parameters
    assert f"generator.{SHARED}token.weight" in generator.parameters, "shared tables go with the generator"


FORMS = {
    "disentangled": {"embedding_sharing": "disentangled"},
    "uniform": {"uniform_generator": True},
    "wrong only": {"disallow_correct": True, "temperature": 2.0},
    "smoothed": {"discriminator_label_smoothing": 0.1},
    "generator at rest": {"generator_weight": 0.0},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", ["all masked", "a row with nothing to mask", "nothing masked"])
def test_edges_of_the_forms_are_finite(form: str, case: str) -> None:
    objective = rtd(rate=1.0 if case == "all masked" else 0.15, document_weight=1.0, **FORMS[form])
    rows = {"all masked": [[14], [3, 9]], "a row with nothing to mask": [[], [14]], "nothing masked": [[1], [1]]}[case]
    prepared = objective.prepare(batch(rows, length=18), 1)
    total = objective(prepared).total(objective.counts(prepared))
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in objective.parameters())
    assert all(math.isfinite(score) for score in objective.summarize(objective.measure(prepared)).values())


@pytest.mark.parametrize(
    "rows", [[[14], [3, 9]], [[], [14]], [[1], [1]]], ids=["all masked", "a row with nothing to mask", "nothing masked"]
)
def test_edges_of_a_pair_of_deberta_are_finite(rows: list[list[int]]) -> None:
    """Its generator's head reads the enhanced mask decoder, its discriminator's the beginning of every piece."""
    rate = 1.0 if rows[1:] == [[3, 9]] else 0.15
    config = RtdConfig(rate=rate, embedding_sharing="disentangled", optimizers="separate", replacement=(1.0, 0.0, 0.0))
    objective = table.build(resolve_preset("deberta-v3-tiny", {}, VOCAB, 18), config, SPECIAL, VOCAB, 1)
    prepared = objective.prepare(batch(rows, length=18), 1)
    assert objective.counts(prepared)["mlm"] == {1: 26, 0.15: 2 * (rows[0] == [])}[rate]
    total = objective(prepared).total(objective.counts(prepared))
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in objective.parameters())
    assert all(math.isfinite(score) for score in objective.summarize(objective.measure(prepared)).values())


@pytest.mark.parametrize("form", FORMS)
def test_32_sentences_are_learned_by_heart_in_every_form(form: str) -> None:
    objective = rtd(**FORMS[form])
    prepared = objective.prepare(batch([[10]] * 32, length=12, seed=5), 1)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(150):
        optimizer.zero_grad()
        objective(prepared).total(objective.counts(prepared)).backward()
        optimizer.step()
    scores = objective.eval().summarize(objective.measure(prepared))
    assert form in ("uniform", "generator at rest") or scores["mlm_accuracy"] > 0.95
    assert scores["rtd_accuracy"] > 0.96
    assert scores.get("rtd_auc", 1.0) > 0.9  # nothing is replaced any more where the generator may be right
    assert form not in ("uniform", "wrong only", "generator at rest") or scores["replaced_share"] > 0.1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"generator_learning_rate": 1e-3}, 'needs optimizers = "separate"'),
        ({"optimizers": "separate", "uniform_generator": True}, "needs a generator"),
        ({"discriminator_label_smoothing": 1.0}, "less than 1"),
        ({"generator_label_smoothing": 0.1, "uniform_generator": True}, "needs a generator"),
        ({"temperature": 2.0, "uniform_generator": True}, "temperature needs a generator"),
        ({"embedding_sharing": "none", "uniform_generator": True}, "embedding_sharing needs a generator"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RtdConfig.model_validate(fields)


def test_a_family_without_the_head_is_refused() -> None:
    with pytest.raises(KitaeError, match="needs a generator and a discriminator"):
        table.build(bert(), RtdConfig(uniform_generator=True), SPECIAL, VOCAB, 1)
