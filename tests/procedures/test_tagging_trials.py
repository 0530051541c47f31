"""A tagging trial learns entities, with and without a CRF; what it saves predicts the same, in kitae and in transformers."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import transformers
from tiny_trials import WORDS, start

from kitae.core.artifact import Inputs, Out
from kitae.procedures.finetuned import Finetuned, load
from kitae.procedures.outcome import Outcome, read, write
from kitae.procedures.predict import Predictor
from kitae.procedures.silent import said_of
from kitae.procedures.trials import TrialConfig, run_trial
from kitae.stages.export import ExportConfig, run
from kitae.tasks import batches
from kitae.tasks.config import TaskConfig
from kitae.tasks.entities import F1
from kitae.tasks.examples import Example, Gold, Span
from kitae.tasks.kind import Predicted
from kitae.tasks.kinds import kind_of, options_of
from kitae.tasks.records import TaskData
from kitae.tensor.random import numpy_generator

QUICK = TrialConfig(epochs=3, batch=8, learning_rate=6e-3)
BEGINS = {"PER": WORDS[:3], "LOC": WORDS[3:6]}
INSIDE = WORDS[6:9]  # of either class: only what stands before tells which


def examples(count: int, name: str, *, spans: bool) -> tuple[Example, ...]:
    """Sentences of 3 to 20 words, among them two entities of one to three words, of either class."""
    made = []
    for i in range(count):
        generator = numpy_generator(5, name, i)
        parts: list[tuple[str, str]] = [(WORDS[j], "O") for j in generator.integers(9, 60, size=generator.integers(1, 14))]
        for _ in range(2):
            label = sorted(BEGINS)[int(generator.integers(2))]
            entity = [(BEGINS[label][int(generator.integers(3))], f"B-{label}")]
            entity += [(INSIDE[int(generator.integers(3))], f"I-{label}") for _ in range(int(generator.integers(3)))]
            places = [at for at in range(len(parts) + 1) if at == len(parts) or not parts[at][1].startswith("I")]
            at = places[int(generator.integers(len(places)))]
            parts[at:at] = entity
        text, words = "", []
        for word, _ in parts:
            words.append((len(text), len(text) + len(word)))
            text += word + " "
        gold: Gold = tuple(tag for _, tag in parts)
        example = Example(id=f"{name}{i}", text=text.rstrip(), words=tuple(words), gold=gold, where=f"{name}, line {i}")
        made.append(dataclasses.replace(example, words=(), gold=_spans(example)) if spans else example)
    return tuple(made)


def _spans(example: Example) -> tuple[Span, ...]:
    found: list[Span] = []
    assert isinstance(example.gold, tuple)
    for (start_, end), tag in zip(example.words, example.gold, strict=True):
        if str(tag).startswith("B-"):
            found.append(Span(start=start_, end=end, label=str(tag)[2:]))
        elif tag != "O":
            found[-1] = dataclasses.replace(found[-1], end=end)
    return tuple(found)


def task(*, spans: bool = False, **options: object) -> TaskData:
    config = TaskConfig(name="t", kind="tagging", kind_config=options, train=("-",), test=("-",))
    kind = kind_of(config)
    parts = {name: examples(count, name, spans=spans) for name, count in (("train", 160), ("validation", 30), ("test", 60))}
    parts = {name: tuple(kind.canonical(e, options_of(config)) for e in part) for name, part in parts.items()}
    return TaskData(config=config, labels=kind.labels(parts["train"], options_of(config)), leaked=0, **parts)


def f1(predicted: Sequence[Gold], data: TaskData) -> float:
    return F1.score([example.gold for example in data.test], predicted, data.labels)


def values(outcome: Outcome) -> list[Gold]:
    return [found.value for found in outcome.predicted]


def trial(data: TaskData, folder: Path, **changes: object) -> Outcome:
    folder.mkdir()
    return run_trial(data, start(folder.parent / "start"), QUICK.model_copy(update=changes), seed=1, folder=folder)


CASES = {
    "softmax": {"pieces": "all"},
    "crf in windows": {"crf": True, "scheme": "bioes", "overlap": 0.5},
    "spans": {"pieces": "all", "spans": True},
}


@pytest.mark.parametrize("name", CASES)
def test_entities_are_learnt_saved_and_found_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = task(**CASES[name])  # type: ignore[arg-type]
    outcome = trial(data, tmp_path / "trial", max_length=12 if "windows" in name else None)
    assert outcome.warnings == []
    assert f1(values(outcome), data) >= 0.97
    results = write(outcome, data, tmp_path / "trial", metric="", encoder="x", seed=1)
    assert results.metric == "f1"
    assert results.scores["f1"] == pytest.approx(f1(values(outcome), data))
    assert {"precision", "recall", "macro_f1", "accuracy", "f1/PER", "f1/LOC"} <= set(results.scores)
    assert [found.value for found in read(tmp_path / "trial").predicted] == values(outcome)
    model, use = load(tmp_path / "trial")
    assert ("crf" in name) == any(key.startswith("crf.") for key, _ in model.learner.named_parameters())
    assert use.kind_config == data.config.kind_config
    assert [found.value for found in model.predict(data.test)] == values(outcome)
    _same_in_other_batches(model, data, monkeypatch)
    answers = list(Predictor.load(tmp_path / "trial", device="cpu").predict([example.text for example in data.test]))
    for answer, found in zip(answers, outcome.predicted, strict=True):
        assert answer is not None
        given, told = answer.json()["entities"], found.more["entities"]
        assert isinstance(given, list)
        assert isinstance(told, list)
        assert [(one["start"], one["end"], one["label"]) for one in given] == [(one["start"], one["end"], one["label"]) for one in told]


def _same_in_other_batches(model: Finetuned, data: TaskData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the order of the texts play a part."""
    once = model.predict(data.test)
    monkeypatch.setattr("kitae.procedures.finetuned.PREDICT_TOKENS", 30)
    again = model.predict(data.test[::-1])[::-1]
    for one, other in zip(once, again, strict=True):
        assert one.value == other.value
        scores = [[entity["score"] for entity in found.more["entities"]] for found in (one, other)]  # type: ignore[attr-defined]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_plain_tags_are_learnt_and_judged_by_accuracy(tmp_path: Path) -> None:
    data = task()
    config = data.config.model_copy(update={"kind_config": {"scheme": "none", "viterbi": False}, "metric": "accuracy"})
    kind = kind_of(config)
    data = dataclasses.replace(data, config=config, labels=kind.labels(data.train, options_of(config)))
    assert data.labels == ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
    outcome = trial(data, tmp_path / "trial", epochs=8)  # no rule of the scheme helps: what stands before must be looked at
    assert outcome.chosen["accuracy"] >= 0.9
    (answer,) = Predictor.load(tmp_path / "trial", device="cpu").predict([data.test[0].text])
    assert answer is not None
    assert len(answer.json()["words"]) == len(data.test[0].words)  # type: ignore[arg-type]


