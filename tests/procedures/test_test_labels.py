"""The labels of the test examples decide nothing: with permuted ones a trial of any kind chooses and predicts the same, to the bit."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tiny_trials import LABELS, QUICK, examples, start

from kitae.procedures.finetuned import Finetuned, load
from kitae.procedures.outcome import write
from kitae.procedures.trials import TrialConfig, run_trial
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Answer, Example, Gold
from kitae.tasks.kind import Feature, Raw
from kitae.tasks.kinds import KINDS, kind_of, options_of
from kitae.tasks.records import TaskData


def words(text: str) -> tuple[tuple[int, int], ...]:
    """Where the words of a text stand."""
    places, start = [], 0
    for word in text.split(" "):
        places.append((start, start + len(word)))
        start += len(word) + 1
    return tuple(places)


def label(example: Example) -> Example:
    return example


def number(example: Example) -> Example:
    return dataclasses.replace(example, gold=float(LABELS.index(str(example.gold))))


def some_labels(example: Example) -> Example:
    number = LABELS.index(str(example.gold))
    return dataclasses.replace(example, gold=LABELS[:number])


def choice(example: Example) -> Example:
    return dataclasses.replace(example, choices=("w0", "w3", "w6"), gold=LABELS.index(str(example.gold)))


def tags(example: Example) -> Example:
    """The words of the labels are entities."""
    places = words(example.text)
    said = [int(example.text[start + 1 : end]) for start, end in places]
    return dataclasses.replace(example, words=places, gold=tuple(f"B-{LABELS[one // 3]}" if one < 9 else "O" for one in said))


def answer(example: Example) -> Example:
    """What is asked for stands in the context, unless the label is the last one."""
    first = next(word for word in example.text.split() if int(word[1:]) < 9)
    gold = () if example.gold == LABELS[2] else (Answer(start=example.text.index(first), text=first),)
    return dataclasses.replace(example, text="w1 w2", second=example.text, gold=gold)


OF_GOLD = "unaligned"
"""Of a question, for its table of scores: that no true answer falls on tokens."""
CASES: dict[str, tuple[Callable[[Example], Example], dict[str, object]]] = {
    "classification": (label, {}),
    "multilabel": (some_labels, {"threshold": "tuned"}),
    "regression": (number, {}),
    "choice": (choice, {}),
    "tagging": (tags, {"crf": True}),
    "span": (answer, {"unanswerable": True}),
}


def task(kind: str) -> TaskData:
    make, options = CASES[kind]
    config = TaskConfig(name="t", kind=kind, kind_config=options, train=("-",), test=("-",))
    parts = {
        name: tuple(map(make, examples(count, name=name, seed=0))) for name, count in (("train", 24), ("validation", 15), ("test", 15))
    }
    labels = kind_of(config).labels(parts["train"], options_of(config))
    return TaskData(config=config, labels=labels, leaked=0, **parts)


def elsewhere(data: TaskData) -> tuple[Example, ...]:
    """The test examples with each other's golds, or of tags and answers with others of their own."""

    def turned(i: int, example: Example) -> Gold | None:
        if example.words:
            return tuple(reversed([str(tag) for tag in example.gold])) if isinstance(example.gold, tuple) else None
        if example.second is not None:
            return () if example.gold else (Answer(start=0, text=example.second.split()[0]),)
        return data.test[(i + 1) % len(data.test)].gold

    return tuple(dataclasses.replace(example, gold=turned(i, example)) for i, example in enumerate(data.test))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_permuted_test_labels_change_nothing_that_is_chosen(kind: str, tmp_path: Path) -> None:
    data = task(kind)
    other = dataclasses.replace(data, test=elsewhere(data))
    assert [e.gold for e in other.test] != [e.gold for e in data.test]
    found = {}
    for name, one in (("true", data), ("permuted", other)):
        folder = tmp_path / name
        folder.mkdir()
        config = TrialConfig.model_validate({**QUICK.model_dump(), "epochs": 2, "max_length": 32})
        outcome = run_trial(one, start(tmp_path / "start"), config, seed=1, folder=folder)
        results = write(outcome, one, folder, metric="", encoder="pretrain", seed=1)
        model = {file.name: file.read_bytes() for file in (folder / "model").iterdir() if file.suffix in (".json", ".safetensors")}
        model.pop("manifest.json", None)
        said = [(one.value, {key: value for key, value in one.more.items() if key != OF_GOLD}) for one in outcome.predicted]
        found[name] = (outcome.chosen, outcome.curve, said, model)
        assert results.scores
    assert found["true"][:3] == found["permuted"][:3]
    for name, content in found["true"][3].items():
        assert content == found["permuted"][3][name], name
    thresholds = [key for key in found["true"][0] if key.startswith("tuned/")]
    assert bool(thresholds) == (kind in ("multilabel", "span")), "kinds with thresholds choose them on validation"


def test_the_golds_of_these_tasks_differ_and_are_learnable() -> None:
    for kind in CASES.keys() & KINDS.keys():
        data = task(kind)
        assert len({str(example.gold) for example in data.test}) > 1
        for example in (*data.train, *data.test):
            kind_of(data.config).check(example, data.labels, options_of(data.config))


@pytest.mark.parametrize("kind", ["multilabel", "span"])
def test_texts_are_encoded_once_and_thresholds_are_tried_on_what_was_said_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: Counter[str] = Counter()
    said = []

    def features(self: Finetuned, example: Example, *, learn: bool = False) -> list[Feature]:
        encoded[example.id] += 1
        return make(self, example, learn=learn)

    def raws(self: Finetuned, features: Sequence[Sequence[Feature]]) -> list[list[Raw]]:
        said.append(len(features))
        return say(self, features)

    make, say = Finetuned.features, Finetuned.raws
    monkeypatch.setattr(Finetuned, "features", features)
    monkeypatch.setattr(Finetuned, "raws", raws)
    data, config = task(kind), TrialConfig.model_validate({**QUICK.model_dump(), "epochs": 2, "max_length": 32})
    outcome = run_trial(data, start(tmp_path / "start"), config, seed=1, folder=tmp_path)
    assert encoded == Counter(example.id for part in (data.train, data.validation, data.test) for example in part)
    assert said == [len(data.validation)] * 2 + [len(data.test)]
    monkeypatch.undo()
    model, _ = load(tmp_path / "model")
    assert model.tuned, "what was chosen travels with the model"
    assert model.predict(data.test) == outcome.predicted, "to the bit"
