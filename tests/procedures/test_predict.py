"""Predictions depend on the text alone, and files of every format come out row by row."""

import csv
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from tiny_models import CASES, model_folder
from tiny_trials import LABELS, QUICK, examples, start, start_folder, task

from kitae.core.errors import KitaeError
from kitae.models.folder import read_parts, write_huggingface
from kitae.procedures import finetuned
from kitae.procedures.finetuned import Use, save
from kitae.procedures.inputs import CHUNK
from kitae.procedures.predict import PredictConfig, Predictor, predict_file
from kitae.procedures.trials import build
from kitae.tasks.classification import Classification
from kitae.tensor.batch import Batch
from kitae.tokenization.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    given = start(folder / "start")
    save(build(given, task(), QUICK, seed=1), Use(labels=LABELS, max_length=20), folder / "model")
    return folder / "model"


TEXTS = [example.text for example in examples(200, name="new", seed=9)]


def test_order_and_chunks_change_nothing(model: Path) -> None:
    whole = [list(p.probabilities.values()) for p in Predictor.load(model, device="cpu").predict(TEXTS)]
    order = list(range(len(TEXTS)))
    random.Random(1).shuffle(order)
    for chunk in (1, 7, 64):
        predictor = Predictor.load(model, device="cpu", chunk=chunk)
        shuffled = list(predictor.predict(TEXTS[i] for i in order))
        for place, i in enumerate(order):
            assert list(shuffled[place].probabilities.values()) == pytest.approx(whole[i], abs=1e-5)
            assert shuffled[place].label == LABELS[max(range(3), key=lambda c: whole[i][c])]


def test_a_stream_is_read_chunk_by_chunk(model: Path) -> None:
    taken = 0

    def stream() -> Iterator[str]:
        nonlocal taken
        for text in TEXTS:
            taken += 1
            yield text

    first = next(Predictor.load(model, device="cpu", chunk=10).predict(stream()))
    assert taken == 10
    assert sum(first.probabilities.values()) == pytest.approx(1, abs=1e-6)


