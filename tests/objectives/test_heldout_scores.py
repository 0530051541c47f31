"""What is measured on held-out text: against scikit-learn and by hand, and adding up exactly over any division."""

import math

import numpy as np
import pytest
import torch
from rows import SPECIAL, VOCAB, batch, bert, electra
from sklearn.metrics import precision_score, recall_score
from torch import Tensor

from kitae.objectives import table
from kitae.objectives.calibration import BINS, calibration_bins, calibration_error
from kitae.objectives.detection import detection_scores, detection_statistics
from kitae.objectives.electric import ElectricObjective
from kitae.objectives.mlm import MlmObjective
from kitae.objectives.prediction import entropy, prediction_scores, prediction_statistics
from kitae.objectives.protocol import Objective
from kitae.objectives.rtd import RtdObjective
from kitae.tensor.batch import Batch

DETECTED = ("loss", "accuracy", "precision", "recall", "auc", "calibration_error")
SAMPLED = {"sampled_accuracy", "replaced_share_of_masked", "generator_entropy"}
PREDICTED = ("loss", "perplexity", "accuracy", "top5_accuracy")


def objective(name: str, **settings: object) -> Objective:
    architecture = bert() if name == "mlm" else electra()
    return table.build(architecture, table.row(name).config.model_validate(settings), SPECIAL, VOCAB, 1).double().eval()


def prepared(module: Objective, number: int = 0) -> Batch:
    return module.prepare(batch([[20, 9], [31]], length=40, seed=number, micro=number), 1)


def test_predictions_by_hand() -> None:
    logits = torch.full((3, 8), -math.inf, dtype=torch.float64)
    logits[:, :6] = torch.arange(6, dtype=torch.float64)  # the likeliest is 5, and 1 is the last of the first five
    logits[2] = 0.0  # anything
    labels = torch.tensor([5, 1, 0])
    scores = prediction_scores(prediction_statistics(logits, labels))
    shares = np.exp(np.arange(6)) / np.exp(np.arange(6)).sum()
    losses = [-math.log(shares[5]), -math.log(shares[1]), math.log(8)]
    assert scores["mlm_loss"] == pytest.approx(np.mean(losses), rel=1e-12)
    assert scores["mlm_perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-12)
    assert scores["mlm_accuracy"] == pytest.approx(2 / 3)  # argmax of equals is the first
    assert scores["mlm_top5_accuracy"] == pytest.approx((2 + int(0 in logits[2].topk(5).indices)) / 3)
    assert scores["mlm_entropy"] == pytest.approx((2 * -(shares * np.log(shares)).sum() + math.log(8)) / 3, rel=1e-12)
    assert prediction_scores(prediction_statistics(logits[:0], labels[:0])) == {}


def test_an_entropy_of_more_positions_than_a_chunk_is_their_sum() -> None:
    logits = torch.randn(600, 50, generator=torch.Generator().manual_seed(1))
    expected = torch.distributions.Categorical(logits=logits.double()).entropy().sum()
    torch.testing.assert_close(entropy(logits), expected, rtol=1e-6, atol=0)


def detected(count: int = 4000) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    replaced = torch.rand(count, generator=draw) < 0.1
    return torch.randn(count, generator=draw) * 2 - 2 + 2 * replaced, replaced


def test_precision_and_recall_are_scikit_learns_from_any_division() -> None:
    logits, replaced = detected()
    parts = [detection_statistics(logits[i::3], replaced[i::3]) for i in range(3)]
    scores = detection_scores({name: sum(part[name] for part in parts) for name in parts[0]})  # type: ignore[misc]
    assert set(scores) == {f"rtd_{name}" for name in DETECTED}
    assert scores["rtd_precision"] == precision_score(replaced, logits > 0)
    assert scores["rtd_recall"] == recall_score(replaced, logits > 0)
    nothing = detection_scores(detection_statistics(-logits.abs() - 1, torch.zeros_like(replaced)))
    assert set(nothing) == {"rtd_loss", "rtd_accuracy", "rtd_calibration_error"}, "a score over nothing is left out"


def test_calibration_by_hand_and_of_right_probabilities() -> None:
    given = torch.tensor([0.1, 0.1, 0.1, 0.9, 1.0])
    true = torch.tensor([True, False, False, True, False])
    table_3K = calibration_bins(given, true)
    assert table_3K[:, 1].tolist() == pytest.approx([3, 0.3, 1])
    assert table_3K[:, BINS - 1].tolist() == [1, 1, 0], "1 belongs to the last bin"
    assert calibration_error(table_3K) == pytest.approx((abs(0.3 - 1) + abs(0.9 - 1) + abs(1.0 - 0)) / 5)
    draw = torch.Generator().manual_seed(1)
    shares = torch.rand(200_000, generator=draw)
    right = calibration_error(calibration_bins(shares, torch.rand(200_000, generator=draw) < shares))
    assert right is not None
    assert right < 0.005
    assert calibration_error(calibration_bins(shares[:0], true[:0])) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mlm", {f"mlm_{score}" for score in (*PREDICTED, "entropy")}),
        ("rtd", {f"mlm_{score}" for score in PREDICTED} | {f"rtd_{score}" for score in DETECTED} | SAMPLED | {"replaced_share"}),
        ("electric", {"cloze_loss", "cloze_perplexity", "cloze_accuracy"} | {f"nce_{score}" for score in DETECTED} | SAMPLED),
    ],
)
def test_every_objective_gives_all_scores_and_they_add_up(name: str, expected: set[str]) -> None:
    module = objective(name)
    with torch.no_grad():
        for head in [model.head for part, model in module.models().items() if part == "discriminator"]:
            for parameter in head.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2), dtype=parameter.dtype))
    stats = [module.measure(prepared(module, number)) for number in range(4)]
    whole = {key: sum(stat[key] for stat in stats) for key in stats[0]}
    scores = module.summarize(whole)  # type: ignore[arg-type]
    assert set(scores) == expected
    turned = {key: sum(stat[key] for stat in reversed(stats)) for key in stats[0]}
    assert module.summarize(turned) == pytest.approx(scores, rel=1e-12, abs=1e-15)  # type: ignore[arg-type]
    assert 0 < scores.get("generator_entropy", scores.get("mlm_entropy", 0.0)) <= math.log(VOCAB)


