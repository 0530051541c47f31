"""A pickle that runs code when it is opened, in the place of every kind of file of a run: refused or passed over, and never opened."""

import ast
import contextlib
import io
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from dying import Chain
from toy_training import Toy, ToyBatches, config

from kitae.chain import execute, nodes, recipe, status
from kitae.core.artifact import checkpoints
from kitae.core.errors import KitaeError
from kitae.data.sampler import Heldout, Sampler, heldout_sources
from kitae.tensor.batch import Batch
from kitae.tensor.world import World
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.loop import fit

SRC = Path(execute.__file__).parents[1]
NOT_READ = ("events.out.tfevents", ".lock", "drops.md", "corpus.json", "drops.json")
"""Written for people and other programs."""


class Bomb:
    """Makes a folder when it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.marker),))


def plain(marker: Path) -> bytes:
    return pickle.dumps(Bomb(marker)) + b"\n"  # a whole line, too


def of_torch(marker: Path) -> bytes:
    file = io.BytesIO()
    torch.save({"weights": Bomb(marker)}, file)
    return file.getvalue()


def of_numpy(marker: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Bomb(marker)], dtype=object), allow_pickle=True)
    return file.getvalue()


KINDS: Mapping[str, Callable[[Path], bytes]] = {"pickle": plain, "torch": of_torch, "numpy": of_numpy}


def test_the_bombs_go_off_where_they_are_opened(tmp_path: Path) -> None:
    for name, opened in (
        ("pickle", lambda data: pickle.loads(data)),
        ("torch", lambda data: torch.load(io.BytesIO(data), weights_only=False)),
        ("numpy", lambda data: np.load(io.BytesIO(data), allow_pickle=True)),
    ):
        opened(KINDS[name](tmp_path / name))
        assert (tmp_path / name).is_dir()


def files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and not path.name.startswith(NOT_READ))


def planted(whole: Path, here: Path, name: Path, kind: str, marker: Path, read: Callable[[Path], object]) -> bool:
    """Whether a run with a bomb in the place of one file is refused, rather than done without that file."""
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(whole, here)
    (here / name).write_bytes(KINDS[kind](marker))
    refused = False
    try:
        read(here)
    except KitaeError:
        refused = True
    assert not marker.exists(), f"{name} was opened as a pickle"
    return refused


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_in_the_files_of_a_training(tmp_path: Path, kind: str) -> None:
    """The newest checkpoint is passed over or the training refused; what is only written is written anew."""
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.txt").write_text("a\n")

    def train(folder: Path, most: int = 99) -> None:
        class Some(ToyBatches):
            def micro(self, step: int, micro: int) -> Batch:
                if step == most:
                    raise InterruptedError
                return super().micro(step, micro)

        settings = config(length="100s", save_every="2 steps", milestones=["1s"])
        with contextlib.suppress(InterruptedError):
            fit(Toy(), Some(), settings, folder, world=World(), seed=7, attach={"tokenizer": tmp_path / "tokenizer"})

    train(tmp_path / "whole", 6)
    names = files(tmp_path / "whole")
    assert {"identity.json", "clock.jsonl", "metrics.jsonl", "optimizer.safetensors", "state.json", "model.json"} <= {n.name for n in names}
    refused = {
        name.name for name in names if planted(tmp_path / "whole", tmp_path / "run", name, kind, tmp_path / "marker", lambda f: train(f, 7))
    }
    assert refused == {"identity.json", "clock.jsonl", "metrics.jsonl"}
    only = checkpoints(tmp_path / "whole")[-1]
    for path in checkpoints(tmp_path / "whole")[:-1]:
        shutil.rmtree(path)
    for name in files(only):
        place = only.relative_to(tmp_path / "whole") / name
        gone = planted(tmp_path / "whole", tmp_path / "run", place, kind, tmp_path / "marker", lambda f: train(f, 7))
        assert gone or name.name == "manifest.json"  # without one there is no checkpoint: the training begins


@pytest.mark.parametrize("kind", ["pickle", "numpy"])
def test_in_the_files_of_the_other_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The stage that reads the file is made again, the state of everything asked for, and the data set's rows read."""
    chain = Chain("", "dataset")
    (tmp_path / "whole").mkdir()
    chain.prepare(tmp_path / "whole")
    chain.run(tmp_path / "whole")
    below = {"corpus": ("tokenizer", "dataset"), "tokenizer": ("dataset",), "dataset": ()}

    def read(folder: Path, part: str) -> None:
        monkeypatch.chdir(folder)
        for name in below.get(part, ()):
            shutil.rmtree(folder / "run" / name)
        loaded, path = recipe.load("r.toml")
        wanted = nodes.nodes(loaded, str(path))
        status.statuses(wanted, folder / "run", loaded.seed)
        execute.execute(loaded, path, wanted)
        dataset = folder / "run" / "dataset"
        Sampler(dataset, split="train", rows_per_step=1, rows_per_micro_batch=1, seed=1).micro(0, 0)
        Heldout(dataset, heldout_sources(dataset)[0], 4)
        Tokenizer.load(dataset / "tokenizer")
        Tokenizer.load(folder / "run" / "tokenizer")

    refused = set()
    for name in files(tmp_path / "whole" / "run"):
        part = name.parts[0]
        if planted(
            tmp_path / "whole", tmp_path / "here", "run" / name, kind, tmp_path / "marker", lambda folder, part=part: read(folder, part)
        ):
            refused.add(str(name))
    assert {
        "kitae.json",
        "corpus/manifest.json",
        "corpus/train/00000.jsonl.zst",
        "dataset/dataset.json",
        "dataset/train/index.json",
    } <= refused
    assert {"dataset/train/tokens-00000.bin", "dataset/train/plan/rows.bin", "tokenizer/kitae_tokenizer.json"} <= refused


FORBIDDEN_CALLS = {
    "torch.load",
    "torch.save",
    "torch.jit.load",
    "torch.package",
    "np.loads",
    "marshal.load",
    "marshal.loads",
    "shelve.open",
}
SAFE_LOADS = {"np.load"}


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda path: str(path.relative_to(SRC)))
def test_no_code_reaches_a_pickle(path: Path) -> None:
    """Imports of pickle are refused by tests/test_floors.py; these are the calls that would open one."""
    for call in (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        place = f"{path.relative_to(SRC)}:{call.lineno}: {name}"
        assert name not in FORBIDDEN_CALLS, place
        assert not name.endswith((".read_pickle", ".to_pickle")), place
        allowed = [keyword.value for keyword in call.keywords if keyword.arg == "allow_pickle"]
        assert all(isinstance(value, ast.Constant) and value.value is False for value in allowed), place
        assert name not in SAFE_LOADS or allowed, f"{place} without allow_pickle=False"
