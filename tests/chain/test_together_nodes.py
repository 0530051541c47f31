"""Groups of tasks in a recipe: their nodes, what they take from the tasks' own settings, and what comes out beside the tasks alone."""

import json
from pathlib import Path

import pytest

from kitae.chain import nodes, recipe, status
from kitae.core.errors import KitaeError
from kitae.core.graph import Node
from kitae.procedures.finetuned import load
from kitae.stages.together import TogetherConfig
from tiny_recipe import RECIPE, kitae, write_recipe

OTHER = """
[task.other]
path = ["topics.jsonl"]
split = { train = 0.3, validation = 0.3, test = 0.4 }
finetune = { epochs = 3, max_length = 16 }
"""
GROUP = 'finetune.together=[["topics", "other"]]'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    (tmp_path / "r.toml").write_text(RECIPE.replace("epochs = 1\n", "") + OTHER, encoding="utf-8")
    return tmp_path


def graph(*overrides: str) -> dict[str, Node]:
    loaded, path = recipe.load("r.toml", overrides)
    return {node.name: node for node in nodes.nodes(loaded, str(path))}


def test_a_group_is_trained_by_every_encoder_that_learns(folder: Path) -> None:
    made = graph(GROUP, 'finetune.compare=["random", "adapt", "frozen", "tfidf"]', "finetune.seeds=[1, 2]", 'finetune.sampling="uniform"')
    names = [name for name in made if name.startswith("together/")]
    assert names == [f"together/topics+other/{encoder}/{seed}" for encoder in ("random", "adapt") for seed in (1, 2)]
    assert made[names[2]].parents == {"start": "adapt"}
    config = made[names[0]].config
    assert isinstance(config, TogetherConfig)
    assert config.sampling == "uniform"
    assert [(one.task.name, one.trial.epochs, one.trial.max_length) for one in config.shared] == [("topics", 10, None), ("other", 3, 16)]
    assert [name for name in made["evaluate/topics"].parents if name.startswith("together/")] == names
    assert list(made["evaluate/other"].parents) == names, "no trials of it alone"


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (('finetune.together=[["topics"]]',), "names topics as a group"),
        (('finetune.together=[["topics", "topics"]]',), "names topics, topics as a group"),
        (('finetune.together=[["topics", "other"], ["other", "topics"]]',), "has the group topics, other twice"),
        (('finetune.together=[["topics", "othr"]]',), 'there is no task "othr"'),
        ((GROUP, "task.other.finetune={ batch = 4 }"), r"have one batch, and theirs differ \(16 of topics, 4 of other\)"),
        ((GROUP, 'finetune.source="sample-topics"'), "does not go with finetune.source"),
        ((GROUP, 'finetune.protocol="as published"'), 'by protocol = "fair"'),
    ],
)
def test_groups_that_cannot_be_trained_are_named(folder: Path, overrides: tuple[str, ...], what: str) -> None:
    with pytest.raises(KitaeError, match=what):
        graph(*overrides)


def test_alone_and_together_stand_in_one_table(folder: Path) -> None:
    overrides = (GROUP, 'finetune.compare=["random", "tfidf"]', "finetune.seeds=[1]", "finetune.epochs=1", "dataset.max_length=32")
    flags = [part for value in overrides for part in ("--set", value)]
    planned = kitae("plan", "r.toml", *flags)
    assert planned.returncode == 0, planned.stderr
    assert "together/topics+other/random, other" in planned.stdout
    done = kitae("run", "r.toml", *flags, "--until", "evaluate")
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "run/evaluate/topics/results.json").read_text(encoding="utf-8"))
    assert [encoder["encoder"] for encoder in results["encoders"]] == ["random", "tfidf", "random with other"]
    alone = json.loads((folder / "run/evaluate/other/results.json").read_text(encoding="utf-8"))
    assert [encoder["encoder"] for encoder in alone["encoders"]] == ["random with topics"]
    place = folder / "run/together/topics+other/random/1"
    for name in ("topics", "other"):
        assert {"results.json", "predictions.jsonl", "model"} <= {item.name for item in (place / name).iterdir()}
    model, use = load(place / "other")
    assert use.max_length == 16
    assert model.predict([]) == []
    loaded, path = recipe.load("r.toml", overrides)
    found = status.statuses(nodes.select(nodes.nodes(loaded, str(path)), "evaluate"), Path(loaded.output), loaded.seed)
    assert {row.state for row in found.values()} == {status.State.DONE}
