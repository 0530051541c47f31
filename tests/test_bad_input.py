"""The unkind user: whatever is wrong is said in one message that names what, where and cure; nothing half-made is left to pick up."""

import errno
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kitae.core.artifact import checkpoints, verify
from tiny_recipe import Done, command, kitae, write_recipe
from warm import Running, Warm


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose recipe has run up to [pretrain], with two checkpoints."""
    folder = tmp_path_factory.mktemp("trained")
    write_recipe(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = kitae("run", "r.toml", "--until", "pretrain")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Starts to import while the first tests run."""
    warm = Warm(tmp_path_factory.mktemp("warm"))
    yield warm
    warm.close()


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recipe and nothing made, as the working directory."""
    write_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained folder to change."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def refused(done: Done, *expected: str) -> None:
    """Exit code 2 and one message with all of `expected`, no traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    messages = re.split(r"^kitae: ", done.stderr, flags=re.M)[1:]
    assert len(messages) == 1, done.stderr
    for words in expected:
        assert words in messages[0]


def nothing_made(output: Path, *nodes: str) -> None:
    """No artifact of these names, and no remains of one, lies in the output."""
    for node in nodes:
        assert not (output / node).exists()
    assert [item for item in output.rglob("*") if item.name.endswith((".part", ".old"))] == []


def write(name: str, content: bytes) -> None:
    Path(name).write_bytes(content)


