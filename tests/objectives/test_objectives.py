"""MLM and RTD: worked by hand, against transformers' classes, at the edges, and that they learn."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import transformers
from rows import SPECIAL, VOCAB, Fixed, batch, bert, electra
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from kitae.core.errors import KitaeError
from kitae.models.families import build_headed, build_masked_lm
from kitae.models.folder import Part, read_parts, write_huggingface
from kitae.objectives import table
from kitae.objectives.masking import Unit
from kitae.objectives.mlm import MlmConfig, MlmObjective
from kitae.objectives.protocol import Objective
from kitae.objectives.rtd import RtdConfig, RtdObjective
from kitae.tensor.batch import Batch, Texts
from kitae.tensor.random import numpy_generator, seed_dropout, torch_generator


def mlm(config: MlmConfig | None = None, *, dropout: float = 0.0) -> MlmObjective:
    made = table.build(bert(dropout=dropout), config or MlmConfig(), SPECIAL, VOCAB, 1)
    assert isinstance(made, MlmObjective)
    return made


def rtd(config: RtdConfig | None = None, *, dropout: float = 0.0) -> RtdObjective:
    made = table.build(electra(dropout=dropout), config or RtdConfig(), SPECIAL, VOCAB, 1)
    assert isinstance(made, RtdObjective)
    return made


def either(name: str, rate: float = 0.15) -> Objective:
    return mlm(MlmConfig(rate=rate)) if name == "mlm" else rtd(RtdConfig(rate=rate))


def test_a_hand_worked_mlm_loss() -> None:
    objective = mlm(MlmConfig(rate=0.5))
    prepared = objective.prepare(batch([[4]], length=8), 1)
    logits = torch.zeros(2, VOCAB)
    logits[0, prepared.targets["labels"][0]] = math.log(VOCAB - 1)  # probability 1/2
    objective.encoder = Fixed(logits)
    term = objective(prepared).terms[0]
    assert (term.name, term.count, term.weight) == ("mlm", 2, 1.0)
    assert float(term.sum) == pytest.approx(math.log(2) + math.log(VOCAB), rel=1e-6)
    assert objective.summarize(objective.measure(prepared))["mlm_loss"] == pytest.approx((math.log(2) + math.log(VOCAB)) / 2, rel=1e-6)
    assert float(objective(prepared).total({"mlm": 4})) == pytest.approx((math.log(2) + math.log(VOCAB)) / 4, rel=1e-6)


def test_a_hand_worked_rtd_loss() -> None:
    objective = rtd(RtdConfig(rate=0.5))
    plain = batch([[4]], length=8)
    prepared = objective.prepare(plain, 1)
    picks, labels = prepared.targets["picks"], prepared.targets["labels"]
    certain = torch.full((2, VOCAB), -1e4)
    other = 5 if labels[1] != 5 else 6
    certain[0, labels[0]] = certain[1, other] = 0.0  # the first sample is right, the second is not
    objective.generator = Fixed(certain)
    objective.discriminator = nn.ModuleDict({"encoder": Fixed(torch.zeros(1, 8, 4)), "head": Fixed(torch.full((1, 8), math.log(3)))})
    objective.discriminator.encoder, objective.discriminator.head = objective.discriminator.values()  # replaced: 3/4 everywhere
    ids, replaced = objective.corrupted(prepared)
    assert replaced.nonzero().tolist() == [[0, int(picks[1])]]
    assert ids[0, picks[1]] == other
    assert (ids != plain.ids_BL).nonzero().tolist() == [[0, int(picks[1])]]
    generator, discriminator = objective(prepared).terms
    assert (generator.name, generator.count, generator.weight) == ("mlm", 2, 1.0)
    assert (discriminator.name, discriminator.count, discriminator.weight) == ("rtd", 6, 50.0)
    assert float(discriminator.sum) == pytest.approx(math.log(4 / 3) + 5 * math.log(4), rel=1e-6)
    assert objective.counts(prepared) == {"mlm": 2, "rtd": 6}
    scores = objective.summarize(objective.measure(prepared))
    assert scores["rtd_accuracy"] == pytest.approx(1 / 6)
    assert scores["replaced_share"] == pytest.approx(1 / 6)
    assert scores["mlm_accuracy"] == 0.5
    assert scores["rtd_auc"] == 0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["mlm", "rtd"])
@pytest.mark.parametrize("case", ["all masked", "a row with nothing to mask", "nothing masked"])
def test_edges_are_finite(name: str, case: str, dtype: torch.dtype) -> None:
    objective = either(name, rate=1.0 if case == "all masked" else 0.15).to(dtype)
    rows = {"all masked": [[14], [3, 9]], "a row with nothing to mask": [[], [14]], "nothing masked": [[1], [1]]}[case]
    prepared = objective.prepare(batch(rows, length=18), 1)
    counts = objective.counts(prepared)
    assert counts["mlm"] == {"all masked": 26, "a row with nothing to mask": 2, "nothing masked": 0}[case]
    total = objective(prepared).total(counts)
    total.backward()
    assert torch.isfinite(total)
    for parameter in objective.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()
    if name == "mlm" and not counts["mlm"]:
        assert float(total) == 0
        assert not any(parameter.grad.any() for parameter in objective.parameters() if parameter.grad is not None)
    assert all(math.isfinite(score) for score in objective.summarize(objective.measure(prepared)).values())


def test_a_micro_batch_without_masks_changes_nothing_of_the_step() -> None:
    """Its share of the loss is 0 whatever the other micro-batches count, and its gradient adds nothing to theirs."""
    objective = mlm().double()
    parts = [objective.prepare(batch([sizes], length=18, micro=micro), 1) for micro, sizes in enumerate(([14], [1]))]
    counts = [objective.counts(part)["mlm"] for part in parts]
    assert counts == [2, 0]
    gradients = []
    for chosen in (parts, parts[:1]):
        objective.zero_grad()
        for part in chosen:
            objective(part).total({"mlm": sum(counts)}).backward()
        gradients.append([parameter.grad.clone() for parameter in objective.parameters()])
    assert float(objective(parts[1]).total({"mlm": 2})) == 0
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_smoothing_changes_the_training_loss_and_not_the_heldout_score() -> None:
    plain, smooth = mlm().eval(), mlm(MlmConfig(label_smoothing=0.3)).eval()
    prepared = plain.prepare(batch([[14]], length=16), 1)
    logits = plain.encoder(prepared, prepared.targets["picks"])
    expected = F.cross_entropy(logits, prepared.targets["labels"], label_smoothing=0.3, reduction="sum")
    assert float(smooth(prepared).terms[0].sum) == pytest.approx(float(expected), rel=1e-6)
    assert smooth.summarize(smooth.measure(prepared)) == plain.summarize(plain.measure(prepared))


@pytest.mark.parametrize("name", ["mlm", "rtd"])
def test_prepare_is_a_pure_function_of_batch_and_seed(name: str) -> None:
    objective = either(name)
    plain = batch([[20, 9], [31]], length=40, step=3, micro=1)

    def drawn(other: Batch, seed: int) -> dict[str, list[float]]:
        return {key: value.tolist() for key, value in objective.prepare(other, seed).targets.items()}

    first = drawn(plain, 1)
    assert drawn(plain, 1) == first
    for other in (drawn(plain, 2), drawn(dataclasses.replace(plain, micro=0), 1), drawn(dataclasses.replace(plain, step=4), 1)):
        assert not [key for key in first if first[key] == other[key]]


@pytest.mark.parametrize("name", ["rtd", "electric"])
def test_samples_are_drawn_apart_from_masks(name: str) -> None:
    """Else the tokens that are sampled would depend on which positions were chosen."""
    objective = table.build(electra(), table.row(name).config(), SPECIAL, VOCAB, 1)
    uniform = objective.prepare(batch([[20, 9], [31]], length=40, step=3, micro=1), 1).targets["uniform"].tolist()
    assert uniform != numpy_generator(1, "mask", 3, 1).random(len(uniform)).tolist()


@pytest.mark.parametrize("name", ["mlm", "rtd"])
def test_a_split_of_the_micro_batches_adds_up(name: str) -> None:
    """Sums and statistics of two batches are those of their union."""
    objective = either(name).double().eval()
    parts = [objective.prepare(batch([[20, 9]], length=40, seed=seed, micro=seed), 1) for seed in range(2)]
    offset = torch.tensor(40)
    whole = dataclasses.replace(
        parts[0],
        ids_BL=torch.cat([part.ids_BL for part in parts]),
        layout=batch([[20, 9]] * 2, length=40).layout,
        words_BL=torch.cat([part.words_BL for part in parts]),
        targets={
            key: torch.cat([parts[0].targets[key], parts[1].targets[key] + (offset if key == "picks" else 0)]) for key in parts[0].targets
        },
    )
    both = [objective.measure(part) for part in parts]
    summed = {key: both[0][key] + both[1][key] for key in both[0]}
    for key, value in objective.measure(whole).items():
        torch.testing.assert_close(value, summed[key], atol=1e-9, rtol=1e-9)
    counts = objective.counts(whole)
    total = sum(objective(part).total(counts) for part in parts)
    torch.testing.assert_close(total, objective(whole).total(counts), atol=1e-9, rtol=1e-9)


def test_auc_of_a_measure_is_scikit_learns() -> None:
    objective = rtd().eval()
    parts = [objective.prepare(batch([[30, 20], [52]] * 8, length=56, seed=seed, micro=seed), 1) for seed in range(4)]
    labels, scores = [], []
    for part in parts:
        ids, replaced = objective.corrupted(part)
        with torch.no_grad():
            logits = objective.discriminator(Texts(ids, part.layout))
        labels.append(replaced[part.layout.mask_BL])
        scores.append(logits[part.layout.mask_BL])
    stats = [objective.measure(part) for part in parts]
    summary = objective.summarize({key: sum(stat[key] for stat in stats) for key in stats[0]})
    assert summary["rtd_auc"] == pytest.approx(roc_auc_score(torch.cat(labels), torch.cat(scores)), abs=0.001)


@pytest.mark.parametrize("unit", ["word", "span", "ngram"])
@pytest.mark.parametrize(("rows", "rate", "count"), [([[14], [3, 9]], 1.0, 26), ([[], [14], [14], [14]], 0.5, None), ([[], [0]], 0.5, 0)])
def test_edges_of_every_unit_are_finite(unit: Unit, rows: list[list[int]], rate: float, count: int | None) -> None:
    objective = mlm(MlmConfig(rate=rate, unit=unit))
    prepared = objective.prepare(batch(rows, length=18), 1)
    counts = objective.counts(prepared)
    assert counts["mlm"] == count if count is not None else 0 < counts["mlm"] < 42
    total = objective(prepared).total(counts)
    total.backward()
    assert torch.isfinite(total)
    for parameter in objective.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        assert counts["mlm"] or not parameter.grad.any()
    assert ("mlm_loss" in objective.summarize(objective.measure(prepared))) == bool(counts["mlm"])


@pytest.mark.parametrize("name", ["mlm", "word", "span", "ngram", "rtd"])
def test_32_sentences_are_learned_by_heart(name: str) -> None:
    objective = either(name) if name in ("mlm", "rtd") else mlm(MlmConfig.model_validate({"unit": name}))
    prepared = objective.prepare(batch([[10]] * 32, length=12, seed=5), 1)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=5e-3, weight_decay=0.0)
    counts = objective.counts(prepared)
    for _ in range(150):
        optimizer.zero_grad()
        objective(prepared).total(counts).backward()
        optimizer.step()
    scores = objective.eval().summarize(objective.measure(prepared))
    assert scores["mlm_accuracy"] > 0.95
    assert scores.get("rtd_accuracy", 1.0) > 0.98  # of text that is hardly replaced any more: see test_rtd_forms.py


def test_shared_embeddings_are_one_and_counted_once() -> None:
    shared, apart = rtd(), rtd(RtdConfig(embedding_sharing="none"))
    assert shared.generator.encoder.embed is shared.discriminator.encoder.embed
    assert apart.generator.encoder.embed is not apart.discriminator.encoder.embed
    embedding = sum(parameter.numel() for parameter in shared.discriminator.encoder.embed.parameters())
    sizes = [sum(parameter.numel() for parameter in objective.parameters()) for objective in (shared, apart)]
    assert sizes[1] - sizes[0] == embedding


def test_no_gradient_goes_through_the_sampling() -> None:
    objective = rtd(RtdConfig(embedding_sharing="none"))
    prepared = objective.prepare(batch([[30]], length=32), 1)
    objective(prepared).terms[1].sum.backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in objective.generator.parameters())


class Theirs:
    """The same training composed from transformers' two classes."""

    def __init__(self, folder: Path) -> None:
        load = {"dtype": torch.float64, "attn_implementation": "eager"}
        self.generator = transformers.ElectraForMaskedLM.from_pretrained(folder / "generator", **load)
        self.discriminator = transformers.ElectraForPreTraining.from_pretrained(folder / "discriminator", **load)
        self.generator.electra.embeddings = self.discriminator.electra.embeddings
        self.generator.generator_lm_head.weight = self.discriminator.electra.embeddings.word_embeddings.weight
        self.models = nn.ModuleList([self.generator, self.discriminator]).train()

    def loss(self, prepared: Batch, ids_BL: Tensor, replaced_BL: Tensor) -> Tensor:
        mask = prepared.layout.mask_BL
        logits = self.generator(prepared.ids_BL, attention_mask=mask.long()).logits
        mlm = F.cross_entropy(logits.flatten(0, 1)[prepared.targets["picks"]], prepared.targets["labels"])
        scores = self.discriminator(ids_BL, attention_mask=mask.long()).logits
        return mlm + 50.0 * F.binary_cross_entropy_with_logits(scores[mask], replaced_BL[mask].double())


