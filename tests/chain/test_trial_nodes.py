"""What [finetune] makes of a recipe: candidates, trials, comparisons and curves; and their lines in a plan."""

import json
from pathlib import Path

import pytest

from kitae.chain import nodes, recipe, status
from kitae.core.errors import KitaeError
from kitae.core.graph import Node
from kitae.stages.finetune import FinetuneConfig
from tiny_recipe import RECIPE, kitae, write_recipe

OTHER = """
[task.other]
path = ["topics.jsonl"]
split = { train = 0.3, validation = 0.3, test = 0.4 }
finetune = { epochs = 7, batch = 4 }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    (tmp_path / "r.toml").write_text(RECIPE + OTHER, encoding="utf-8")
    return tmp_path


def graph(*overrides: str) -> dict[str, Node]:
    loaded, path = recipe.load("r.toml", overrides)
    return {node.name: node for node in nodes.nodes(loaded, str(path))}


def trial(node: Node) -> FinetuneConfig:
    assert isinstance(node.config, FinetuneConfig)
    return node.config


def test_a_task_says_how_it_is_fine_tuned_where_the_recipe_does_not(folder: Path) -> None:
    made = graph('finetune.task=["topics", "other"]', "finetune.learning_rate=1e-3")
    own = trial(made["finetune/other/random/1"])
    assert (own.epochs, own.batch, own.learning_rate) == (1, 4, 1e-3), "epochs stand in [finetune], batch does not"
    assert trial(made["finetune/topics/random/1"]).batch == 16
    with pytest.raises(KitaeError, match="finetune.epoch is not a known key") as caught:
        graph('finetune.task=["other"]', "task.other.finetune={ epoch = 3 }")
    assert "task other" in str(caught.value.where)


def test_a_published_tasks_length_is_proposed_and_a_recipes_own_is_meant(folder: Path) -> None:
    like = ('finetune.task=["q"]', 'task.q={ like = "jglue/jsquad", folder = "there" }')

    def settings(*more: str) -> FinetuneConfig:
        return trial(graph(*like, *more)["finetune/q/random/1"])

    published = settings()
    assert (published.max_length, published.shorten, "shorten" in published.semantic()) == (384, True, False)
    assert "shorten" not in published.task.semantic(), "results made before it still are what they were"
    for own in ("finetune.max_length=24", "task.q.finetune={ max_length = 24 }"):
        assert (settings(own).max_length, settings(own).shorten) == (24, False), own
        with pytest.raises(KitaeError, match="max_length = 384, but the encoder has .* positions"):
            settings(own.replace("24", "384"))
    assert settings("finetune.max_length=384", "finetune.shorten=true").shorten


def test_every_candidate_is_a_node_and_every_trial_waits_for_its_own(folder: Path) -> None:
    made = graph("finetune.sweep={}", "finetune.seeds=[1, 2]")
    sweep = [name for name in made if name.startswith("sweep/")]
    assert sweep == [
        f"sweep/topics/{encoder}/{rate}x{epochs}/1"
        for encoder in ("random", "adapt")
        for rate in ("5e-05", "3e-05", "2e-05")
        for epochs in (3, 4)
    ]
    for seed in (1, 2):
        node = made[f"finetune/topics/adapt/{seed}"]
        assert [name for name in node.parents.values() if name.startswith("sweep/")] == sweep[6:]
    assert dict(made["finetune/topics/majority/1"].parents) == {}
    everywhere = graph('finetune.sweep={ seeds = "all", epochs = [2] }', "finetune.seeds=[1, 2]")
    assert len([name for name in everywhere if name.startswith("sweep/")]) == 2 * 3 * 2
    searched = graph('finetune.sweep={ search = "optuna" }')
    assert [name for name in searched if name.startswith("sweep/")] == ["sweep/topics/random/search", "sweep/topics/adapt/search"]


def test_a_curve_has_all_trials_at_every_count_and_with_all_examples(folder: Path) -> None:
    made = graph("finetune.label_counts=[10, 30]", "finetune.seeds=[1, 2]")
    assert made["curve/topics"].parents == {name: f"evaluate/{name}" for name in ("topics@10", "topics@30", "topics")}
    assert {trial(made[f"finetune/topics{where}/adapt/2"]).label_count for where in ("@10", "@30", "")} == {10, 30, None}
    assert "finetune/topics@10/majority/2" in made, "a draw of its own for every seed"
    assert "finetune/topics/majority/2" not in made
    assert trial(graph()["finetune/topics/adapt/1"]).semantic() == trial(made["finetune/topics/adapt/1"]).semantic()


def test_the_four_settings_of_a_shift(folder: Path) -> None:
    compare = 'finetune.compare=["frozen", "task-tuned", "domain-tuned", "fully-tuned", "majority"]'
    made = graph(compare, 'finetune.source="other"')
    told = {
        name.split("/")[2]: (node.parents.get("start"), trial(node).learn_from is not None, trial(node).frozen, trial(node).learning_rate)
        for name, node in made.items()
        if name.startswith("finetune/")
    }
    assert told == {
        "frozen": ("pretrain", True, True, 1e-3),
        "task-tuned": ("pretrain", True, False, 3e-4),
        "domain-tuned": ("adapt", True, False, 3e-4),
        "fully-tuned": ("pretrain", False, False, 3e-4),
        "majority": (None, True, False, 3e-4),
    }
    with pytest.raises(KitaeError, match="finetune.source is missing"):
        graph(compare)
    with pytest.raises(KitaeError, match="is also one of finetune.task"):
        graph(compare, 'finetune.source="topics"')
    with pytest.raises(KitaeError, match="is no task"):
        graph(compare, 'finetune.source="othr"')


def test_the_plan_counts_candidates_and_points(folder: Path) -> None:
    done = kitae("plan", "r.toml", *("--set", "finetune.sweep={}", "--set", "finetune.label_counts=[10]"))
    assert done.returncode == 0, done.stderr
    lines = {" ".join(line.split()[:5]) for line in done.stdout.splitlines()}
    names = (
        "sweep/topics, 3 epochs x 6",
        "sweep/topics, 4 epochs x 6",
        "sweep/topics@10, 3 epochs x 6",
        "finetune/topics x 2",
        "finetune/topics@10 x 2",
    )
    for name in names:
        assert any(line.startswith(name) for line in lines), (name, done.stdout)


def test_a_swept_curve_runs_at_debug_scale_and_chooses_by_validation(folder: Path) -> None:
    overrides = (
        "finetune.sweep={}",
        "finetune.label_counts=[10, 300]",
        'finetune.compare=["random", "tfidf"]',
        'finetune.protocol="as published"',
    )
    small, path = recipe.load("r.toml", ('scale="debug"', *overrides))
    table = small.finetune
    assert table is not None
    assert table.sweep is not None
    assert (table.label_counts, len(table.sweep.candidates()), table.seeds) == ((10,), 2, (1, 2))
    flags = [part for value in ('scale="debug"', "dataset.max_length=32", *overrides) for part in ("--set", value)]
    done = kitae("run", "r.toml", *flags, "--until", "curve")
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "run/finetune/topics@10/random/1/results.json").read_text(encoding="utf-8"))
    assert results["examples"]["train"] == 10
    best = max(results["sweep"], key=lambda row: row["score"])
    assert results["chosen"]["learning_rate"] == best["learning_rate"]
    curves = json.loads((folder / "run/curve/topics/results.json").read_text(encoding="utf-8"))
    assert curves["curves"][0]["points"][0]["examples"] == 10
    assert "Choosing the epoch on the test set adds" in (folder / "run/evaluate/topics/results.md").read_text(encoding="utf-8")
    loaded, _ = recipe.load("r.toml", ('scale="debug"', "dataset.max_length=32", *overrides))
    found = status.statuses(nodes.select(nodes.nodes(loaded, str(path)), "curve"), Path(loaded.output), loaded.seed)
    assert {row.state for row in found.values()} == {status.State.DONE}
