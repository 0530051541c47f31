"""What every kind of model says of a text depends on that text alone, and is the same from a trial, its files and its export."""

import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from tiny_models import CASES, model_folder, rows

from kitae.core.artifact import Inputs, Out
from kitae.procedures import finetuned
from kitae.procedures.answers import Answer, Choice, Label, Labels, Number
from kitae.procedures.predict import PredictConfig, Predictor, predict_file
from kitae.stages.export import ExportConfig, run
from kitae.text.streams import open_text

COUNT = 40


@pytest.fixture(scope="module", params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial: its model lies below it."""
    trial = tmp_path_factory.mktemp("trial")
    model_folder(CASES[name], trial / "model")
    return trial


@pytest.fixture(scope="module")
def given(name: str) -> list[dict[str, object]]:
    return rows(CASES[name], COUNT)


@pytest.fixture(scope="module")
def found(model: Path, given: list[dict[str, object]]) -> list[Answer]:
    return answers(model, given)


def answers(folder: Path, given: list[dict[str, object]], chunk: int = 2048) -> list[Answer]:
    made = list(Predictor.load(folder, device="cpu", chunk=chunk).predict(given))
    assert None not in made
    return [answer for answer in made if answer is not None]


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every number and text of a JSON value, with its path."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{path}/{key}")
    else:
        yield path, value


def same(one: Answer, other: Answer, tolerance: float = 1e-5) -> None:
    first, second = dict(leaves(one.json())), dict(leaves(other.json()))
    assert list(first) == list(second)
    for path, value in first.items():
        expected = pytest.approx(second[path], abs=tolerance, rel=tolerance) if isinstance(value, float) else second[path]
        assert value == expected, path


def test_answers_differ_from_text_to_text(found: list[Answer]) -> None:
    """Otherwise nothing below could fail."""
    assert len({json.dumps(answer.json()) for answer in found}) > COUNT // 2
    assert len({next(iter(answer.rows()))[0] for answer in found}) > 1


@pytest.mark.parametrize(("chunk", "tokens"), [(1, 4096), (7, 60), (64, 1000)])
def test_order_chunks_and_batches_change_nothing(
    model: Path, given: list[dict[str, object]], found: list[Answer], chunk: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuned, "PREDICT_TOKENS", tokens)
    order = random.Random(chunk).sample(range(COUNT), COUNT)
    for place, answer in zip(order, answers(model, [given[i] for i in order], chunk), strict=True):
        same(answer, found[place])


@pytest.mark.parametrize("kind", ["csv", "jsonl.gz"])
def test_files_give_the_same(model: Path, given: list[dict[str, object]], found: list[Answer], kind: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / f"out.{kind}"
    with source.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(given[0]))
        writer.writeheader()
        writer.writerows({key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()} for row in given)
    assert predict_file(model, source, target, PredictConfig(device="cpu")) == COUNT
    text = open_text(target).read()
    if kind == "csv":
        read = list(csv.reader(text.splitlines()))
        expected = [[str(number + 2), str(given[number]["id"]), *row] for number, answer in enumerate(found) for row in answer.rows()]
        assert read[1:] == expected
        assert all(len(row) == len(read[0]) for row in read)
    else:
        lines = [json.loads(line) for line in text.splitlines()]
        assert lines == [{"line": n + 2, "id": given[n]["id"], **answer.json()} for n, answer in enumerate(found)]


@pytest.fixture(scope="module")
def exported(name: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = Out(path=tmp_path_factory.mktemp("export"))
    run(ExportConfig(), Inputs(parents={"trial": model}, seed=1), out)
    return out.path / "trial"


def test_the_export_says_the_same_and_its_readme_runs(
    exported: Path, given: list[dict[str, object]], found: list[Answer], capsys: pytest.CaptureFixture[str]
) -> None:
    for one, other in zip(answers(exported, given), found, strict=True):
        same(one, other)
    code = (exported / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    words = {"FOLDER": str(exported), "SECOND TEXT": "w3 w4", "FIRST TEXT": "w5", "QUESTION": "w1", "CONTEXT": "w2 w3 w4", "TEXT": "w1 w2"}
    for name, text in words.items():
        code = code.replace(name, text)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_transformers_says_the_same(name: str, exported: Path, given: list[dict[str, object]], found: list[Answer]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    for row, answer in zip(given, found, strict=True):
        said = THEIRS[type(answer)](exported, tokenizer, row)
        assert OURS[type(answer)](answer) == (said if isinstance(said, tuple) else pytest.approx(said, abs=1e-5, rel=1e-5))


def of_texts(folder: Path, tokenizer: transformers.PreTrainedTokenizerBase, row: dict[str, object]) -> dict[str, float]:
    """What the pipeline says; it takes the sigmoid of several labels and leaves numbers as they are by what config.json says."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    classify = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    texts = {"text": row["text"]} | ({"text_pair": row["second"]} if "second" in row else {})
    return {entry["label"]: entry["score"] for entry in classify([texts], top_k=None, truncation=True)[0]}


def of_choices(folder: Path, tokenizer: transformers.PreTrainedTokenizerBase, row: dict[str, object]) -> list[float]:
    model = transformers.AutoModelForMultipleChoice.from_pretrained(folder)
    choices = row["choices"]
    assert isinstance(choices, list)
    batch = tokenizer([row["text"]] * len(choices), choices, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return model(**{key: tensor[None] for key, tensor in batch.items()}).logits[0].softmax(-1).tolist()


THEIRS = {Label: of_texts, Labels: of_texts, Number: of_texts, Choice: of_choices}
OURS = {
    Label: lambda answer: answer.probabilities,
    Labels: lambda answer: answer.probabilities,
    Number: lambda answer: {"LABEL_0": answer.value},
    Choice: lambda answer: list(answer.probabilities),
}
