"""Awkward input: bytes that are no text, every encoding, lines and files without end, archives that are traps. Memory stays bounded."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import random
import stat
import tarfile
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from kitae.core.artifact import Inputs, Out
from kitae.core.errors import KitaeError
from kitae.stages.corpus import CorpusConfig, SourceConfig, run
from kitae.text.format import Columns
from kitae.text.readers import READERS, read
from kitae.text.streams import PIECE_BYTES, CheckedStream, TextStream

TEXT = "これは一つ目の文です。\n二つ目の文です。\n\n次の文書。\n\n最後の文書。\n"
PACKERS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def texts(path: Path, format: str = "text", **how: str) -> list[str]:
    return [found.content for found in read(path, format, **how)]  # type: ignore[arg-type]


def corpus(folder: Path, **source: object) -> tuple[Out, str]:
    """The corpus of one source: its counts, and a hash of its shards."""
    out = Out(path=folder / hashlib.sha1(repr(source).encode()).hexdigest())
    run(CorpusConfig(source=(SourceConfig(name="a", **source),), engine={"workers": 1}), Inputs(parents={}, seed=1), out)  # type: ignore[arg-type]
    shards = sorted(out.path.glob("train/*"))
    return out, hashlib.sha256(b"".join(shard.read_bytes() for shard in shards)).hexdigest()


# ---- bytes that are no text


def test_every_bad_place_is_counted_and_the_first_one_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = [f"文書{n}の文です。\n" * 20 for n in range(2000)]
    data = bytearray("\n".join(good).encode())
    places = [len("\n".join(good[:n]).encode()) + 1 + 7 for n in (500, 501, 1999)]  # a digit of these documents
    for place in places:
        data[place] = 0xFF
    path = put(tmp_path / "a.txt", bytes(data))
    with pytest.raises(KitaeError, match=f"byte {places[0]:,} is not valid UTF-8"):
        texts(path)
    kept = texts(path, errors="replace")
    assert [n for n, text in enumerate(kept) if "\ufffd" in text] == [500, 501, 1999]
    assert kept[:500] == good[:500]
    assert kept[500] == f"{good[500][:3]}\ufffd{good[500][4:]}"
    assert f"3 bad places, the first at byte {places[0]:,}" in caplog.text
    found = list(read(path, "text", errors="skip"))
    assert [n for n, one in enumerate(found) if one.drop == "encoding"] == [500, 501, 1999]
    assert "they are replaced" in caplog.text
    assert "their documents are dropped" in caplog.text


@pytest.mark.parametrize(
    ("encoding", "bad", "first"),
    [
        ("utf-8", b"\xe3\x81", 6),
        ("utf-8", b"\xed\xa0\x80", 6),  # a lone surrogate
        ("utf-8", b"\0", 6),
        ("cp932", b"\x81\x20", 4),
        ("euc_jp", b"\xff", 4),
        ("iso2022_jp", b"\xff", 7),
        ("utf-16-le", b"\x00\xd8", 4),
        ("utf-16-le", b"\0\0", 4),
        ("utf-32-be", b"\0\0\0\0", 8),
    ],
)
@pytest.mark.parametrize("cut", [1, 3, 1 << 16])
def test_bad_places_of_every_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, encoding: str, bad: bytes, first: int, cut: int
) -> None:
    """Wherever the pieces are cut; and what follows the bad place is read as it stands."""
    monkeypatch.setattr("kitae.text.mending.PIECE_BYTES", cut)
    body = "文章".encode(encoding)
    if encoding == "iso2022_jp":
        body = body[:7]  # still in its two-byte state
    path = put(tmp_path / "a.txt", body + bad + "続き。\n\n次の文書。".encode(encoding))
    one, two = read(path, "text", encoding=encoding, errors="skip")
    assert one.content[0] == "文"
    assert one.content.endswith("続き。\n")
    assert set(one.content) <= set("文章続き。\n \ufffd")
    assert one.drop == "encoding"
    assert (two.content, two.drop) == ("次の文書。", None)
    assert f"the first at byte {first}" in caplog.text


def test_a_file_cut_inside_its_last_character(tmp_path: Path) -> None:
    path = put(tmp_path / "a.txt", TEXT.encode()[:-3])
    assert texts(path, errors="replace")[-1] == "最後の文書\ufffd"
    with pytest.raises(KitaeError, match="is not valid UTF-8"):
        texts(path)


def test_the_wrong_encoding_is_not_taken_for_damage(tmp_path: Path) -> None:
    path = put(tmp_path / "a.txt", (TEXT * 50).encode("cp932"))
    with pytest.raises(KitaeError, match="are not valid UTF-8 text") as caught:
        texts(path, errors="replace")
    assert 'say encoding = "cp932"' in caught.value.cure
    with pytest.raises(KitaeError, match="are not valid UTF-8"):
        texts(put(tmp_path / "b.txt", random.Random(1).randbytes(1_000_000)), errors="skip")


def test_the_report_counts_what_was_dropped_or_replaced(tmp_path: Path) -> None:
    path = put(tmp_path / "a.txt", TEXT.encode().replace("次の".encode(), "次の".encode() + b"\xff"))
    with pytest.raises(KitaeError, match="byte 66"):
        corpus(tmp_path, path=str(path))
    out, _ = corpus(tmp_path, path=str(path), errors="skip")
    assert (out.counts["documents_in"], out.counts["dropped"]) == (3, {"encoding": 1})
    assert "replaced" not in out.counts
    report = (out.path / "drops.md").read_text(encoding="utf-8")
    assert "dropped: encoding | 1 |" in report
    assert f"| a | 0 | {path}, byte 66 |" in report
    out, _ = corpus(tmp_path, path=str(path), errors="replace")
    assert (out.counts["documents_kept"], out.counts["dropped"], out.counts["replaced"]) == (3, {}, {"a": 1})
    assert out.counts["first_bad_bytes"] == {"a": f"{path}, byte 66"}


@pytest.mark.parametrize("format", ["jsonl", "csv", "wikiextractor", "paragraphs", "files"])
def test_other_formats_bear_bad_bytes_too(tmp_path: Path, format: str) -> None:
    lines = {
        "jsonl": b'{"text": "one \xff"}\n{"text": "two"}\n',
        "csv": b'text\n"one \xff"\ntwo\n',
        "wikiextractor": b'<doc id="1" title="t">\none \xff\nx\n</doc>\n<doc id="2" title="t">\nx\ntwo\n</doc>\n',
        "paragraphs": b"one \xff\ntwo\n",
        "files": b"one \xff\ntwo\n",
    }
    found = list(read(put(tmp_path / "a", lines[format]), format, errors="skip"))
    assert [one.drop for one in found] == (["encoding"] if format == "files" else ["encoding", None])
    assert "one \ufffd" in found[0].content


# ---- encodings and line ends


def test_one_text_in_every_encoding_makes_the_same_corpus(tmp_path: Path) -> None:
    _, wanted = corpus(tmp_path, path=str(put(tmp_path / "plain.txt", TEXT.encode())))
    bom = b"\xef\xbb\xbf" + TEXT.encode()
    for name, data in (("bom", bom), ("crlf", TEXT.replace("\n", "\r\n").encode()), ("cr", TEXT.replace("\n", "\r").encode())):
        assert corpus(tmp_path, path=str(put(tmp_path / name, data)))[1] == wanted, name
    for encoding in ("cp932", "euc_jp", "iso2022_jp", "utf-16", "utf-16-le", "utf-16-be", "utf-8"):
        path = put(tmp_path / encoding, TEXT.encode(encoding))
        for errors in ("fail", "replace", "skip"):
            assert corpus(tmp_path, path=str(path), encoding=encoding, errors=errors)[1] == wanted, (encoding, errors)


def test_unseen_characters_never_reach_the_corpus(tmp_path: Path) -> None:
    odd = "文\u200b章\ufeffで\u202eす\u2066。\u2028次\x00の\x85文。\ud800\u200d".encode("utf-8", "surrogatepass")
    out, _ = corpus(tmp_path, path=str(put(tmp_path / "a.txt", odd + b"\n\n" + TEXT.encode())), errors="replace")
    text = zstandard.ZstdDecompressor().decompressobj().decompress((out.path / "train" / "00000.jsonl.zst").read_bytes()).decode()
    assert '"text": "文章です。\\n次\ufffdの\\n文。' in text
    assert out.counts["replaced"] == {"a": 1}
    assert not [letter for letter in text if unicodedata.category(letter) in ("Cf", "Cs", "Zl", "Zp") and letter != "\u200d"]


# ---- without end


class Endless(io.RawIOBase):
    """A file that is `unit` times `count`, made while it is read."""

    def __init__(self, unit: bytes, count: int, tail: bytes = b"") -> None:
        super().__init__()
        self._unit, self._left, self._rest = unit * (PIECE_BYTES // len(unit)), len(unit) * count, tail

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None
        assert size > 0, "all at once"
        data = self._unit[: min(size, self._left)]
        self._left -= len(data)
        if not data:
            data, self._rest = self._rest[:size], self._rest[size:]
        return data


@pytest.fixture
def short_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents of at most 2^20 characters, so that 100 MB are far beyond it."""
    for module in ("streams", "readers", "format", "aozora", "filings"):
        monkeypatch.setattr(f"kitae.text.{module}.LONGEST_LINE", 1 << 20)


