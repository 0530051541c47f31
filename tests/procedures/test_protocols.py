"""Sweeps, early stopping, frozen encoders, given models and the protocol as published; none of them sees a test label before its choice."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tiny_trials import LABELS, QUICK, examples, relabelled, start, start_folder, task

from kitae.core.artifact import Inputs, Out
from kitae.core.errors import KitaeError
from kitae.core.score import Score
from kitae.models.folder import read_parts
from kitae.procedures.given import score_given
from kitae.procedures.outcome import write as write_outcome
from kitae.procedures.published import PublishedTrial, of_epochs, published
from kitae.procedures.sweep import Candidate, Search, SweepConfig, Tried, best, check_search, means, read, write
from kitae.procedures.trials import TrialConfig, run_trial
from kitae.report.tables import escaped
from kitae.stages import curve, evaluate, finetune, sweep
from kitae.stages.curve import CurveConfig
from kitae.stages.evaluate import EvaluateConfig
from kitae.stages.finetune import FinetuneConfig
from kitae.stages.sweep import CandidateConfig
from kitae.tasks.config import TaskConfig

FEW = QUICK.model_copy(update={"epochs": 3})


def pool(folder: Path, *, train: int = 60, permute_test: bool = False) -> TaskConfig:
    """A task whose three parts are files."""
    parts = {part: examples(size, name=part, seed=4) for part, size in (("train", train), ("validation", 24), ("test", 30))}
    if permute_test:
        parts["test"] = relabelled(parts["test"], 5)
    folder.mkdir(exist_ok=True)
    for part, rows in parts.items():
        lines = (json.dumps({"id": e.id, "text": e.text, "label": e.gold}) for e in rows)
        (folder / f"{part}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return TaskConfig.model_validate({"name": "pool", "id": "id", **{part: str(folder / f"{part}.jsonl") for part in parts}})


def trial(task: TaskConfig, folder: Path, seed: int = 1, **changes: object) -> FinetuneConfig:
    given = {**FEW.model_dump(), "task": task, "encoder": str(folder), "seed": seed, "start": str(folder), **changes}
    return FinetuneConfig.model_validate(given)


def made(config: FinetuneConfig, folder: Path, **parents: Path) -> dict[str, object]:
    folder.mkdir(parents=True)
    finetune.run(config, Inputs(parents=parents, seed=1), Out(path=folder))
    found: dict[str, object] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def test_patience_ends_a_trial_and_keeps_its_best_epoch(tmp_path: Path) -> None:
    data = task(train=32, validation=18, test=6)
    whole = run_trial(data, start(tmp_path / "start"), QUICK, seed=1, folder=tmp_path)
    scores = [point["accuracy"] for point in whole.curve]
    record, since, wanted = scores[0], 0, len(scores)
    for epoch, score in enumerate(scores[1:], start=2):
        record, since = (score, 0) if score > record else (record, since + 1)
        if since == 4:
            wanted = epoch
            break
    assert wanted < len(scores), "there is something to stop"
    (tmp_path / "short").mkdir()
    short = run_trial(data, start(tmp_path / "start"), QUICK.model_copy(update={"patience": 4}), seed=1, folder=tmp_path / "short")
    assert short.curve == whole.curve[:wanted]
    assert short.chosen == max(short.curve, key=lambda point: point["accuracy"])


def test_the_protocol_as_published_leaves_the_fair_one_as_it_is(tmp_path: Path) -> None:
    data, results = task(train=48), {}
    for protocol in ("fair", "as published"):
        folder = tmp_path / protocol
        folder.mkdir()
        config = QUICK.model_copy(update={"protocol": protocol, "epochs": 4})
        outcome = run_trial(data, start(tmp_path / "start"), config, seed=1, folder=folder)
        results[protocol] = write_outcome(outcome, data, folder, metric="", encoder="e", seed=1)
    fair, both = results["fair"], results["as published"]
    assert fair.published is None
    assert (fair.scores, fair.chosen, fair.curve) == (both.scores, both.chosen, both.curve)
    weights = [(tmp_path / name / "model" / "weights.safetensors").read_bytes() for name in results]
    assert weights[0] == weights[1]
    told = both.published
    assert told is not None
    assert len(told.scores) == 4
    assert told.scores[int(both.chosen["epoch"]) - 1] == both.scores["accuracy"], "the same weights give the same score"
    assert told.score == max(told.scores) >= both.scores["accuracy"]
    with pytest.raises(ValidationError, match="leave one out"):
        TrialConfig(protocol="as published", patience=2)


def test_what_the_protocol_as_published_hides_is_counted() -> None:
    runs = [(of_epochs([0.5, 0.7, 0.7]), {"epoch": 1.0}), (of_epochs([0.6, 0.8, 0.9]), {"epoch": 3.0})]
    assert runs[0][0] == PublishedTrial(scores=[0.5, 0.7, 0.7], epoch=2, score=0.7)
    found = published("adapt", runs, Score(value=0.7, low=0.6, high=0.8, n=10))
    assert (found.mean, found.maximum) == (pytest.approx(0.8), 0.9)
    assert (found.epoch_adds, found.run_adds) == (pytest.approx(0.1), pytest.approx(0.1))
    assert found.epochs == [[2, 1], [3, 3]]
    assert found.sentence("adapt") == (
        "adapt: as published 80.0 on the average of 2 runs and 90.0 at best; fair 70.0 (95 % 60.0 to 80.0). Choosing the epoch on the "
        "test set adds 10.0 points, reporting the best run 10.0 more; neither would new texts give."
    )


def test_few_examples_get_as_many_steps_as_are_asked_for(tmp_path: Path) -> None:
    data = task(train=20, validation=6, test=3)
    config = QUICK.model_copy(update={"epochs": 2, "least_steps": 10})
    outcome = run_trial(data, start(tmp_path / "start"), config, seed=1, folder=tmp_path)
    assert len(outcome.curve) == 4, "of three steps each"


def test_a_frozen_encoder_stays_as_it_was_and_its_head_learns(tmp_path: Path) -> None:
    first = start_folder(tmp_path / "start")
    found = made(trial(pool(tmp_path / "pool"), first, frozen=True, learning_rate=1e-2), tmp_path / "trial")
    before, after = read_parts(first)["discriminator"].state, read_parts(tmp_path / "trial" / "model")["encoder"].state
    shared = [name for name in before if name.startswith("encoder.")]
    assert len(shared) > 20
    assert all(torch.equal(before[name], after[name]) for name in shared)
    assert found["curve"][0]["loss"] != found["curve"][2]["loss"]  # type: ignore[index]


def test_a_given_model_is_scored_as_it_is(tmp_path: Path) -> None:
    first, data = start_folder(tmp_path / "start"), pool(tmp_path / "pool")
    before = made(trial(data, first), tmp_path / "trial")
    again = made(trial(data, tmp_path / "trial", trained=True), tmp_path / "again")
    assert again["scores"] == before["scores"]
    assert again["chosen"]["epoch"] == 0  # type: ignore[index]
    assert again["chosen"]["accuracy"] == before["chosen"]["accuracy"]  # type: ignore[index]
    assert not (tmp_path / "again" / "model").exists()
    other = dataclasses.replace(task(), labels=("art", "law", "tea"))
    with pytest.raises(KitaeError, match='it lacks "tea"'):
        score_given(other, tmp_path / "trial", FEW)
    with pytest.raises(KitaeError, match="no fine-tuned model"):
        score_given(task(), first, FEW)


def test_the_best_mean_on_validation_is_taken_and_the_first_of_equals() -> None:
    slow, quick = Candidate(learning_rate=1e-5, epochs=3), Candidate(learning_rate=1e-3, epochs=4)
    tried = [Tried(candidate=c, seed=s, metric="m", score=x, chosen={}) for c, s, x in ((slow, 1, 0.9), (quick, 1, 0.8), (quick, 2, 1.0))]
    assert means(tried) == {slow: 0.9, quick: 0.9}
    assert best(tried) == slow
    assert best(tried[1:]) == quick
    assert [candidate.name for candidate in SweepConfig().candidates()] == [
        f"{rate}x{epochs}" for rate in ("5e-05", "3e-05", "2e-05") for epochs in (3, 4)
    ]


def test_a_damaged_sweep_is_named(tmp_path: Path) -> None:
    write([], tmp_path)
    assert read(tmp_path) == []
    (tmp_path / "sweep.json").write_text("{", encoding="utf-8")
    with pytest.raises(KitaeError, match="the sweep cannot be read"):
        read(tmp_path)


def test_a_trial_takes_what_validation_chose_whatever_the_test_labels_are(tmp_path: Path) -> None:
    first, found, candidates = start_folder(tmp_path / "start"), {}, {}
    for name in ("true", "permuted"):
        data, parents = pool(tmp_path / name, train=96, permute_test=name == "permuted"), {}
        for rate in (1e-6, 6e-3):
            config = CandidateConfig.model_validate(
                {**trial(data, first).model_dump(exclude={"trained"}), "learning_rate": rate, "epochs": 4}
            )
            folder = tmp_path / "sweep" / name / str(rate)
            folder.mkdir(parents=True)
            sweep.run(config, Inputs(parents={}, seed=1), Out(path=folder))
            parents[f"sweep/{rate}"] = folder
            assert not (folder / "model").exists()
        candidates[name] = [(folder / "sweep.json").read_bytes() for folder in parents.values()]
        folder = tmp_path / "trial" / name
        found[name] = made(trial(data, first, protocol="as published"), folder, **parents)
    assert candidates["true"] == candidates["permuted"]
    assert found["true"]["chosen"]["learning_rate"] == 6e-3  # type: ignore[index]
    assert [row["learning_rate"] for row in found["true"]["sweep"]] == [1e-6, 6e-3]  # type: ignore[index,union-attr]
    assert found["true"]["chosen"] == found["permuted"]["chosen"]
    assert found["true"]["scores"] != found["permuted"]["scores"]
    weights = [(tmp_path / "trial" / name / "model" / "weights.safetensors").read_bytes() for name in found]
    assert weights[0] == weights[1]
    direct = made(trial(data, first, learning_rate=6e-3, epochs=4), tmp_path / "direct")
    assert direct["scores"] == found["permuted"]["scores"], "the chosen setting gives the trial that it gives without a sweep"


def test_a_search_finds_the_best_of_what_it_tries_and_tries_the_same_again() -> None:
    pytest.importorskip("optuna")
    config = SweepConfig(search="optuna", learning_rate=(1e-5, 1e-2), epochs=(2, 5), trials=12)
    found = []
    for _ in range(2):
        search, tried = Search(config, seed=3), []
        for candidate, mark in search:
            score = -abs(math.log10(candidate.learning_rate) + 3)
            search.tell(mark, score)
            tried.append(Tried(candidate=candidate, seed=1, metric="m", score=score, chosen={}))
        found.append(tried)
    assert found[0] == found[1]
    assert len(found[0]) == 12
    assert all(1e-5 <= one.candidate.learning_rate <= 1e-2 and 2 <= one.candidate.epochs <= 5 for one in found[0])
    assert best(found[0]).learning_rate == pytest.approx(1e-3, rel=1)


def test_a_search_without_its_package_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    check_search(SweepConfig())
    monkeypatch.setattr("kitae.procedures.sweep.PACKAGE", "no_such_package")
    with pytest.raises(KitaeError, match="is not installed") as caught:
        check_search(SweepConfig(search="optuna"))
    assert "kitae[optuna]" in caught.value.cure
    with pytest.raises(ValidationError, match="is for search"):
        SweepConfig(trials=3)


def test_a_learning_curve_of_nested_draws(tmp_path: Path) -> None:
    first, data = start_folder(tmp_path / "start"), pool(tmp_path / "pool")
    compared = {}
    for count in (10, None):
        folders = {}
        for seed in (1, 2):
            for encoder, outside in (("tfidf", {"start": None}), (str(first), {})):
                folder = tmp_path / str(count) / f"{Path(encoder).name}{seed}"
                results = made(trial(data, first, seed, **{"encoder": encoder, "label_count": count, **outside}), folder)
                assert results["examples"]["train"] == (count or 60)  # type: ignore[index]
                folders[folder.name] = folder
        place = tmp_path / str(count) / "evaluate"
        place.mkdir()
        evaluate.run(EvaluateConfig(task=data, samples=200), Inputs(parents=folders, seed=1), Out(path=place))
        compared[str(count)] = place
    out = Out(path=tmp_path)
    curve.run(CurveConfig(task="pool"), Inputs(parents=compared, seed=1), out)
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [(c["encoder"], [p["examples"] for p in c["points"]]) for c in found["curves"]] == [("tfidf", [10, 60]), (str(first), [10, 60])]
    tfidf = found["curves"][0]["points"][0]["seeds"]
    assert list(tfidf) == ["1", "2"], "with fewer labels a baseline depends on the draw"
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "| encoder | 10 | 60 |" in page
    assert f"| {first.name} | " in page
    assert f" Folders: {first.name} is {escaped(str(first))}." in page
    assert found["within"] == [0.0, 1.0], "the axis ends where accuracy does"
    picture = (tmp_path / "curve.svg").read_text(encoding="utf-8")
    assert f">{first.name}</text>" in picture
    assert (tmp_path / "points.csv").is_file()


def test_more_labels_than_there_are_is_said(tmp_path: Path) -> None:
    found = made(trial(pool(tmp_path / "pool"), tmp_path, encoder="majority", start=None, label_count=999), tmp_path / "trial")
    assert found["warnings"] == ["label_counts names 999, but there are 60 training examples: all were used"]
    assert len(LABELS) == 3
