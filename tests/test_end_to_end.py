"""The whole chain where other programs meet it: outside models in, exported models out, torchrun, prediction files."""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from sklearn.metrics import roc_auc_score

from kitae.chain import execute, nodes, recipe
from kitae.core.artifact import newest, read_manifest, verify
from kitae.data.sampler import DatasetFacts, Heldout
from kitae.models.folder import read_parts
from kitae.objectives import table
from kitae.objectives.rtd import RtdConfig, RtdObjective
from kitae.procedures.heldout import POSITIONS
from kitae.tensor.random import key
from kitae.tokenization.tokenizer import Tokenizer
from tiny_recipe import RECIPE, Done, kitae, write_recipe

BATCH = "4 rows"
LONGER = f'pretrain.train={{ length = "150 steps", batch = "{BATCH}", learning_rate = 3e-3 }}'
ADAPT = """
output = "{start}-run"
[tokenizer]
from = "{start}"
[dataset]
max_length = 32
[adapt]
start = "{start}"
objective = "{objective}"
holdout = 0.1
source = [{{ path = "{source}", format = "text" }}]
train = {{ length = "3 steps", batch = "4 rows", learning_rate = 1e-3 }}
[task.topics]
path = ["topics.jsonl"]
split = {{ train = 0.5, validation = 0.25, test = 0.25 }}
[export]
formats = ["huggingface"]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose recipe has run to its end, pre-trained long enough to tell some replacements."""
    folder = tmp_path_factory.mktemp("made")
    write_recipe(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        succeed(kitae("run", "r.toml", "--set", LONGER, "--set", "finetune.epochs=4"))
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the sources, as the working directory."""
    write_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def succeed(done: Done) -> Done:
    assert done.returncode == 0, done.stderr
    return done


def outside(made: Path, folder: Path, family: str) -> None:
    """A random tiny model as another program saved it, with a tokenizer of ours; ELECTRA in its two halves."""
    tokenizer = Tokenizer.load(made / "run" / "tokenizer")
    numbers = {
        "vocab_size": tokenizer.vocab_size, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 48, "pad_token_id": tokenizer.special.pad,
    }  # fmt: skip
    torch.manual_seed(3)
    if family == "bert":
        transformers.BertForMaskedLM(transformers.BertConfig(**numbers)).save_pretrained(folder)
        tokenizer.save(folder)
        return
    config = transformers.ElectraConfig(**numbers, embedding_size=16)
    discriminator, generator = transformers.ElectraForPreTraining(config), transformers.ElectraForMaskedLM(config)
    generator.electra.embeddings.load_state_dict(discriminator.electra.embeddings.state_dict())
    for name, half in (("discriminator", discriminator), ("generator", generator)):
        half.save_pretrained(folder / name)
        tokenizer.save(folder / name)


def adapt(place: Path, start: str, objective: str, *, source: str = "domain.txt", name: str = "adapt.toml") -> Done:
    (place / name).write_text(ADAPT.format(start=start, objective=objective, source=source), encoding="utf-8")
    return kitae("run", name)


def test_adapt_an_outside_bert(made: Path, place: Path) -> None:
    outside(made, place / "bert", "bert")
    succeed(adapt(place, "bert", "mlm"))
    assert read_manifest(place / "bert-run" / "adapt").facts["counts"]["steps"] == 3  # type: ignore[index]
    start = transformers.AutoModelForMaskedLM.from_pretrained(place / "bert")
    model = transformers.AutoModelForMaskedLM.from_pretrained(place / "bert-run" / "export" / "adapt")
    moved = [(a - b).abs().max().item() for a, b in zip(model.parameters(), start.parameters(), strict=True)]
    assert 0 < max(moved) < 0.02  # three steps of at most 1e-3 from where it was


def test_adapt_both_halves_of_an_outside_electra(made: Path, place: Path) -> None:
    outside(made, place / "electra", "electra")
    succeed(adapt(place, "electra", "rtd"))
    for half, auto in (("generator", transformers.AutoModelForMaskedLM), ("discriminator", transformers.AutoModelForPreTraining)):
        start = auto.from_pretrained(place / "electra" / half).electra.embeddings.word_embeddings.weight
        model = auto.from_pretrained(place / "electra-run" / "export" / "adapt" / half).electra.embeddings.word_embeddings.weight
        assert 0 < (start - model).abs().max().item() < 0.02


def test_adapt_halves_that_come_apart(made: Path, place: Path) -> None:
    """The discriminator alone, whose generator is regrown; with its generator from another folder; and the generator alone."""
    outside(made, place / "electra", "electra")
    for half in ("discriminator", "generator"):
        shutil.copytree(place / "electra" / half, place / half)
    succeed(adapt(place, "discriminator", "rtd"))
    assert "generator 0.1, discriminator 0.0, together 0.1" in succeed(kitae("plan", "adapt.toml")).stdout  # millions
    facts = read_manifest(place / "discriminator-run" / "adapt").facts
    assert facts["counts"]["regrow"]["steps"] == 2, "half of three steps"  # type: ignore[index]
    halves = sorted(item.name for item in (place / "discriminator-run" / "export" / "adapt").iterdir() if item.is_dir())
    assert halves == ["discriminator", "generator"]
    text = (place / "adapt.toml").read_text(encoding="utf-8").replace("discriminator-run", "apart-run")
    (place / "apart.toml").write_text(text.replace("[adapt]", '[adapt]\nstart_generator = "generator"'), encoding="utf-8")
    succeed(kitae("run", "apart.toml"))
    assert not (place / "apart-run" / "adapt" / "regrow").exists()
    assert "nothing to do" in succeed(kitae("run", "apart.toml")).stdout
    shutil.copytree(place / "discriminator", place / "generator", dirs_exist_ok=True)  # another content under the same name
    assert "adapt is trained already, and its settings changed" in kitae("run", "apart.toml").stderr
    shutil.copytree(place / "electra" / "generator", place / "alone")
    done = adapt(place, "alone", "rtd")
    assert done.returncode == 2
    assert "the discriminator is missing" in done.stderr.rpartition("kitae: ")[2]


def test_adapt_on_the_training_texts_of_a_task(made: Path, place: Path) -> None:
    """Only those: as many documents as the task has training examples."""
    outside(made, place / "bert", "bert")
    succeed(adapt(place, "bert", "mlm", source="task:topics/train"))
    counts = read_manifest(place / "bert-run" / "adapt.corpus").facts["counts"]
    assert isinstance(counts, dict)
    trained = read_manifest(made / "run" / "finetune" / "topics" / "majority" / "1").facts["counts"]["examples"]  # type: ignore[index]
    assert counts["documents_in"] == trained["train"]  # type: ignore[index]


def test_the_reported_auc_is_that_of_the_exported_discriminator(made: Path) -> None:
    """On the same corrupted held-out batches, each document by itself through transformers."""
    run = made / "run"
    reported = read_manifest(run / "pretrain").facts["counts"]["heldout"]  # type: ignore[index]
    checkpoint, facts = newest(run / "pretrain"), DatasetFacts.read(run / "dataset")
    special = Tokenizer.load(run / "tokenizer").special
    objective = table.load(read_parts(checkpoint), RtdConfig(), special, facts.vocab_size)
    assert isinstance(objective, RtdObjective)
    objective.eval()
    theirs = transformers.ElectraForPreTraining.from_pretrained(run / "export" / "pretrain" / "discriminator").eval()
    scores: list[float] = []
    truth: list[bool] = []
    for batch in Heldout(run / "dataset", "general", POSITIONS // facts.max_length):
        prepared = objective.prepare(batch, key("heldout"))
        ids_BL, replaced_BL = objective.corrupted(prepared)
        for row, first, end in prepared.layout.spans():
            with torch.no_grad():
                scores += theirs(ids_BL[row : row + 1, first:end]).logits[0].tolist()
            truth += replaced_BL[row, first:end].tolist()
    assert len(set(truth)) == 2
    auc = roc_auc_score(truth, scores)
    assert auc > 0.55  # it has learnt something, though its scores differ by thousandths only: the hardest case for a histogram
    assert reported["heldout/general/rtd_auc"] == pytest.approx(auc, abs=0.002)
    assert reported["heldout/general/replaced_share"] == pytest.approx(sum(truth) / len(truth), abs=1e-6)


def test_evaluating_a_folder_on_the_runs_own_heldout_text_gives_the_recorded_numbers(made: Path, place: Path) -> None:
    """From the corpus and from the data set; the exported pair too, which knows the run's settings by the export's manifest."""
    run = made / "run"
    recorded = read_manifest(run / "pretrain").facts["counts"]["heldout"]  # type: ignore[index]
    for folder, text in (("pretrain", "corpus"), ("pretrain", "dataset"), ("export/pretrain", "corpus")):
        target = place / "scores.json"
        succeed(kitae("evaluate", str(run / folder), str(run / text), "--set", f'output="{target}"', "--set", 'device="cpu"'))
        found = json.loads(target.read_text(encoding="utf-8"))
        assert found["measured"] == "rtd"
        assert {f"heldout/{name}": value for name, value in found["all"].items()} | {
            f"heldout/{source}/{name}": value for source, row in found["sources"].items() for name, value in row["scores"].items()
        } == recorded, (folder, text)
    adapted = read_manifest(run / "adapt").facts["counts"]["heldout"]  # type: ignore[index]
    if adapted:
        done = succeed(kitae("evaluate", str(newest(run / "adapt")), str(run / "adapt.corpus")))
        assert f"{adapted['heldout/domain/mlm_loss']:.4f}" in done.stdout


def test_evaluating_a_classifier_gives_the_scores_of_its_trial(made: Path, place: Path) -> None:
    trial = made / "run" / "finetune" / "topics" / "adapt" / "1"
    results = json.loads((trial / "results.json").read_text(encoding="utf-8"))
    rows = {row["id"]: row for row in map(json.loads, (place / "topics.jsonl").read_text(encoding="utf-8").splitlines())}
    tested = [json.loads(line)["id"] for line in (trial / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    names = {f"topics.jsonl:{number}": row for number, row in enumerate(rows.values(), start=1)}
    text = "".join(json.dumps(names.get(name, rows.get(name)), ensure_ascii=False) + "\n" for name in tested)
    (place / "test.jsonl").write_text(text, encoding="utf-8")
    done = succeed(kitae("evaluate", str(trial), "test.jsonl", "topics.jsonl", "--set", 'output="scores.csv"'))
    assert "classification" in done.stdout
    with (place / "scores.csv").open(encoding="utf-8") as file:
        found = {row["score"]: row for row in csv.DictReader(file)}
    for name in ("accuracy", "macro_f1"):
        assert float(found[name]["test.jsonl"]) == pytest.approx(results["scores"][name]), name
    assert int(found["texts"]["test.jsonl"]) == len(tested)
    assert 0 <= float(found["calibration_error"]["all"]) <= 1


def test_predictions_do_not_depend_on_the_order_of_the_rows(made: Path, place: Path) -> None:
    """CSV, JSON Lines and plain text give the same numbers, which follow their text wherever it stands."""
    folder = made / "run" / "finetune" / "topics" / "adapt" / "1"
    rows = [json.loads(line) for line in (place / "topics.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = list({row["text"]: row for row in rows}.values())
    shuffled = random.Random(1).sample(rows, len(rows))
    write_csv(place / "in.csv", rows)
    write_csv(place / "shuffled.csv", shuffled)
    (place / "in.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    (place / "in.txt").write_text("\n".join(row["text"] for row in rows) + "\n", encoding="utf-8")
    for name in ("in.csv", "shuffled.csv", "in.jsonl", "in.txt"):
        assert f"{len(rows)} texts" in succeed(kitae("predict", folder, name, f"{name}.csv")).stdout
    found = {name: read_csv(place / f"{name}.csv") for name in ("in.csv", "shuffled.csv", "in.jsonl", "in.txt")}
    labels = sorted({row["label"] for row in rows})
    assert list(found["in.csv"][0]) == ["line", "id", "label", *(f"p({label})" for label in labels)]
    assert [row["id"] for row in found["shuffled.csv"]] == [row["id"] for row in shuffled]
    by_id = {row["id"]: probabilities(row) for row in found["in.csv"]}
    for row in found["shuffled.csv"]:
        assert probabilities(row) == pytest.approx(by_id[row["id"]], abs=2e-6)
        assert sum(probabilities(row)) == pytest.approx(1, abs=1e-5)
    for name in ("in.jsonl", "in.txt"):
        assert [probabilities(row) for row in found[name]] == [probabilities(row) for row in found["in.csv"]]
    exported = made / "run" / "export" / "finetune" / "topics" / "adapt" / "1"
    succeed(kitae("predict", exported, "in.csv", "exported.csv"))
    assert [row["label"] for row in read_csv(place / "exported.csv")] == [row["label"] for row in found["in.csv"]]


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def probabilities(row: dict[str, str]) -> list[float]:
    return [float(value) for name, value in row.items() if name.startswith("p(")]


def test_odd_input_of_predict_is_named(made: Path, place: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = made / "run" / "finetune" / "topics" / "adapt" / "1"
    Path("gaps.txt").write_text("株価が上がる。\n\n \n雨が降る。\n", encoding="utf-8")
    assert "2 texts" in succeed(kitae("predict", folder, "gaps.txt", "gaps.csv")).stdout
    assert [row["line"] for row in read_csv(place / "gaps.csv")] == ["1", "4"]
    assert "2 lines without text were left out" in caplog.text
    Path("body.csv").write_text("番号,本文\n1,雨が降る。\n", encoding="utf-8")
    Path("empty.txt").touch()
    Path("cp932.txt").write_bytes("雨が降る。\n".encode("cp932"))
    for arguments, expected in (
        ((folder, "body.csv", "out.csv"), ['no column "text"', "番号, 本文", "body.csv, line 2"]),
        ((folder, "empty.txt", "out.csv"), ["the file is empty", "empty.txt"]),
        ((folder, "cp932.txt", "out.csv"), ["CP932", "cp932.txt"]),
        ((folder, "absent.txt", "out.csv"), ["absent.txt does not exist"]),
        ((folder, "gaps.txt", "out.doc"), ["out.doc has no known format"]),
        ((made / "run" / "pretrain", "gaps.txt", "out.csv"), ["no text of gaps.txt holds [MASK]"]),
        ((made / "run" / "export" / "pretrain" / "discriminator", "gaps.txt", "out.csv"), ["holds no classifier and no", "finetune/"]),
        ((made / "run" / "corpus", "gaps.txt", "out.csv"), ["holds no model"]),
        (("absent", "gaps.txt", "out.csv"), ["absent does not exist"]),
    ):
        done = kitae("predict", *arguments)
        assert done.returncode == 2, done.stderr
        for words in expected:
            assert words in done.stderr
        assert not list(place.glob("*out.*"))


def test_two_processes_under_torchrun_run_a_whole_recipe(place: Path) -> None:
    """They end cleanly and make what one process makes; each trial is made by one of them."""
    text = RECIPE.replace("seeds = [1]", "seeds = [1, 2]").replace('"2 steps" }', '"2 steps", micro_batch = "1 row" }', 1)
    (place / "r.toml").write_text(text, encoding="utf-8")
    (place / "two").mkdir()
    for name in ("r.toml", "general.txt", "domain.txt", "topics.jsonl"):
        shutil.copy(name, place / "two" / name)
    succeed(kitae("run", "r.toml"))
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "kitae", "run", "r.toml"]
    line += ["--set", "pretrain.train.shares=[3, 1]", "--set", 'adapt.train.parallel="fsdp2"']
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=place / "two", capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    folders = sorted(path.parent.relative_to(place / "run") for path in (place / "run").rglob("manifest.json") if is_node(path))
    assert len(folders) == 14
    for folder in folders:
        one, two = verify(place / "run" / folder).facts, verify(place / "two" / "run" / folder).facts
        assert one["fingerprint"] == two["fingerprint"], folder
    assert json.loads((newest(place / "two" / "run" / "pretrain") / "state.json").read_text())["world_size"] == 2
    assert list((place / "two" / "run").rglob(".*.part")) == []


def is_node(manifest: Path) -> bool:
    return "node" in json.loads(manifest.read_text(encoding="utf-8"))["facts"]


def test_trials_are_dealt_over_the_ranks(made: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trial is made by exactly one rank and awaited by the others; all other small stages are the first rank's."""
    shares: list[set[str]] = []
    for rank in range(2):
        mine: set[str] = set()
        awaited: set[str] = set()
        monkeypatch.setattr(execute, "ranks", lambda rank=rank: (rank, 2))
        monkeypatch.setattr(execute, "_make", lambda node, *_, made=mine, **__: made.add(node.name))
        monkeypatch.setattr(execute, "_wait", lambda folder, status, waited=awaited: waited.add(status.node.name))
        names = set(execute.execute(*(loaded := recipe.load("r.toml")), nodes.nodes(loaded[0], "r.toml")))
        assert mine | awaited == names
        assert not mine & awaited
        shares.append(mine)
    both = shares[0] & shares[1]
    assert both == {"pretrain", "adapt"}
    trials = [{name for name in share if name.startswith("finetune/")} for share in shares]
    assert sorted(map(len, trials)) == [1, 2]
    assert shares[1] - trials[1] == both


def test_a_unigram_vocabulary_from_corpus_to_export(place: Path) -> None:
    """The exported folder has SentencePiece's ids in transformers."""
    text = (place / "r.toml").read_text(encoding="utf-8").replace("limit_alphabet = 600", 'algorithm = "unigram"')
    begin, end = text.index("[adapt]"), text.index("[export]")
    (place / "r.toml").write_text(text[:begin] + text[end:], encoding="utf-8")
    succeed(kitae("run", "r.toml"))
    tokenizer = Tokenizer.load(place / "run" / "tokenizer")
    assert tokenizer.definition.algorithm == "unigram"
    exported = [path.parent for path in (place / "run" / "export").rglob("spiece.model")]
    assert exported
    for folder in exported:
        reference = transformers.AutoTokenizer.from_pretrained(folder)
        for sentence in ("東京都の人口は約千四百万人である。", "猫は庭で眠る。"):
            assert reference(sentence, add_special_tokens=False)["input_ids"] == tokenizer.encode(sentence).ids.tolist()
