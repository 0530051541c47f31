"""A trial learns what is there to learn, chooses without the test labels, and says when something is wrong."""

import dataclasses
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_trials import LABELS, QUICK, WORDS, relabelled, start, start_folder, task

from kitae.core.artifact import newest, read_manifest, verify
from kitae.core.errors import KitaeError, Stopped
from kitae.models.bert import BertConfig
from kitae.models.families import build_classifier, build_pretraining_lm
from kitae.models.folder import Part, read_parts
from kitae.models.starts import without_order_head
from kitae.procedures.finetuned import Finetuned, read_use
from kitae.procedures.outcome import Outcome
from kitae.procedures.predict import Predictor
from kitae.procedures.trials import TrialConfig, build, read_start, run_trial
from kitae.tasks.examples import Example
from kitae.tasks.kind import Feature, Raw
from kitae.tasks.records import TaskData
from kitae.tensor.random import torch_generator
from kitae.train import checkpoint
from kitae.train.monitor import read_metrics


def run(data: TaskData, folder: Path, *, seed: int = 1, config: TrialConfig = QUICK) -> Outcome:
    folder.mkdir()
    return run_trial(data, start(folder.parent / "start"), config, seed=seed, folder=folder)


def accuracy(outcome: Outcome, data: TaskData) -> float:
    return float(np.mean([found.value == example.gold for found, example in zip(outcome.predicted, data.test, strict=True)]))


def probabilities(outcome: Outcome) -> np.ndarray:
    return np.asarray([found.more["probabilities"] for found in outcome.predicted])


def test_true_labels_are_learnt_and_permuted_ones_are_not(tmp_path: Path) -> None:
    data = task()
    outcome = run(data, tmp_path / "true")
    assert accuracy(outcome, data) >= 0.9
    assert not outcome.warnings
    permuted = dataclasses.replace(data, train=relabelled(data.train, 0), validation=relabelled(data.validation, 1))
    assert accuracy(run(permuted, tmp_path / "permuted"), data) <= 1 / 3 + 0.17  # two standard deviations over the majority


def test_thirty_two_texts_are_learnt_by_heart(tmp_path: Path) -> None:
    data = task(train=32)
    by_heart = dataclasses.replace(data, validation=tuple(dataclasses.replace(e, id=f"v{e.id}") for e in data.train))
    outcome = run(by_heart, tmp_path / "trial", config=QUICK.model_copy(update={"epochs": 25}))
    assert outcome.chosen["accuracy"] == 1.0


def test_the_first_best_epoch_is_kept_and_saved(tmp_path: Path) -> None:
    data = task(train=48)
    outcome = run(data, tmp_path / "trial")
    best = max(point["accuracy"] for point in outcome.curve)
    first = next(point for point in outcome.curve if point["accuracy"] == best)
    assert [point["epoch"] for point in outcome.curve] == list(range(1, 17))
    assert outcome.chosen == first
    model = newest(tmp_path / "trial")
    assert model == tmp_path / "trial" / "model"
    verify(model)
    assert read_manifest(model).kind == "checkpoint"
    part = read_parts(model)["encoder"]
    assert (part.head, part.labels, part.config.model_type) == ("sequence", LABELS, "electra")
    predictor = Predictor.load(tmp_path / "trial", device="cpu")
    found = np.array([list(p.probabilities.values()) for p in predictor.predict(e.text for e in data.test)])
    assert np.abs(found - probabilities(outcome)).max() < 1e-5, "what was scored is what was saved"
    looks = [record for record in read_metrics(tmp_path / "trial") if record["kind"] == "evaluate"]
    assert [look["accuracy"] for look in looks] == [point["accuracy"] for point in outcome.curve]
    assert sorted(item.name for item in (tmp_path / "trial").iterdir()) == ["metrics.jsonl", "model"]


def test_the_seed_decides_the_trial(tmp_path: Path) -> None:
    data = task(train=24, test=12)
    config = QUICK.model_copy(update={"epochs": 2, "micro_batch": 3})
    same = [run(data, tmp_path / name, seed=5, config=config) for name in ("a", "b")]
    assert np.array_equal(*map(probabilities, same))
    assert not np.array_equal(probabilities(same[0]), probabilities(run(data, tmp_path / "c", seed=6, config=config)))