TEXT = ("首都は東京です。\n人が多い。\n\n" * 200).encode()
SOURCES = {
    "absent.txt": (None, "", ["absent.txt does not exist", "correct the path"]),
    "empty.txt": (b"", "", ["the file is empty", "empty.txt"]),
    "blank.txt": (b"\n \n\n", "", ["no document found", "blank.txt"]),
    "binary.txt": (bytes(range(256)) * 40, "", ["this is not text", "binary.txt"]),
    "cp932.txt": (TEXT.decode().encode("cp932"), "", ['say encoding = "cp932"', "cp932.txt"]),
    "euc.txt": (TEXT.decode().encode("euc_jp"), "", ['say encoding = "euc_jp"', "euc.txt"]),
    "named.txt": (TEXT, ', encoding = "cp932"', ['say encoding = "utf-8"', "named.txt"]),
    "unknown.txt": (TEXT, ', encoding = "utf8x"', ['encoding: "utf8x" is no encoding of text files', "corpus.source.0"]),
    "cut.txt.gz": (gzip.compress(os.urandom(4000).hex().encode())[:-2000], "", ["truncated", "cut.txt.gz"]),
    "table.csv": ("本文,番号\nあいう,1\n".encode(), ', format = "csv"', ['no column "text"', "the columns are 本文, 番号", "table.csv"]),
    "lines.jsonl": (b'{"text": "a"}\n{"text": \n', ', format = "jsonl"', ["not JSON", "lines.jsonl, line 2"]),
    "task:topcs/train": (None, "", ['no task "topcs"', 'did you mean "topics"?']),
    "task:topics/test": (None, "", ["task:topics/test", "task:NAME/train"]),
    "sample:generl": (None, "", ['no sample "generl"', 'did you mean "general"?']),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_bad_source(fresh: Path, name: str) -> None:
    content, more, expected = SOURCES[name]
    if content is not None:
        write(name, content)
    refused(kitae("run", "r.toml", *settings(f'corpus.source=[{{ path = "{name}"{more} }}]')), *expected)
    nothing_made(fresh / "run", "corpus", "tokenizer")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ('pretrain.model="electra-smal"', ['no preset "electra-smal"', 'did you mean "electra-small"?', "[pretrain]"]),
        ('pretrain.train.lenght="3 steps"', ["pretrain.train.lenght", 'did you mean "length"?', "r.toml, table [pretrain.train]"]),
        ("pretrain.config.generator.hiden_size=8", ["hiden_size", 'did you mean "hidden_size"?']),
        ('corpus.source=[{ path = "general.txt", formt = "text" }]', ["corpus.source.0.formt", 'did you mean "format"?']),
        ("task.topics.split.trian=0.5", ["task.topics.split.trian", 'did you mean "train"?', "[task.topics.split]"]),
        ('task.topics.lable="x"', ["task.topics.lable", 'did you mean "label"?', "[task.topics]"]),
        ("adapt.sourc=[]", ["adapt.sourc", 'did you mean "source"?', "[adapt]"]),
        ('seed="one"', ["seed: this must be a whole number", "'one'"]),
        ('corpus.source="general.txt"', ["corpus.source: this must be a list", "'general.txt'"]),
        ("task.topics=3", ["task.topics: this must be a table"]),
        ("pretrain.train.length=400", ["400 has no unit", '"400 steps"']),
        ('pretrain.train.length="400 stepz"', ["'400 stepz' is not a length", '"400 steps"']),
        ('pretrain.train.length="1e400 steps"', ["too large", "pretrain.train.length"]),
        ("pretrain.train.batch=4", ["4 has no unit", "[pretrain.train]"]),
        ('pretrain.train.micro_batch="3 rows"', ["micro_batch = 3 rows does not divide batch = 4 rows", "take one of", "[pretrain.train]"]),
        ('pretrain.objective_config.sentence_order="nsp"', ["sentence_order is not a known key"]),
        (
            'pretrain={ model = "bert-tiny", objective = "mlm", objective_config.sentence_order = "nsp", train.length = "2 steps" }',
            ['sentence_order = "nsp" learns from pairs', 'packing = "pairs"', "r.toml, table [pretrain.objective_config]"],
        ),
        ('pretrain.model="bert-tiny"', ['objective "rtd" needs a generator', "ELECTRA", "r.toml, table [pretrain]"]),
        (
            'pretrain={ model = "electra-tiny", objective = "electric", initialization = "informed", train.length = "2 steps" }',
            ["informed initial weights", "r.toml, table [pretrain]"],
        ),
        ('adapt.regrow.length="5m"', ["adapt.regrow.length", "is a time"]),
        ("pretrain.objective_config.rate=[[0.0, 0.3], [1.5, 0.1]]", ["do not rise from 0 or more to at most 1"]),
        ('adapt.train.micro_batch="8 rows"', ["does not divide batch = 4 rows", "[adapt.train]"]),
        ('corpus.decontaminate=["topcs"]', ['no task "topcs"', 'did you mean "topics"?']),
        ('corpus.holdout="5000 documents"', ["5,000 documents", "only 40 of source general", "hold out fewer"]),
        ("corpus.min_characters=1000000", ["every document was dropped (short)", "check the sources"]),
        ("finetune.task=[]", ["finetune.task is empty"]),
        ("finetune.seeds=[1, 1]", ["finetune.seeds names 1 twice"]),
        ('finetune.compare=["adpt"]', ['finetune.compare names "adpt"', 'did you mean "adapt"?']),
        ('finetune.compare=["models/absent"]', ['finetune.compare names "models/absent"', "no folder"]),
        ('replace=["pretrian"]', ['replace names "pretrian"', 'did you mean "pretrain"?']),
        ('task.topics.kind="clasification"', ['kind = "clasification" is unknown', 'did you mean "classification"?', "task topics"]),
        ('task.topics.kind_config={ class_weight = "balanced" }', ["class_weight is not a known key", 'did you mean "class_weights"?']),
        ('task.topics.format="cvs"', ['format = "cvs" is unknown', 'did you mean "csv"?']),
        ("task.topics.format_config={ heads = true }", ["heads is not a known key", "task topics"]),
        ('finetune.metric="f2"', ['classification has no metric "f2"', "known are accuracy"]),
        ('task.topics.label="lable"', ['no column "lable"', "id, text, label", "topics.jsonl"]),
        ('adapt.start="absent"', ["adapt: absent does not exist"]),
        ('output="' + 300 * "x" + '"', ["cannot be written: File name too long", "choose another output"]),
        (
            'task={ "../../x" = { path = "topics.jsonl", split = { train = 0.5, validation = 0.2, test = 0.3 } } }',
            ["cannot be the name of a folder"],
        ),
        (
            'task={ CON = { path = "topics.jsonl", split = { train = 0.5, validation = 0.2, test = 0.3 } } }',
            ["Windows keeps it for a device"],
        ),
        ('corpus.source=[{ path = "general.txt", name = "../../x" }]', ["corpus.source.0.name", "cannot be the name of a folder"]),
        ('corpus.source=[{ path = "general.txt", name = "' + 300 * "x" + '" }]', ["more than 200 bytes"]),
        ('corpus.source=[{ path = "general.txt", errors = "ignore" }]', ["errors", '"ignore" is not known']),
        ('finetune.compare=[".."]', ["cannot be the name of a node", "rename the folder"]),
        ('output="general.txt"', ["general.txt cannot be written", "choose another output"]),
        ('output="/proc/run"', ["/proc/run cannot be written"]),
    ],
)
def test_a_bad_setting(fresh: Path, setting: str, expected: list[str]) -> None:
    refused(kitae("run", "r.toml", *settings(setting)), *expected)
    nothing_made(fresh / "run", "corpus", "tokenizer")