@pytest.mark.usefixtures("short_lines")
@pytest.mark.parametrize("format", ["text", "paragraphs"])
def test_a_line_of_100_mb_is_dropped_in_bounded_memory(tmp_path: Path, format: str) -> None:
    packed = tmp_path / "a.txt.gz"
    with gzip.open(packed, "wb", compresslevel=1) as file:
        file.write("前。\n\n".encode())
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write("\n\n後。".encode())
    tracemalloc.start()
    found = list(read(packed, format))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(one.content[:2], len(one.content) > 10, one.drop) for one in found] == [
        ("前。", False, None), ("xx", True, "oversized"), ("後。", False, None),
    ]  # fmt: skip
    assert peak < 40 << 20


@pytest.mark.usefixtures("short_lines")
def test_documents_and_files_without_end(tmp_path: Path) -> None:
    lines = put(tmp_path / "a.txt", b"a line of text\n" * 100_000 + b"\nthe next\n")
    assert [(one.content[:6], one.drop) for one in read(lines, "text")] == [("a line", "oversized"), ("the ne", None)]
    assert [one.drop for one in read(lines, "files")] == ["oversized"]
    out, _ = corpus(tmp_path, path=str(lines))
    assert out.counts["dropped"] == {"oversized": 1}
    with pytest.raises(KitaeError, match="a line has more than 1,048,576 characters"):
        texts(put(tmp_path / "a.jsonl", b'{"text": "' + b"x" * 2_000_000 + b'"}\n'), "jsonl")
    with pytest.raises(KitaeError, match=r"every document was dropped \(oversized\)"):
        corpus(tmp_path, path=str(put(tmp_path / "b.txt", b"x" * 2_000_000)))


