"""What every kind of model says of a text depends on that text alone, and is the same from a trial, its files and its export."""

import csv
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import transformers
from tiny_models import CASES, POSITIONS, model_folder, rows

from kitae.core.artifact import Inputs, Out
from kitae.procedures import finetuned
from kitae.procedures.answers import Answer, Label, Labels
from kitae.procedures.predict import PredictConfig, Predictor, predict_file
from kitae.stages.export import ExportConfig, run
from kitae.text.streams import open_text

COUNT = 40
Ask = Callable[[dict[str, object]], object]
"""What transformers says of a mapping; None where it cannot read it."""


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


def equal(one: object, other: object, tolerance: float = 1e-5) -> None:
    first, second = dict(leaves(one)), dict(leaves(other))
    assert list(first) == list(second)
    for path, value in first.items():
        expected = pytest.approx(second[path], abs=tolerance, rel=tolerance) if isinstance(value, float) else second[path]
        assert value == expected, path


def same(one: Answer, other: Answer) -> None:
    equal(one.json(), other.json())


def test_answers_differ_from_text_to_text(found: list[Answer]) -> None:
    """Otherwise nothing below could fail."""
    assert len({json.dumps(answer.json()) for answer in found}) > COUNT // 2
    assert len({tuple(row[:3]) for answer in found for row in answer.rows()}) > 1


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