def test_an_encoder_that_is_none_is_refused_before_any_training(fresh: Path) -> None:
    Path("hollow").mkdir()
    Path("pickled").mkdir()
    numbers = {"vocab_size": 10, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    (fresh / "pickled" / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"], **numbers}))
    (fresh / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    refused(kitae("run", "r.toml", *settings('finetune.compare=["hollow"]')), "hollow holds no model", "Hugging Face")
    refused(kitae("run", "r.toml", *settings('finetune.compare=["pickled"]')), "pickled (pytorch_model.bin)", "save_pretrained", "pickled")
    Path("other/hollow").mkdir(parents=True)
    done = kitae("run", "r.toml", *settings('finetune.compare=["hollow", "other/hollow"]'))
    refused(done, "finetune/topics/hollow/1", "rename one of the folders")
    nothing_made(fresh / "run", "corpus")


def test_a_label_of_the_test_examples_only_is_refused_before_any_training(fresh: Path) -> None:
    rows = [json.loads(line) for line in Path("topics.jsonl").read_text(encoding="utf-8").splitlines()]
    rows[-1]["label"] = "ghost"
    for name, part in (("train.jsonl", rows[:40]), ("test.jsonl", rows[40:])):
        Path(name).write_text("\n".join(json.dumps(row) for row in part), encoding="utf-8")
    done = kitae("run", "r.toml", *settings('task.topics={ train = "train.jsonl", test = "test.jsonl" }'))
    refused(done, '"ghost"', "never in the training examples", f"test.jsonl, line {len(rows) - 40}")
    nothing_made(fresh / "run", "corpus")


def test_the_output_of_another_recipe(place: Path) -> None:
    shutil.copy("r.toml", "other.toml")
    refused(kitae("run", "other.toml"), 'belongs to the recipe "r"', "choose another output", "other.toml")


def test_one_changed_character_under_the_same_path(place: Path) -> None:
    text = Path("general.txt").read_text(encoding="utf-8")
    Path("general.txt").write_text(text[:-3] + "X" + text[-2:], encoding="utf-8")
    done = kitae("plan", "r.toml", "--until", "pretrain")
    assert done.returncode == 0
    assert re.search(r"corpus +corpus +stale +~\d+ kB +the content of general.txt changed", done.stdout), done.stdout
    refused(kitae("run", "r.toml", "--until", "pretrain"), "pretrain is trained already", "general.txt changed", "replace=")


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("finished", [True, False])
def test_a_checkpoint_with_one_flipped_bit(place: Path, caplog: pytest.LogCaptureFixture, finished: bool) -> None:
    """Another stage takes the checkpoint before it; a training that was cut off goes on from there. Both say so."""
    folder = place / "run" / "pretrain"
    before, newest = checkpoints(folder)
    flip_a_bit(newest / "weights.safetensors")
    if finished:
        until = "finetune/topics/pretrain/1"
    else:
        (folder / "manifest.json").unlink()
        until = "pretrain"
    done = kitae("run", "r.toml", *settings('finetune.compare=["pretrain"]'), "--until", until)
    assert done.returncode == 0, done.stderr
    assert f"checkpoint {newest.name} is passed over: " in caplog.text
    assert "weights.safetensors" in caplog.text
    if finished:
        refused(kitae("verify", "run/pretrain"), newest.name)
    else:
        assert verify(newest).facts["step"] == 4
        assert last_step(folder) == 4
    assert before.is_dir()


def test_a_source_that_the_disk_does_not_give(fresh: Path) -> None:
    """The system's error names no file; the message does."""
    done = kitae("run", "r.toml", *settings('corpus.source=[{ path = "/proc/self/mem" }]'))
    refused(done, "mem cannot be read: Input/output error", "in /proc/self/mem")


def test_an_error_without_a_file_name_names_the_node(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("kitae.text.parts.np.save", fail)
    refused(kitae("run", "r.toml"), "Input/output error", "in run/corpus (making corpus)")
    nothing_made(fresh / "run", "corpus")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1.5 MB: room for the corpus and the tokenizer, not for a checkpoint."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", folder]).returncode:
        pytest.skip("a tmpfs cannot be mounted here: it needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_fills_up_while_a_checkpoint_is_saved(fresh: Path, small_disk: Path) -> None:
    refused(kitae("run", "r.toml", *settings(f'output="{small_disk}/run"')), "the disk is full", "free some space")
    assert checkpoints(small_disk / "run" / "pretrain") == []
    assert list((small_disk / "run" / "pretrain" / "checkpoints").glob("*step-*")) == []
    assert verify(small_disk / "run" / "dataset").kind == "dataset"


def test_a_disk_that_fills_up_while_a_small_artifact_is_saved(fresh: Path, small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 60_000))
    refused(kitae("run", "r.toml", *settings(f'output="{small_disk}/run"')), "the disk is full", "free some space")
    nothing_made(small_disk / "run", "tokenizer", "dataset")


def test_an_output_that_cannot_be_written(fresh: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fixed"
    folder.mkdir()
    if shutil.which("mount") is None or subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder]).returncode:
        pytest.skip("a read-only file system cannot be mounted here: it needs root")
    try:
        refused(kitae("run", "r.toml", *settings(f'output="{folder}/run"')), "cannot be written: Read-only", "choose another output")
        assert kitae("plan", "r.toml", *settings(f'output="{folder}"')).returncode == 0
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


LONG = (
    'pretrain.train={ length = "100000 steps", batch = "4 rows", learning_rate = 1e-3, save_every = "50000 steps", log_every = "1 step" }'
)


def last_step(folder: Path) -> int:
    """The step of the last complete line of a training's metrics."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    return max([0, *(int(json.loads(line).get("step", 0)) for line in lines)])


def until(condition: Callable[[], object], process: Running) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.stderr
        assert time.monotonic() < deadline, process.stderr
        time.sleep(0.02)


def test_a_refusal_through_a_process_of_its_own(fresh: Path, warm: Warm) -> None:
    """What the other tests see in this process is what a shell sees."""
    process = warm.start(fresh, "run", "r.toml", *settings('pretrain.model="electra-smal"'))
    refused(Done(process.wait(timeout=30), "", process.stderr), "electra-small")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_while_training(place: Path, warm: Warm, number: signal.Signals, code: int) -> None:
    """The whole process group is told, as a terminal does; meanwhile a second run on the same output is refused."""
    folder = place / "long" / "pretrain"
    shutil.copytree("run", "long", ignore=shutil.ignore_patterns("pretrain", ".*"))
    arguments = ["run", "r.toml", *settings(LONG, 'output="long"'), "--until", "pretrain"]
    process = warm.start(place, *arguments)
    until(lambda: (folder / "metrics.jsonl").is_file() and (folder / "metrics.jsonl").stat().st_size > 0, process)
    refused(kitae(*arguments), "in use by another kitae process", "choose another output")
    os.killpg(process.pid, number)
    assert process.wait(timeout=30) == code, process.stderr
    errors = process.stderr
    assert "after a complete checkpoint; run the same command to continue" in errors
    assert "Traceback" not in errors
    (checkpoint,) = checkpoints(folder)
    step = verify(checkpoint).facts["step"]
    nothing_made(place / "long", "pretrain/manifest.json")
    again = warm.start(place, *arguments)
    until(lambda: last_step(folder) > int(str(step)), again)
    os.killpg(again.pid, signal.SIGTERM)
    assert again.wait(timeout=30) == 143, again.stderr
    assert "pretrain: continuing" in again.stderr


def test_one_of_two_processes_is_killed_and_both_go_on(place: Path, warm: Warm) -> None:
    """Both with the whole recipe, one with three quarters of every batch; the one that is left says what happened."""
    folder = place / "long" / "pretrain"
    shutil.copytree("run", "long", ignore=shutil.ignore_patterns("pretrain", ".*"))
    train = 'pretrain.train={ length = "24 steps", batch = "4 rows", micro_batch = "1 row", shares = [1, 3], log_every = "1 step" }'
    arguments = ["run", "r.toml", *settings(train, 'output="long"'), "--until", "pretrain"]
    ranks = warm.ranks(place, [{}, {}], *arguments)
    until(lambda: (folder / "metrics.jsonl").is_file() and last_step(folder) > 3, ranks[0])
    os.kill(ranks[1].pid, signal.SIGKILL)
    assert ranks[0].wait(timeout=30) == 2
    assert "kitae: another process was lost" in ranks[0].stderr
    assert "Traceback" not in ranks[0].stderr
    assert last_step(folder) < 24
    again = warm.ranks(place, [{}, {}], *arguments)
    assert [one.wait(timeout=60) for one in again] == [0, 0], again[0].stderr
    assert verify(checkpoints(folder)[-1]).facts["step"] == 24
    assert "pretrain" in json.loads((folder / "manifest.json").read_text())["facts"]["node"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_stop_while_a_corpus_is_made(fresh: Path, warm: Warm, number: signal.Signals, code: int) -> None:
    """With worker processes: none outlives the run. The same run goes on with finished parts, another finds nothing of them."""
    Path("large.txt").write_bytes(TEXT.replace("東京".encode(), b"A") * 300)
    sources = '[{ path = "general.txt" }, { path = "large.txt" }, { path = "domain.txt" }]'
    same = ["run", "r.toml", *settings(f"corpus.source={sources}", "corpus.engine.workers=2"), "--until", "corpus"]
    process = warm.start(fresh, *same)
    parts = ".corpus.work/parts/*"
    until(lambda: all(list((fresh / "run").glob(f"{parts}/{name}")) for name in ("engine/completions/00000", "0000[12].*.making")), process)
    members = group(process.pid)
    assert len(members) > 1
    os.kill(process.pid, number)
    assert process.wait(timeout=20) == code
    deadline = time.monotonic() + 10
    while group(process.pid):
        assert time.monotonic() < deadline, "a worker outlives the run"
        time.sleep(0.05)
    if number != signal.SIGKILL:
        errors = process.stderr
        assert "stopped; run the same command to continue" in errors
        assert "Traceback" not in errors
        nothing_made(fresh / "run", "corpus")
    else:
        again = command(*same, cwd=fresh)
        assert again.returncode == 0, again.stderr
        assert re.search(r"going on: [12] of 4 parts are done already", again.stderr), again.stderr
        assert list((fresh / "run").glob(".corpus*")) == []
    done = kitae("run", "r.toml", "--until", "corpus")
    assert done.returncode == 0, done.stderr
    assert verify(fresh / "run" / "corpus").facts["counts"]["documents_in"] == 40  # type: ignore[index]
    assert list((fresh / "run").glob(".corpus*")) == []


@pytest.mark.parametrize("text", ["首都は東京です。人が多い。\n", "首都は東京です。人が多い。\n\n" * 300])
def test_a_corpus_smaller_than_a_batch(fresh: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    """One document, or one many times: the run works and says what is odd; with nothing left it says why."""
    Path("general.txt").write_text(text, encoding="utf-8")
    done = kitae("run", "r.toml", "--until", "pretrain")
    assert done.returncode == 0, done.stderr
    assert "a batch has 4 rows, but the dataset only 1: every step repeats some" in caplog.text
    assert verify(fresh / "run" / "corpus").facts["counts"]["documents_kept"] == 1  # type: ignore[index]
    refused(kitae("run", "r.toml", *settings("corpus.min_characters=100", 'output="b"')), "every document was dropped (short)")


def group(leader: int) -> list[int]:
    """The processes of a process group that still run (Linux)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(folder.name))
    return found