def write(objective: Objective, folder: Path) -> Path:
    for name, part in objective.parts().items():
        write_huggingface(part, folder / name)
    return folder


def test_fifty_steps_equal_transformers(tmp_path: Path) -> None:
    ours = rtd()
    with torch.no_grad():  # [PAD] is sampled often: as an input it gives its embedding no gradient
        ours.generator.head.bias[SPECIAL.pad] = 2.0
    theirs = Theirs(write(ours, tmp_path))
    ours = ours.double()
    settings: Mapping[str, float] = {"lr": 1e-3, "weight_decay": 0.01, "eps": 1e-6}
    optimizers = [torch.optim.AdamW(module.parameters(), **settings) for module in (ours, theirs.models)]
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.models.parameters())
    padding = 0
    for step in range(50):
        prepared = ours.prepare(batch([[30], [17], [24], [5]], length=32, seed=step, step=step), 1)
        ids_BL, replaced_BL = ours.corrupted(prepared)
        padding += int((ids_BL[prepared.layout.mask_BL] == SPECIAL.pad).sum())
        losses = [ours(prepared).total(ours.counts(prepared)), theirs.loss(prepared, ids_BL, replaced_BL)]
        assert abs(float(losses[0] - losses[1])) < 1e-8, step
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert padding > 5
    mine = ours.discriminator.encoder.blocks[1].up.weight
    torch.testing.assert_close(mine, theirs.discriminator.electra.encoder.layer[1].intermediate.dense.weight, atol=1e-8, rtol=0)
    torch.testing.assert_close(
        ours.generator.encoder.embed.token.weight, theirs.generator.electra.embeddings.word_embeddings.weight, atol=1e-8, rtol=0
    )


