"""Trials of questions: both heads learn them, and what is saved answers alike."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_trials import start_folder
from transformers import AutoModelForQuestionAnswering

from kitae.models.folder import read_parts, write_huggingface
from kitae.procedures.finetuned import load
from kitae.procedures.outcome import read, write
from kitae.procedures.trials import TrialConfig, read_start, run_trial
from kitae.tasks.batches import assemble
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Answer, Example
from kitae.tasks.questions import SpanConfig
from kitae.tasks.records import TaskData
from kitae.tensor.random import numpy_generator

QUICK = TrialConfig(epochs=1, batch=8, learning_rate=3e-3, max_length=16)
"""Contexts of up to 18 words stand in windows of 10."""


def asked(count: int, name: str, *, impossible: bool) -> tuple[Example, ...]:
    """w0 asks for the word of w5 to w7, w1 for that of w10 to w12; w15 behind it belongs to it. Every third has none, if `impossible`."""
    made = []
    for i in range(count):
        generator = numpy_generator(1, name, i)
        words = [f"w{j}" for j in generator.integers(20, 60, size=generator.integers(4, 16))]
        which = i % 2
        here = not impossible or i % 3 > 0
        wanted = [f"w{5 + 5 * which + int(generator.integers(3))}", *(["w15"] if i % 4 < 2 else [])]
        other = f"w{10 - 5 * which + int(generator.integers(3))}"
        words.insert(int(generator.integers(len(words) + 1)), other)
        place = int(generator.integers(len(words) + 1))
        start = sum(len(word) + 1 for word in words[:place])
        words[place:place] = wanted if here else []
        gold = (Answer(start=start, text=" ".join(wanted)),) if here else ()
        question = " ".join([f"w{which}"] * 3)
        made.append(Example(id=f"{name}{i}", text=question, second=" ".join(words), gold=gold, where=f"{name}, line {i}"))
    return tuple(made)


def task(**options: Any) -> TaskData:
    impossible = bool(options.get("unanswerable"))
    return TaskData(
        config=TaskConfig(name="t", kind="span", kind_config=options, train=("-",), test=("-",)),
        train=asked(300, "train", impossible=impossible),
        validation=asked(30, "validation", impossible=impossible),
        test=asked(60, "test", impossible=impossible),
        labels=(),
        leaked=0,
    )


@pytest.mark.parametrize(("head", "epochs"), [("simple", 5), ("joint", 6)])
def test_both_heads_learn(tmp_path: Path, head: str, epochs: int) -> None:
    data, start = task(answering=head, unanswerable=True, doc_stride=6, beam=5), read_start(start_folder(tmp_path / "start"))
    folder = tmp_path / "trial"
    folder.mkdir()
    outcome = run_trial(data, start, QUICK.model_copy(update={"epochs": epochs, "batch": 16, "learning_rate": 6e-3}), seed=1, folder=folder)
    results = write(outcome, data, folder, metric="", encoder="tiny", seed=1)
    assert results.metric == "f1"
    assert results.scores["exact"] > 0.9, results.scores
    for example, found in zip(data.test, read(folder).predicted, strict=True):
        for entry in found.more["nbest"]:  # type: ignore[attr-defined]
            assert (example.second or "")[entry["start"] : entry["end"]] == entry["text"]
    model, use = load(folder)
    assert use.kind == "span"
    again = model.predict(data.test[::-1])[::-1]
    assert [one.value for one in again] == [one.value for one in outcome.predicted]
    shares = [entry["probability"] for one in (*again, *outcome.predicted) for entry in one.more["nbest"]]  # type: ignore[attr-defined]
    half = len(shares) // 2
    assert np.abs(np.asarray(shares[:half]) - np.asarray(shares[half:])).max() < 1e-5
    official = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in (folder / "submissions").iterdir()}
    assert set(official) == {"predictions", "best_answers", "null_odds", "nbest_predictions"}
    for example, found in zip(data.test, outcome.predicted, strict=True):
        assert official["predictions"][example.id] == (found.value[0].text if found.value else "")  # type: ignore[index,union-attr]
        assert official["best_answers"][example.id] == official["nbest_predictions"][example.id][0]["text"]
        kept = official["null_odds"][example.id] <= use.tuned["null_threshold"]
        assert official["predictions"][example.id] == (official["best_answers"][example.id] if kept else "")
    assert use.tuned["null_threshold"] == outcome.chosen["tuned/null_threshold"]
    assert results.scores["NoAns_exact"] > 0.7
    assert results.scores["HasAns_total"] == 40


def test_the_simple_head_is_transformers(tmp_path: Path) -> None:
    data, start = task(), read_start(start_folder(tmp_path / "start"))
    folder = tmp_path / "trial"
    folder.mkdir()
    run_trial(data, start, QUICK, seed=1, folder=folder)
    model, _ = load(folder)
    (feature, *_) = model.features(data.test[0])
    (text,) = feature.texts
    with torch.no_grad():
        ours = model.learner.encoder(assemble([feature], pad=0, numbers=[0], alone=True))
    hugging = exported(folder, tmp_path / "hugging")
    with torch.no_grad():
        theirs = hugging(input_ids=torch.from_numpy(text.ids)[None].long(), token_type_ids=torch.from_numpy(text.segments)[None].long())
    assert torch.equal(ours.argmax(1)[0], torch.stack([theirs.start_logits.argmax(), theirs.end_logits.argmax()]))
    torch.testing.assert_close(ours[..., 0], theirs.start_logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours[..., 1], theirs.end_logits, atol=1e-5, rtol=0)
    assert json.loads((tmp_path / "hugging" / "config.json").read_text())["architectures"] == ["ElectraForQuestionAnswering"]


def exported(folder: Path, target: Path) -> Any:
    write_huggingface(read_parts(folder / "model")["encoder"], target)
    return AutoModelForQuestionAnswering.from_pretrained(target).eval()


def test_settings_travel_with_the_model(tmp_path: Path) -> None:
    data, start = task(doc_stride=7, max_answer_length=2), read_start(start_folder(tmp_path / "start"))
    folder = tmp_path / "trial"
    folder.mkdir()
    run_trial(data, start, QUICK, seed=1, folder=folder)
    assert load(folder)[0].options == SpanConfig(doc_stride=7, max_answer_length=2)
