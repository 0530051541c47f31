"""The stage pretrain with Electric, its export, and the scores of sentences."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import transformers
from tiny_pretraining import losses, pretrain

from kitae.core.artifact import Inputs, Out, newest
from kitae.core.errors import KitaeError
from kitae.models.folder import load, read_parts
from kitae.procedures.predict import PredictConfig, Predictor, predict_file
from kitae.procedures.score import Scorer, is_electric
from kitae.stages.export import ExportConfig
from kitae.stages.export import run as export
from kitae.tensor.batch import Layout, Texts
from kitae.tokenization.tokenizer import Tokenizer

SCORES = {
    *("cloze_loss", "cloze_perplexity", "cloze_accuracy", "generator_entropy", "sampled_accuracy", "replaced_share_of_masked"),
    *("nce_loss", "nce_accuracy", "nce_recall", "nce_auc", "nce_calibration_error"),
}  # and the precision, where something is said to be noise


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Out:
    train = {"length": "60 steps", "learning_rate": 5e-3, "save_every": "60 steps", "evaluate_every": "60 steps"}
    return pretrain(tmp_path_factory.mktemp("runs") / "electric", dataset, objective="electric", train=train)


def test_what_a_pretraining_leaves(trained: Out) -> None:
    parts = read_parts(newest(trained.path))
    assert is_electric(parts)
    assert not is_electric({"discriminator": parts["discriminator"]})
    found = {name.removeprefix("heldout/news/") for name in trained.counts["heldout"] if "/news/" in name}  # type: ignore[union-attr]
    assert found - {"nce_precision"} == SCORES
    assert trained.counts["heldout"]["heldout/news/cloze_loss"] < 4.0  # type: ignore[index]
    assert float(str(trained.counts["flops_per_token"])) > 0
    assert losses(trained.path)[-1] < losses(trained.path)[0]  # type: ignore[operator]


def test_sentences_are_scored_in_one_pass_each_by_itself(trained: Out) -> None:
    place = newest(trained.path)
    parts, tokenizer = read_parts(place), Tokenizer.load(place / "tokenizer")
    part, draw = parts["discriminator"], torch.Generator().manual_seed(1)  # so young a one hardly looks around: any context would do
    shaken = {name: weight + 0.2 * torch.randn(weight.shape, generator=draw) for name, weight in part.state.items()}
    parts |= {"discriminator": dataclasses.replace(part, state=shaken)}
    texts = ["w1 w2 w3 w4 w5", "w40 w41", "", "w9 w10 w11\nw12 w13", " ".join(f"w{i % 60}" for i in range(70))]
    found = list(Predictor(Scorer.of(parts, tokenizer)).predict(texts))
    assert [score.tokens for score in found] == [5, 2, 0, 5, 70]
    assert found[2].log_likelihood == 0.0
    model = load(parts["discriminator"])
    ids = torch.tensor([[tokenizer.special.cls, *(i for word in tokenizer.words(texts[0]) for i in word), tokenizer.special.sep]])
    energies = model(Texts(ids, layout_of(ids)))[0, 1:-1]
    assert found[0].log_likelihood == pytest.approx(-float(energies.detach().sum()), abs=1e-4)
    assert found[0].json() == {"log_likelihood": round(found[0].log_likelihood, 6), "tokens": 5}
    assert list(found[0].rows()) == [[f"{found[0].log_likelihood:.6f}", "5"]]
    halves = [" ".join(texts[4].split()[start : start + 30]) for start in (0, 30, 60)]  # rows have room for 30
    assert found[4].log_likelihood == pytest.approx(
        sum(s.log_likelihood for s in Predictor(Scorer.of(parts, tokenizer)).predict(halves)), abs=1e-3
    )
    small = Predictor(Scorer(model, tokenizer, positions=32), chunk=2)
    assert [s.log_likelihood for s in small.predict(texts)] == pytest.approx([s.log_likelihood for s in found], abs=1e-3)
    with pytest.raises(KitaeError, match="the discriminator is missing"):
        Scorer.of({"generator": parts["generator"]}, tokenizer)


def test_a_score_depends_on_its_text_only(trained: Out) -> None:
    """Whatever stands beside it in a batch, and however the batches are cut."""
    place = newest(trained.path)
    parts, tokenizer = read_parts(place), Tokenizer.load(place / "tokenizer")
    texts = [" ".join(f"w{(7 * i + j) % 60}" for j in range(i % 45)) for i in range(60)]
    found = [score.log_likelihood for score in Predictor(Scorer.of(parts, tokenizer)).predict(texts)]
    backwards = [score.log_likelihood for score in Predictor(Scorer.of(parts, tokenizer)).predict(texts[::-1])][::-1]
    alone = [next(Predictor(Scorer.of(parts, tokenizer)).predict([text])).log_likelihood for text in texts]
    assert found == pytest.approx(backwards, rel=1e-5, abs=1e-5)
    assert found == pytest.approx(alone, rel=1e-5, abs=1e-5)


def layout_of(ids: torch.Tensor):
    return Layout.padded(torch.ones_like(ids))


def test_predict_scores_the_texts_of_a_file(trained: Out, tmp_path: Path) -> None:
    """The folder decides: its run, a checkpoint and its export give the same scores."""
    export(ExportConfig(), Inputs(parents={"pretrain": trained.path}, seed=1), Out(path=tmp_path / "export"))
    texts = ["w1 w2 w3 w4 w5", "w40 w41", "w9 w3 w27"]
    (tmp_path / "in.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    place = newest(trained.path)
    expected = [score.json() for score in Predictor(Scorer.of(read_parts(place), Tokenizer.load(place / "tokenizer"))).predict(texts)]
    for number, folder in enumerate((trained.path, place, tmp_path / "export" / "pretrain")):
        assert predict_file(folder, tmp_path / "in.txt", tmp_path / f"{number}.jsonl", PredictConfig(device="cpu")) == 3
        rows = [json.loads(line) for line in (tmp_path / f"{number}.jsonl").read_text().splitlines()]
        assert rows == [{"line": line, **score} for line, score in enumerate(expected, start=1)]
    assert predict_file(trained.path, tmp_path / "in.txt", tmp_path / "out.csv", PredictConfig(device="cpu")) == 3
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "line,id,log_likelihood,tokens"


def test_the_discriminator_goes_to_transformers_and_both_start_again(trained: Out, dataset: Path, tmp_path: Path) -> None:
    out = Out(path=tmp_path / "export")
    export(ExportConfig(), Inputs(parents={"pretrain": trained.path}, seed=1), out)
    folder = tmp_path / "export" / "pretrain"
    assert out.counts["folders"] == {"pretrain/generator": "kitae", "pretrain/discriminator": "ElectraForPreTraining"}
    theirs = transformers.ElectraForPreTraining.from_pretrained(folder / "discriminator").eval()
    parts = read_parts(folder)
    ids = torch.tensor([[2, 7, 8, 9, 3]])
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(load(parts["discriminator"])(Texts(ids, layout_of(ids))), expected, atol=1e-5, rtol=0)
    assert "kitae.models.folder" in (folder / "generator" / "README.md").read_text()
    for name, part in read_parts(newest(trained.path)).items():
        assert all(torch.equal(part.state[key], tensor) for key, tensor in parts[name].state.items())
    adapted = pretrain(tmp_path / "adapted", dataset, objective="electric", start=folder, train={"length": "1 step"})
    assert set(read_parts(newest(adapted.path))) == {"generator", "discriminator"}
    halves = {"start": folder / "discriminator", "start_generator": str(folder / "generator")}
    assert losses(pretrain(tmp_path / "halves", dataset, objective="electric", train={"length": "1 step"}, **halves).path) == losses(
        adapted.path
    )
    assert json.loads((newest(adapted.path) / "model.json").read_text())["parts"]["generator"]["family"] == "electric"
    with pytest.raises(KitaeError, match='set objective = "electric"'):
        pretrain(tmp_path / "other", dataset, start=trained.path)
