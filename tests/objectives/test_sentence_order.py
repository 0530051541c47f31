"""NSP and SOP beside masked tokens: by hand, against transformers' BertForPreTraining, at the edges, and that they learn."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
import transformers
from rows import SPECIAL, VOCAB, bert, electra, paired
from torch import Tensor

from kitae.core.errors import KitaeError
from kitae.data.pairs import PairConfig
from kitae.models.compose import MaskedLm, PretrainingLm
from kitae.models.convert import to_huggingface
from kitae.models.families import FAMILIES
from kitae.models.folder import read_parts, write_huggingface
from kitae.objectives import table
from kitae.objectives.mlm import MlmConfig, MlmObjective
from kitae.objectives.sentence_order import check_order

ROWS = [[(5, 6, 0), (3, 4, 1)], [(9, 0, 0), (4, 4, 1)]]


def objective(order: str = "nsp", **settings: object) -> MlmObjective:
    made = table.build(bert(), MlmConfig.model_validate({"sentence_order": order, **settings}), SPECIAL, VOCAB, 1)
    assert isinstance(made, MlmObjective)
    return made


def test_a_hand_worked_loss() -> None:
    """Three pairs of which the head says 0 with probability 3/4, whatever it sees: labels 0, 1, 1; and 1/60 for every token."""
    made = objective(rate=0.2, sentence_order_weight=0.5).eval()
    model = made.encoder
    assert isinstance(model, PretrainingLm)
    with torch.no_grad():
        for weight in (model.order.out.weight, model.order.out.bias, model.head.norm.weight, model.head.norm.bias, model.head.bias):
            weight.zero_()
        model.order.out.bias[0] = math.log(3)
    prepared = made.prepare(paired(ROWS, length=32), 1)
    assert made.counts(prepared) == {"mlm": 7, "nsp": 3}, "a fifth of 35 tokens; the single segment has no label"
    tokens, pairs = made(prepared).terms
    assert (pairs.name, pairs.count, pairs.weight) == ("nsp", 3, 0.5)
    assert float(pairs.sum) == pytest.approx(math.log(4 / 3) + 2 * math.log(4), rel=1e-6)
    assert float(tokens.sum) == pytest.approx(7 * math.log(60), rel=1e-6)
    expected = math.log(60) + 0.5 * (math.log(4 / 3) + 2 * math.log(4)) / 3
    assert float(made(prepared).total({"mlm": 7, "nsp": 3})) == pytest.approx(expected, rel=1e-6)
    scores = made.summarize(made.measure(prepared))
    assert scores["nsp_accuracy"] == pytest.approx(1 / 3)
    assert scores["nsp_loss"] == pytest.approx((math.log(4 / 3) + 2 * math.log(4)) / 3, rel=1e-6)
    assert scores["mlm_loss"] == pytest.approx(math.log(60), rel=1e-6)


def theirs(made: MlmObjective, folder: Path) -> transformers.BertForPreTraining:
    write_huggingface(made.parts()["encoder"], folder)
    model, report = transformers.BertForPreTraining.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return model


def test_loss_and_every_gradient_are_transformers(tmp_path: Path) -> None:
    """With one pair a row, transformers' sum of two means is ours: its label 0 says that the second follows, as ours does."""
    made = objective()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    other = theirs(made, tmp_path)
    made = made.double()
    prepared = made.prepare(paired([[(9, 11, 0)], [(4, 5, 1)], [(12, 3, 1)]], length=28), 1)
    labels = torch.full((prepared.ids_BL.numel(),), -100).index_copy(0, prepared.targets["picks"], prepared.targets["labels"])
    found = other(
        input_ids=prepared.ids_BL,
        attention_mask=prepared.layout.mask_BL.long(),
        token_type_ids=prepared.segments_BL,
        labels=labels.view(prepared.ids_BL.shape),
        next_sentence_label=prepared.targets["pair_labels"],
    )
    total = made(prepared).total(made.counts(prepared))
    assert abs(float(total - found.loss)) < 1e-10
    total.backward()
    found.loss.backward()
    family = FAMILIES["bert"]
    gradients = {name.removeprefix("encoder."): parameter.grad for name, parameter in made.encoder.named_parameters(prefix="encoder")}
    mine = to_huggingface(gradients, (*family.rows, *family.heads["pretraining"].rows), layers=2)
    expected = {name: parameter.grad for name, parameter in other.named_parameters()}
    assert mine.keys() == expected.keys()
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-9, rtol=0, msg=name)


