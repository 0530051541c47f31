"""A whole small recipe on a part of the packaged sample, and the command line called in this process or in one of its own."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from kitae import cli
from kitae.chain import recipe

SAMPLE = Path(recipe.__file__).parents[1] / "sample"
TEXT = """
output = "run"
[corpus]
source = [{ path = "general.txt", format = "text" }]
holdout = 0.1
[tokenizer]
segmenter = "mecab"
dictionary = "ipadic"
vocab_size = 2000
limit_alphabet = 600
[dataset]
max_length = 32
"""
RECIPE = (
    TEXT
    + """[pretrain]
model = "electra-tiny"
objective = "rtd"
train = { length = "4 steps", batch = "4 rows", learning_rate = 1e-3, save_every = "2 steps" }
[adapt]
source = [{ path = "domain.txt", format = "text" }]
train = { length = "2 steps", batch = "4 rows", learning_rate = 1e-3 }
[task.topics]
path = ["topics.jsonl"]
split = { train = 0.5, validation = 0.25, test = 0.25 }
[finetune]
task = ["topics"]
epochs = 1
seeds = [1]
compare = ["random", "adapt", "majority"]
[export]
formats = ["huggingface"]
"""
)


@dataclass(frozen=True)
class Done:
    """What a call of the command line left: exit code and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def write_recipe(folder: Path) -> None:
    """r.toml and its three sources."""
    (folder / "r.toml").write_text(RECIPE, encoding="utf-8")
    for name, source, count in (("general.txt", "general.txt", 40), ("domain.txt", "finance.txt", 25)):
        documents = (SAMPLE / source).read_text(encoding="utf-8").split("\n\n")
        (folder / name).write_text("\n\n".join(documents[:count]), encoding="utf-8")
    lines = (SAMPLE / "topics.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "topics.jsonl").write_text("\n".join(lines[::8]) + "\n", encoding="utf-8")


def kitae(*arguments: object) -> Done:
    """`kitae ARGUMENTS` in this process and folder: all but the interpreter's start, which costs seconds."""
    out, errors, code = io.StringIO(), io.StringIO(), 0
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        patch.setattr(sys, "argv", ["kitae", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Done(code, out.getvalue(), errors.getvalue())


def command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`kitae ARGUMENTS` in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "kitae", *map(str, arguments)]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False, env=environment, timeout=300)
