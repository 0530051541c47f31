"""Archives inside archives are read whole, share one allowance of bytes, and give up nothing in silence."""

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from kitae.core.errors import KitaeError
from kitae.text.archives import members
from kitae.text.readers import read

ARTICLE = "<art><tit><j>題</j></tit><par><sen><j>文。</j></sen></par></art>".encode()


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


OUTER = {"a.zip": zip_of, "a.tar": tar_of, "a.tar.bz2": lambda files: tar_of(files, "w:bz2")}
INNER = {
    "b.zip": zip_of,
    "b.tar": tar_of,
    "b.tar.gz": lambda files: tar_of(files, "w:gz"),
    "b.tgz": lambda files: tar_of(files, "w:gz"),
    "b_data.xz": lambda files: tar_of(files, "w:xz"),
}


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("inner", INNER)
def test_every_archive_in_every_archive(tmp_path: Path, outer: str, inner: str) -> None:
    """Also for a format that reads only files called as its own are."""
    texts = INNER[inner]({"one.txt": b"1", "two.txt.gz": gzip.compress(b"2")})
    articles = INNER[inner]({"deep/one.xml": ARTICLE, "two.xml.xz": lzma.compress(ARTICLE), "pixel.png": b"\x89PNG\0"})
    path = put(tmp_path / outer, OUTER[outer]({"first.txt": b"0", inner: texts, "last.txt.bz2": bz2.compress(b"3")}))
    assert [found.content for found in read(path, "files")] == ["0", "1", "2", "3"]
    path = put(tmp_path / outer, OUTER[outer]({"readme.txt": b"no XML", inner: articles}))
    assert len(list(read(path, "kyoto"))) == 2
    (tmp_path / "folder").mkdir()
    put(tmp_path / "folder" / outer, path.read_bytes())
    assert len(list(read(tmp_path / "folder", "kyoto"))) == 2


def test_what_is_not_read_is_refused_by_name(tmp_path: Path) -> None:
    zipped = zip_of({"a.txt": b"text"})
    with pytest.raises(KitaeError, match="compressed zip"):
        list(read(put(tmp_path / "a.zip.gz", gzip.compress(zipped)), "files"))
    for _ in range(3):
        zipped = zip_of({"inner.zip": zipped})
    with pytest.raises(KitaeError, match=r"'inner\.zip' is an archive of .* at depth 3"):
        list(read(put(tmp_path / "a.zip", zipped), "files"))
    damaged = bytearray(zip_of({"inner.tar.gz": tar_of({"a.txt": b"text"}, "w:gz")[:-12]}))
    with pytest.raises(KitaeError, match="truncated or damaged") as caught:
        list(read(put(tmp_path / "a.zip", bytes(damaged)), "files"))
    assert caught.value.where.endswith("a.zip, member inner.tar.gz")


@pytest.mark.parametrize("outer", ["a.tar.bz2", "a.zip"])
def test_bombs_share_one_allowance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outer: str) -> None:
    """Six members, each below what one file may unpack to."""
    monkeypatch.setattr("kitae.text.streams.ALWAYS_ALLOWED_BYTES", 1 << 20)
    bomb = bz2.compress(b"text text\n\n" * 90_000)
    whole = OUTER[outer]({f"{n}.txt.bz2": bomb for n in range(6)})
    assert len(whole) < 3000
    monkeypatch.setattr("kitae.text.streams.MOST_UNPACKED_RATIO", 300)
    total, path = 0, put(tmp_path / outer, whole)
    with pytest.raises(KitaeError, match="archive bomb"):
        for found in read(path, "text"):
            total += len(found.content)
    assert total < 2 << 20
    (tmp_path / "folder").mkdir()
    for number in range(6):
        put(tmp_path / "folder" / f"{number}.txt.bz2", bomb)
    with pytest.raises(KitaeError, match="archive bomb"):
        list(read(tmp_path / "folder", "text"))


def test_members_leave_nothing_in_memory(tmp_path: Path) -> None:
    """A tar's list of members would take 10 million times 500 bytes."""
    path = put(tmp_path / "a.tar", tar_of({f"{n}.txt": b"x" for n in range(3000)}))
    tracemalloc.start()
    assert sum(1 for _ in members(path)) == 3000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 600_000


@pytest.mark.parametrize("large", [False, True])
def test_a_zips_list_of_members_is_measured_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    monkeypatch.setattr("kitae.text.archives.MOST_DIRECTORY_BYTES", 4000)
    if large:  # as zipfile writes more than 65,535 members
        monkeypatch.setattr("zipfile.ZIP_FILECOUNT_LIMIT", 10)
    few = zip_of({f"{n}.txt": b"x" for n in range(50)})
    few = few[:-10] + b"\xff" * 4 + few[-6:] if large else few  # the size stands in the longer record alone
    assert len(list(members(put(tmp_path / "a.zip", few)))) == 50
    path = put(tmp_path / "a.zip", zip_of({f"{n}.txt": b"x" for n in range(100)}))
    monkeypatch.setattr(zipfile.ZipFile, "infolist", lambda self: pytest.fail("the list was made"))
    with pytest.raises(KitaeError, match="list of members takes 5,[0-9]{3} bytes"):
        list(members(path))


@pytest.mark.parametrize("kind", ["a.tar", "a.zip", "folder"])
def test_an_empty_file_among_others_is_counted_and_a_hidden_one_passed_over(tmp_path: Path, kind: str) -> None:
    files = {
        "a.txt": b"one",
        "b.txt": b"",
        "c.txt.gz": gzip.compress(b""),
        "__MACOSX/._a.txt": b"\0\5\x16",
        ".DS_Store": b"\0",
        "d.txt": b"two",
    }
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
        for name, data in files.items():
            if not name.startswith("__"):  # a folder of that name is one like any other
                put(path / name, data)
    else:
        put(path, OUTER[kind](files))
    found = [(one.content, one.drop) for one in read(path, "files")]
    assert found == [("one", None), ("", "empty"), ("", "empty"), ("two", None)]
    with pytest.raises(KitaeError, match="the file is empty"):
        list(read(put(tmp_path / "alone.txt", b""), "files"))
