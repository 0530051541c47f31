"""Every recipe loads and plans; in small it runs its whole chain on real documents and ends with what it says it makes."""

import re
from pathlib import Path

import pytest

from kitae.chain import recipe
from kitae.chain.nodes import nodes
from kitae.core.artifact import read_manifest, verify
from kitae.core.errors import KitaeError
from tiny_recipe import kitae

FOLDER = Path(__file__).parents[2] / "recipes"
NAMES = sorted(file.stem for file in FOLDER.glob("*.toml"))
PUBLISHED = [name for name in NAMES if name not in ("kyoto", "quickstart")]
QUICK = "electra-small-paper-ja"
SMALL = 'scale="debug"'


def test_there_are_recipes() -> None:
    assert len(PUBLISHED) >= 12


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_loads_and_plans_in_both_sizes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITAE_DATA", str(tmp_path))
    for settings in ((), (SMALL,)):
        loaded, path = recipe.load(str(FOLDER / f"{name}.toml"), settings)
        assert nodes(loaded, str(path))
    head = (FOLDER / f"{name}.toml").read_text(encoding="utf-8").partition("output =")[0]
    assert re.search(r"^# Cost\b", head, re.MULTILINE), "a recipe's header says what it costs"
    assert "kitae run" in head or "make " in head, "and how to run it"


def run_in_small(name: str, shared: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    monkeypatch.setenv("KITAE_DATA", str(shared))
    monkeypatch.setenv("KITAE_CORPORA", "/nowhere")
    workers = [f"{key}.workers=1" for key in ("corpus.engine", "tokenizer", "dataset")]  # starting more takes longer than this work
    settings = (SMALL, f'output="{folder}/run"', *workers, *more)
    if name == "wikipedia-en":  # has no [tokenizer] and no [dataset]
        settings = settings[:3]
    done = kitae("run", FOLDER / f"{name}.toml", *(part for one in settings for part in ("--set", one)))
    assert done.returncode == 0, done.stderr
    loaded, path = recipe.load(str(FOLDER / f"{name}.toml"), settings)
    for node in nodes(loaded, str(path)):
        verify(folder / "run" / node.name)
        counts = read_manifest(folder / "run" / node.name).facts["counts"]
        assert isinstance(counts, dict)
        assert node.stage != "corpus" or 20 <= counts["documents_in"] <= 1000  # type: ignore[operator]


def test_one_published_recipe_runs_in_small(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_in_small(QUICK, shared, tmp_path, monkeypatch, "debug.pretrain.heldout_rows=32")
    halves = sorted(item.name for item in (tmp_path / "run" / "export" / "pretrain").iterdir() if item.is_dir())
    assert halves == ["discriminator", "generator"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != QUICK])
def test_every_published_recipe_runs_in_small(name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_in_small(name, shared, tmp_path, monkeypatch)


def test_the_table_debug_is_laid_over_the_recipe(tmp_path: Path) -> None:
    """Only in small; lists and the tokenizer as a whole, everything else key by key, and it wins against what `debug` does by itself."""
    path = tmp_path / "r.toml"
    body = """output = "run"
[corpus]
source = [{ path = "https://example.org/big.txt" }]
language = "en"
[tokenizer]
from = "vocab.txt"
lower_case = true
[dataset]
[pretrain]
model = "bert-large"
objective = "mlm"
train = { length = "1000 steps", warmup = "50 steps" }
[debug.corpus]
source = [{ path = "small.txt" }]
[debug.tokenizer]
segmenter = "basic"
[debug.pretrain.train]
length = "7 steps"
"""
    path.write_text(body, encoding="utf-8")
    full, _ = recipe.load(str(path))
    assert full.corpus is not None
    assert full.corpus.source[0].path == "https://example.org/big.txt"
    small, _ = recipe.load(str(path), (SMALL,))
    assert small.corpus is not None
    assert small.tokenizer is not None
    assert small.pretrain is not None
    assert (small.corpus.source[0].path, small.corpus.source[0].limit, small.corpus.language) == ("small.txt", 300, "en")
    assert (small.tokenizer.from_, small.tokenizer.segmenter, small.tokenizer.vocab_size) == (None, "basic", 3000)
    assert (small.pretrain.model, str(small.pretrain.train.length)) == ("bert-tiny", "7 steps")
    assert str(small.pretrain.train.warmup) == "0.05 of length"
    path.write_text(body.replace("[debug.tokenizer]\nsegmenter", "[debug.tokenizer]\nsegmentr"), encoding="utf-8")
    with pytest.raises(KitaeError, match="tokenizer.segmentr"):
        recipe.load(str(path), (SMALL,))
    path.write_text('debug = "no"\noutput = "run"\n', encoding="utf-8")
    with pytest.raises(KitaeError, match="debug must be a table"):
        recipe.load(str(path), (SMALL,))
