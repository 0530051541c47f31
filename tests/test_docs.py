"""What the pages say exists: names, links, recipes, verbs, settings, and the numbers of the tour."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import typer.main

from kitae.chain import recipe as recipes
from kitae.chain.execute import execute
from kitae.chain.nodes import nodes, select
from kitae.cli import app
from kitae.data.sampler import Sampler
from kitae.stages.pretrain import new_objective
from kitae.tensor.random import key, seed_dropout
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.config import step_rows

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "kitae"
READMES = ("README.md", "README.ja.md")
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|toml|md|txt|sh)|(?:[\w.-]+/)+)(?::([\w.]+))?`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MARKER = re.compile(r"<!-- (\w+):(begin|end) -->")
MADE = ("runs/", "checkpoints/", "dist/")  # folders that a run makes


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, kind: str) -> list[str]:
    return [body for name, body in FENCE.findall(text(page)) if name == kind]


def defined(path: Path) -> set[str]:
    """Names of a module's top level, and of its classes as Class.name."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        found |= names_of(node)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for inner in node.body for name in names_of(inner)}
    return found


def names_of(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


@pytest.mark.parametrize(
    ("page", "least"), [("docs/tour.md", 60), ("docs/design.md", 2), ("docs/log.md", 1), *((page, 2) for page in READMES)]
)
def test_named_files_and_functions_exist(page: str, least: int) -> None:
    wrong, found = [], 0
    for file, name in NAMED.findall(text(page)):
        places = [base / file for base in (ROOT, SRC) if (base / file).exists()]
        if file.startswith(MADE) or file == "file.py" or (file.endswith(".toml") and file == "other.toml"):
            continue
        if "/" not in file and not places and not name:
            continue  # a file that a stage writes, such as weights.safetensors
        found += 1
        if not places or (name and name not in defined(places[0])):
            wrong.append(f"{file}:{name}" if name else file)
    assert not wrong
    assert found >= least


def test_the_check_of_names_can_fail() -> None:
    assert NAMED.findall("`train/loop.py:fit` `data/`") == [("train/loop.py", "fit"), ("data/", "")]
    names = defined(SRC / "tensor" / "loss.py")
    assert {"Loss", "Loss.total"} <= names
    assert "Loss.mean" not in names


@pytest.mark.parametrize("page", READMES)
def test_the_map_of_the_house_is_true(page: str) -> None:
    (plan,) = [body for body in blocks(page, "text") if body.startswith("src/kitae/")]
    packages = {}
    for line in plan.splitlines()[1:]:
        if match := re.match(r"\d?\s+(\w+)/\s+(.+?)(?:\s{3,}|$)", line):
            packages[match[1]] = match[2].split()
    assert set(packages) == {path.name for path in SRC.iterdir() if (path / "__init__.py").is_file()}
    assert not [
        f"{package}/{name}" for package, names in packages.items() for name in names if not (SRC / package / f"{name}.py").is_file()
    ]


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page: str) -> None:
    for link in LINK.findall(text(page)):
        target, _, anchor = link.partition("#")
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), f"{page} links to {link}"
        if anchor:
            assert anchor in anchors(file.relative_to(ROOT).as_posix()), f"{page} links to {link}"


def anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def loaded(body: str, folder: Path) -> recipes.Recipe:
    path = folder / "shown.toml"
    path.write_text(body, encoding="utf-8")
    recipe, _ = recipes.load(str(path))
    assert nodes(recipe, str(path))
    return recipe


def test_the_recipes_shown_are_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "my-bert").mkdir(parents=True)
    first, *others = blocks("README.md", "toml")
    assert len(first.splitlines()) <= 30
    real = recipes.load("recipe:quickstart")[0]
    assert loaded(first, tmp_path).semantic() == real.semantic(), "README.md and README.ja.md do not show recipes/quickstart.toml"
    assert others
    for body in others:
        loaded(body, tmp_path)


