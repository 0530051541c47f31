"""Labelled files measure models of every kind: what is right by construction scores so, whoever made the folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import CASES, ENTITIES, POSITIONS, TOKENS, Case, model_folder, rows

from kitae.core.errors import KitaeError
from kitae.procedures.answers import Entities
from kitae.procedures.measure import MeasureConfig, measure
from kitae.procedures.predict import Predictor
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

COUNT, RIGHT = 40, 30
Gold = Callable[[Any, bool], object]
"""The label of an answer as a file has it: what the answer says, or something else."""


def of_label(answer: Any, right: bool) -> object:
    return answer.label if right else next(label for label in answer.probabilities if label != answer.label)


def of_labels(answer: Any, right: bool) -> object:
    return list(answer.labels) if right else [label for label in answer.probabilities if label not in answer.labels]


def of_choice(answer: Any, right: bool) -> object:
    return answer.choice if right else (answer.choice + 1) % len(answer.probabilities)


def of_spans(answer: Any, right: bool) -> object:
    return [
        {"start": one.start, "end": one.end, "label": one.label if right else "LOC"}
        for one in answer.entities
        if right or one.label == "PER"
    ]


def of_answer(answer: Any, right: bool) -> object:
    return [{"start": answer.start, "text": answer.text}] if right else [{"start": -1, "text": "elsewhere"}]


def of_tags(answer: Any, right: bool) -> object:
    return " ".join(one.label if right else {"ADJ": "NOUN", "NOUN": "VERB", "VERB": "ADJ"}[one.label] for one in answer.entities)


SCORES: dict[str, tuple[Gold, str, float | None]] = {
    "classes": (of_label, "accuracy", RIGHT / COUNT),
    "classes of pairs": (of_label, "accuracy", RIGHT / COUNT),
    "several labels": (of_labels, "subset_accuracy", RIGHT / COUNT),
    "numbers": (lambda answer, right: answer.value + (0 if right else 2), "mse", 4 * (1 - RIGHT / COUNT)),
    "choices": (of_choice, "accuracy", RIGHT / COUNT),
    "answers": (of_answer, "exact", RIGHT / COUNT),
    "entities of long texts": (of_spans, "recall", None),
    "words": (of_tags, "accuracy", None),
}
"""The label, a score of the kind, and what it must be where that does not depend on the answers."""
TASKS: dict[str, dict[str, object]] = {
    "answers": {"text": "text", "second": "second"},
    "entities of long texts": {"format": "spans", "format_config": {"start": "start", "end": "end", "type": "label", "name": ""}},
}
"""How the files are written."""


def labelled(folder: Path, case: Case, gold: Gold, path: Path) -> float:
    """Write texts with labels, the first ones as the model predicts; returns the share of the stretches that are right."""
    given = rows(case, COUNT)
    answers = list(Predictor.load(folder, device="cpu", columns=("text",), second=("second",) if case.second else ()).predict(given))
    parts = [0, 0]
    with path.open("w", encoding="utf-8") as file:
        for number, (row, answer) in enumerate(zip(given, answers, strict=True)):
            right = number < RIGHT
            said = gold(answer, right)
            parts[right] += len(said) if isinstance(said, list) else len(getattr(answer, "entities", ()))
            file.write(json.dumps({**row, "entities" if isinstance(answer, Entities) and not answer.words else "label": said}) + "\n")
    return parts[1] / max(sum(parts), 1)


@pytest.mark.parametrize("name", SCORES)
def test_what_is_right_by_construction_scores_so(name: str, tmp_path: Path) -> None:
    gold, score, expected = SCORES[name]
    folder = model_folder(CASES[name], tmp_path / "model")
    share = labelled(folder, CASES[name], gold, tmp_path / "in.jsonl")
    found = measure(folder, [str(tmp_path / "in.jsonl")], MeasureConfig(device="cpu", task=TASKS.get(name, {})))
    assert found.what == CASES[name].kind
    assert found.counts[str(tmp_path / "in.jsonl")] == {"texts": COUNT}
    assert found.together[score] == pytest.approx(share if expected is None else expected, abs=1e-6)
    assert 0 < found.together[score] < 2


def saved(model: transformers.PreTrainedModel, folder: Path) -> Path:
    """A folder as transformers writes it, whose model says different things of different texts."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    Tokenizer.new(TOKENS, SegmenterSpec(kind="whitespace")).save(folder)
    return folder


def bert(**more: Any) -> transformers.BertConfig:
    return transformers.BertConfig(
        vocab_size=len(TOKENS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=POSITIONS, **more,
    )  # fmt: skip


def named(labels: tuple[str, ...]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)}}


FOREIGN: dict[str, tuple[str, Callable[[], transformers.PreTrainedModel]]] = {
    "classes": ("classes", lambda: transformers.BertForSequenceClassification(bert(**named(("sea", "art", "law"))))),
    "several labels": (
        "several labels",
        lambda: transformers.BertForSequenceClassification(bert(problem_type="multi_label_classification", **named(("sea", "art", "law")))),
    ),
    "a number": ("numbers", lambda: transformers.BertForSequenceClassification(bert(num_labels=1))),
    "choices": ("choices", lambda: transformers.BertForMultipleChoice(bert())),
    "answers": ("answers", lambda: transformers.BertForQuestionAnswering(bert())),
    "entities": ("entities of long texts", lambda: transformers.BertForTokenClassification(bert(**named(ENTITIES[::-1])))),
    "words": ("words", lambda: transformers.BertForTokenClassification(bert(**named(("NOUN", "VERB", "ADJ"))))),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_folders_that_transformers_wrote(name: str, tmp_path: Path) -> None:
    case, make = FOREIGN[name]
    gold, score, expected = SCORES[case]
    folder = saved(make(), tmp_path / "model")
    share = labelled(folder, CASES[case], gold, tmp_path / "in.jsonl")
    config = MeasureConfig(device="cpu", task=TASKS.get(case, {}) | ({"second": "second"} if CASES[case].second else {}))
    found = measure(folder, [str(tmp_path / "in.jsonl")], config).together
    assert found[score] == pytest.approx(share if expected is None else expected, abs=1e-6)


@pytest.mark.parametrize(
    ("content", "settings", "said"),
    [
        ('{"text": "w1", "label": "sky"}', {}, r'the label "sky" is not one of `labels`.*\n +in .*in\.jsonl, line 1'),
        ('{"text": "w1"}', {}, 'no column "label": the columns are text'),
        ('{"text": "w1", "label": "sea"}', {"label": "topic"}, 'no column "topic"'),
        ('{"text": "w1", "label": "sea"}', {"task": {"kind": "regression"}}, "task.kind does not say how a file is written"),
        ('{"text": "w1", "label": "sea"}', {"task": {"lable": "x"}}, 'did you mean "label"'),
        ('{"text": "w1", "label": "sea"}', {"task": {"like": "glue/nothing"}}, 'task.like = "glue/nothing" is no published task'),
        ('{"text": "w1", "label": "?"}', {"task": {"hidden": ["?"]}}, "the label is hidden"),
        ("", {}, "the file is empty"),
    ],
)
def test_bad_labelled_files_are_named(content: str, settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = model_folder(CASES["classes"], tmp_path / "model")
    (tmp_path / "in.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(KitaeError, match=said):
        measure(folder, [str(tmp_path / "in.jsonl")], MeasureConfig(device="cpu", **settings))