@pytest.mark.parametrize(("half", "near"), [({"precision": "fp16"}, 5e-3), ({"precision": "bf16", "predict_precision": "bf16"}, 3e-2)])
def test_half_precision_learns_what_fp32_learns(half: dict[str, str], near: float, tmp_path: Path) -> None:
    data, losses, said = task(train=32, test=6), [], []
    for name, more in (("whole", {}), ("half", half)):
        outcome = run(data, tmp_path / name, config=QUICK.model_copy(update={"epochs": 2, **more}))
        records = [record for record in read_metrics(tmp_path / name) if record["kind"] == "train"]
        losses.append([float(str(record["loss"])) for record in records])
        said.append(probabilities(outcome))
    assert len(losses[0]) >= 2
    assert losses[1] == pytest.approx(losses[0], rel=near)
    assert losses[1] != losses[0]
    assert said[1] == pytest.approx(said[0], abs=near)
    assert not np.array_equal(*said)


def test_bf16_trains_too(tmp_path: Path) -> None:
    data = task()
    assert (
        accuracy(run(data, tmp_path / "trial", config=QUICK.model_copy(update={"precision": "bf16", "predict_precision": "bf16"})), data)
        >= 0.9
    )


def test_a_fresh_start_takes_the_architecture_and_leaves_the_weights(tmp_path: Path) -> None:
    given = start(tmp_path / "start")
    kept, fresh, again, other = (
        build(dataclasses.replace(given, fresh=fresh), task(), QUICK, seed=seed).learner.encoder.state_dict()
        for fresh, seed in ((False, 1), (True, 1), (True, 1), (True, 2))
    )
    name = "encoder.blocks.0.qkv.weight"
    assert torch.equal(kept[name], given.part.state[name])
    assert not torch.equal(fresh[name], kept[name])
    assert torch.equal(fresh[name], again[name])
    assert not torch.equal(fresh[name], other[name])
    assert torch.equal(fresh["head.dense.weight"], kept["head.dense.weight"])


def test_a_collapsed_trial_and_unknown_texts_are_named(tmp_path: Path) -> None:
    data = task(train=24, test=6)
    strange = tuple(Example(id=f"s{i}", text="zzz zzz", gold=LABELS[i % 3], where="") for i in range(6))
    outcome = run(dataclasses.replace(data, validation=strange), tmp_path / "trial", config=QUICK.model_copy(update={"epochs": 2}))
    assert any(warning.startswith("collapsed") for warning in outcome.warnings)
    assert any("6 of 6 validation texts are nothing but unknown tokens" in warning for warning in outcome.warnings)


def test_a_loss_of_exactly_zero_is_named(tmp_path: Path) -> None:
    data = task(train=12, test=6)
    one = {name: tuple(dataclasses.replace(e, gold="art") for e in getattr(data, name)) for name in ("train", "validation", "test")}
    outcome = run(dataclasses.replace(data, labels=("art",), **one), tmp_path / "trial", config=QUICK.model_copy(update={"epochs": 2}))
    assert [warning.partition(";")[0] for warning in outcome.warnings] == ["zero loss: nothing was left to learn in epoch 1, 2"]


def test_a_collapsed_trial_stops_where_it_is_asked_to_and_keeps_its_best_epoch(tmp_path: Path) -> None:
    data = task(train=24, test=6)
    strange = tuple(Example(id=f"s{i}", text="zzz zzz", gold=LABELS[i % 3], where="") for i in range(6))
    asked = QUICK.model_copy(update={"epochs": 6, "stop_collapsed": 2})
    outcome = run(dataclasses.replace(data, validation=strange), tmp_path / "trial", config=asked)
    assert [point["epoch"] for point in outcome.curve] == [1, 2, 3]
    assert outcome.warnings[-1].startswith("collapsed: stopped after epoch 3, the last of 3 in a row in which every validation text got")
    assert "fp32, a lower learning rate" in outcome.warnings[-1]
    assert outcome.chosen["epoch"] == 1
    assert newest(tmp_path / "trial") == tmp_path / "trial" / "model"
    one = {name: tuple(dataclasses.replace(e, gold="art") for e in getattr(data, name)) for name in ("train", "validation", "test")}
    zero = run(dataclasses.replace(data, labels=("art",), **one), tmp_path / "zero", config=asked)
    assert zero.warnings[0].startswith("collapsed: stopped after epoch 3, the last of 3 in a row in which the training loss was exactly 0")
    healthy = task(train=48)
    plain = run(healthy, tmp_path / "plain", config=QUICK.model_copy(update={"epochs": 6}))
    watched = run(healthy, tmp_path / "watched", config=asked.model_copy(update={"stop_collapsed": 6}))
    assert plain.curve == watched.curve
    assert np.array_equal(probabilities(plain), probabilities(watched))
    assert TrialConfig().semantic() == TrialConfig(stop_collapsed=None).semantic() != TrialConfig(stop_collapsed=2).semantic()
    assert "stop_collapsed" not in TrialConfig().semantic()