def test_samples_that_are_the_token_itself_are_not_replaced() -> None:
    module = objective("rtd")
    assert isinstance(module, RtdObjective)
    made = prepared(module)
    ids, replaced = module.corrupted(made)
    picks, labels = made.targets["picks"], made.targets["labels"]
    scores = module.summarize(module.measure(made))
    assert scores["sampled_accuracy"] == pytest.approx(float((ids.flatten()[picks] == labels).double().mean()))
    assert scores["replaced_share_of_masked"] == pytest.approx(float(replaced.sum()) / len(picks))
    assert scores["replaced_share"] == pytest.approx(float(replaced.sum()) / made.num_tokens)
    with torch.no_grad():
        probabilities = torch.softmax(module.generator(made, picks), dim=1)  # type: ignore[misc]
    assert scores["generator_entropy"] == pytest.approx(float(-(probabilities * probabilities.log()).sum(1).mean()), rel=1e-9)
    never = objective("rtd", disallow_correct=True)
    assert never.summarize(never.measure(prepared(never)))["replaced_share_of_masked"] == 1.0
    alone = objective("rtd", uniform_generator=True)
    found = alone.summarize(alone.measure(prepared(alone)))
    assert not {"mlm_loss", "generator_entropy"} & set(found)
    assert {"sampled_accuracy", "rtd_calibration_error"} <= set(found)


def test_measuring_an_electric_draws_what_training_draws() -> None:
    module = objective("electric")
    assert isinstance(module, ElectricObjective)
    made = prepared(module)
    terms = {term.name: float(term.sum) / term.count for term in module(made).terms}
    scores = module.summarize(module.measure(made))
    assert scores["nce_loss"] == pytest.approx(terms["nce"], rel=1e-6)
    assert scores["cloze_loss"] == pytest.approx(terms["cloze"], rel=1e-6)


def test_a_head_that_knows_fewer_words_than_it_has_rows() -> None:
    module = objective("mlm")
    assert isinstance(module, MlmObjective)
    module.encoder.known = VOCAB - 20
    scores = module.summarize(module.measure(module.prepare(batch([[20, 9], [31]], length=40, vocab=VOCAB - 20), 1)))
    assert scores["mlm_entropy"] <= math.log(VOCAB - 20)