def test_a_limit_is_not_reached_by_a_character_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("streams", "readers", "format", "aozora", "filings"):
        monkeypatch.setattr(f"kitae.text.{module}.LONGEST_LINE", 10)
    for size, drop in ((8, None), (9, None), (11, "oversized"), (21, "oversized"), (31, "oversized")):
        path = put(tmp_path / "a.txt", b"x" * size + b"\n\nnext\n")
        for format in ("text", "paragraphs"):
            found = list(read(path, format))
            assert [(one.drop, one.content.strip()[:4]) for one in found] == [(drop, "xxxx"), (None, "next")], (format, size)
        assert [one.drop for one in read(put(tmp_path / "b.txt", b"x" * size), "files")] == [drop]


def test_a_million_empty_lines_in_bounded_memory() -> None:
    stream = TextStream(CheckedStream(Endless(b"\n", 1_000_000, "一".encode()), where="endless"))
    assert READERS["text"].text is not None
    tracemalloc.start()
    found = [one.content for one in READERS["text"].text(stream, Columns())]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == ["一"]
    assert peak < 4 << 20


# ---- archives


@pytest.mark.parametrize("ending", [".bz2", ".xz"])
def test_a_flipped_bit_in_the_head_of_a_later_stream_is_an_error(tmp_path: Path, ending: str) -> None:
    """The standard library takes it for the end of the file, and the rest is gone without a word."""
    first, second = (PACKERS[ending](part.encode()) for part in ("一。\n\n", "二。\n\n"))
    whole = put(tmp_path / f"a{ending}", first + second)
    assert texts(whole) == ["一。\n", "二。\n"]
    for damaged in (first + b"\x00junk", first + bytes([second[0] ^ 1]) + second[1:], first + b"<html>", first + second + b"\n"):
        with pytest.raises(KitaeError, match="truncated or damaged"):
            texts(put(whole, damaged))


