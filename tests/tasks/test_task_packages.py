"""A task, a kind and a format from an installed package: docs/add-a-task.md is that package, and its recipe runs to the end."""

import json
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from kitae.core.errors import KitaeError
from kitae.tasks.config import TaskConfig
from kitae.tasks.formats import format_of
from kitae.tasks.kinds import kind_of
from kitae.tasks.records import find, load
from tiny_recipe import TEXT, kitae, write_recipe

PAGE = Path(__file__).parents[2] / "docs" / "add-a-task.md"
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
PACKAGE = "kitae_reviews"
RECIPE = (
    TEXT
    + """[pretrain]
model = "electra-tiny"
objective = "rtd"
train = { length = "2 steps", batch = "4 rows", learning_rate = 1e-3 }
[finetune]
task = ["reviews"]
epochs = 2
seeds = [1]
compare = ["random", "majority"]
"""
)
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put the page's package and its dist-info, as an installer writes it, into a folder of sys.path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def put(distribution: str = PACKAGE, *, entries: str | None = None, code: bool = True) -> None:
        blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
        points = next(tomllib.loads(text)["project"]["entry-points"] for kind, text in blocks if kind == "toml" and "entry-points" in text)
        written = "".join(f"[{group}]\n" + "".join(f"{name} = {what}\n" for name, what in rows.items()) for group, rows in points.items())
        if code:
            files = {text.splitlines()[0].removeprefix("# "): text for kind, text in blocks if kind == "python"}
            assert sorted(files) == [f"{PACKAGE}/{name}.py" for name in ("ordinal", "reviews", "stars")]
            (site / PACKAGE).mkdir()
            for name, text in {f"{PACKAGE}/__init__.py": "", **files}.items():
                (site / name).write_text(text, encoding="utf-8")
            lines = [f"{'*' * (1 + i % 5)} この店は{'とても' * (i % 5)}よい {i}" for i in range(60)]
            (site / PACKAGE / "reviews.stars").write_text("\n".join(lines) + "\n", encoding="utf-8")
        info = site / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(entries or written, encoding="utf-8")

    yield put  # type: ignore[misc]
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_a_packages_task_kind_and_format_run_to_the_end(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    assert PACKAGE not in sys.modules
    write_recipe(tmp_path)
    (tmp_path / "r.toml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    done = kitae("run", "r.toml")
    assert done.returncode == 0, done.stderr
    trial = tmp_path / "run" / "finetune" / "reviews" / "random" / "1"
    results = json.loads((trial / "results.json").read_text(encoding="utf-8"))
    assert (results["kind"], results["metric"], results["labels"]) == ("ordinal", "nearness", ["1", "2", "3", "4", "5"])
    assert results["examples"] == {"train": 35, "validation": 15, "test": 10, "leaked": 0}
    assert 0 <= results["score"]["low"] <= results["scores"]["nearness"] <= results["score"]["high"] <= 1
    lines = [json.loads(line) for line in (trial / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    right = [4 - abs(int(line["gold"]) - int(line["predicted"])) for line in lines]
    assert results["scores"]["nearness"] == pytest.approx(sum(right) / (4 * len(lines)))
    assert all(len(line["above"]) == 4 for line in lines)
    Path("texts.txt").write_text("この店はよい\n", encoding="utf-8")
    said = kitae("predict", trial, "texts.txt", "said.jsonl")
    assert said.returncode == 0, said.stderr
    assert "above" in Path("said.jsonl").read_text(encoding="utf-8")


def test_the_packages_format_names_file_and_line(install: Install) -> None:
    install()
    task = find("reviews")
    Path(task.path[0]).write_text("*** good\n3 bad\n", encoding="utf-8")
    with pytest.raises(KitaeError, match="does not begin with stars") as caught:
        load(task)
    assert caught.value.where.endswith("reviews.stars, line 2")


def test_what_a_package_cannot_do(install: Install, tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match='no task "reviews"'):
        find("reviews")
    install()
    with pytest.raises(KitaeError, match='did you mean "ordinal"'):
        kind_of(TaskConfig(name="t", kind="ordnal", train=("a",), test=("b",)))
    with pytest.raises(KitaeError, match='did you mean "stars"'):
        format_of(Path("x"), TaskConfig(name="t", format="star", train=("a",), test=("b",)))
    group = "[kitae.kinds]\n"
    own = "classification = kitae_reviews.ordinal:ORDINAL\nwrong = kitae_reviews.stars:STARS\nlost = kitae_reviews.none:X\n"
    install("kitae_other", entries=f"{group}{own}ordinal = kitae_reviews.ordinal:NEARNESS\n", code=False)
    task = TaskConfig(name="t", train=("a",), test=("b",))
    assert kind_of(task).line == "one label per text or pair of texts"  # kitae's own is not replaced
    for kind, message in (("wrong", "is no Kind"), ("lost", "cannot be loaded"), ("ordinal", "by several packages")):
        with pytest.raises(KitaeError, match=message):
            kind_of(task.model_copy(update={"kind": kind}))
