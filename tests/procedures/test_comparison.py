"""The comparison of trials: every seed, intervals, pairs and sentences."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from tiny_trials import LABELS, task

from kitae.core.errors import KitaeError
from kitae.procedures.comparison import Quoted, TaskResult, compare, sentence
from kitae.procedures.errors import error_tables, errors
from kitae.procedures.outcome import Outcome, read, write
from kitae.procedures.result_tables import page, tables, times
from kitae.procedures.trial_set import read_trials
from kitae.report.latex import latex
from kitae.report.tables import comma_separated, markdown
from kitae.tasks.config import TaskConfig
from kitae.tasks.kind import Predicted
from kitae.tasks.records import TaskData
from kitae.tasks.statistics import Comparison
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
    return compare(read_trials(folders, TASK, data.test), samples=2000, seed=1)


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
    told = next(line for line in result.verdicts if line.startswith("pretrain beats random by "))
    row = verdicts["pretrain", "random"]
    assert f"by {100 * float(row['difference']):.1f} points (95 % {100 * float(row['low']):.1f} to {100 * float(row['high']):.1f})" in told
    turned = sentence(Comparison(a="x", b="y", difference=-0.2, low=-0.29, high=-0.11, p=0.01, verdict="worse"))
    assert turned == "y beats x by 20.0 points (95 % 11.0 to 29.0)"
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
        read_trials([one, other], TASK, task(test=33).test)
    with pytest.raises(KitaeError, match="no trials"):
        read_trials([], TASK, ())
    with pytest.raises(KitaeError, match='"test29", which is no test example now'):
        read_trials([one], TASK, task(test=29).test)


def test_mcnemar_stands_beside_the_bootstrap(result: TaskResult) -> None:
    pairs = {(row["a"], row["b"]): row for row in result.comparisons}
    told, same = pairs["pretrain", "random"], pairs["twin", "pretrain"]
    assert float(told["mcnemar_p"]) < 0.001
    assert float(told["only_a"]) > float(told["only_b"])
    assert float(same["mcnemar_p"]) > 0.05
    comparisons = tables(TaskResult.model_validate_json(result.model_dump_json()))["comparisons"]
    assert comparisons.columns[-3:] == ("only encoder right", "only other right", "McNemar p")
    line = next(line for line in markdown(comparisons).splitlines() if line.startswith("| pretrain | random |"))
    assert line.endswith(f"| better | {told['only_a']} | {told['only_b']} | &lt;0.001 |")
    assert isinstance(told["only_a"], int), "examples are counted"


def test_folders_are_called_by_their_ends_on_every_page_and_told_once(tmp_path: Path) -> None:
    data = task(test=40)
    one, two = "/deep/one/bert_a*", "/deep/two/bert_a*"
    folders = [trial(tmp_path / str(i), data, encoder="x", seed=1, right=right) for i, right in enumerate((0.2, 0.95))]
    for folder, name in zip(folders, (one, two), strict=True):
        found = json.loads((folder / "results.json").read_text(encoding="utf-8")) | {"encoder": name, "warnings": ["odd", "even", "odd"]}
        (folder / "results.json").write_text(json.dumps(found), encoding="utf-8")
    trials = read_trials(folders, TASK, data.test)
    result = compare(trials, samples=200, seed=1)
    wrong = error_tables(errors(trials, worst=3, texts=True, seed=1), result.names)
    text = page(result, list(wrong.values()))
    assert text.count("/deep/") == 2
    assert "Folders: one/bert\\_a\\* is /deep/one/bert\\_a\\*; two/" in text
    assert "- two/bert\\_a\\* beats one/bert\\_a\\* by " in text
    assert "Warning, one/bert\\_a\\*: even\n\nWarning, one/bert\\_a\\*: odd\n\nWarning, two/" in text
    assert "## Confusion of two/bert\\_a\\*, all seeds" in text
    assert list(tables(result))[3:] == ["confusion-one_bert_a_", "confusion-two_bert_a_"]
    assert "/deep/" not in times(result) + "".join(map(latex, tables(result).values()))
    assert {row["a"] for row in result.comparisons} == {two}, "results.json keeps the folders"


def test_quoted_scores_are_rows_of_their_own_and_in_no_statistics(tmp_path: Path, result: TaskResult) -> None:
    data = task(test=60)
    folders = [trial(tmp_path, data, encoder=name, seed=1, right=0.8) for name in ("a", "b")]
    found = read_trials(folders, TASK, data.test)
    quoted = Quoted(name="BERT_large & co", score=0.951, source="Some et al. (2020), table 3", url="https://example.org/a_b")
    plain, marked = compare(found, samples=200, seed=1), compare(found, samples=200, seed=1, quoted=[quoted])
    assert plain.model_copy(update={"quoted": [quoted]}) == marked
    summary = tables(marked)["summary"]
    assert summary.rows[-1][:4] == ["BERT_large & co", None, 0.951, None]
    assert summary.rows[-1][-1] == "quoted, not measured here: Some et al. (2020), table 3, https://example.org/a_b"
    assert [row[-1] for row in summary.rows[:-1]] == [None, None]
    assert r"BERT\_large \& co & " in latex(summary)
    assert "no statistics hold them" in page(marked)
    assert "source" not in tables(plain)["summary"].columns
    with pytest.raises(ValidationError):
        Quoted(name="x", score=95.1, source="y")


def test_hidden_labels_leave_nothing_to_compare(tmp_path: Path) -> None:
    data = task(test=30)
    hidden = dataclasses.replace(data, test=tuple(dataclasses.replace(example, gold=None) for example in data.test))
    folders = []
    for encoder in ("a", "b"):
        path = tmp_path / encoder
        path.mkdir()
        found = [Predicted(value="art") for _ in hidden.test]
        write(Outcome(predicted=found, chosen={}, curve=[]), hidden, path, metric="", encoder=encoder, seed=1)
        folders.append(path)
    result = compare(read_trials(folders, TASK, hidden.test), samples=100, seed=1)
    assert (result.encoders, result.comparisons, tables(result)) == ([], [], {})
    assert "all 30 test examples are hidden" in page(result)


def test_times_of_every_trial_are_kept_and_drawn(result: TaskResult) -> None:
    assert result.encoders[1].seconds == {"train": 2.0, "predict": 1.0}
    assert result.encoders[1].times == {"train": [2.0] * 5, "predict": [1.0] * 5}
    picture = times(result)
    assert picture.count("<circle") == 2 * 16
    assert "training, seconds" in picture