@pytest.mark.parametrize("name", ["mlm", "rtd"])
def test_dropout_is_a_function_of_step_and_micro_batch(name: str) -> None:
    objective = mlm(dropout=0.2) if name == "mlm" else rtd(dropout=0.2)
    prepared = objective.prepare(batch([[30]], length=32), 1)
    totals = []
    for micro in (0, 0, 1):
        seed_dropout(1, "dropout", 7, micro)
        totals.append(float(objective(prepared).total(objective.counts(prepared))))
    assert totals[0] == totals[1] != totals[2]


@pytest.mark.parametrize("name", ["mlm", "rtd"])
def test_parts_survive_the_disk_and_start_a_new_objective(name: str, tmp_path: Path) -> None:
    objective = either(name).eval()
    folder = write(objective, tmp_path)
    parts = read_parts(folder if name == "rtd" else folder / "encoder")
    again = table.load(parts, objective.config, SPECIAL, VOCAB).eval()
    prepared = objective.prepare(batch([[30], [20]], length=32), 1)
    assert again.training is False
    for first, second in zip(objective(prepared).terms, again(prepared).terms, strict=True):
        assert float(first.sum) == float(second.sum)
    if name == "rtd":  # a BERT folder does not say embedding_size
        assert again.describe() == objective.describe()
    weights = set(objective.state_dict())
    assert {f"{name}.{key}" for name, part in objective.parts().items() for key in part.state} == weights