def test_a_packed_pair_is_judged_as_if_it_stood_alone() -> None:
    made = objective().double().eval()
    model = made.encoder
    assert isinstance(model, PretrainingLm)
    packed = paired(ROWS, length=32)

    def judged(batch, pairs: Tensor) -> Tensor:
        none = torch.zeros(0, dtype=torch.int64)
        with torch.no_grad():
            return model.with_order(batch.ids_BL, batch.layout, batch.segments_BL, none, pairs)[1]

    together = judged(packed, packed.targets["pairs"])
    spans = [span for span in packed.layout.spans() if span[0] * 32 + span[1] in packed.targets["pairs"].tolist()]
    for (row, start, end), logits in zip(spans, together, strict=True):
        single = paired([[(end - start - 2, 0, 0)]], length=end - start)
        single = dataclasses.replace(single, ids_BL=packed.ids_BL[row : row + 1, start:end])
        assert packed.segments_BL is not None
        single = dataclasses.replace(single, segments_BL=packed.segments_BL[row : row + 1, start:end])
        torch.testing.assert_close(judged(single, torch.tensor([0]))[0], logits, atol=1e-10, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("rows", "rate", "counts"),
    [
        ([[(5, 6, 0)], [(3, 3, 1)]], 1.0, {"mlm": 17, "sop": 2}),
        ([[], [(5, 6, 0)]], 0.2, {"mlm": 2, "sop": 1}),
        ([[(1, 1, 1)], [(1, 0, 0)]], 0.1, {"mlm": 0, "sop": 1}),
        ([[(9, 0, 0)], [(8, 0, 0)]], 0.2, {"mlm": 3, "sop": 0}),
        ([[], []], 0.2, {"mlm": 0, "sop": 0}),
    ],
    ids=["all masked", "a row with nothing to mask", "nothing masked", "no pairs", "nothing at all"],
)
def test_edges_are_finite(rows: list[list[tuple[int, int, int]]], rate: float, counts: dict[str, int], dtype: torch.dtype) -> None:
    made = objective("sop", rate=rate).to(dtype)
    prepared = made.prepare(paired(rows, length=20), 1)
    assert made.counts(prepared) == counts
    loss = made(prepared)
    assert [term.count for term in loss.terms] == list(counts.values())
    total = loss.total(counts)
    total.backward()
    assert torch.isfinite(total)
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        if not counts["sop"] and "order" in name:
            assert not parameter.grad.any()
        if not counts["mlm"] and ".head." in name:
            assert not parameter.grad.any()
    assert all(math.isfinite(score) for score in made.summarize(made.measure(prepared)).values())


def test_micro_batches_add_up_to_the_step() -> None:
    """The mean is over all masked tokens and all pairs of the step, however they are dealt."""
    made = objective("sop").double().eval()
    parts = [made.prepare(paired([row], length=32, micro=micro), 1) for micro, row in enumerate(ROWS)]
    counts = {name: sum(made.counts(part)[name] for part in parts) for name in ("mlm", "sop")}
    assert counts == {"mlm": 3 + 3, "sop": 2 + 1}
    total = sum(float(made(part).total(counts)) for part in parts)
    sums = {name: sum(float(term.sum) for part in parts for term in made(part).terms if term.name == name) for name in counts}
    assert total == pytest.approx(sums["mlm"] / 6 + sums["sop"] / 3, rel=1e-12)


@pytest.mark.parametrize("order", ["nsp", "sop"])
def test_32_pairs_are_learned_by_heart(order: str) -> None:
    made = objective(order)
    prepared = made.prepare(paired([[(4, 5, number % 2)] for number in range(32)], length=12, seed=5), 1)
    optimizer = torch.optim.AdamW(made.parameters(), lr=5e-3, weight_decay=0.0)
    counts = made.counts(prepared)
    for _ in range(80):
        optimizer.zero_grad()
        made(prepared).total(counts).backward()
        optimizer.step()
    scores = made.eval().summarize(made.measure(prepared))
    assert scores[f"{order}_accuracy"] == 1.0
    assert scores["mlm_accuracy"] > 0.95


def test_parts_survive_the_disk_and_starts_gain_or_lose_the_head(tmp_path: Path) -> None:
    made = objective().eval()
    write_huggingface(made.parts()["encoder"], tmp_path)
    parts = read_parts(tmp_path)
    assert parts["encoder"].head == "pretraining"
    again = table.load(parts, made.config, SPECIAL, VOCAB).eval()
    prepared = made.prepare(paired(ROWS, length=32), 1)
    for first, second in zip(made(prepared).terms, again(prepared).terms, strict=True):
        assert float(first.sum) == float(second.sum)
    assert {f"encoder.{key}" for key in made.parts()["encoder"].state} == set(made.state_dict())

    tokens = table.load(parts, MlmConfig(), SPECIAL, VOCAB).eval()
    assert type(tokens.models()["encoder"]) is MaskedLm
    assert float(tokens(prepared).terms[0].sum) == float(made(prepared).terms[0].sum)
    grown = table.load(tokens.parts(), made.config, SPECIAL, VOCAB).eval()
    assert float(grown(prepared).terms[0].sum) == float(made(prepared).terms[0].sum)
    fresh = grown.parts()["encoder"].state["order.dense.weight"]
    assert fresh.std() == pytest.approx(0.088, abs=0.02), "initializer_range 0.1, cut at two of them"
    assert not torch.equal(fresh, made.parts()["encoder"].state["order.dense.weight"])


def test_what_cannot_learn_from_pairs_is_refused() -> None:
    check_order("none", None)
    check_order("sop", PairConfig(task="sop"))
    with pytest.raises(KitaeError, match="the dataset has none") as none:
        check_order("nsp", None)
    assert 'pairs = { task = "nsp" }' in none.value.cure
    with pytest.raises(KitaeError, match='pairs are made for "nsp"'):
        check_order("sop", PairConfig())
    for share in (0, 1):
        with pytest.raises(KitaeError, match=rf"pairs.negative = {share} gives all pairs the same label"):
            check_order("nsp", PairConfig(negative=share))
    with pytest.raises(KitaeError, match="ELECTRA has none"):
        table.build(electra(), MlmConfig(sentence_order="nsp"), SPECIAL, VOCAB, 1)
