"""Several tasks learnt at once: turns, losses, one encoder, results for each."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_trials import WORDS, start, task

from kitae.procedures.finetuned import load
from kitae.procedures.together import Shared, TogetherTrial, run_together
from kitae.procedures.trials import Start, TrialConfig, build
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.kind import Feature
from kitae.tasks.records import TaskData
from kitae.tasks.together import TERM, Lesson, Together, TogetherBatches, deal
from kitae.tensor.random import numpy_generator

QUICK = TrialConfig(epochs=9, batch=8, learning_rate=3e-3)


def counting(count: int, *, name: str, seed: int) -> tuple[Example, ...]:
    """Texts of eight words with a number that says how many of these are among three certain ones."""
    made = []
    for i in range(count):
        generator = numpy_generator(seed, name, i)
        often = int(generator.integers(0, 8))
        words = [WORDS[int(j)] for j in [*generator.integers(50, 53, size=often), *generator.integers(20, 40, size=8 - often)]]
        made.append(Example(id=f"{name}{i}", text=" ".join(words), gold=100.0 + 5 * often, where=f"{name}, line {i}"))
    return tuple(made)


def numbers(*, train: int = 80, validation: int = 20, test: int = 40) -> TaskData:
    """A task in memory that a small encoder can learn."""
    return TaskData(
        config=TaskConfig(name="count", kind="regression", train=("-",), test=("-",)),
        train=counting(train, name="train", seed=0),
        validation=counting(validation, name="validation", seed=0),
        test=counting(test, name="test", seed=0),
        labels=(),
        leaked=0,
    )


def both(*, labels: int = 160, count: int = 80) -> tuple[TaskData, TaskData]:
    return task(train=labels, validation=24, test=48), numbers(train=count)


def settings(tasks: tuple[TaskData, ...], trial: TrialConfig = QUICK, sampling: str = "proportional") -> TogetherTrial:
    shared = tuple(Shared(task=data.config, trial=trial) for data in tasks)
    return TogetherTrial.model_validate({"shared": shared, "sampling": sampling})


def test_two_tasks_are_learnt_by_one_encoder(tmp_path: Path) -> None:
    tasks = both()
    found = run_together(tasks, start(tmp_path / "start"), settings(tasks), seed=1, folder=tmp_path)
    assert list(found) == ["t", "count"]
    right = [one.value == example.gold for one, example in zip(found["t"].predicted, tasks[0].test, strict=True)]
    assert np.mean(right) > 0.75, "chance is a third"
    said = np.asarray([float(one.value) for one in found["count"].predicted])  # type: ignore[arg-type]
    assert np.corrcoef(said, [float(example.gold) for example in tasks[1].test])[0, 1] > 0.85  # type: ignore[arg-type]
    assert 90 < said.mean() < 150, "in the unit of the numbers"
    for name, metric in (("t", "accuracy"), ("count", "pearson")):
        curve = found[name].curve
        assert [point["epoch"] for point in curve] == list(range(1, 10))
        best = max(point["together"] for point in curve)
        assert next(point for point in curve if point["together"] == best).items() <= found[name].chosen.items()
        assert metric in found[name].chosen
    means = [(a["accuracy"] + b["pearson"]) / 2 for a, b in zip(found["t"].curve, found["count"].curve, strict=True)]
    assert [point["together"] for point in found["t"].curve] == pytest.approx(means)
    models = [load(tmp_path / name)[0] for name in found]
    for model, data, outcome in zip(models, tasks, found.values(), strict=True):
        again = model.predict(data.test)
        if data.config.kind == "regression":
            assert np.allclose([one.value for one in again], [one.value for one in outcome.predicted], atol=1e-3)
        else:
            assert [one.value for one in again] == [one.value for one in outcome.predicted]
    states = [model.learner.encoder.encoder.state_dict() for model in models]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items()), "one encoder"


def test_the_seed_decides_a_trial_of_several_tasks(tmp_path: Path) -> None:
    tasks = both(labels=40, count=24)
    config = settings(tasks, QUICK.model_copy(update={"epochs": 1, "least_steps": 6, "micro_batch": 3}))
    begin = start(tmp_path / "start")
    values = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        (tmp_path / name).mkdir()
        found = run_together(tasks, begin, config, seed=seed, folder=tmp_path / name)
        assert len(found["t"].curve) == 2, "24 numbers make 3 steps an epoch, and want 6"
        values.append([one.value for one in found["count"].predicted])
    assert values[0] == values[1]
    assert values[0] != values[2]


def lessons(begin: Start, tasks: tuple[TaskData, ...], epochs: tuple[int, ...]) -> tuple[Together, list[Lesson]]:
    models = [build(begin, data, QUICK, seed=number) for number, data in enumerate(tasks)]
    features: list[list[Feature]] = [
        [model.features(example, learn=True)[0] for example in data.train] for model, data in zip(models, tasks, strict=True)
    ]
    named = {data.config.name: model.learner for data, model in zip(tasks, models, strict=True)}
    made = [Lesson(name=name, features=some, epochs=count) for name, some, count in zip(named, features, epochs, strict=True)]
    return Together(named).eval(), made


def test_a_steps_loss_is_the_mean_of_its_micro_batches(tmp_path: Path) -> None:
    """Of each one's own loss, by examples; so it does not hang on which process has which."""
    learner, made = lessons(start(tmp_path), both(labels=20, count=20), (1, 1))
    batches = TogetherBatches(made, batch=14, micro_batch=4, pad=0, sampling="uniform", seed=1)
    micros = [batches.micro(0, micro) for micro in range(batches.micro_batches_per_step)]
    assert [learner.counts(batch)[TERM] for batch in micros] == [4, 4, 4, 2]
    assert len({batches.examples(0, micro)[0] for micro in range(4)}) == 2, "both tasks"
    total = torch.stack([learner(batch).total({TERM: 14}) for batch in micros]).sum()
    own = []
    for micro, batch in enumerate(micros):
        inner = learner.learners[["t", "count"].index(batches.examples(0, micro)[0])]
        own.append(inner(batch).total(inner.counts(batch)) * len(batch.targets["texts"]) / 14)
    torch.testing.assert_close(total, torch.stack(own).sum())
    total.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in learner.learners[0].encoder.encoder.blocks.parameters())
    names = [name for name, _ in learner.named_parameters()]
    assert sum("embed.token" in name for name in names) == 1, "the encoder is there once"


