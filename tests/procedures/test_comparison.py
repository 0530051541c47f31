"""The comparison of trials: every seed, intervals, pairs and sentences."""

from pathlib import Path

import numpy as np
import pytest
from tiny_trials import LABELS, task

from kitae.core.errors import KitaeError
from kitae.procedures.comparison import TaskResult, compare, tables
from kitae.procedures.outcome import Outcome, read, write
from kitae.report.tables import comma_separated, markdown
from kitae.tasks.config import TaskConfig
from kitae.tasks.kind import Predicted
from kitae.tasks.records import TaskData
from kitae.tensor.random import numpy_generator

TASK = TaskConfig(name="t", train=("-",), test=("-",))


def trial(folder: Path, data: TaskData, *, encoder: str, seed: int, right: float) -> Path:
    """A trial that gets about that share right; the same hard items for every trial."""
    truth, generator = np.array([LABELS.index(str(example.gold)) for example in data.test]), numpy_generator("trial", encoder, seed)
    hardness = numpy_generator("items").random(len(truth))
    wrong = (truth + generator.integers(1, 3, size=len(truth))) % 3
    predicted = np.where(hardness + generator.normal(0, 0.1, size=len(truth)) < right, truth, wrong)
    path = folder / encoder / str(seed)
    path.mkdir(parents=True)
    shares = np.eye(3)[predicted] * 0.7 + 0.1
    found = [Predicted(value=LABELS[int(row.argmax())], more={"probabilities": row.tolist()}) for row in shares]
    outcome = Outcome(predicted=found, chosen={"epoch": 1.0}, curve=[], seconds={"train": 2.0, "predict": 1.0})
    write(outcome, data, path, metric="", encoder=encoder, seed=seed)
    return path


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> TaskResult:
    folder, data = tmp_path_factory.mktemp("trials"), task(test=300)
    folders = [trial(folder, data, encoder="majority", seed=1, right=0.3)]
    for encoder, right in (("random", 0.6), ("pretrain", 0.85), ("twin", 0.85)):
        folders += [trial(folder, data, encoder=encoder, seed=seed, right=right) for seed in (1, 2, 3, 4, 5)]
    return compare(folders, task=TASK, metric="accuracy", samples=2000, seed=1)


def test_predictions_read_back(tmp_path: Path) -> None:
    data = task(test=50)
    found = read(trial(tmp_path, data, encoder="a", seed=3, right=0.5))
    assert list(found.ids) == [example.id for example in data.test]
    assert list(found.golds) == [example.gold for example in data.test]
    right = np.mean([one.value == gold for one, gold in zip(found.predicted, found.golds, strict=True)])
    assert found.results.scores["accuracy"] == found.results.scores["micro_f1"] == pytest.approx(right)
    assert found.results.score is not None
    assert found.results.score.low < found.results.scores["accuracy"] < found.results.score.high
    with pytest.raises(KitaeError, match="cannot be read"):
        read(tmp_path)


def test_every_seed_and_its_spread_are_there(result: TaskResult) -> None:
    assert [encoder.encoder for encoder in result.encoders] == ["majority", "random", "pretrain", "twin"]
    pretrain = result.encoders[2]
    values = [found["accuracy"] for found in pretrain.seeds.values()]
    assert list(pretrain.seeds) == ["1", "2", "3", "4", "5"]
    assert pretrain.spread["accuracy"]["mean"] == pytest.approx(np.mean(values)) == pytest.approx(pretrain.score.value)
    assert pretrain.spread["accuracy"]["median"] == pytest.approx(np.median(values))
    assert pretrain.score.low < pretrain.score.value < pretrain.score.high
    assert np.sum(pretrain.confusion) == 5 * 300
    assert np.trace(pretrain.confusion) / 1500 == pytest.approx(pretrain.score.value)
    assert result.encoders[0].spread["accuracy"]["low"] is None


def test_pairs_and_sentences(result: TaskResult) -> None:
    verdicts = {(row["a"], row["b"]): row for row in result.comparisons}
    assert len(verdicts) == 6
    assert verdicts["pretrain", "random"]["verdict"] == "better"
    assert verdicts["twin", "pretrain"]["verdict"] == "no difference shown"
    sentence = next(line for line in result.verdicts if line.startswith("pretrain beats random by "))
    row = verdicts["pretrain", "random"]
    assert (
        f"by {100 * float(row['difference']):.1f} points (95 % {100 * float(row['low']):.1f} to {100 * float(row['high']):.1f})" in sentence
    )
    assert any(line.startswith("twin against pretrain: no difference shown, ") for line in result.verdicts)


def test_tables_hold_the_same_numbers(result: TaskResult) -> None:
    made = tables(result)
    assert list(made)[:3] == ["summary", "comparisons", "seeds"]
    assert len(made["seeds"].rows) == 16
    line = next(line for line in markdown(made["summary"]).splitlines() if line.startswith("| pretrain"))
    assert f"{result.encoders[2].score.value:.3f}" in line
    assert repr(result.encoders[2].score.value) in comma_separated(made["summary"])
    assert made["confusion-pretrain"].columns == ("", *LABELS)


def test_trials_on_other_test_texts_are_refused(tmp_path: Path) -> None:
    one = trial(tmp_path, task(test=30), encoder="a", seed=1, right=0.5)
    other = trial(tmp_path, task(test=33), encoder="b", seed=1, right=0.5)
    with pytest.raises(KitaeError, match="different test examples"):
        compare([one, other], task=TASK, metric="accuracy", samples=100, seed=1)
    with pytest.raises(KitaeError, match="no trials"):
        compare([], task=TASK, metric="accuracy", samples=100, seed=1)
