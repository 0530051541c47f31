"""Pairs and masks in the stage pretrain: NSP and SOP learnt, exported and continued; a rate that changes; what does not fit."""

import json
import logging
from pathlib import Path

import pytest
import torch
import transformers
from tiny_pretraining import losses, pretrain, write_pairs

from kitae.core.artifact import Inputs, Out, checkpoints, newest
from kitae.core.errors import KitaeError
from kitae.data.sampler import Heldout
from kitae.models.compose import PretrainingLm
from kitae.models.folder import load, read_parts
from kitae.stages import export
from kitae.train.feed import Feed
from kitae.train.monitor import read_metrics

BERT = {"model": "bert-tiny", "objective": "mlm"}
ORDER = {"sentence_order": "nsp", "unit": "ngram", "rate": [[0.0, 0.4], [1.0, 0.2]], "label_smoothing": 0.1}


@pytest.fixture
def paired(dataset: Path, tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "paired", dataset)


def test_next_sentences_from_pretraining_to_transformers_and_on(paired: Path, tmp_path: Path) -> None:
    out = pretrain(tmp_path / "run", paired, **BERT, objective_config=ORDER)
    trained = [record for record in read_metrics(out.path) if record["kind"] == "train"]
    assert {"mlm_loss", "nsp_loss"} <= set(trained[-1])
    assert trained[-1]["loss"] == pytest.approx(trained[-1]["mlm_loss"] + trained[-1]["nsp_loss"])
    heldout = [record for record in read_metrics(out.path) if record["kind"] == "evaluate"][-1]
    scores = {"mlm_loss", "mlm_perplexity", "mlm_accuracy", "mlm_top5_accuracy", "mlm_entropy", "nsp_loss", "nsp_accuracy"}
    assert {name for name in heldout if "/" in name} == {f"heldout/{of}{score}" for of in ("news/", "books/", "") for score in scores}
    (part,) = read_parts(newest(out.path)).values()
    assert part.head == "pretraining"

    exported = Out(path=tmp_path / "export")
    export.run(export.ExportConfig(), Inputs(parents={"pretrain": out.path}, seed=1), exported)
    theirs, report = transformers.BertForPreTraining.from_pretrained(exported.path / "pretrain", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert "seq_relationship_logits" in (exported.path / "pretrain/README.md").read_text(encoding="utf-8")
    model, batch = load(part), next(iter(Heldout(paired, "news", 1)))
    assert isinstance(model, PretrainingLm)
    _, start, end = batch.layout.spans()[0]
    none = torch.zeros(0, dtype=torch.int64)
    assert batch.segments_BL is not None
    with torch.no_grad():
        ours = model.with_order(batch, none, batch.targets["pairs"])[1][0]
        found = theirs.eval()(input_ids=batch.ids_BL[:, start:end], token_type_ids=batch.segments_BL[:, start:end])
    torch.testing.assert_close(ours, found.seq_relationship_logits[0], atol=1e-5, rtol=0)

    on = pretrain(tmp_path / "on", paired, **BERT, objective_config=ORDER, start=exported.path / "pretrain", train={"length": "1 step"})
    assert next(iter(read_parts(newest(on.path)).values())).head == "pretraining"
    tokens = pretrain(tmp_path / "tokens", paired, **BERT, start=out.path, train={"length": "1 step"})
    assert next(iter(read_parts(newest(tokens.path)).values())).head == "mlm"


def test_sentence_order_is_learnt(dataset: Path, tmp_path: Path) -> None:
    """Earlier sentences have other words than later ones; chance is 0.5. With BERT's rule, 150 steps are not enough."""
    paired = write_pairs(tmp_path / "paired", dataset, task="sop")
    train = {"length": "60 steps", "micro_batch": "16 rows", "save_every": None, "evaluate_every": None}
    learnt = {"objective_config": {"sentence_order": "sop"}, "initialization": "informed"}
    out = pretrain(tmp_path / "run", paired, **BERT, **learnt, train=train)
    assert out.counts["heldout"]["heldout/news/sop_accuracy"] > 0.9  # type: ignore[index]
    assert json.loads((newest(out.path) / "model.json").read_text())["parts"]["encoder"]["head"] == "pretraining"


def test_labels_that_nothing_learns_to_tell_are_named(paired: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pretrain(tmp_path / "run", paired, train={"length": "1 step"})
    assert 'the dataset shows 50 % of its pairs otherwise than the text ("nsp"), but nothing learns to tell: set pairs.negative = 0' in (
        caplog.text
    )
    said = json.loads((paired / "dataset.json").read_text())
    (paired / "dataset.json").write_text(json.dumps(said | {"pairs": {"negative": 0}}))
    caplog.clear()
    pretrain(tmp_path / "two segments in a row, as ELECTRA has them", paired, train={"length": "1 step"})
    assert "otherwise than the text" not in caplog.text


def test_labels_of_the_other_polarity_are_named(dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paired = write_pairs(tmp_path / "paired", dataset, next_label=1)
    with caplog.at_level(logging.WARNING):
        pretrain(tmp_path / "run", paired, **BERT, objective_config={"sentence_order": "nsp"}, train={"length": "1 step"})
    assert "label 1 is the true order in this dataset" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"type_vocab_size": 1}}, r"type_vocab_size = 1.*dataset has pairs"),
        (BERT | {"config": {"type_vocab_size": 0}, "objective_config": ORDER}, r"type_vocab_size = 0.*dataset has pairs"),
        (BERT | {"objective_config": {"sentence_order": "sop"}}, 'the dataset\'s pairs are made for "nsp"'),
        ({"objective": "mlm", "objective_config": ORDER}, "ELECTRA has none"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_trains(paired: Path, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(KitaeError, match=message):
        pretrain(tmp_path / "run", paired, **changes, train={"length": "1 step"})
    assert not checkpoints(tmp_path / "run")


def test_a_dataset_without_pairs_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match="the dataset has none"):
        pretrain(tmp_path / "run", dataset, **BERT, objective_config=ORDER, train={"length": "1 step"})


@pytest.mark.parametrize("objective", ["mlm", "rtd"])
def test_a_rate_that_changes_is_a_function_of_the_step(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    changes = {"objective": objective, "objective_config": {"rate": [[0.0, 0.5], [1.0, 0.1]]}, "train": {"length": "4 steps"}}
    seen: dict[tuple[int, int], float] = {}
    prepare = Feed.prepare

    def watched(self: Feed, step: int, micro: int):
        batch = prepare(self, step, micro)
        words = int((batch.words_BL >= 0).sum())
        seen[step, micro] = len(batch.targets["picks"]) / words
        return batch

    monkeypatch.setattr(Feed, "prepare", watched)
    whole = pretrain(tmp_path / "whole", dataset, **changes)
    for (step, _), share in seen.items():
        assert share == pytest.approx(0.5 - 0.4 * (step + 0.5) / 4, abs=0.01)
    assert set(seen) == {(step, micro) for step in range(4) for micro in range(2)}
    assert whole.counts["flops_per_token"] == pytest.approx(
        pretrain(tmp_path / "flat", dataset, **changes | {"objective_config": {"rate": 0.3}}).counts["flops_per_token"]
    )
    assert losses(tmp_path / "flat") != losses(tmp_path / "whole")