def write_source(folder: Path, kind: str) -> Path:
    path = folder / f"in.{kind}"
    rows = [{"id": f"=n{i}", "text": text} for i, text in enumerate(TEXTS[:12])]
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif kind == "txt":
        path.write_text("\n".join([TEXTS[0], "", *TEXTS[1:12]]) + "\n", encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["id", "text"], delimiter="," if kind == "csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "txt"])
@pytest.mark.parametrize("out", ["csv", "jsonl"])
def test_files_come_out_row_by_row(model: Path, tmp_path: Path, kind: str, out: str) -> None:
    predictor = Predictor.load(model, device="cpu")
    target = tmp_path / f"out.{out}"
    assert predict_file(model, write_source(tmp_path, kind), target, PredictConfig(device="cpu")) == 12
    expected = [prediction.label for prediction in predictor.predict(TEXTS[:12])]
    if out == "jsonl":
        rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
        assert sum(rows[3]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    else:
        rows = list(csv.DictReader(target.open(encoding="utf-8", newline="")))
        assert sum(float(rows[3][f"p({label})"]) for label in LABELS) == pytest.approx(1, abs=1e-5)
        assert kind == "txt" or rows[0]["id"] == "'=n0", "a spreadsheet must not run an id"
    assert [row["label"] for row in rows] == expected
    first = {"csv": 2, "tsv": 2, "jsonl": 1, "txt": 1}[kind]
    assert [int(row["line"]) for row in rows][:2] == [first, first + (2 if kind == "txt" else 1)]
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted([f"in.{kind}", target.name])


def test_a_pipe_is_answered_line_by_line(model: Path, tmp_path: Path) -> None:
    """Through the command itself: each line waits for the answer to the one before, and an error loses no answer."""
    line = [sys.executable, "-m", "kitae", "predict", str(model), "-", "-", "--set", 'format="jsonl"', "--set", 'device="cpu"']
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment)
        assert process.stdin is not None
        assert process.stdout is not None
        found = []
        for number, text in enumerate(TEXTS[:3]):
            process.stdin.write(json.dumps({"id": f"n{number}", "text": text}).encode() + b"\n")
            process.stdin.flush()
            found.append(json.loads(process.stdout.readline()))
        process.stdin.write(json.dumps({"text": TEXTS[3]}).encode() + b'\n{"text": 3}\n')
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert (tmp_path / "errors").read_text().startswith('kitae: the column "text" holds a number, not a text')
    found += map(json.loads, rest.splitlines())
    assert [(row["line"], row.get("id")) for row in found] == [(1, "n0"), (2, "n1"), (3, "n2"), (4, None)]
    assert [row["label"] for row in found] == [answer.label for answer in Predictor.load(model, device="cpu").predict(TEXTS[:4])]


def test_the_page_of_prediction_runs(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "predict.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    pairs = model_folder(CASES["classes of pairs"], tmp_path / "pairs")
    names: dict[str, object] = {}
    for block in blocks:
        exec(block.replace("FOLDER", str(model)).replace("PAIRS", str(pairs)), names)
    assert len(blocks) == 2
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert all(
        f"`{name}`" in page for name in ("Label", "Labels", "Number", "Choice", "Entities", "Found", "Filling", "SentenceScore", "Said")
    )


def test_almost_nothing_is_padding(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of 6 to 20 tokens in any order, in batches as small beside their number as those of a whole chunk are."""
    seen = [0, 0]
    raw = Classification.raw

    def watched(self: Classification, batch: Batch) -> Sequence[torch.Tensor]:
        seen[0] += int((batch.layout.pieces_BL > 0).sum())
        seen[1] += batch.ids_BL.numel()
        return raw(self, batch)

    monkeypatch.setattr(Classification, "raw", watched)
    monkeypatch.setattr(finetuned, "PREDICT_TOKENS", finetuned.PREDICT_TOKENS * 1000 // CHUNK)
    texts = [example.text for example in examples(1000, name="many", seed=4)]
    assert len(list(Predictor.load(model, device="cpu").predict(texts))) == 1000
    assert seen[0] > 0.95 * seen[1] > 0


def test_bad_requests_are_named(model: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path, "csv")
    with pytest.raises(KitaeError, match='no column "body"'):
        predict_file(model, source, tmp_path / "out.csv", PredictConfig(columns=("body",)))
    assert not (tmp_path / "out.csv").exists()
    with pytest.raises(KitaeError, match="no known format"):
        predict_file(model, source, tmp_path / "out.xlsx")
    with pytest.raises(KitaeError, match="does not exist"):
        predict_file(model, source, tmp_path / "nowhere" / "out.csv")
    with pytest.raises(KitaeError, match="the target is the source"):
        predict_file(model, source, source)
    with pytest.raises(KitaeError, match="holds no classifier"):
        Predictor.load(start_folder(tmp_path / "start"))


def test_what_the_model_has_no_rows_for_is_refused_or_cut(model: Path, tmp_path: Path) -> None:
    text = " ".join(f"w{i % 60}" for i in range(2000))
    first, second = Predictor.load(model, device="cpu").predict([text, text.rpartition(" ")[0]])
    assert first == second, "both are cut to 20 tokens"
    given = start(tmp_path / "start")
    save(build(given, task(), QUICK, seed=1), Use(labels=LABELS, max_length=64), tmp_path / "long")
    with pytest.raises(KitaeError, match="max_length = 64, but the encoder has 32 positions: set max_length = 32 or less"):
        Predictor.load(tmp_path / "long", device="cpu")
    wide = start_folder(tmp_path / "wide", extra_tokens=2)
    wider = dataclasses.replace(build(given, task(), QUICK, seed=1), tokenizer=Tokenizer.load(wide))
    save(wider, Use(labels=LABELS, max_length=20), tmp_path / "model")
    with pytest.raises(KitaeError, match="the tokenizer has 67 tokens, the encoder 65"):
        Predictor.load(tmp_path / "model", device="cpu")


def test_a_flipped_bit_in_the_weights_is_refused(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    weights = tmp_path / "model" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(KitaeError, match=r"weights\.safetensors is damaged"):
        Predictor.load(tmp_path / "model")


def test_an_exported_classifier_predicts_the_same(model: Path, tmp_path: Path) -> None:
    write_huggingface(read_parts(model)["encoder"], tmp_path)
    Tokenizer.load(model / "tokenizer").save(tmp_path)
    ours, exported = (list(Predictor.load(folder, device="cpu").predict(TEXTS[:20])) for folder in (model, tmp_path))
    assert [p.label for p in ours] == [p.label for p in exported]
    assert set(ours[0].probabilities) == set(LABELS)