WHOLE = """output = "run"
[corpus]
source = [{ path = "sample:general" }]
[tokenizer]
[dataset]
"""


@pytest.mark.parametrize("page", ["docs/models.md", "docs/masking.md", "docs/characters.md"])
def test_the_tables_shown_fit_into_a_recipe(page: str, tmp_path: Path) -> None:
    """Of [pretrain] and what belongs to it; corpus, tokenizer and dataset are those of any recipe."""
    (tmp_path / "whole.toml").write_text(WHOLE, encoding="utf-8")
    shown = blocks(page, "toml")
    assert shown
    for body in shown:
        assert loaded(f'base = "whole.toml"\n{body}', tmp_path).pretrain is not None


@pytest.mark.parametrize("page", READMES)
def test_every_verb_is_named(page: str) -> None:
    verbs = set(typer.main.get_command(app).commands)
    assert verbs == set(re.findall(r"\bkitae ([a-z]+)\b", "".join(blocks(page, "text") + blocks(page, "console"))))


def test_both_languages_show_the_same() -> None:
    english, japanese = (text(page) for page in READMES)
    assert FENCE.findall(english) == FENCE.findall(japanese)
    assert MARKER.findall(english) == MARKER.findall(japanese)
    marks = MARKER.findall(english)
    assert marks == [(name, side) for name in ("quickstart", "measured", "kyoto") for side in ("begin", "end")]
    levels = [re.findall(r"^(#+) ", FENCE.sub("", page), re.MULTILINE) for page in (english, japanese)]
    assert levels[0] == levels[1]


def test_the_page_of_settings_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_config_docs", ROOT / "scripts" / "make_config_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run python scripts/make_config_docs.py"


def test_the_tour_tells_the_truth(tmp_path: Path) -> None:
    """The sentence, its tokens, its row, its masks and the first loss, as docs/tour.md shows them."""
    tour = " ".join(text("docs/tour.md").split())
    one = ("corpus.engine.workers=1", "tokenizer.workers=1", "dataset.workers=1")
    recipe, path = recipes.load("recipe:quickstart", (f'output="{tmp_path}/run"', *one))
    execute(recipe, path, select(nodes(recipe, str(path)), "dataset"))
    dataset, seed = tmp_path / "run" / "dataset", key(recipe.seed, "pretrain")
    tokenizer = Tokenizer.load(dataset / "tokenizer")
    assert recipe.pretrain is not None
    rows, micro_rows = step_rows(recipe.pretrain.train, 128)
    sampler = Sampler(dataset, split="train", rows_per_step=rows, rows_per_micro_batch=micro_rows, seed=seed)
    step = next(k for k in range(sampler.rows_per_epoch) if sampler.row(0, k) == 0) // rows
    assert f"{rows} rows a step, row 0 comes up in step {step}." in tour
    batch = sampler.micro(step, 0)
    words = tokenizer.words((SRC / "sample" / "general.txt").read_text(encoding="utf-8").partition("\u3002")[0] + "\u3002")
    assert " | ".join(" ".join(tokenizer.tokens[number] for number in word) for word in words) in tour
    assert f"{len(words)} words and {sum(map(len, words))} tokens" in tour
    (where,) = (batch.rows == 0).nonzero().flatten().tolist()
    objective = new_objective(recipe.pretrain, dataset, 128, tokenizer, seed=seed)
    prepared = objective.prepare(batch, seed)
    assert " ".join(tokenizer.tokens[number] for number in prepared.ids_BL[where, :20].tolist()) in tour
    counts = objective.counts(prepared)
    assert f"over {counts['mlm']} masked positions" in tour
    assert f"over {counts['rtd']:,} tokens" in tour
    seed_dropout(seed, "dropout", step, 0)
    loss = objective(prepared)
    parts = [f"{term.weight:g} * {float(term.sum) / counts[term.name]:.2f}" for term in loss.terms]
    shown = f"{' + '.join(parts)} = {float(loss.total(counts)):.0f}."
    assert shown in tour