def test_padding_between_streams_of_xz_is_none_of_the_text(tmp_path: Path) -> None:
    pack = lzma.compress
    assert texts(put(tmp_path / "a.xz", pack(b"1\n\n") + bytes(8) + pack(b"2") + bytes(400_000)), "text") == ["1\n", "2"]


@pytest.mark.parametrize("ending", [".bz2", ".xz", ".zst", ".gz"])
def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    monkeypatch.setattr("kitae.text.streams.ALWAYS_ALLOWED_BYTES", 1 << 22)
    monkeypatch.setattr("kitae.text.streams.MOST_UNPACKED_RATIO", 100)
    pack = {**PACKERS, ".zst": zstandard.ZstdCompressor().compress}[ending]
    path = put(tmp_path / f"a.txt{ending}", pack(b"a" * 300_000_000) if ending == ".zst" else pack(b"a" * 20_000_000) * 10)
    for format in ("files", "text"):
        tracemalloc.start()
        with pytest.raises(KitaeError, match="bomb"):
            texts(path, format)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 120 << 20, (format, peak)


def tar_with(folder: Path, *infos: tarfile.TarInfo) -> Path:
    path = folder / "a.tar"
    with tarfile.open(path, "w") as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(b"t" * info.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 3 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_members_that_are_no_files(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(KitaeError, match="link or a device"):
        texts(tar_with(tmp_path, member("a.txt"), member("b.txt", kind, "/etc/passwd")), "files")


def test_a_link_in_a_zip_and_one_that_is_locked(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a.txt")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(KitaeError, match="is a link"):
        texts(tmp_path / "a.zip", "files")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    data = bytearray((tmp_path / "b.zip").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag of encryption
    with pytest.raises(KitaeError, match="damaged or encrypted"):
        texts(put(tmp_path / "b.zip", bytes(data)), "files")


def test_names_that_collide_are_different_documents(tmp_path: Path) -> None:
    """By case, by Unicode normal form, or entirely: nothing is unpacked to the disk, so that none replaces another."""
    names = ("A.txt", "a.txt", unicodedata.normalize("NFC", "が.txt"), unicodedata.normalize("NFD", "が.txt"), "a.txt")
    before = sorted(tmp_path.rglob("*"))
    path = tar_with(tmp_path, *(member(name) for name in names))
    assert len(texts(path, "files")) == 5
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, f"text {number}")  # warns of the name that is there twice
    assert sorted(texts(tmp_path / "a.zip", "files")) == [f"text {number}" for number in range(5)]
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path, tmp_path / "a.zip"])


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kitae.text.archives.MOST_MEMBERS", 50)
    path = tar_with(tmp_path, *(member(f"{n}.txt") for n in range(51)))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(51):
            archive.writestr(f"{number}.txt", "text")
    for archive in (path, tmp_path / "a.zip"):
        with pytest.raises(KitaeError, match="more than 50 members"):
            texts(archive, "files")


def test_a_sparse_member_of_10_gb_is_refused_at_once(tmp_path: Path) -> None:
    """GNU's old sparse header: 512 bytes that claim to be ten gigabytes of nothing."""
    info = tarfile.TarInfo("a.txt")
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0%011o\0" % (0, 0)  # one piece of no bytes
    block[483:495] = b"\x80" + (10 << 30).to_bytes(11, "big")  # the real size
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    with pytest.raises(KitaeError, match="is a sparse file"):
        texts(put(tmp_path / "a.tar", bytes(block) + bytes(1024)), "files")


def test_an_archive_in_an_archive_in_an_archive(tmp_path: Path) -> None:
    def inside(name: str, data: bytes) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    data = inside("a.txt", b"text")
    for _ in range(3):
        data = inside("a.tar", data)
    with pytest.raises(KitaeError, match="at depth 3"):
        texts(put(tmp_path / "a.tar", data), "files")


def test_a_name_that_would_colour_the_terminal_is_shown_as_text(tmp_path: Path) -> None:
    path = tar_with(tmp_path, member("\x1b[31m\n.txt", tarfile.SYMTYPE, "x"))
    with pytest.raises(KitaeError) as caught:
        texts(path, "files")
    assert "\x1b" not in str(caught.value)


def test_a_pipe_in_a_folder_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(KitaeError, match="is not a file"):
        texts(tmp_path, "files")
