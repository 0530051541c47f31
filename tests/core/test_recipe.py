"""Reading recipes: inheritance, overrides, roots, and errors that name what was meant."""

from pathlib import Path

import pytest

from kitae.core import recipe
from kitae.core.config import Config
from kitae.core.errors import KitaeError


class Train(Config):
    length: str = "1 step"
    unit: str = "token"


class Stage(Config):
    train: Train = Train()
    sources: tuple[Train, ...] = ()


class Recipe(Config):
    output: str
    pretrain: Stage | None = None


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_base_is_merged_below_table_by_table(tmp_path: Path) -> None:
    write(tmp_path, "base.toml", 'output = "a"\n[pretrain]\ntrain = { length = "2 steps", unit = "word" }\nlist = [1, 2]')
    name = write(tmp_path, "mine.toml", 'base = "base.toml"\n[pretrain]\ntrain = { length = "3 steps" }\nlist = [3]')
    raw, path = recipe.load(name, ['pretrain.train.unit="span"', "seed=4"])
    assert raw == {"output": "a", "seed": 4, "pretrain": {"train": {"length": "3 steps", "unit": "span"}, "list": [3]}}
    assert path == tmp_path / "mine.toml"


def test_a_circle_of_bases_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.toml", 'base = "b.toml"')
    name = write(tmp_path, "b.toml", 'base = "a.toml"')
    with pytest.raises(KitaeError, match="back to itself"):
        recipe.load(name)


@pytest.mark.parametrize("override", ["pretrain.length", "=3", "a..b=1", "a=no quotes"])
def test_overrides_that_are_no_assignments(tmp_path: Path, override: str) -> None:
    with pytest.raises(KitaeError, match="--set"):
        recipe.load(write(tmp_path, "a.toml", ""), [override])


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match="line 2"):
        recipe.load(write(tmp_path, "a.toml", "a = 1\nb = = 2"))


def test_a_missing_recipe_and_a_missing_packaged_recipe() -> None:
    with pytest.raises(KitaeError, match="does not exist"):
        recipe.load("nowhere.toml")
    with pytest.raises(KitaeError, match="quickstart"):
        recipe.load("recipe:quickstrat")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"output": "x", "pretrian": {}}, ["pretrian is not a known key", 'did you mean "pretrain"?', "in r.toml"]),
        ({"output": "x", "pretrain": {"train": {"lenght": "3"}}}, ["pretrain.train.lenght", '"length"', "table [pretrain.train]"]),
        ({"output": "x", "pretrain": {"sources": [{"unti": "3"}]}}, ["pretrain.sources.0.unti", '"unit"']),
        ({}, ["output is missing"]),
    ],
)
def test_unknown_and_missing_keys(raw: dict[str, object], expected: list[str]) -> None:
    with pytest.raises(KitaeError) as caught:
        recipe.validate(Recipe, raw, "r.toml")
    for part in expected:
        assert part in str(caught.value)


def test_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KITAE_TEST_ROOT", raising=False)
    roots = {"here": "/a/b/", "env": "$KITAE_TEST_ROOT|../c"}
    raw: recipe.Raw = {"path": "here:x.txt", "list": [{"path": "env:y"}], "sample": "sample:general", "data": {"here": "/a/b/"}}
    assert recipe.substitute_roots(raw, roots, "r") == {
        "path": "/a/b/x.txt", "list": [{"path": "../c/y"}], "sample": "sample:general", "data": {"here": "/a/b/"},
    }  # fmt: skip
    monkeypatch.setenv("KITAE_TEST_ROOT", "/set")
    assert recipe.substitute_roots({"a": "env:y"}, roots, "r") == {"a": "/set/y"}
    with pytest.raises(KitaeError, match="KITAE_NOT_SET"):
        recipe.substitute_roots({"a": "env:y"}, {"env": "$KITAE_NOT_SET"}, "r")
