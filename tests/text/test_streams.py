"""Every damaged, misnamed or misencoded file is refused with a sentence that names it and the cure."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import zstandard
from pydantic import ValidationError

from kitae.core.errors import KitaeError
from kitae.stages.corpus import SourceConfig
from kitae.text.format import Columns
from kitae.text.readers import read
from kitae.text.streams import TextStream, open_bytes, open_text

TEXT = "これは一つ目の文です。\n二つ目の文です。\n\n次の文書。\n" * 300
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("ending", PACKERS)
def test_compressed_files_read_as_the_plain_one(tmp_path: Path, ending: str) -> None:
    pack = PACKERS[ending]
    whole = put(tmp_path / f"a.txt{ending}", pack(TEXT.encode()))
    assert open_text(whole).read() == TEXT
    two = put(tmp_path / f"b.txt{ending}", pack(TEXT.encode()) + pack(b"more\n"))  # multistream
    assert open_text(two).read() == TEXT + "more\n"
    nameless = put(tmp_path / f"c{ending}.txt", pack(TEXT.encode()))
    assert open_text(nameless).read() == TEXT


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize("lost", [1, 10, 60])
def test_truncated_archive_is_an_error_not_fewer_documents(tmp_path: Path, ending: str, lost: int) -> None:
    data = PACKERS[ending](TEXT.encode())
    path = put(tmp_path / f"a.txt{ending}", data[:-lost])
    with pytest.raises(KitaeError, match="truncated or damaged") as caught:
        list(read(path, "text"))
    assert path.name in caught.value.where


@pytest.mark.parametrize("ending", PACKERS)
def test_html_page_under_an_archive_name_is_refused(tmp_path: Path, ending: str) -> None:
    page = put(tmp_path / f"dump.xml{ending}", b"<!DOCTYPE html><html><title>404</title></html>")
    with pytest.raises(KitaeError, match="HTML page"):
        list(read(page, "text"))
    with pytest.raises(KitaeError, match="not a"):
        list(read(put(tmp_path / f"x{ending}", b"plain"), "text"))


def test_missing_empty_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match="does not exist"):
        list(read(tmp_path / "no.txt", "text"))
    with pytest.raises(KitaeError, match="empty"):
        list(read(put(tmp_path / "e.txt", b""), "text"))
    with pytest.raises(KitaeError, match="empty"):
        list(read(put(tmp_path / "e.txt.gz", gzip.compress(b"")), "text"))
    with pytest.raises(KitaeError, match="no document"):
        list(read(put(tmp_path / "b.txt", "\n \u3000\n\n".encode()), "text"))
    with pytest.raises(KitaeError, match="NUL byte at offset 100,003"):
        list(read(put(tmp_path / "n.txt", b"a" * 100_003 + b"\0" + b"b" * 9), "text"))
    with pytest.raises(KitaeError, match="not text"):
        list(read(put(tmp_path / "i.txt", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256))), "text"))


@pytest.mark.parametrize("encoding", ["cp932", "euc_jp", "utf-16", "utf-16-le", "iso2022_jp"])
def test_wrong_encoding_is_named_and_the_cure_works(tmp_path: Path, encoding: str) -> None:
    path = put(tmp_path / "a.txt", ("ABC\n" * 3 + TEXT).encode(encoding))
    with pytest.raises(KitaeError) as caught:
        open_text(path).read()
    assert f'encoding = "{encoding}"' in caught.value.cure
    if encoding in ("cp932", "euc_jp"):
        assert "byte 12" in caught.value.what
    assert open_text(path, encoding=encoding).read() == "ABC\n" * 3 + TEXT


@pytest.mark.parametrize("errors", ["fail", "replace"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_byte_order_marks_of_wide_encodings(tmp_path: Path, encoding: str, errors: Literal["fail", "replace"]) -> None:
    bare, marked = TEXT.encode(encoding), ("\ufeff" + TEXT).encode(encoding)
    other = encoding[:6] + {"l": "-be", "b": "-le"}[encoding[7]]
    for name in (encoding, encoding[:6]):
        assert TextStream(open_bytes(put(tmp_path / "a.txt", marked)), encoding=name, errors=errors).read() == TEXT
    assert TextStream(open_bytes(put(tmp_path / "a.txt", bare)), encoding=encoding, errors=errors).read() == TEXT
    with pytest.raises(KitaeError, match="no byte order mark") as caught:  # as Excel and PowerShell write it
        TextStream(open_bytes(tmp_path / "a.txt"), encoding=encoding[:6], errors=errors)
    if encoding.startswith("utf-16"):
        assert f'encoding = "{encoding}"' in caught.value.cure
    with pytest.raises(KitaeError, match="looks like") as caught:
        TextStream(open_bytes(put(tmp_path / "a.txt", marked)), encoding=other, errors=errors)
    assert f'encoding = "{encoding[:6]}"' in caught.value.cure


def test_a_table_of_edinet_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tsv", ("要素ID\t値\r\n" + "x:ATextBlock\t文章である。\r\n" * 20).encode("utf-16-le"))
    with pytest.raises(KitaeError, match="no byte order mark") as caught:
        list(read(path, "edinet"))
    assert 'encoding = "utf-16-le"' in caught.value.cure
    assert len(list(read(path, "edinet", encoding="utf-16-le"))) == 1
    assert len(list(read(put(tmp_path / "b.tsv", b"\xff\xfe" + path.read_bytes()), "edinet", encoding="utf-16-le"))) == 1


def test_iso_2022_jp_is_named(tmp_path: Path) -> None:
    """Seven bits: it is valid UTF-8, and reads as rubbish between escapes."""
    path = put(tmp_path / "a.txt", TEXT.encode("iso2022_jp"))
    with pytest.raises(KitaeError, match="looks like ISO-2022-JP") as caught:
        open_text(path).read()
    assert 'encoding = "iso2022_jp"' in caught.value.cure
    assert open_text(path, encoding="iso2022_jp").read() == TEXT


@pytest.mark.parametrize(
    "encoding", ["base64", "hex", "rot13", "undefined", "punycode", "idna", "unicode_escape", "utf 8\0", "utf-\n8", ""]
)
def test_what_is_no_encoding_of_text(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(KitaeError, match="is unknown"):
        TextStream(open_bytes(put(tmp_path / "a.txt", b"text")), encoding=encoding)
    with pytest.raises(ValidationError, match="no encoding of text files"):
        SourceConfig(path="a.txt", encoding=encoding)


def test_offset_of_a_bad_byte_far_inside(tmp_path: Path) -> None:
    good = TEXT.encode() * 60
    with pytest.raises(KitaeError, match=f"byte {len(good):,} is not valid UTF-8"):
        open_text(put(tmp_path / "a.txt", good + b"\xff\xfe\xfa" + good)).read()


def test_declared_encoding_is_checked(tmp_path: Path) -> None:
    path = put(tmp_path / "a.txt", TEXT.encode())
    with pytest.raises(KitaeError, match="looks like UTF-8"):
        open_text(path, encoding="cp932").read()
    with pytest.raises(KitaeError, match="unknown"):
        open_text(path, encoding="shift-jiss")


def test_byte_order_mark_and_line_ends(tmp_path: Path) -> None:
    path = put(tmp_path / "a.txt", b"\xef\xbb\xbf" + "一。\r\n二。\r三。\n".encode())
    assert open_text(path).read() == "一。\n二。\n三。\n"


def test_real_shift_jis_and_utf16_files(shared: Path) -> None:
    aozora = sorted((shared / "ja_plain" / "aozora_original_sjis_sample").glob("*.txt"))[0]
    with pytest.raises(KitaeError, match=r"CP932 \(Shift_JIS\)"):
        list(read(aozora, "text"))
    assert "\r" not in open_text(aozora, encoding="cp932").read()
    edinet = sorted((shared / "finance_ja" / "edinet_original_tsv_sample").glob("*.xz"))[0]
    with pytest.raises(KitaeError, match="UTF-16"):
        list(read(edinet, "tsv"))
    rows = list(read(edinet, "tsv", encoding="utf-16", columns=Columns("値")))
    assert len(rows) > 900


def test_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kitae.text.streams.ALWAYS_ALLOWED_BYTES", 1 << 20)
    path = put(tmp_path / "a.txt.xz", lzma.compress(b"a" * 50_000_000))
    with pytest.raises(KitaeError, match="bomb"):
        while open_bytes(path).read(-1):
            pass


def tar_of(files: dict[str, bytes], *, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../x.txt", "/etc/x.txt", "a/../../x.txt", "..\\x.txt", "C:\\x.txt"])
def test_names_that_leave_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(KitaeError, match="leaves the archive"):
        list(read(put(tmp_path / "a.tar", tar_of({name: b"text"})), "files"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), "text")
    with pytest.raises(KitaeError, match="leaves the archive"):
        list(read(tmp_path / "a.zip", "files"))


def test_links_in_archives_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("link.txt")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(KitaeError, match="link or a device"):
        list(read(put(tmp_path / "a.tar", buffer.getvalue()), "files"))


@pytest.mark.parametrize("keep", [512, 700, 1024, 1536, 1600])
def test_truncated_plain_tar_is_an_error(tmp_path: Path, keep: int) -> None:
    data = tar_of({"a.txt": b"x" * 512, "b.txt": b"y" * 512, "c.txt": b"z" * 512})
    with pytest.raises(KitaeError, match="truncated|damaged"):
        list(read(put(tmp_path / "a.tar", data[:keep]), "files"))


def test_nested_archives_folders_and_zip_give_the_same_documents(tmp_path: Path) -> None:
    texts = {"a/1.txt": "一。".encode(), "a/2.txt": "二。".encode(), "b/3.txt": "三。".encode()}
    folder = tmp_path / "folder"
    for name, data in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / ".hidden").write_bytes(b"\0")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in texts.items():
            archive.writestr(name, data)
    inner = {f"{group}.tar.xz": lzma.compress(tar_of({n: t for n, t in texts.items() if n.startswith(group)})) for group in "ab"}
    nested = put(tmp_path / "nested.tar.gz", gzip.compress(tar_of(inner)))
    packed = put(tmp_path / "packed.tar", tar_of({f"{name}.gz": gzip.compress(data) for name, data in texts.items()}))
    for path in (folder, tmp_path / "a.zip", nested, packed):
        assert [found.text for found in read(path, "files")] == ["一。", "二。", "三。"], path


def test_damaged_zip_is_an_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "text " * 100)
    data = (tmp_path / "a.zip").read_bytes()
    with pytest.raises(KitaeError, match="damaged"):
        list(read(put(tmp_path / "b.zip", data[:-30]), "files"))
    with pytest.raises(KitaeError, match="damaged"):
        list(read(put(tmp_path / "c.zip", data.replace(b"text text", b"text tixt", 1)), "files"))
