"""Heads of tasks: choices of questions, and ELECTRA's joint start and end, against numbers worked out by hand and a slow copy."""

import json

import pytest
import torch
from model_layouts import packed
from model_pairs import CLASSES, ORACLES, make
from safetensors.torch import save_file
from torch.nn import functional as F

from kitae.core.errors import KitaeError
from kitae.models.compose import JointSpanFinder, by_question
from kitae.models.families import build_headed
from kitae.models.folder import Part, describe, load, read_parts, write_huggingface
from kitae.models.joint import JointSpanHead, pieces_of
from kitae.models.presets import resolve_preset
from kitae.tensor.batch import Texts

CONFIG = resolve_preset("electra-tiny", {"hidden_size": 16, "num_attention_heads": 2, "embedding_size": 16}, 60, 24).encoder


def test_scores_of_choices_stand_by_question():
    scores = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]], requires_grad=True)
    grouped = by_question(scores, (2, 3))
    assert grouped.tolist() == [[1.0, 2.0, -torch.inf], [3.0, 4.0, 5.0]]
    F.cross_entropy(grouped, torch.tensor([1, 0]), reduction="sum").backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    torch.testing.assert_close(scores.grad[:2, 0], torch.tensor([1.0, 2.0]).softmax(0) - torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("family", [family for family in ORACLES if family in ("bert", "electra", "roberta")])
def test_choices_of_a_question_are_those_of_transformers(family, tmp_path):
    """Two questions with two choices each, against transformers' rows of questions and choices."""
    pair = make(family, "choice", tmp_path)
    ids, mask, layout, kinds = pair.rows((40, 17, 29, 5))
    segments = {} if kinds is None else {"token_type_ids": kinds.view(2, 2, -1)}
    with torch.no_grad():
        theirs = pair.theirs(input_ids=ids.view(2, 2, -1), attention_mask=mask.long().view(2, 2, -1), **segments).logits
        ours = by_question(pair.ours(Texts(ids, layout, kinds)), (2, 2))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


RATES = {"bert": {"classifier_dropout": 0.3}, "deberta": {"cls_dropout": 0.4, "pooler_dropout": 0.5}}
OWN_KEYS = (("electra", "choice"), *(("modernbert", head) for head in ("sequence", "token", "choice")))
"""Classes whose dropout has keys that no other class reads."""


@pytest.mark.parametrize(("family", "head"), [key for key in CLASSES if key[1] in ("sequence", "token", "choice") and key not in OWN_KEYS])
def test_rates_of_dropout_are_those_of_transformers(family, head, tmp_path):
    """Where nobody asks for another: each class reads other keys of its config."""
    own = RATES["deberta" if family.startswith("deberta") else "bert"]
    pair = make(family, head, tmp_path, hidden_dropout_prob=0.2, **own)
    modules = {name: module for name, module in pair.theirs.named_modules() if isinstance(module, torch.nn.Dropout)}
    theirs = {module.p for name, module in modules.items() if not name.startswith(pair.theirs.base_model_prefix)}
    ours = pair.ours.head
    assert theirs == {ours.rate, getattr(ours, "early_rate", 0.0) or ours.rate}
    assert load(pair.part, dropout=0.1).head.rate == 0.1


def test_picked_positions_of_a_tagger():
    model = build_headed(CONFIG, "token", num_labels=3).eval()
    layout = packed(((10, 6), (9,)), 16)
    ids = torch.randint(5, 60, (2, 16))
    picks = torch.tensor([3, 20, 3])
    with torch.no_grad():
        everywhere = model(Texts(ids, layout))
        assert everywhere.shape == (2, 16, 3)
        torch.testing.assert_close(model(Texts(ids, layout), picks), everywhere.flatten(0, 1)[picks])


def simple_head() -> JointSpanHead:
    """States of two numbers (a, b): the start's logit is a, the end's b + the start's a, no answer's the mean a of the starts."""
    config = resolve_preset("bert-tiny", {"hidden_size": 2, "num_attention_heads": 1, "intermediate_size": 2}, 60, 24).encoder
    head = JointSpanHead(config)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        head.start.weight[0] = torch.tensor([1.0, 0.0])
        head.pair.weight[0] = torch.tensor([1.0, 0.0, 0.0, 1.0])
        head.pair.bias[0] = 100.0  # gelu(x) = x there
        head.end.weight[0, 0] = 1.0
        head.end.bias[0] = -100.0
        head.text.weight[0] = torch.tensor([0.0, 0.0, 1.0, 0.0])
        head.text.bias[0] = 100.0
        head.impossible.weight[0, 0] = 1.0
        head.impossible.bias[0] = -100.0
    return head.double()


def test_joint_head_by_hand():
    head = simple_head()
    states = torch.tensor([[[0.0, 0.0], [1.0, 2.0], [3.0, 1.0], [9.0, 9.0]]], dtype=torch.float64)
    allowed = torch.tensor([[True, True, True, False]])
    logits = head(states, allowed, torch.tensor([2]))
    never = -torch.inf
    assert logits.start_PL.tolist() == [[0.0, 1.0, 3.0, never]]
    torch.testing.assert_close(logits.end_PL, torch.tensor([[3.0, 5.0, 4.0, never]], dtype=torch.float64))
    shares = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64).softmax(0)
    torch.testing.assert_close(logits.impossible_P, (shares * torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)).sum()[None])
    found = head.search(states, allowed, beam=2)
    assert found.starts_PK.tolist() == [[2, 1]]
    assert found.ends_PKK.tolist() == [[[1, 2], [1, 2]]]
    torch.testing.assert_close(found.start_scores_PK, shares.log()[[2, 1]][None])
    ends = torch.tensor([3.0, 5.0, 4.0], dtype=torch.float64).log_softmax(0)
    torch.testing.assert_close(found.end_scores_PKK[0, 0], ends[[1, 2]])
    torch.testing.assert_close(found.impossible_P, logits.impossible_P)
    few = head.search(states, torch.tensor([[True, False, False, False]]), beam=3)
    assert few.starts_PK[0, 0] == 0
    assert few.start_scores_PK.tolist() == [[0.0, never, never]]