def test_transformers_predicts_the_same_from_the_export(tmp_path: Path) -> None:
    data = task(viterbi=False)
    trial(data, tmp_path / "trial", epochs=2)
    run(ExportConfig(), Inputs(parents={"trial": tmp_path / "trial"}, seed=1), Out(path=tmp_path / "out"))
    folder = tmp_path / "out" / "trial"
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours, _ = load(tmp_path / "trial")
    (folder / "task.json").unlink()  # as folders of others are
    theirs, use = load(folder)
    assert use.kind_config == {"scheme": "bio"}
    assert theirs.labels == data.labels
    for example in data.test[:20]:
        batch = tokenizer(example.text, return_tensors="pt")
        with torch.no_grad():
            logits = model(**batch).logits[0, 1:-1]
        tags = [model.config.id2label[i] for i in logits.argmax(-1).tolist()]
        (feature,) = ours.features(example)
        (raw,) = batches.predict(ours.learner, [feature], tokens=100, pad=0, device=torch.device("cpu"))
        assert logits.numpy() == pytest.approx(raw, abs=1e-5)
        (found,) = ours.predict([example])
        plain = [tag if tag[0] != "I" or tags[i - 1][1:] == tag[1:] else f"B{tag[1:]}" for i, tag in enumerate(tags)]
        assert found.value == tuple(plain)


def test_an_export_with_a_crf_is_kitaes_alone(tmp_path: Path) -> None:
    data = task(crf=True)
    outcome = trial(data, tmp_path / "trial", epochs=2)
    run(ExportConfig(), Inputs(parents={"trial": tmp_path / "trial"}, seed=1), Out(path=tmp_path / "out"))
    assert not (tmp_path / "out" / "trial" / "config.json").exists()
    model, _ = load(tmp_path / "out" / "trial")
    assert [found.value for found in model.predict(data.test)] == values(outcome)


def test_entities_within_tokens_are_told_in_the_warnings(tmp_path: Path) -> None:
    data = task(spans=True, pieces="all")
    first = data.train[0]
    assert isinstance(first.gold, tuple)
    span = first.gold[0]
    assert isinstance(span, Span)
    moved = dataclasses.replace(first, gold=(dataclasses.replace(span, end=span.end - 1), *first.gold[1:]))
    outcome = trial(dataclasses.replace(data, train=(moved, *data.train[1:40])), tmp_path / "trial", epochs=1)
    assert any(warning.startswith("1 of 80 entities to learn do not begin and end where tokens do") for warning in outcome.warnings)


def test_words_outside_are_no_class_that_could_be_absent() -> None:
    config = TaskConfig(name="t", kind="tagging", kind_config={"scheme": "none"}, train=("-",), test=("-",))
    made = tuple(Example(id=str(i), text="a b c", words=((0, 1), (2, 3), (4, 5)), gold=("N", "V", "O"), where="x") for i in range(3))
    data = TaskData(config=config, train=made, validation=made, test=made, labels=("N", "O", "V"), leaked=0)
    assert said_of(kind_of(config), data, [Predicted(value=("N", "V", "O"), more={"words": []})] * 3) == []
