"""From recipe to artifacts: what is due and why, what is made, what is refused."""

import json
import shutil
from pathlib import Path

import pytest

from kitae.chain import execute, nodes, recipe, status
from kitae.core.errors import KitaeError
from tiny_recipe import Done, kitae, write_recipe


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe whose chain has run once."""
    folder = tmp_path_factory.mktemp("ground")
    write_recipe(folder)
    done = run(folder, "run", "r.toml")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def place(ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to change."""
    shutil.copytree(ground, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: Path, *arguments: str) -> Done:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return kitae(*arguments)


def states(*overrides: str) -> dict[str, status.Status]:
    loaded, path = recipe.load("r.toml", overrides)
    return status.statuses(nodes.nodes(loaded, str(path)), Path(loaded.output), loaded.seed)


def not_done(*overrides: str) -> dict[str, str]:
    return {name: "; ".join(row.reasons) for name, row in states(*overrides).items() if row.state is not status.State.DONE}


def test_the_chain_made_every_node(place: Path) -> None:
    found = states()
    assert {name for name, row in found.items() if row.state is status.State.DONE} == set(found)
    assert {
        "corpus",
        "adapt.dataset",
        "adapt",
        "finetune/topics/random/1",
        "finetune/topics/majority/1",
        "evaluate/topics",
        "export",
    } <= set(found)
    for name in found:
        assert run(place, "verify", f"run/{name}").returncode == 0


def test_a_second_run_does_nothing_and_says_so(place: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (place / "run").rglob("*") if path.is_file() and not path.name.startswith(".")}
    done = run(place, "run", "r.toml")
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_changed_key_makes_its_node_and_all_below_stale_and_is_named(place: Path) -> None:
    stale = not_done("corpus.holdout=0.2")
    assert "adapt" in stale
    assert "corpus.holdout: 0.1 -> 0.2" in stale["corpus"]
    assert "corpus.holdout: 0.1 -> 0.2" in stale["pretrain"]
    assert not_done("finetune.epochs=2").keys() == {
        "finetune/topics/random/1",
        "finetune/topics/adapt/1",
        "finetune/topics/majority/1",
        "evaluate/topics",
        "export",
    } - ({"finetune/topics/majority/1"} if "finetune/topics/majority/1" not in not_done("finetune.epochs=2") else set())


def test_the_domain_text_has_its_own_decontamination_and_takes_the_rest_from_corpus(place: Path) -> None:
    stale = not_done('adapt.decontaminate=["topics"]', "corpus.min_characters=2")
    assert 'decontaminate: [] -> ["topics"]' in stale["adapt.corpus"].replace("'", '"')
    assert "min_characters: 1 -> 2" in stale["adapt.corpus"]
    assert "decontaminate" not in stale["corpus"]


def test_an_operational_key_makes_nothing_stale(place: Path) -> None:
    assert not_done("corpus.engine.workers=1", "pretrain.train.keep_last=5", "dataset.workers=1") == {}


def test_one_changed_character_in_a_source_is_named_by_its_file(place: Path) -> None:
    text = (place / "domain.txt").read_text(encoding="utf-8")
    (place / "domain.txt").write_text(text[:-3] + "X" + text[-2:], encoding="utf-8")
    stale = not_done()
    assert "domain.txt changed" in stale["adapt.corpus"]
    assert "domain.txt changed" in stale["adapt"]
    assert "corpus" not in stale
    assert "pretrain" not in stale


def test_the_same_content_elsewhere_makes_nothing_stale(place: Path) -> None:
    (place / "elsewhere").mkdir()
    shutil.copy(place / "general.txt", place / "elsewhere" / "general.txt")
    override = 'corpus.source=[{ path = "elsewhere/general.txt", format = "text", name = "general" }]'
    plain = 'corpus.source=[{ path = "general.txt", format = "text", name = "general" }]'
    first, second = states(plain)["corpus"], states(override)["corpus"]
    assert first.facts["fingerprint"] == second.facts["fingerprint"]