def test_proportional_turns_show_every_example_as_often_as_alone(tmp_path: Path) -> None:
    _, made = lessons(start(tmp_path), both(labels=40, count=24), (3, 2))
    batches = TogetherBatches(made, batch=8, micro_batch=4, pad=0, sampling="proportional", seed=1)
    assert batches.rounds == 3
    assert batches.shown() == pytest.approx({"t": 3.0, "count": 2.0}, abs=0.25)
    seen: dict[str, list[int]] = {"t": [], "count": []}
    for step in range(batches.rounds * batches.steps_per_round):
        for micro in range(2):
            name, numbers = batches.examples(step, micro)
            assert len(batches.micro(step, micro).targets["texts"]) == len(numbers)
            seen[name] += numbers
    for lesson in made:
        count = len(lesson.features)
        assert Counter(seen[lesson.name][:count]) == Counter(range(count)), "an epoch has every example once"
        times = Counter(seen[lesson.name]).values()
        assert max(times) - min(times) <= 1
    first, other = seen["t"][:40], seen["t"][40:80]
    assert first != other


def test_a_micro_batch_of_several_tasks_is_a_pure_function(tmp_path: Path) -> None:
    _, made = lessons(start(tmp_path), both(labels=40, count=24), (3, 3))
    one, other = (TogetherBatches(made, batch=8, micro_batch=4, pad=0, sampling="annealed", seed=7) for _ in range(2))
    for step, micro in ((20, 1), (0, 0), (7, 1), (20, 1)):
        a, b = one.micro(step, micro), other.micro(step, micro)
        assert torch.equal(a.ids_BL, b.ids_BL)
        assert set(a.targets) == set(b.targets)
    third = TogetherBatches(made, batch=8, micro_batch=4, pad=0, sampling="annealed", seed=8)
    steps = [(step, micro) for step in range(20) for micro in range(2)]
    assert [one.examples(*place) for place in steps] != [third.examples(*place) for place in steps]


@pytest.mark.parametrize(
    ("sampling", "shares"),
    [("proportional", (100 / 111, 10 / 111, 1 / 111)), ("square root", (0.7063, 0.2233, 0.0706)), ("uniform", (1 / 3, 1 / 3, 1 / 3))],
)
def test_turns_follow_the_sampling(sampling: str, shares: tuple[float, ...]) -> None:
    turns = deal([1000, 100, 10], rounds=10, size=60, sampling=sampling, seed=1)  # type: ignore[arg-type]
    assert turns.shape == (10, 60)
    assert np.bincount(turns.flatten()) == pytest.approx(600 * np.asarray(shares), abs=1.5)
    assert any((row != np.sort(row)).any() for row in turns), "a round's order is drawn"


def test_annealed_turns_become_more_even() -> None:
    turns = deal([1000, 100], rounds=5, size=1000, sampling="annealed", seed=1)
    small = (turns == 1).mean(axis=1)
    exponents = (1.0, 0.8, 0.6, 0.4, 0.2)
    assert small == pytest.approx([100**a / (1000**a + 100**a) for a in exponents], abs=2e-3)


def test_tasks_that_are_learnt_together_agree_on_the_training() -> None:
    first, second = both(labels=9, count=9)
    shared = (
        Shared(task=first.config, trial=QUICK.model_copy(update={"epochs": 2, "max_length": 16, "shorten": True})),
        Shared(task=second.config, trial=QUICK.model_copy(update={"metric": "spearman"})),
    )
    assert TogetherTrial(shared=shared).common.batch == 8
    other = replace(second, config=second.config.model_copy(update={"name": "other"}))
    wrong = (*shared, Shared(task=other.config, trial=QUICK.model_copy(update={"learning_rate": 1e-5})))
    with pytest.raises(ValidationError, match=r"one learning_rate, and theirs differ \(0.003 of t, 0.003 of count, 1e-05 of other\)"):
        TogetherTrial(shared=wrong)
    with pytest.raises(ValidationError, match="a task stands twice"):
        TogetherTrial(shared=(shared[0], shared[0]))


def test_permuted_test_labels_change_nothing_that_is_learnt(tmp_path: Path) -> None:
    tasks = both(labels=24, count=16)
    config = settings(tasks, QUICK.model_copy(update={"epochs": 2}))
    begin = start(tmp_path / "start")
    hidden = tuple(replace(data, test=tuple(replace(example, gold=None) for example in data.test)) for data in tasks)
    made = []
    for name, given in (("known", tasks), ("hidden", hidden)):
        (tmp_path / name).mkdir()
        found = run_together(given, begin, config, seed=1, folder=tmp_path / name)
        made.append((found["t"].chosen, (tmp_path / name / "t" / "model" / "weights.safetensors").read_bytes()))
    assert made[0] == made[1]