def test_progress_has_the_name_of_the_trial_and_no_checkpoint_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "save", None)  # calling it would fail
    caplog.set_level("INFO")
    given, config = start(tmp_path / "start"), QUICK.model_copy(update={"epochs": 1})
    run_trial(task(train=12, test=6), given, config, seed=1, folder=tmp_path, title="topics small 1")
    assert any(line.startswith("topics small 1 100%") for line in caplog.messages)


def test_a_trial_that_is_stopped_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(self: Finetuned, features: Sequence[Sequence[Feature]]) -> list[list[Raw]]:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, features)

    original = Finetuned.raws
    monkeypatch.setattr(Finetuned, "raws", ask)
    with pytest.raises(Stopped) as stopped:
        run(task(train=24, test=6), tmp_path / "trial", config=QUICK.model_copy(update={"epochs": 3}))
    assert (stopped.value.signal, stopped.value.saved) == (signal.SIGTERM, False)
    assert list((tmp_path / "trial").iterdir()) == []


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match="66 tokens, the encoder 65"):
        read_start(start_folder(tmp_path / "wide", extra_tokens=1))
    (tmp_path / "trial").mkdir()
    with pytest.raises(KitaeError, match="max_length = 64, but the encoder has 32 positions"):
        run_trial(task(), start(tmp_path / "s"), QUICK.model_copy(update={"max_length": 64}), seed=1, folder=tmp_path / "trial")
    with pytest.raises(KitaeError, match="does not exist"):
        read_start(tmp_path / "nothing")


def test_a_proposed_length_is_cut_to_what_the_encoder_reads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, quick = task(train=24, test=6), QUICK.model_copy(update={"epochs": 1})
    said = {}
    for name, more in (("cut", {"max_length": 64, "shorten": True}), ("whole", {"max_length": 32})):
        said[name] = run(data, tmp_path / name, config=quick.model_copy(update=more))
    told = ["max_length = 32: t proposes 64, but the encoder has no more positions"]
    assert [line for line in caplog.messages if "positions" in line] == told
    assert said["cut"].warnings == [*told, *said["whole"].warnings]
    assert said["cut"].predicted == said["whole"].predicted
    assert read_use(tmp_path / "cut" / "model") == read_use(tmp_path / "whole" / "model")


def test_a_pooler_that_learnt_from_pairs_goes_on(tmp_path: Path) -> None:
    """As in BERT's paper and in transformers, where both classes call it bert.pooler; a model without one begins with a new one."""
    tokens = 5 + len(WORDS)
    config = BertConfig(vocab_size=tokens, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    state = build_pretraining_lm(config, torch_generator(5, "start")).state_dict()
    part = Part(head="pretraining", config=config, state=state)
    made = build(dataclasses.replace(start(tmp_path / "start"), part=part), task(), QUICK, seed=1).learner
    assert made.encoder.head.dense.weight.equal(state["order.dense.weight"])
    assert made.encoder.head.dense.bias.equal(state["order.dense.bias"])
    plain = build(dataclasses.replace(start(tmp_path / "start"), part=without_order_head(part)), task(), QUICK, seed=1).learner
    assert not plain.encoder.head.dense.weight.equal(state["order.dense.weight"])
    assert plain.encoder.head.out.weight.equal(made.encoder.head.out.weight)
    assert plain.encoder.encoder.embed.token.weight.equal(made.encoder.encoder.embed.token.weight)


def test_a_start_of_another_task_gives_its_encoder_only(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=5 + len(WORDS), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    state = build_classifier(config, 7, None, torch_generator(5, "start")).state_dict()
    part = Part(head="sequence", config=config, state=state, labels=tuple("abcdefg"))
    made = build(dataclasses.replace(start(tmp_path / "start"), part=part), task(), QUICK, seed=1).learner
    assert made.encoder.encoder.embed.token.weight.equal(state["encoder.embed.token.weight"])
    assert not made.encoder.head.dense.weight.equal(state["head.dense.weight"])


def test_frozen_layers_are_the_starts_and_every_rule_trains_what_is_left(tmp_path: Path) -> None:
    data = task(train=24, test=6)
    for rule in ("lamb", "muon"):
        given = {
            "optimizer": rule,
            "freeze": {"embeddings": True, "layers": 1},
            "layer_decay": 0.5,
            "electra_layer_decay": True,
            "epochs": 1,
        }
        run(data, tmp_path / rule, config=TrialConfig.model_validate(dict(QUICK) | given))
        before = read_parts(tmp_path / "start")["discriminator"].state
        after = read_parts(tmp_path / rule / "model")["encoder"].state
        for name, weight in before.items():
            if name.startswith("encoder."):
                still = name.startswith(("encoder.embed.", "encoder.blocks.0."))
                assert torch.equal(after[name], weight) == still, name
    with pytest.raises(ValidationError, match="need optimizer"):
        TrialConfig.model_validate({"muon": {}})
