"""A corpus that was cut off: the same bytes afterwards, finished parts kept, nothing kept of a pipeline that changed."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from kitae.core.artifact import write_folder
from kitae.core.errors import KitaeError
from kitae.text import build as module
from kitae.text.build import Built, Holdout, build
from kitae.text.executors import Engine
from kitae.text.parts import PartReader, PartWriter
from kitae.text.steps import Clean, DocumentStep, Source


class Trace(DocumentStep):
    """Leaves a file for every part that is worked on; `kill` is the number of the document that kills the process, once."""

    name = "trace"

    def __init__(self, folder: Path, *, kill: int | None = None) -> None:
        super().__init__()
        self.folder, self.kill = folder, kill

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        (self.folder / f"{rank}.{time.time_ns()}").touch()
        yield from super().run(data, rank, world_size)

    def change(self, document: Document) -> str | None:
        mark = self.folder / "killed"
        if document.metadata["number"] == self.kill and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return None


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A source of 1,000 documents, a tenth of them double, that is large enough for several parts."""
    monkeypatch.setattr(module, "PARALLEL_BYTES", 1)
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(f"これは{i % 900}番目の文書で、文が一つあります。" for i in range(1000)), encoding="utf-8")
    return Source(name="a", path=path, format="text")


def make(source: Source, folder: Path, *steps: PipelineStep, workers: int, tasks: int = 4, minimum: int = 5) -> Built:
    clean = Clean(normalization="nfkc", language="ja", min_characters=minimum)
    with write_folder(folder / "corpus") as out:
        return build(
            [source], [clean, *steps], holdout=Holdout(documents=30), seed=1, engine=Engine(tasks=tasks, workers=workers),
            work=folder / "work", out=out,
        )  # fmt: skip


def hashes(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.rglob("*.zst"))}


def parts_worked_on(folder: Path) -> list[str]:
    found = sorted(item.name.split(".")[0] for item in folder.glob("*.*"))
    for item in folder.glob("*.*"):
        item.unlink()
    return found


def test_a_killed_worker_and_a_second_run(tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kitae.text.corpus.SHARD_BYTES", 2000)  # about 40 shards, so that the second pass is shared too
    for name in ("trace", "one", "two", "cut"):
        (tmp_path / name).mkdir()
    built = {name: make(source, tmp_path / name, workers=workers) for name, workers in (("one", 1), ("two", 2))}
    killer = Trace(tmp_path / "trace", kill=450)  # in the last of 4 parts (blocks of 64), which begins when another is done
    with pytest.raises(KitaeError, match=r"died while these parts were in work: .*a \(4 of 4\)") as caught:
        make(source, tmp_path / "cut", killer, workers=2)
    assert "finished parts are kept" in caught.value.cure
    assert [item.name for item in (tmp_path / "cut").iterdir()] == ["work"], "no half corpus is left"
    first = parts_worked_on(tmp_path / "trace")
    done = {item.name.lstrip("0") or "0" for item in (tmp_path / "cut" / "work").glob("parts/*/engine/completions/*")}
    assert "3" in first
    assert done
    assert "3" not in done
    built["cut"] = make(source, tmp_path / "cut", killer, workers=2)
    assert parts_worked_on(tmp_path / "trace") == sorted({"0", "1", "2", "3"} - done)
    assert built["one"] == built["two"] == built["cut"]
    assert hashes(tmp_path / "one" / "corpus") == hashes(tmp_path / "two" / "corpus") == hashes(tmp_path / "cut" / "corpus")
    assert len(hashes(tmp_path / "one" / "corpus")) > 2 * module.PARALLEL_SHARDS
    assert built["one"].dropped["a"]["duplicate"].documents == 100


def test_parts_are_taken_over_only_by_the_same_pipeline(tmp_path: Path, source: Source) -> None:
    (tmp_path / "trace").mkdir()
    trace = Trace(tmp_path / "trace")
    make(source, tmp_path, trace, workers=1, tasks=2)
    assert parts_worked_on(tmp_path / "trace") == ["0", "1"]
    make(source, tmp_path, trace, workers=2, tasks=2)
    assert parts_worked_on(tmp_path / "trace") == [], "the number of workers changes no part"
    built = make(source, tmp_path, trace, workers=1, tasks=2, minimum=22)
    assert parts_worked_on(tmp_path / "trace") == ["0", "1"], "a step's setting"
    assert built.dropped["a"]["short"].documents > 0
    make(source, tmp_path, trace, workers=1, tasks=3, minimum=22)
    assert parts_worked_on(tmp_path / "trace") == ["0", "1", "2"], "the number of parts"
    os.utime(source.path, ns=(1, 1))
    make(source, tmp_path, trace, workers=1, tasks=3, minimum=22)
    assert parts_worked_on(tmp_path / "trace") == ["0", "1", "2"], "the source's file"


@pytest.mark.parametrize("ending", [".records", ".lines", ".frames.npy", ".json", ".sketch"])
def test_a_finished_part_that_was_damaged_is_made_again(tmp_path: Path, source: Source, ending: str) -> None:
    def attempt() -> Built:
        clean = Clean(normalization="nfkc", language="ja", min_characters=5)
        engine = Engine(tasks=2, workers=1)
        return build([source], [clean], holdout=Holdout(), seed=1, engine=engine, work=tmp_path / "w", out=tmp_path / "o", similarity=0.8)

    built = attempt()
    (file,) = (tmp_path / "w").glob(f"parts/*/00001{ending}")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert attempt() == built
    assert file.read_bytes() == whole
    file.unlink()
    assert attempt() == built


def test_a_damaged_line_is_an_error_that_says_where(tmp_path: Path) -> None:
    with PartWriter(tmp_path, 3) as writer:
        writer.add(0, 3, line=b"abc" * 1000)
    file = tmp_path / "00003.lines"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    with pytest.raises(KitaeError, match=r"a finished part is damaged: 00003.lines"):
        PartReader(tmp_path, 3).line(0)


def test_a_setting_of_the_second_pass_keeps_the_parts(tmp_path: Path, source: Source) -> None:
    (tmp_path / "trace").mkdir()
    for held in (30, 40):
        clean = Clean(normalization="nfkc", language="ja", min_characters=5)
        built = build(
            [source], [clean, Trace(tmp_path / "trace")], holdout=Holdout(documents=held), seed=1, engine=Engine(tasks=2, workers=1),
            work=tmp_path / "work", out=tmp_path / "out",
        )  # fmt: skip
        assert built.heldout["a"].documents == held
    assert parts_worked_on(tmp_path / "trace") == ["0", "1"]


def test_a_disk_that_fills_up(tmp_path: Path, source: Source) -> None:
    """A limit on the size of a file stands in for a full disk: writing fails in the middle of a part."""
    code = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
import test_resume
from kitae.text import build, parts
build.PARALLEL_BYTES, parts.FRAME_BYTES = 1, 1000
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
test_resume.make(test_resume.Source(name="a", path=Path({str(source.path)!r}), format="text"), Path({str(tmp_path)!r}), workers=1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "KitaeError: the disk is full: corpus could not be written: free some space and run again" in done.stderr
    left = [item.name for item in (tmp_path / "work" / "parts").glob("*/*")]
    assert left
    assert not [name for name in left if name.endswith(".making")]
    assert not (tmp_path / "corpus").exists()
    make(source, tmp_path, workers=1)
    make(source, tmp_path / "fresh", workers=1)
    assert hashes(tmp_path / "corpus") == hashes(tmp_path / "fresh" / "corpus")
