"""Artifacts are complete or absent, and every damage is found."""

import multiprocessing
import os
from pathlib import Path

import pytest

from kitae.core import artifact
from kitae.core.errors import KitaeError
from kitae.core.runtime import lock


def make(folder: Path, content: bytes = b"weights") -> None:
    with artifact.write_folder(folder) as beside:
        (beside / "deep").mkdir()
        (beside / "deep" / "file.bin").write_bytes(content)
        (beside / ".hidden").write_bytes(b"")
        artifact.seal(beside, kind="test", facts={"node": "x"})


def test_a_sealed_folder_verifies(tmp_path: Path) -> None:
    make(tmp_path / "a")
    manifest = artifact.verify(tmp_path / "a")
    assert list(manifest.files) == ["deep/file.bin"]
    assert manifest.facts == {"node": "x"}


def test_one_flipped_bit_is_found(tmp_path: Path) -> None:
    make(tmp_path / "a", b"weights")
    (tmp_path / "a" / "deep" / "file.bin").write_bytes(b"weighus")
    with pytest.raises(KitaeError, match=r"deep/file\.bin is damaged"):
        artifact.verify(tmp_path / "a")
    (tmp_path / "a" / "deep" / "file.bin").unlink()
    with pytest.raises(KitaeError, match="missing"):
        artifact.verify(tmp_path / "a")


def test_an_error_while_writing_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    make(tmp_path / "a", b"old")
    with pytest.raises(RuntimeError), artifact.write_folder(tmp_path / "a") as beside:
        (beside / "half").write_bytes(b"new")
        raise RuntimeError
    assert [item.name for item in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "deep" / "file.bin").read_bytes() == b"old"


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (tmp_path / ".b.1234.part").mkdir()
    artifact.sweep(tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["a"]


def test_a_process_sweeps_only_its_own_leftovers_where_others_work(tmp_path: Path) -> None:
    for name in (".1.aa.part", ".1.bb.old", ".11.cc.part", ".2.dd.part"):
        (tmp_path / name).mkdir()
    artifact.sweep(tmp_path, "1")
    artifact.sweep(tmp_path / "absent", "1")
    assert sorted(item.name for item in tmp_path.iterdir()) == [".11.cc.part", ".2.dd.part"]


def test_a_full_disk_is_a_plain_error(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_write_too_much, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert [item.name for item in tmp_path.iterdir()] == ["ok"]


def _write_too_much(folder: Path) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    with pytest.raises(KitaeError, match="disk is full"), artifact.write_folder(folder / "a") as beside:
        (beside / "big").write_bytes(bytes(100_000))
    (folder / "ok").touch()


def test_newest_passes_over_a_damaged_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (5, 20, 100):
        make(tmp_path / "run" / "checkpoints" / f"step-{step:08d}", str(step).encode())
    assert artifact.newest(tmp_path / "run").name == "step-00000100"
    (tmp_path / "run" / "checkpoints" / "step-00000100" / "deep" / "file.bin").write_bytes(b"")
    assert artifact.newest(tmp_path / "run").name == "step-00000020"
    assert "step-00000100 is passed over" in caplog.text


def test_newest_says_when_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match="holds no model"):
        artifact.newest(tmp_path)
    with pytest.raises(KitaeError, match="does not exist"):
        artifact.newest(tmp_path / "nowhere")


def test_content_hash_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    first = artifact.content_hash(tmp_path / "a")
    (tmp_path / "a" / "x").write_bytes(b"2")
    assert artifact.content_hash(tmp_path / "a") != first
    (tmp_path / "a" / "x").write_bytes(b"1")
    assert artifact.content_hash(tmp_path / "a") == first
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert artifact.content_hash(tmp_path / "a") != first


def test_a_second_process_on_a_folder_is_refused(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(KitaeError, match="in use"), lock(tmp_path):
        pass
    with lock(tmp_path):
        assert os.path.exists(tmp_path / ".lock")


def test_a_kitae_folder_without_a_manifest_is_a_model_and_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "model.json").write_text("{}", encoding="utf-8")
    assert artifact.newest(tmp_path / "half") == tmp_path / "half"
    with pytest.raises(KitaeError, match="model.json is no folder"):
        artifact.newest(tmp_path / "half" / "model.json")