def test_entities_stand_where_they_are_said_to(tmp_path: Path) -> None:
    """In the line as it stands in the file, blanks at its beginning, wide ones and a mark of the file included; through windows, too."""
    folder = model_folder(CASES["entities of long texts"], tmp_path / "model")
    long = "  ".join(str(row["text"]) for row in rows(CASES["entities of long texts"], 3))
    lines = ["   w1 w2  w35 w4", "w9\u3000w10 \u00e9w3", "\tw7", long]
    (tmp_path / "in.txt").write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    predict_file(folder, tmp_path / "in.txt", tmp_path / "out.jsonl", PredictConfig(device="cpu"))
    said = [json.loads(line)["entities"] for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [bool(entities) for entities in said] == [True] * 4
    assert said[3][-1]["end"] > len(long) // 2 > POSITIONS, "behind the first window"
    for line, entities in zip(lines, said, strict=True):
        for entity in entities:
            assert line[entity["start"] : entity["end"]] == entity["text"] == entity["text"].strip() != ""
    column = Predictor.load(folder, device="cpu").predict([{"text": line} for line in lines])
    for answer, entities in zip(column, said, strict=True):
        assert answer is not None
        equal(answer.json()["entities"], entities, 1e-5)


def test_answers_stand_where_they_are_said_to(tmp_path: Path) -> None:
    """In the context as it stands in the file; some questions have none, and the best of all windows is found."""
    folder = model_folder(CASES["answers or none"], tmp_path / "model")
    given = [{"text": row["text"], "second": f" \u3000{row['second']}  "} for row in rows(CASES["answers or none"], COUNT)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    predict_file(folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl", PredictConfig(device="cpu"))
    said = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    for row, answer in zip(given, said, strict=True):
        context = str(row["second"])
        if answer["answer"]:
            assert context[answer["start"] : answer["end"]] == answer["answer"]
            assert answer["null_odds"] <= 0
        else:
            assert (answer["start"], answer["end"], answer["score"]) == (None, None, 0)
            assert answer["null_odds"] > 0
        assert all(context[one["start"] : one["end"]] == one["text"] != "" for one in answer["best"])
        assert sum(one["score"] for one in answer["best"]) == pytest.approx(1, abs=1e-4)
    assert 0 < sum(bool(answer["answer"]) for answer in said) < COUNT
    assert max(answer["end"] or 0 for answer in said) > POSITIONS * 4, "behind the first window"


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
    if name in ALONE:
        assert not (exported / "config.json").exists()
        assert (exported / "README.md").read_text(encoding="utf-8").startswith("---\nlibrary_name: kitae")
        return
    if name in OTHERWISE:
        return
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    theirs, ours = PEERS[CASES[name].kind]
    ask = theirs(exported, tokenizer)
    compared = 0
    for row, answer in zip(given, found, strict=True):
        said = ask(row)
        if said is not None:
            equal(ours(answer), said)
            compared += 1
    assert compared > COUNT // 3


def of_texts(folder: Path, tokenizer: transformers.PreTrainedTokenizerBase) -> Ask:
    """What the pipeline says; it takes the sigmoid of several labels and leaves numbers as they are by what config.json says."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    classify = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")

    def ask(row: dict[str, object]) -> object:
        texts = {"text": row["text"]} | ({"text_pair": row["second"]} if "second" in row else {})
        said = {entry["label"]: entry["score"] for entry in classify([texts], top_k=None, truncation=True)[0]}
        return {label: said[label] for label in sorted(said)}

    return ask


def of_choices(folder: Path, tokenizer: transformers.PreTrainedTokenizerBase) -> Ask:
    model = transformers.AutoModelForMultipleChoice.from_pretrained(folder)

    def ask(row: dict[str, object]) -> object:
        choices = row["choices"]
        assert isinstance(choices, list)
        batch = tokenizer([row["text"]] * len(choices), choices, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            return model(**{key: tensor[None] for key, tensor in batch.items()}).logits[0].softmax(-1).tolist()

    return ask


def of_words(folder: Path, tokenizer: transformers.PreTrainedTokenizerBase) -> Ask:
    """The tag of each word by its first token, of texts that fit; of entities the groups that the pipeline makes of them."""
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder)
    tag = transformers.pipeline("token-classification", model=model, tokenizer=tokenizer, device="cpu", aggregation_strategy="first")
    plain = "O" not in model.config.label2id

    def ask(row: dict[str, object]) -> object:
        text = str(row["text"])
        batch = tokenizer(text, return_tensors="pt")
        if batch["input_ids"].shape[1] > POSITIONS:
            return None
        if not plain:
            return [[entry["start"], entry["end"], entry["entity_group"], float(entry["score"])] for entry in tag([text])[0]]
        with torch.no_grad():
            shares, labels = model(**batch).logits[0].softmax(-1).max(-1)
        words = batch.word_ids()
        firsts = [i for i, word in enumerate(words) if word is not None and word != words[i - 1]]
        return [[*batch.word_to_chars(words[i]), model.config.id2label[int(labels[i])], float(shares[i])] for i in firsts]

    return ask


def of_questions(folder: Path, tokenizer: transformers.PreTrainedTokenizerBase) -> Ask:
    """Where the best answer stands, of contexts that fit."""
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder)

    def ask(row: dict[str, object]) -> object:
        batch = tokenizer(row["text"], row["second"], return_tensors="pt")
        if batch["input_ids"].shape[1] > POSITIONS:
            return None
        with torch.no_grad():
            said = model(**batch)
        inside = [i for i, number in enumerate(batch.sequence_ids()) if number == 1]
        pairs = [(i, j) for i in inside for j in inside if 0 <= j - i < 30]
        i, j = max(pairs, key=lambda pair: float(said.start_logits[0, pair[0]] + said.end_logits[0, pair[1]]))
        return [batch.token_to_chars(i).start, batch.token_to_chars(j).end]

    return ask


def in_order(answer: Label | Labels) -> dict[str, float]:
    return {label: answer.probabilities[label] for label in sorted(answer.probabilities)}


ALONE = ("entities of a chain", "answers by both ends")
OTHERWISE = ("entities of long texts", "answers or none")
"""Decided otherwise than transformers does: only legal sequences of tags, and a threshold of its own."""
PEERS: dict[str, tuple[Callable[[Path, transformers.PreTrainedTokenizerBase], Ask], Callable[..., object]]] = {
    "classification": (of_texts, in_order),
    "multilabel": (of_texts, in_order),
    "regression": (of_texts, lambda answer: {"LABEL_0": answer.value}),
    "choice": (of_choices, lambda answer: list(answer.probabilities)),
    "span": (of_questions, lambda answer: [answer.start, answer.end]),
    "tagging": (of_words, lambda answer: [[one.start, one.end, one.label, one.score] for one in answer.entities]),
}