def test_starts_that_cannot_be_are_refused(tmp_path: Path) -> None:
    parts = read_parts(write(rtd(), tmp_path))
    with pytest.raises(KitaeError, match="the generator is missing"):
        table.load({"discriminator": parts["discriminator"]}, RtdConfig(), SPECIAL, VOCAB)
    with pytest.raises(KitaeError, match="the discriminator is missing"):
        table.load({"generator": parts["generator"]}, RtdConfig(), SPECIAL, VOCAB)
    with pytest.raises(KitaeError, match="tokenizer has 61"):
        table.load(parts, RtdConfig(), SPECIAL, VOCAB + 1)
    with pytest.raises(KitaeError, match="does not train a discriminator"):
        table.load(parts, MlmConfig(), SPECIAL, VOCAB)
    with pytest.raises(KitaeError, match="needs a generator"):
        table.build(bert(), RtdConfig(), SPECIAL, VOCAB, 1)
    with pytest.raises(KitaeError, match='did you mean "rtd"'):
        table.row("rdt")
    with pytest.raises(ValueError, match="add up to 1"):
        MlmConfig(replacement=(0.8, 0.1, 0.2))


def test_a_vocabulary_head_is_new_only_where_it_is_asked_for() -> None:
    """The encoder's weights stay, the output shares the table of tokens, and every start draws the same."""
    config = bert().encoder
    part = Part(head="sequence", config=config, state=build_headed(config, "sequence").state_dict(), labels=("a", "b"))
    with pytest.raises(KitaeError, match=r"no vocabulary head.*sequence"):
        table.load({"encoder": part}, MlmConfig(), SPECIAL, VOCAB)
    one, two = (table.load({"encoder": part}, MlmConfig(new_head=True), SPECIAL, VOCAB).parts()["encoder"] for _ in range(2))
    assert (one.head, one.labels) == ("mlm", ())
    kept = {name for name in part.state if name.startswith("encoder.")}
    assert all(torch.equal(one.state[name], part.state[name]) for name in kept)
    assert {name for name in one.state if name not in kept} == {f"head.{name}" for name in ("bias", *_layers("dense"), *_layers("norm"))}
    assert all(torch.equal(one.state[name], two.state[name]) for name in one.state)
    own = build_masked_lm(config, torch_generator(5, "start"))
    known = Part(head="mlm", config=config, state=own.state_dict())
    again = table.load({"encoder": known}, MlmConfig(new_head=True), SPECIAL, VOCAB).parts()["encoder"]
    assert torch.equal(again.state["head.dense.weight"], known.state["head.dense.weight"]), "a head that is there stays"


def _layers(name: str) -> tuple[str, str]:
    return f"{name}.weight", f"{name}.bias"


def test_padding_is_the_tokenizers() -> None:
    special = dataclasses.replace(SPECIAL, pad=4, mask=0)
    for made in (table.build(electra(), RtdConfig(), special, VOCAB, 1), table.load(rtd().parts(), RtdConfig(), special, VOCAB)):
        assert {part.config.pad_token_id for part in made.parts().values()} == {4}
        assert made.models()["generator"].encoder.embed.padding == 4


def test_new_weights_are_a_function_of_the_seed() -> None:
    first, again, other = (table.build(electra(), RtdConfig(), SPECIAL, VOCAB, seed) for seed in (1, 1, 2))
    for name, tensor in first.state_dict().items():
        assert tensor.equal(again.state_dict()[name])
    assert not first.state_dict()["discriminator.encoder.embed.token.weight"].equal(
        other.state_dict()["discriminator.encoder.embed.token.weight"]
    )