def joint(dtype: torch.dtype = torch.float64) -> JointSpanFinder:
    model = build_headed(CONFIG, "joint", generator=torch.Generator().manual_seed(3)).eval().to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)))
    assert isinstance(model, JointSpanFinder)
    return model


def slow(head: JointSpanHead, states: torch.Tensor, allowed: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The head on one text as google-research/electra writes it: everything concatenated and tiled."""
    mask = torch.where(allowed, 0.0, -torch.inf)
    starts = head.start(states)[:, 0] + mask
    both = torch.cat([states[start].expand(len(states), -1), states], dim=-1)
    ends = head.end(F.gelu(head.pair(both)))[:, 0] + mask
    soft = (starts.softmax(0)[:, None] * states).sum(0)
    return starts, ends, head.impossible(F.gelu(head.text(torch.cat([states[0], soft]))))[0]


def test_joint_head_of_packed_rows_equals_one_text_at_a_time():
    model = joint()
    layout = packed(((9, 12), (20,), (3, 4, 5)), 24)
    ids = torch.randint(5, 60, (3, 24), generator=torch.Generator().manual_seed(0)).masked_fill(~layout.mask_BL, 0)
    allowed = torch.rand(3, 24, generator=torch.Generator().manual_seed(1)) < 0.5
    starts = torch.tensor([0, 3, 11, 2, 0, 4])
    for number, (row, start, _) in enumerate(layout.spans()):
        allowed[row, start + starts[number]] = True
    made = model(Texts(ids, layout), allowed_BL=allowed, starts_P=starts)
    found = model.search(Texts(ids, layout), allowed_BL=allowed, beam=4)
    states = model.encoder(Texts(ids, layout))
    for number, (row, start, end) in enumerate(layout.spans()):
        may = allowed[row, start:end].clone()
        may[0] = True
        first, last, none = slow(model.head, states[row, start:end], may, int(starts[number]))
        torch.testing.assert_close(made.start_PL[number, : end - start], first)
        torch.testing.assert_close(made.end_PL[number, : end - start], last)
        assert (made.end_PL[number, end - start :] == -torch.inf).all()
        torch.testing.assert_close(made.impossible_P[number], none)
        torch.testing.assert_close(found.impossible_P[number], none)
        count = min(4, int(may.sum()))
        assert found.starts_PK[number, :count].tolist() == first.topk(count).indices.tolist()
        for i in range(count):
            _, given, _ = slow(model.head, states[row, start:end], may, int(found.starts_PK[number, i]))
            best = given.log_softmax(0).topk(count)
            assert found.ends_PKK[number, i, :count].tolist() == best.indices.tolist()
            torch.testing.assert_close(found.end_scores_PKK[number, i, :count], best.values)


def test_gradients_of_the_joint_head():
    """By finite differences, and in every weight of the model; the true start teaches its state through the ends."""
    model = joint()
    layout = packed(((7, 5), (9,)), 12)
    ids = torch.randint(5, 60, (2, 12), generator=torch.Generator().manual_seed(0))
    allowed, starts, ends = layout.mask_BL.clone(), torch.tensor([2, 0, 4]), torch.tensor([3, 0, 4])
    allowed[:, 1] = False

    def loss() -> torch.Tensor:
        made = model(Texts(ids, layout), allowed_BL=allowed, starts_P=starts)
        positions = (F.cross_entropy(made.start_PL, starts) + F.cross_entropy(made.end_PL, ends)) / 2
        return positions + 0.5 * F.binary_cross_entropy_with_logits(made.impossible_P, torch.tensor([0.0, 1.0, 0.0]).double())

    loss().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0 or "qkv.bias" in name, name
    for parameter in (model.head.start.weight, model.head.pair.weight, model.head.text.weight, model.encoder.blocks[0].up.weight):
        place = int(parameter.grad.abs().argmax())
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.view(-1)[place] += step
                values.append(float(loss()))
                parameter.view(-1)[place] -= step
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(float(parameter.grad.view(-1)[place]), rel=1e-6)


def test_pieces_of_rows():
    layout = packed(((2, 3), (4,)), 5)
    pieces, places = pieces_of(torch.arange(10.0).view(2, 5, 1), layout)
    assert pieces.squeeze(-1).tolist() == [[0, 1, 1, 1], [2, 3, 4, 4], [5, 6, 7, 8]]
    assert places.tolist() == [[0, 1, -1, -1], [2, 3, 4, -1], [5, 6, 7, 8]]


def test_joint_head_in_half_precision():
    model, layout = joint(torch.float32), packed(((20,), (9, 11)), 24)
    ids = torch.randint(5, 60, (2, 24), generator=torch.Generator().manual_seed(0))
    starts = torch.tensor([3, 1, 2])
    with torch.no_grad():
        exact = model(Texts(ids, layout), allowed_BL=layout.mask_BL, starts_P=starts)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(Texts(ids, layout), allowed_BL=layout.mask_BL, starts_P=starts)
            found = model.search(Texts(ids, layout), allowed_BL=layout.mask_BL, beam=3)
    for mine, other in ((rough.start_PL, exact.start_PL), (rough.end_PL, exact.end_PL), (rough.impossible_P, exact.impossible_P)):
        assert mine.dtype == torch.float32, "probabilities are worked out in fp32"
        known = torch.isfinite(other)
        assert (mine[known] - other[known]).square().mean().sqrt() < 0.05 * other[known].std()
    assert torch.isfinite(found.end_scores_PKK).all()


@pytest.mark.parametrize("head", ["joint", "token", "span", "choice"])
def test_kitae_folders(head, tmp_path):
    labels = ("B", "I", "O") if head == "token" else ()
    model = build_headed(CONFIG, head, num_labels=3, dropout=0.1).eval()
    part = Part(head=head, config=CONFIG, state=model.state_dict(), labels=labels)
    save_file({f"encoder.{name}": tensor for name, tensor in model.state_dict().items()}, tmp_path / "weights.safetensors")
    (tmp_path / "model.json").write_text(json.dumps(describe({"encoder": part})))
    (again,) = read_parts(tmp_path).values()
    assert (again.head, again.labels, again.config) == (head, labels, CONFIG)
    loaded = load(again).state_dict()
    assert set(loaded) == set(model.state_dict())
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    if head == "joint":
        with pytest.raises(KitaeError, match="transformers has no class for this model"):
            write_huggingface(again, tmp_path / "theirs")
        assert not (tmp_path / "theirs").exists()
