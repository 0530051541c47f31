"""keep = "needed": what nothing needs goes, is known as done, and comes back the same when something needs it."""

import shutil
from pathlib import Path

import pytest

from kitae.chain import nodes, recipe, status
from kitae.core.artifact import DROPPED, checkpoints, newest, read_manifest, verify
from tiny_recipe import TEXT, Done, kitae, write_recipe

TRAIN = 'length = "6 steps", batch = "4 rows", learning_rate = 1e-3, save_every = "1 step", keep_last = 9, milestones = ["2 steps"]'
RECIPE = (
    'keep = "needed"'
    + TEXT
    + f"""[pretrain]
model = "bert-tiny"
objective = "mlm"
train = {{ {TRAIN} }}
[export]
formats = ["huggingface"]
"""
)


def run(*arguments: str) -> Done:
    done = kitae("run", "r.toml", *arguments)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dropping")
    write_recipe(folder)
    (folder / "r.toml").write_text(RECIPE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("--until", "pretrain", "--set", 'keep="all"')
    return folder


@pytest.fixture
def place(ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything up to the pre-training is made, and nothing dropped yet."""
    shutil.copytree(ground, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def states(*overrides: str) -> dict[str, tuple[str, str]]:
    loaded, path = recipe.load("r.toml", overrides)
    found = status.statuses(nodes.nodes(loaded, str(path)), Path(loaded.output), loaded.seed)
    return {name: (str(row.state), "; ".join(row.reasons)) for name, row in found.items()}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_nothing_needs_goes_and_stays_known(place: Path) -> None:
    before = newest(place / "pretrain")
    run()
    for name in ("corpus", "dataset"):
        assert not (place / name / "train").exists()
        assert (place / name / DROPPED).is_file()
        assert any(item.startswith("train/") for item in read_manifest(place / name).files)
        assert kitae("verify", place / name).returncode == 0
        assert "train/ was dropped" in kitae("inspect", place / name).stdout
    assert (place / "dataset" / "heldout" / "0").is_dir(), "for measuring checkpoints later"
    assert [path.name[-2:] for path in checkpoints(place / "pretrain")] == ["02", "06"]
    verify(place / "pretrain")
    assert newest(place / "pretrain") == before
    assert {state for state, _ in states().values()} == {"done"}
    assert states()["dataset"] == ("done", status.DROPPED_TEXT)
    planned = kitae("plan", "r.toml")
    assert planned.returncode == 0, planned.stderr
    files = {name: read_manifest(place / name) for name in ("corpus", "dataset", "pretrain", "export")}
    assert "nothing to do" in run().stdout
    assert {name: read_manifest(place / name) for name in files} == files


def test_what_is_needed_again_is_made_the_same_again(place: Path) -> None:
    whole = {name: content(place / name / "train") for name in ("corpus", "dataset")}
    run()
    changed = ("--set", "pretrain.train.learning_rate=2e-3", "--set", 'replace=["pretrain"]', "--set", 'keep="all"')
    found = states("pretrain.train.learning_rate=2e-3")
    assert found["pretrain"][0] == "stale"
    assert found["dataset"] == ("missing", "dropped, but pretrain needs it")
    assert found["corpus"] == ("missing", "dropped, but dataset needs it")
    assert found["tokenizer"] == ("done", "")
    run(*changed, "--until", "pretrain")
    assert {name: content(place / name / "train") for name in whole} == whole
    assert not (place / "dataset" / DROPPED).exists()
    assert {name: state for name, (state, _) in states(*changed[1::2]).items()}["pretrain"] == "done"


def test_nothing_goes_before_all_readers_are_done(place: Path) -> None:
    (place / "pretrain" / "manifest.json").unlink()
    run("--until", "dataset")
    assert (place / "dataset" / "train").is_dir()
    assert not (place / "corpus" / "train").exists(), "tokenizer and dataset are done"
    assert states()["corpus"] == ("done", status.DROPPED_TEXT)
    run()
    assert not (place / "dataset" / "train").exists()


def test_a_source_that_is_gone_is_said_when_its_text_is_needed_again(place: Path) -> None:
    run()
    Path("general.txt").unlink()
    assert {state for state, _ in states().values()} == {"done"}
    done = kitae("run", "r.toml", "--set", "dataset.max_length=16", "--set", 'output="run"', "--until", "dataset")
    assert done.returncode == 2
    assert "dropped, but dataset needs it; general.txt does not exist" in done.stderr


def test_an_interrupted_dropping_goes_on(place: Path) -> None:
    kept = content(place / "dataset" / "train")
    run()
    for name, data in kept.items():
        (place / "dataset" / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "dataset" / "train" / name).write_bytes(data)
    assert "nothing to do" in run().stdout
    assert not (place / "dataset" / "train").exists()


def test_what_the_recipe_takes_by_its_path_stays(place: Path) -> None:
    run("--set", 'pretrain.train.save_every="3 steps"', "--set", 'export.formats=["huggingface"]', "--set", 'keep="all"')
    text = Path("r.toml").read_text(encoding="utf-8")
    taken = checkpoints(place / "pretrain")[0]
    extra = f"""[task.topics]
path = ["topics.jsonl"]
split = {{ train = 0.5, validation = 0.25, test = 0.25 }}
[finetune]
task = ["topics"]
epochs = 1
seeds = [1]
compare = ["{taken}"]
"""
    Path("r.toml").write_text(text + extra, encoding="utf-8")
    run("--set", "export_trials=false")
    left = [path.name for path in checkpoints(place / "pretrain")]
    assert left == [taken.name, "step-00000002", "step-00000006"]
