"""A process that dies at any of its operations on files leaves a checkpoint that verifies, and the same command goes on by itself."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RESULT = HERE.parents[1] / "benchmarks" / "results" / "dying.json"
Ask = Callable[..., dict[str, object]]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Puts a question to one process of dying.py."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the operations on files are counted by a library that a C compiler makes, for Linux")
    library = tmp_path_factory.mktemp("injector") / "injector.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", HERE / "injector.c", "-o", library, "-ldl"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    line = [sys.executable, str(HERE / "dying.py")]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        questions, answers = process.stdin, process.stdout
        assert questions is not None
        assert answers is not None

        def ask(scenario: str, *, first: int = 0, stride: int = 1, torn: bool = False) -> dict[str, object]:
            questions.write(json.dumps({"scenario": scenario, "first": first, "stride": stride, "torn": torn}) + "\n")
            questions.flush()
            found: dict[str, object] = json.loads(answers.readline())
            return found

        yield ask
        questions.close()


@pytest.mark.parametrize(
    ("scenario", "stride", "torn", "least"),
    [
        ("async", 1, False, 45),  # every operation of a save in the background, of removing the old one, and of the records
        ("sync", 6, False, 8),
        ("sync", 5, True, 9),  # writes that stop in their middle
        ("new", 12, False, 9),  # from an empty folder
        ("budget", 20, False, 6),  # with clock.jsonl
        ("corpus", 20, False, 6),
        ("tokenizer", 2, False, 15),  # making and sealing an artifact
        ("dataset", 30, True, 5),
    ],
)
def test_death_at_an_operation(ask: Ask, scenario: str, stride: int, torn: bool, least: int) -> None:
    found = ask(scenario, first=stride // 2, stride=stride, torn=torn)
    assert found["wrong"] == []
    assert int(str(found["deaths"])) >= least


@pytest.mark.slow
def test_death_at_every_operation(ask: Ask) -> None:
    found = {}
    for scenario in ("sync", "async", "new", "budget", "corpus", "tokenizer", "dataset"):
        for torn in (False, True):
            found[f"{scenario}{', torn' if torn else ''}"] = ask(scenario, torn=torn)
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    assert [row["wrong"] for row in found.values() if row["wrong"]] == []
