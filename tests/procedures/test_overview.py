"""One table over all tasks: every encoder's scores, those of others apart from them, and the recipe's part in it."""

import csv
import json
from pathlib import Path

import pytest
from test_comparison import trial
from tiny_trials import task

from kitae.chain import recipe as recipes
from kitae.chain.nodes import nodes
from kitae.core.artifact import Inputs, Out
from kitae.core.errors import KitaeError
from kitae.procedures.comparison import Quoted, TaskResult, compare
from kitae.procedures.trial_set import read_trials
from kitae.stages import overview
from kitae.stages.overview import OverviewConfig
from kitae.tasks.config import TaskConfig


def result(folder: Path, name: str, encoders: dict[str, float], quoted: tuple[Quoted, ...] = ()) -> TaskResult:
    data = task(test=60)
    folders = [
        trial(folder / name, data, encoder=encoder, seed=seed, right=right) for encoder, right in encoders.items() for seed in (1, 2)
    ]
    found = compare(read_trials(folders, TaskConfig(name=name, train=("-",), test=("-",)), data.test), samples=200, seed=1, quoted=quoted)
    return found.model_copy(update={"task": name})


def test_encoders_stand_in_rows_and_tasks_in_columns(tmp_path: Path) -> None:
    quoted = (Quoted(name="Others_1", score=0.75, source="A et al. (2020)"),)
    results = {
        "one": result(tmp_path, "one", {"random": 0.5, "pretrain": 0.8}, quoted),
        "two": result(tmp_path, "two", {"pretrain": 0.9, "tfidf": 0.6}),
    }
    for name, found in results.items():
        (tmp_path / f"evaluate-{name}").mkdir()
        (tmp_path / f"evaluate-{name}" / "results.json").write_text(found.model_dump_json(), encoding="utf-8")
    out = Out(path=tmp_path / "overview")
    out.path.mkdir()
    overview.run(
        OverviewConfig(tasks=("one", "two")), Inputs(parents={name: tmp_path / f"evaluate-{name}" for name in results}, seed=1), out
    )
    read = json.loads((out.path / "results.json").read_text(encoding="utf-8"))
    assert [row["encoder"] for row in read["encoders"]] == ["random", "pretrain", "tfidf"]
    means = {row["encoder"]: row["mean"] for row in read["encoders"]}
    assert means["random"] is means["tfidf"] is None
    both = [results["one"].encoders[1].score.value, results["two"].encoders[0].score.value]
    assert means["pretrain"] == pytest.approx(sum(both) / 2)
    lines = list(csv.DictReader((out.path / "scores.csv").read_text(encoding="utf-8").splitlines()))
    assert [(line["task"], line["encoder"]) for line in lines] == [
        ("one", "random"), ("one", "pretrain"), ("two", "pretrain"), ("two", "tfidf"), ("one", "Others_1"),
    ]  # fmt: skip
    assert float(lines[1]["mean"]) == both[0]
    assert lines[-1]["source"] == "quoted, not measured here: A et al. (2020)"
    page = (out.path / "results.md").read_text(encoding="utf-8")
    assert "| encoder | one (accuracy) | two (accuracy) | mean | source |" in page
    assert "| Others\\_1 | 0.750 |  |  | quoted, not measured here: A et al. (2020) |" in page
    assert r"Others\_1 & 0.750 &  &  & quoted" in (out.path / "overview.tex").read_text(encoding="utf-8")
    (tmp_path / "evaluate-one" / "results.json").write_text("{}", encoding="utf-8")
    with pytest.raises(KitaeError, match="cannot be read"):
        overview.run(OverviewConfig(tasks=("one",)), Inputs(parents={"one": tmp_path / "evaluate-one"}, seed=1), out)


RECIPE = """output = "run"
[task.a]
path = "a.csv"
split = { train = 0.5, validation = 0.2, test = 0.3 }
[task.b]
path = "a.csv"
split = { train = 0.5, validation = 0.2, test = 0.3 }
[finetune]
task = TASKS
compare = ["majority", "tfidf"]
[evaluate]
worst = 7
worst_texts = false
[[evaluate.quoted]]
name = "BERT"
score = 0.9
source = "B et al. (2021)"
"""


def configured(folder: Path, tasks: str, more: str = "") -> dict[str, object]:
    path = folder / "r.toml"
    (folder / "a.csv").write_text("text,label\nx,y\n", encoding="utf-8")
    path.write_text(RECIPE.replace("TASKS", tasks) + more, encoding="utf-8")
    recipe, _ = recipes.load(str(path))
    return {node.name: node.config for node in nodes(recipe, str(path)) if node.stage in ("evaluate", "overview")}


def test_a_recipe_says_how_its_tasks_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    alone = configured(tmp_path, '["a"]')
    assert list(alone) == ["evaluate/a"]
    config = alone["evaluate/a"]
    assert (config.worst, config.worst_texts, config.quoted[0].name) == (7, False, "BERT")  # type: ignore[attr-defined]
    with pytest.raises(KitaeError, match='"BERT" is quoted without a task, and there are several'):
        configured(tmp_path, '["a", "b"]')
    with pytest.raises(KitaeError, match='quoted for the task "c"'):
        configured(tmp_path, '["a", "b"]', 'task = "c"\n')
    both = configured(tmp_path, '["a", "b"]', 'task = "b"\n')
    assert list(both) == ["evaluate/a", "evaluate/b", "overview"]
    assert both["evaluate/a"].quoted == ()  # type: ignore[attr-defined]
    assert both["evaluate/b"].quoted[0].score == 0.9  # type: ignore[attr-defined]
    with pytest.raises(KitaeError, match=r"evaluate\.quoted\.1\.score"):
        configured(tmp_path, '["a"]', "score = 90\n".replace("score", "url = 'x'\n[[evaluate.quoted]]\nname = 'y'\nsource = 'z'\nscore"))
