"""A model that tags words reads the layout that it learnt from: {"tokens": [...]} gives a tag for each of these words."""

import json
from pathlib import Path

import pytest
from tiny_models import CASES, model_folder, rows

from kitae.procedures.answers import Entities
from kitae.procedures.finetuned import load, save, use_of
from kitae.procedures.measure import MeasureConfig, measure
from kitae.procedures.predict import PredictConfig, Predictor, predict_file
from kitae.tasks.config import TaskConfig

COUNT = 12


@pytest.mark.parametrize(("name", "join"), [("entities as they come", " "), ("words", "\u3000"), ("entities of long texts", "  ")])
def test_lists_of_words_are_tagged_word_by_word(name: str, join: str, tmp_path: Path) -> None:
    model_folder(CASES[name], tmp_path / "first")
    model, use = load(tmp_path / "first")
    kind = {"kind": "tagging", "kind_config": use.kind_config, "text": "tokens", "label": "ner_tags"}
    task = TaskConfig.model_validate({"name": "t", **kind, "format_config": {"join": join}, "train": ["-"], "test": ["-"]})
    save(model, use_of(model, task), tmp_path / "model")
    lists = [str(row["text"]).split() for row in rows(CASES[name], COUNT)]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"id": i, "tokens": words}) + "\n" for i, words in enumerate(lists)), encoding="utf-8")
    assert predict_file(tmp_path / "model", source, target, PredictConfig(device="cpu")) == COUNT
    lines = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [len(line["tags"]) for line in lines] == [len(words) for words in lists]
    assert len({tag for line in lines for tag in line["tags"]}) > 1
    for words, line in zip(lists, lines, strict=True):
        for one in line["entities" if name != "words" else "words"]:
            assert join.join(words)[one["start"] : one["end"]] == one["text"]
    predictor = Predictor.load(tmp_path / "model", device="cpu")
    for key in ("tokens", "text"):
        said = list(predictor.predict({key: words} for words in lists))
        assert [one.json()["tags"] for one in said if isinstance(one, Entities)] == [line["tags"] for line in lines]
    plain = next(predictor.predict([" ".join(lists[0])]))
    assert isinstance(plain, Entities)
    assert plain.tags is None, "of a text no words are known"
    gold = tmp_path / "gold.jsonl"
    gold.write_text("".join(json.dumps({"tokens": words, "ner_tags": line["tags"]}) + "\n" for words, line in zip(lists, lines)))
    found = measure(tmp_path / "model", [str(gold)], MeasureConfig(device="cpu", label="ner_tags"))
    assert found.together["accuracy"] == 1.0
