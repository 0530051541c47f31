"""Test sets without labels: predicted by a trial as leaderboards want it, and test examples whose label is hidden are not scored."""

import dataclasses
import json
from pathlib import Path

import pytest
from tiny_trials import QUICK, WORDS, start

from kitae.core.errors import KitaeError
from kitae.procedures.outcome import write
from kitae.procedures.submissions import cell
from kitae.procedures.trials import run_trial
from kitae.tasks.presets.table import task_like
from kitae.tasks.records import load, read_all
from kitae.tasks.unlabelled import read_submission

ONCE = QUICK.model_copy(update={"epochs": 1})
NLI = ("contradiction", "entailment", "neutral")


def glue(folder: Path, name: str, files: dict[str, str]) -> Path:
    """A folder in GLUE's layout."""
    (folder / name).mkdir()
    for file, text in files.items():
        (folder / name / f"{file}.tsv").write_text(text, encoding="utf-8")
    return folder


def rows(header: str, template: str, labels: tuple[object, ...], count: int) -> str:
    word = WORDS[0]
    return header + "".join(template.format(i=i, w=word, label=labels[i % len(labels)]) + "\n" for i in range(count))


def test_mnli_writes_its_three_tables(tmp_path: Path) -> None:
    labelled = rows("index\tgenre\tsentence1\tsentence2\tgold_label\n", "{i}\tg\t{w} {i}\t{w}\t{label}", NLI, 30)
    hidden = rows("index\tgenre\tsentence1\tsentence2\n", "{i}\tg\t{w} {i}\t{w}", ("",), 7)
    files = {"train": labelled, "dev_matched": labelled, "test_matched": hidden, "test_mismatched": hidden + "7\tg\t\tempty\n"}
    files["diagnostic"] = hidden.replace("genre\t", "").replace("\tg\t", "\t")
    folder = glue(tmp_path, "MNLI", files)
    data = load(task_like("glue/mnli", folder, submit=True))
    (tmp_path / "trial").mkdir()
    outcome = run_trial(data, start(tmp_path / "start"), ONCE, seed=1, folder=tmp_path / "trial")
    tables = {path.name: path.read_text(encoding="utf-8").splitlines() for path in (tmp_path / "trial" / "submissions").iterdir()}
    assert {name: len(lines) for name, lines in tables.items()} == {"MNLI-m.tsv": 8, "MNLI-mm.tsv": 9, "AX.tsv": 8}
    for lines in tables.values():
        assert lines[0] == "index\tprediction"
        assert [line.split("\t")[0] for line in lines[1:]] == [str(i) for i in range(len(lines) - 1)]
        assert {line.split("\t")[1] for line in lines[1:]} <= set(NLI)
    same = [found.value for found in outcome.predicted][:7]
    assert [line.split("\t")[1] for line in tables["MNLI-m.tsv"][1:]] == same, "the texts are those of the first test examples"
    (tmp_path / "plain").mkdir()
    run_trial(load(task_like("glue/mnli", folder)), start(tmp_path / "start"), ONCE, seed=1, folder=tmp_path / "plain")
    assert not (tmp_path / "plain" / "submissions").exists()
    weights = [(tmp_path / name / "model" / "weights.safetensors").read_bytes() for name in ("trial", "plain")]
    assert weights[0] == weights[1]


def test_cola_has_other_columns_in_its_test_file(tmp_path: Path) -> None:
    train = rows("", "s\t{label}\t\tThe {i}", (0, 1), 20)
    folder = glue(tmp_path, "CoLA", {"train": train, "dev": train, "test": 'index\tsentence\n0\tSay "no\n1\tb\n'})
    task = task_like("glue/cola", folder, submit=True)
    found = read_submission(task, task.submissions["CoLA.tsv"])
    assert [(one.id, one.text, one.gold) for one in found] == [("0", 'Say "no', None), ("1", "b", None)]
    assert read_all(task)[-2:] == found, "de-contamination looks at them, too"
    glue(tmp_path / "CoLA", "CoLA", {"train": train, "dev": train, "test": "index\tsentence\n0\ta\n0\tb\n"})
    task = task_like("glue/cola", tmp_path / "CoLA", submit=True)
    with pytest.raises(KitaeError, match='the id "0" occurs twice'):
        read_submission(task, task.submissions["CoLA.tsv"])


def test_the_real_test_files_are_read_whole(shared: Path) -> None:
    for like, name, count in (("cola", "CoLA", 1063), ("sst-2", "SST-2", 1821), ("rte", "RTE", 3000), ("wnli", "WNLI", 146)):
        task = task_like(f"glue/{like}", shared / "glue", submit=True)
        found = read_submission(task, task.submissions[f"{name}.tsv"])
        assert [one.id for one in found] == [str(i) for i in range(count)]


def test_values_as_leaderboards_write_them() -> None:
    assert cell("not_entailment", None) == "not_entailment"
    assert cell(5.0371, (0.0, 5.0)) == "5.0"
    assert cell(-0.2, (0.0, 5.0)) == "0.0"
    assert cell(2.12345678, None) == "2.123457"
    assert cell(3, None) == "3"
    assert cell(("a", "b"), None) == '["a", "b"]'


def test_test_examples_with_a_hidden_label_are_predicted_and_not_scored(tmp_path: Path) -> None:
    table = [{"text": f"{WORDS[i % 3]} {i}", "label": "ab"[i % 2]} for i in range(24)]
    for name, part in (("train", table), ("test", [*table[:6], {"text": WORDS[1], "label": "-1"}])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)), encoding="utf-8")
    own = {"name": "t", "train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl"), "hidden": ["-1"]}
    data = load(task_like("fasttext", tmp_path, **own, format="jsonl", validation_share=0.2))
    (tmp_path / "trial").mkdir()
    outcome = run_trial(data, start(tmp_path / "start"), ONCE, seed=1, folder=tmp_path / "trial")
    results = write(outcome, data, tmp_path / "trial", metric="", encoder="x", seed=1)
    lines = [json.loads(line) for line in (tmp_path / "trial" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (lines[6]["gold"], lines[6]["predicted"] in "ab", len(lines)) == (None, True, 7)
    right = sum(line["gold"] == line["predicted"] for line in lines[:6])
    assert results.scores["accuracy"] == pytest.approx(right / 6)
    secret = dataclasses.replace(data, test=tuple(dataclasses.replace(one, gold=None) for one in data.test))
    results = write(outcome, secret, tmp_path / "trial", metric="", encoder="x", seed=1)
    assert (results.scores, results.score) == ({}, None)
    (tmp_path / "train.jsonl").write_text(
        json.dumps({"text": "x", "label": "-1"}) + "\n" + "\n".join(map(json.dumps, table)), encoding="utf-8"
    )
    with pytest.raises(KitaeError, match="the label is hidden, and this is no test example") as caught:
        load(data.config)
    assert caught.value.where.endswith("train.jsonl, line 1")
