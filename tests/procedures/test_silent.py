"""Failures that raise no error are named, each provoked by a real trial."""

import dataclasses
from pathlib import Path

import pytest
import torch
from test_comparison import TASK
from tiny_trials import LABELS, QUICK, examples, start, task

from kitae.core.errors import KitaeError
from kitae.procedures.baselines import BASELINES
from kitae.procedures.finetuned import load
from kitae.procedures.outcome import TrialResults, write
from kitae.procedures.silent import said_of
from kitae.procedures.trials import TrialConfig, run_trial
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.kind import Predicted
from kitae.tasks.kinds import kind_of
from kitae.tasks.records import TaskData


def trial(data: TaskData, folder: Path, **changes: object) -> TrialResults:
    config = TrialConfig.model_validate({**QUICK.model_dump(), "epochs": 1, **changes})
    outcome = run_trial(data, start(folder / "start"), config, seed=1, folder=folder)
    return write(outcome, data, folder, metric="", encoder="pretrain", seed=1)


def numbers(data: TaskData, *, kind: str = "regression") -> TaskData:
    """The same texts with the number of their label for a gold."""

    def turned(part: tuple[Example, ...]) -> tuple[Example, ...]:
        return tuple(dataclasses.replace(e, gold=float(LABELS.index(str(e.gold)))) for e in part)

    parts = {name: turned(getattr(data, name)) for name in ("train", "validation", "test")}
    return dataclasses.replace(data, config=TaskConfig(name="t", kind=kind, train=("-",), test=("-",)), labels=(), **parts)


def named(results: TrialResults, begin: str) -> list[str]:
    return [warning for warning in results.warnings if warning.startswith(begin)]


def test_predictions_of_all_classes_have_no_warnings() -> None:
    data = task(train=60)
    right = [Predicted(value=example.gold) for example in data.test if example.gold is not None]
    assert said_of(kind_of(TASK), data, right) == []


def test_a_learning_rate_of_nothing_leaves_the_head_untrained_and_says_one_thing(tmp_path: Path) -> None:
    results = trial(task(train=24, test=30), tmp_path, learning_rate=1e-30)
    assert named(results, "the head was not trained: its weights are what they were before")
    moved = tmp_path / "moved"
    moved.mkdir()
    assert not named(trial(task(train=24, test=30), moved), "the head was not trained")


def test_one_class_for_everything_is_named(tmp_path: Path) -> None:
    data = task(train=60, test=30)
    mostly = tuple(dataclasses.replace(e, gold="art") if i % 10 else e for i, e in enumerate(data.train))
    results = trial(dataclasses.replace(data, train=mostly), tmp_path, learning_rate=1e-5)
    (found,) = named(results, "constant: all 30 test examples got")
    assert 'got "art"' in found
    assert "try fp32, a lower learning rate" in found
    assert not named(results, "classes that occur in the test examples and are never predicted"), "it says the same"


def test_a_collapse_in_which_nothing_of_the_text_arrives_is_told_apart(tmp_path: Path) -> None:
    results = trial(task(train=48, test=30), tmp_path, precision="bf16", learning_rate=100.0, epochs=1, clip=0.01)
    (found,) = named(results, "constant: all 30 test examples got")
    assert "with the same probabilities: what is read does not reach the outputs" in found


def test_a_constant_regression_is_named(tmp_path: Path) -> None:
    results = trial(numbers(task(train=48, test=30)), tmp_path, learning_rate=100.0, clip=0.01)
    assert named(results, "constant: all 30 test examples got about ")


def test_classes_that_never_occur_are_named(tmp_path: Path) -> None:
    data = task(train=60, test=30)
    train = tuple(e for e in data.train if e.gold != "sea")
    test = tuple(e for e in data.test if e.gold != "law")
    results = trial(dataclasses.replace(data, train=train, test=test, labels=(*LABELS, "tax")), tmp_path)
    assert named(results, "classes that never occur in the training examples and cannot be learnt: sea, tax")
    assert named(results, "classes that never occur in the test examples, whose scores say nothing of them: law, tax")


def test_what_is_said_of_the_whole_task_is_not_said_again() -> None:
    data = task(train=60, test=30)
    data = dataclasses.replace(data, train=tuple(e for e in data.train if e.gold != "sea"), labels=(*LABELS, "tax"))
    right = [Predicted(value=example.gold) for example in data.test if example.gold is not None]
    told = dataclasses.replace(data, remarks=('no training example has the label "tax"',))
    tax, both = (said_of(kind_of(TASK), one, right)[0] for one in (told, data))
    assert (tax.rpartition(": ")[2], both.rpartition(": ")[2]) == ("sea", "sea, tax")


def test_a_class_that_is_never_predicted_is_named(tmp_path: Path) -> None:
    data = task(train=120, test=30)
    others = [e for e in data.train if e.gold != "sea"]
    few = (*others, *(dataclasses.replace(e, id=f"as {e.id}", gold="sea") for e in others[:2]))  # seen twice, among many of their kind
    data = dataclasses.replace(data, train=few, validation=tuple(e for e in data.validation if e.gold != "sea"))
    results = write(BASELINES["tfidf"](data, ""), data, tmp_path, metric="", encoder="tfidf", seed=1)
    assert results.warnings == ["classes that occur in the test examples and are never predicted: sea"]


def test_texts_of_unknown_tokens_alone_are_named(tmp_path: Path) -> None:
    data = task(train=24, test=6)
    strange = tuple(dataclasses.replace(e, text="zzz zzz") for e in data.test)
    results = trial(dataclasses.replace(data, test=strange), tmp_path)
    assert "6 of 6 test texts are nothing but unknown tokens: the vocabulary does not fit them" in results.warnings


def test_a_loss_of_exactly_zero_is_named(tmp_path: Path) -> None:
    data = task(train=12, test=6)
    one = {name: tuple(dataclasses.replace(e, gold="art") for e in getattr(data, name)) for name in ("train", "validation", "test")}
    assert named(trial(dataclasses.replace(data, labels=("art",), **one), tmp_path), "zero loss: nothing was left to learn in epoch 1")


def test_outputs_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    trial(task(train=24, test=6), tmp_path)
    model, _ = load(tmp_path)
    with torch.no_grad():
        next(model.learner.parameters()).fill_(float("nan"))
    with pytest.raises(KitaeError, match="6 of 6 outputs of the model are not numbers"):
        model.predict(examples(6, name="new", seed=1))


def test_a_gradient_that_is_no_number_stops_the_trial(tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match="not finite"):
        trial(task(train=48, test=6), tmp_path, precision="fp16", learning_rate=1e20)


def test_the_majority_baseline_may_say_one_thing(tmp_path: Path) -> None:
    data = dataclasses.replace(task(train=24, test=30), config=TASK)
    outcome = run_trial(
        data, start(tmp_path / "s"), QUICK.model_copy(update={"epochs": 1, "learning_rate": 1e-30}), seed=1, folder=tmp_path
    )
    same = dataclasses.replace(outcome, predicted=[outcome.predicted[0]] * 30, warnings=[])
    assert write(same, data, tmp_path, metric="", encoder="majority", seed=1).warnings == []
    assert write(same, data, tmp_path, metric="", encoder="random", seed=1).warnings