def test_trained_weights_are_never_replaced_silently(place: Path) -> None:
    before = (place / "run" / "pretrain" / "manifest.json").read_bytes()
    done = run(place, "run", "r.toml", "--set", "pretrain.train.learning_rate=2e-3")
    assert done.returncode == 2
    assert "pretrain.train.learning_rate: 0.001 -> 0.002" in done.stderr
    assert (place / "run" / "pretrain" / "manifest.json").read_bytes() == before
    allowed = ["--set", "pretrain.train.learning_rate=2e-3", "--set", 'replace=["pretrain"]', "--until", "pretrain"]
    done = run(place, "run", "r.toml", *allowed)
    assert done.returncode == 0, done.stderr
    assert (place / "run" / "pretrain" / "manifest.json").read_bytes() != before


def test_an_output_of_another_recipe_is_refused(place: Path) -> None:
    shutil.copy("r.toml", "other.toml")
    done = run(place, "run", "other.toml")
    assert done.returncode == 2
    assert 'belongs to the recipe "r"' in done.stderr
    (place / "strange").mkdir()
    (place / "strange" / "letter.txt").touch()
    done = run(place, "run", "r.toml", "--set", 'output="strange"')
    assert done.returncode == 2
    assert "letter.txt" in done.stderr


def test_an_absent_source_is_said_before_anything_is_made(place: Path) -> None:
    (place / "general.txt").unlink()
    assert not_done() == {}  # results outlive their sources
    done = run(place, "run", "r.toml", "--set", 'output="new"')
    assert done.returncode == 2
    assert "general.txt does not exist" in done.stderr
    assert states('output="new"')["corpus"].state is status.State.ABSENT


def test_a_damaged_hash_cache_is_ignored(place: Path) -> None:
    (place / "run" / ".hashes.json").write_text("{", encoding="utf-8")
    assert not_done() == {}


def test_every_artifact_says_what_made_it(place: Path) -> None:
    for name in ("corpus", "adapt", "evaluate/topics"):
        facts = json.loads((place / "run" / name / "manifest.json").read_text(encoding="utf-8"))["facts"]
        assert facts["node"] == name
        assert facts["settings"]
        assert facts["packages"]["torch"]
        assert "corpus" in facts["lineage"] or name == "adapt.corpus"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_waits_for_others_only_where_it_needs_them(place: Path, monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr(execute, "ranks", lambda: (rank, 2))
    monkeypatch.setattr(execute, "_make", lambda node, *rest, **main: seen.append(("make", node.name)))
    monkeypatch.setattr(execute, "_wait", lambda folder, status: seen.append(("wait", status.node.name)))
    loaded, path = recipe.load("r.toml", ("finetune.epochs=2", "finetune.seeds=[1, 2]", 'replace=["finetune"]'))
    execute.execute(loaded, path, nodes.nodes(loaded, str(path)))
    trials = [f"finetune/topics/{name}" for name in ("random/1", "random/2", "adapt/1", "adapt/2", "majority/1")]
    mine, others = trials[rank::2], trials[1 - rank :: 2]
    if rank == 0:  # it compares, so it needs all trials; only then does it wait
        assert [name for kind, name in seen if kind == "make"][: len(mine)] == mine
        assert {name for kind, name in seen[len(mine) : len(mine) + len(others)] if kind == "wait"} == set(others)
        assert seen[len(mine) + len(others)] == ("make", "evaluate/topics")
    else:
        assert seen[: len(mine)] == [("make", name) for name in mine]
        assert set(others) < {name for kind, name in seen if kind == "wait"}, "and at the end for the rest, to end together"


def test_a_stage_without_its_parents_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.toml").write_text('output = "run"\n[tokenizer]\nvocab_size = 2000\n', encoding="utf-8")
    with pytest.raises(KitaeError, match=r"\[tokenizer\] needs \[corpus\]"):
        recipe.load("r.toml")
    assert execute.OWNER == "kitae.json"
