"""The stages finetune and evaluate, as the graph runs them."""

import json
from pathlib import Path

import pytest
from tiny_trials import QUICK, examples, start_folder

from kitae.core.artifact import Inputs, Out, seal
from kitae.core.errors import KitaeError
from kitae.stages import evaluate, finetune
from kitae.stages.evaluate import EvaluateConfig
from kitae.stages.finetune import FinetuneConfig
from kitae.tasks.config import TaskConfig


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> TaskConfig:
    path = tmp_path_factory.mktemp("pool") / "pool.jsonl"
    lines = (json.dumps({"id": e.id, "text": e.text, "label": e.gold}) for e in examples(150, name="pool", seed=4))
    path.write_text("\n".join(lines), encoding="utf-8")
    split = {"train": 0.5, "validation": 0.2, "test": 0.3}
    return TaskConfig.model_validate({"name": "pool", "path": str(path), "split": split, "id": "id", "licence": "CC0-1.0"})


def config(task: TaskConfig, encoder: str, seed: int, **changes: object) -> FinetuneConfig:
    return FinetuneConfig.model_validate({**QUICK.model_dump(), "epochs": 2, "task": task, "encoder": encoder, "seed": seed, **changes})


def test_all_encoders_of_a_task_end_in_one_table(pool: TaskConfig, tmp_path: Path) -> None:
    start = start_folder(tmp_path / "start")
    parents: dict[str, Path] = {}
    for encoder, seeds in (("majority", (1,)), ("tfidf", (1,)), ("random", (1, 2)), ("pretrain", (1, 2)), (str(start), (1, 2))):
        for seed in seeds:
            folder = tmp_path / "run" / f"{Path(encoder).name}-{seed}"
            folder.mkdir(parents=True)
            out = Out(path=folder)
            outside = {"start": encoder} if encoder == str(start) else {}
            roles = {"start": start} if encoder in ("random", "pretrain") else {}
            finetune.run(config(pool, encoder, seed, **outside), Inputs(parents=roles, seed=1), out)
            assert out.counts["examples"] == {"train": 75, "validation": 30, "test": 45, "leaked": 0}
            assert out.licences == [{"name": "pool", "licence": "CC0-1.0", "source": pool.path[0]}]
            assert (folder / "model" / "weights.safetensors").is_file() == (encoder not in ("majority", "tfidf"))
            parents[f"finetune/pool/{Path(encoder).name}/{seed}"] = folder
    same = [json.loads((tmp_path / "run" / name / "results.json").read_text())["scores"] for name in ("pretrain-1", "start-1")]
    assert same[0] == same[1], "an encoder gives the same trial from inside and outside the recipe"
    out = Out(path=tmp_path)
    evaluate.run(EvaluateConfig(task=pool, samples=500), Inputs(parents=parents, seed=1), out)
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [row["encoder"] for row in found["encoders"]] == ["majority", "tfidf", "random", "pretrain", str(start)]
    assert [len(row["seeds"]) for row in found["encoders"]] == [1, 1, 2, 2, 2]
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "accuracy on 45 test texts" in page
    assert "no difference shown" in page
    for name in ("summary.csv", "summary.tex", "comparisons.csv", "classes.tex", "slices.csv", "worst.csv", "errors.json", "times.svg"):
        assert (tmp_path / name).is_file(), name
    assert "## By class" in page
    assert "## By slice: accuracy" in page
    assert out.counts["verdicts"] == found["verdicts"]
    assert out.counts["scores"] == {row["encoder"]: row["score"] for row in found["encoders"]}
    assert out.counts["metric"] == "accuracy"


def test_an_encoder_whose_texts_were_not_cleaned_of_the_task_is_marked(pool: TaskConfig, tmp_path: Path) -> None:
    start = start_folder(tmp_path / "start")
    lineage = {
        "corpus": {"stage": "corpus", "config": {"decontaminate": ["pool"]}},
        "adapt.corpus": {"stage": "corpus", "config": {"decontaminate": ["another"]}},
        "pretrain": {"stage": "pretrain", "config": {}},
    }
    seal(start, kind="pretrain", facts={"lineage": lineage})
    marked = {}
    for encoder in ("adapt", "random", "majority"):
        out = Out(path=tmp_path / encoder)
        out.path.mkdir()
        finetune.run(config(pool, encoder, 1), Inputs(parents={"start": start}, seed=1), out)
        marked[encoder] = [line for line in out.counts.get("warnings", []) if "de-contaminated" in line]  # type: ignore[attr-defined]
    wanted = "adapt.corpus, which it learnt from, was not de-contaminated against pool: scores may be too high"
    assert marked == {"adapt": [wanted], "random": [], "majority": []}
    evaluate.run(
        EvaluateConfig(task=pool, samples=500), Inputs(parents={name: tmp_path / name for name in marked}, seed=1), Out(path=tmp_path)
    )
    assert f"Warning, adapt: {wanted}" in (tmp_path / "results.md").read_text(encoding="utf-8")
    with pytest.raises(KitaeError, match="not de-contaminated against pool"):
        finetune.run(config(pool, "adapt", 1, fair=True), Inputs(parents={"start": start}, seed=1), Out(path=tmp_path / "adapt"))
    (tmp_path / "fair").mkdir()
    finetune.run(config(pool, "random", 1, fair=True), Inputs(parents={"start": start}, seed=1), Out(path=tmp_path / "fair"))


def test_sources_are_the_files_and_the_start(pool: TaskConfig) -> None:
    assert finetune.sources(config(pool, "random", 1)) == pool.files
    assert finetune.sources(config(pool, "there", 1, start="there")) == (*pool.files, "there")
    assert evaluate.sources(EvaluateConfig(task=pool)) == pool.files


def test_operational_settings_stay_out_of_the_fingerprint(pool: TaskConfig) -> None:
    one, other = config(pool, "random", 1), config(pool, "random", 1, device="cpu", deterministic=True)
    assert one.semantic() == other.semantic()
    assert one.semantic() != config(pool, "random", 1, learning_rate=1e-5).semantic()
    with pytest.raises(KitaeError, match="no folder to start from"):
        finetune.run(one, Inputs(parents={}, seed=1), Out(path=Path("unused")))
