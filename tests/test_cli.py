"""The command line is a closed list, light to start, and answers a user's mistake with one line and exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from kitae.cli import app
from tiny_recipe import command, kitae

VERBS = {
    "plan", "run", "corpus", "tokenizer", "dataset", "pretrain", "finetune", "evaluate", "export", "predict", "show", "inspect", "verify",
    "fetch",
}  # fmt: skip
FLAGS = {"--set", "--until", "--debug", "--version", "--help"}


def test_verbs_and_flags_are_frozen() -> None:
    command = typer.main.get_command(app)
    assert set(command.commands) == VERBS
    flags = {option for verb in [command, *command.commands.values()] for p in verb.params for option in p.opts if option.startswith("-")}
    assert flags <= FLAGS


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; import kitae.cli; print([m for m in ('torch', 'numpy', 'datatrove', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("run", "nowhere.toml"), "does not exist"),
        (("run", "recipe:quickstrat"), 'did you mean "quickstart"?'),
        (("run", "recipe:quickstart", "--set", "pretrain.train.lenght='3 steps'"), 'did you mean "length"?'),
        (("run", "recipe:quickstart", "--set", "pretrain.model='electra-tiney'"), "electra-tiny"),
        (("plan", "recipe:quickstart", "--until", "pretrian"), 'did you mean "pretrain"?'),
        (("plan", "recipe:quickstart", "--set", "finetune.task=['sample-topic']"), "sample-topics"),
        (("show", "corpsu"), "corpus"),
        (("show", "deberta-v3"), 'did you mean "deberta-v2"?'),
        (("verify", "."), "manifest"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = kitae(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("kitae: ")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 2


def test_under_torchrun_its_summary_holds_the_message_and_only_the_first_process_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read by torch itself, as torchrun does when a process has failed."""
    failures = {}
    for rank in (0, 1):
        report = tmp_path / f"{rank}.json"
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(report))
        monkeypatch.setenv("RANK", str(rank))
        done = kitae("run", "nowhere.toml")
        assert done.returncode == 2
        assert bool(done.stderr) is (rank == 0)
        failures[rank] = ProcessFailure(local_rank=rank, pid=1, exitcode=2, error_file=str(report))
    assert str(ChildFailedError("kitae", failures)).count("kitae: the recipe nowhere.toml does not exist") == 2


def test_a_message_cannot_colour_the_terminal(tmp_path: Path) -> None:
    done = kitae("run", "\x1b[31mred.toml")
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert "red.toml does not exist" in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = command("run", "nowhere.toml", "--debug", cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_show_prints_every_setting_with_its_documentation() -> None:
    done = kitae("show", "pretrain")
    assert done.returncode == 0, done.stderr
    for name in ("model", "learning_rate", "micro_batch", "objective"):
        assert name in done.stdout


@pytest.mark.parametrize(
    ("name", "there", "absent"),
    [("rtd", "document_weight", "sentence_order"), ("deberta-v2", "conv_kernel_size", "vocab_size"), ("predict", "candidates", "rate")],
)
def test_show_knows_objectives_and_families(name: str, there: str, absent: str) -> None:
    done = kitae("show", name)
    assert done.returncode == 0, done.stderr
    keys = [line.partition(" ")[0] for line in done.stdout.splitlines()]
    assert there in keys
    assert absent not in keys


def test_every_recipe_setting_is_documented() -> None:
    for stage in ("corpus", "tokenizer", "dataset", "pretrain", "finetune", "evaluate", "export"):
        done = kitae("show", stage)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        for line, following in zip(lines[1:], [*lines[2:], ""], strict=True):
            if line.rstrip().endswith(")") and " (" in line and not line.startswith("        "):
                assert following.startswith(" "), f"{stage}: {line} has no documentation"
