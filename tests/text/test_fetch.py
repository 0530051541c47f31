"""`kitae fetch` from a server on this machine that is laid out as the public ones are."""

import bz2
import gzip
import hashlib
import json
import lzma
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from kitae.core.download import Patience
from kitae.core.errors import KitaeError
from kitae.stages.corpus import SourceConfig
from kitae.text.corpora import CORPORA, find
from kitae.text.fetch import fetch
from kitae.text.readers import READERS, read
from serving import Site, serving
from tiny_recipe import kitae

QUICK = Patience(timeout=5, attempts=2, wait=0.01)
DUMP = "/dumps.wikimedia.org/jawiki/20210601/jawiki-20210601-pages-articles-multistream.xml.bz2"
SUMS = "/dumps.wikimedia.org/jawiki/20210601/jawiki-20210601-sha1sums.txt"
PAGE = "  <page>\n    <title>頁{}</title>\n    <text>文。</text>\n  </page>\n"
XML = ["<mediawiki>\n  <siteinfo/>\n", *(PAGE.format(n) for n in range(3000)), "</mediawiki>\n"]


@pytest.fixture
def site() -> Iterator[Site]:
    packed = b"".join(bz2.compress("".join(XML[start : start + 100]).encode()) for start in range(0, len(XML), 100))
    with serving() as site:
        site.files[DUMP] = packed
        lines = [f"{'0' * 40}  jawiki-20210601-pages-articles.xml.bz2", f"{hashlib.sha1(packed).hexdigest()}  {DUMP.rpartition('/')[2]}"]
        site.files[SUMS] = "\n".join(lines).encode() + b"\n"
        site.files["/data.statmt.org/cc-100/ja.txt.xz"] = lzma.compress("\n\n".join(f"文書{n}。\n二行。" for n in range(999)).encode())
        yield site


def bring(site: Site, name: str, folder: Path, *, sample: bool = False) -> Path:
    return fetch(name, folder, sample=sample, mirrors=[site.address], patience=QUICK).path


def test_a_dump_with_its_published_checksum(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITAE_MIRROR", site.address)
    site.faults[DUMP] = ["cut 5000"]
    done = kitae("fetch", "wikipedia:ja/20210601", tmp_path / "wiki")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "wiki" / DUMP.rpartition("/")[2]
    assert path.read_bytes() == site.files[DUMP]
    assert "sha1 as published" in done.stdout
    assert [name for name, *_ in site.asked] == [SUMS, DUMP, DUMP]
    (source,) = tomllib.loads(done.stdout.splitlines()[-1])["source"]
    assert source == {"path": str(path), "format": "wikipedia", "licence": "CC BY-SA 4.0 (3.0 before June 2023)"}
    again = kitae("fetch", "wikipedia:ja/20210601", tmp_path / "wiki")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert [name for name, *_ in site.asked][3:] == [SUMS]


@pytest.mark.parametrize(
    ("path", "fault", "expected"),
    [
        (DUMP, "page application/x-bzip2", "sends a web page instead of the file"),
        (SUMS, "404", "see https://dumps.wikimedia.org/jawiki/ for the dates that there are"),
        (DUMP, "404", "see https://dumps.wikimedia.org/jawiki/ for the dates that there are"),
        (SUMS, "change no sums here", "does not name jawiki-20210601-pages-articles-multistream.xml.bz2"),
        (SUMS, f"change {'1' * 40}  {DUMP.rpartition('/')[2]}", f"but {'1' * 40} is published"),
    ],
)
def test_a_refusal_is_one_message_and_leaves_nothing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, fault: str, expected: str
) -> None:
    monkeypatch.setenv("KITAE_MIRROR", site.address)
    site.faults[path] = [fault]
    done = kitae("fetch", "wikipedia:ja/20210601", tmp_path / "wiki")
    assert done.returncode == 2
    assert done.stderr.count("kitae: ") == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.bz2*"))


@pytest.mark.parametrize("mirror", ["mirror.example", "http://[::1", "file:///etc", "ftp://mirror.example"])
def test_mirrors_that_are_no_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    monkeypatch.setenv("KITAE_MIRROR", mirror)
    done = kitae("fetch", "wikipedia:ja/20210601", tmp_path / "wiki")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "is no address" in done.stderr
    assert mirror in done.stderr


def test_the_second_mirror_is_asked_when_the_first_fails(site: Site, tmp_path: Path) -> None:
    with serving() as empty:
        got = fetch("wikipedia:ja/20210601", tmp_path, mirrors=[empty.address, f"{site.address}/"], patience=QUICK)
    assert got.path.read_bytes() == site.files[DUMP]
    assert [name for name, *_ in empty.asked] == [SUMS, DUMP]


def test_latest_is_given_its_date(site: Site, tmp_path: Path) -> None:
    site.files["/dumps.wikimedia.org/jawiki/latest/jawiki-latest-sha1sums.txt"] = site.files[SUMS]
    assert bring(site, "wikipedia:ja/latest", tmp_path).name == DUMP.rpartition("/")[2]
    site.files["/dumps.wikimedia.org/jawiki/latest/jawiki-latest-sha1sums.txt"] = (
        f"{'1' * 40}  ../../jawiki-20210601-pages-articles-multistream.xml.bz2\n".encode()
    )
    with pytest.raises(KitaeError, match="has no jawiki-DATE-pages-articles-multistream.xml.bz2 yet"):
        bring(site, "wikipedia:ja/latest", tmp_path)
    with pytest.raises(KitaeError, match="needs a date"):
        bring(site, "cirrussearch:ja/latest", tmp_path)


def test_a_sample_is_a_whole_small_file(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kitae.text.fetch.SAMPLE_BYTES", len(site.files[DUMP]) // 3)
    path = bring(site, "wikipedia:ja/20210601", tmp_path, sample=True)
    assert path.name == "jawiki-20210601-pages-articles-multistream-sample.xml.bz2"
    text = bz2.decompress(path.read_bytes()).decode()
    pages = text.count("</page>")
    assert 500 < pages < 2000
    assert text == "".join([*XML[: 1 + pages], XML[-1]])
    assert site.ranges(DUMP) == [f"bytes=0-{len(site.files[DUMP]) // 3 - 1}"]
    site.faults[DUMP] = ["whole"]  # a server without ranges is left as soon as there is enough
    path.unlink()
    assert bz2.decompress(bring(site, "wikipedia:ja/20210601", tmp_path, sample=True).read_bytes()).decode() == text


def test_samples_of_other_kinds(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KITAE_MIRROR", site.address)
    monkeypatch.setattr("kitae.text.fetch.SAMPLE_BYTES", len(site.files["/data.statmt.org/cc-100/ja.txt.xz"]) * 3 // 4)
    done = kitae("fetch", "cc100:ja", "sample")
    assert done.returncode == 0, done.stderr
    texts = [found.content for found in read(tmp_path / "ja-sample.txt.xz", "text")]
    assert 10 < len(texts) < 999
    assert texts == [f"文書{n}。\n二行。\n" for n in range(len(texts))]
    rows = b"".join(b'{"index":{"_id":"%d"}}\n{"text":"%d"}\n' % (n, n) for n in range(5000))
    site.files["/dumps.wikimedia.org/other/cirrussearch/20251229/jawiki-20251229-cirrussearch-content.json.gz"] = gzip.compress(rows)
    path = bring(site, "cirrussearch:ja/20251229", tmp_path, sample=True)
    lines = gzip.decompress(path.read_bytes()).splitlines()
    assert lines == rows.splitlines()[: len(lines)]
    assert 100 < len(lines) < 10_000
    assert len(lines) % 2 == 0
    with pytest.raises(KitaeError, match="no sample can be taken"):
        bring(site, "kyoto", tmp_path, sample=True)
    site.files["/data.statmt.org/cc-100/en.txt.xz"] = b"no archive at all"
    with pytest.raises(KitaeError, match="not what its ending says"):
        bring(site, "cc100:en", tmp_path, sample=True)
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted(["ja-sample.txt.xz", path.name])


def test_a_checksum_of_zenodo(site: Site, tmp_path: Path) -> None:
    body = lzma.compress(b"archive")
    files = [{"key": "other", "checksum": "md5:0"}, {"key": "openwebtext.tar.xz", "checksum": f"md5:{hashlib.md5(body).hexdigest()}"}]
    site.files["/zenodo.org/api/records/3834942"] = json.dumps({"files": files}).encode()
    site.files["/zenodo.org/records/3834942/files/openwebtext.tar.xz"] = body
    assert bring(site, "openwebtext", tmp_path).read_bytes() == body
    site.files["/zenodo.org/api/records/3834942"] = b'{"files": [1]}'
    with pytest.raises(KitaeError, match="does not name openwebtext.tar.xz"):
        bring(site, "openwebtext", tmp_path)


def test_names(tmp_path: Path) -> None:
    assert find("wiktionary:zh-min-nan/latest").places["wiki"] == "zh_min_nanwiktionary"
    for name, expected in (
        ("wikipedai:ja/20210601", 'did you mean "wikipedia"?'),
        ("wikipedia", 'write it as "wikipedia:LANG/DATE", for example "wikipedia:ja/20210601"'),
        ("wikipedia:ja", "wikipedia:ja/20210601"),
        ("wikipedia:../20210601", "wikipedia:ja/20210601"),
        ("wikipedia:ja/2021-06-01", "wikipedia:ja/20210601"),
        ("cc100:ja/20210601", 'write it as "cc100:LANG"'),
        ("kyoto:ja", 'write it as "kyoto"'),
    ):
        done = kitae("fetch", name, tmp_path)
        assert done.returncode == 2
        assert expected in done.stderr
    assert 'write "sample"' in kitae("fetch", "cc100:ja", tmp_path, "smaple").stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)
def test_every_row_is_complete(corpus: object) -> None:
    name = corpus.name.replace("LANG", "ja").replace("DATE", "20210601")  # type: ignore[attr-defined]
    wanted = find(name)
    assert wanted.corpus is corpus
    for template in wanted.corpus.urls:
        address = wanted.filled(template)
        assert address.startswith("https://")
        assert not set("{}") & set(address)
    assert wanted.corpus.licence
    assert wanted.corpus.format in READERS
    SourceConfig(path="x", format=wanted.corpus.format, licence=wanted.corpus.licence)


def test_ctrl_c_keeps_the_part(site: Site, tmp_path: Path) -> None:
    """In a process of its own, while the server is silent in the middle of the file."""
    site.files["/data.statmt.org/cc-100/ja.txt.xz"] = os.urandom(3_000_000)
    site.faults["/data.statmt.org/cc-100/ja.txt.xz"] = ["cut 1000000", "silent 60"]
    environment = os.environ | {"KITAE_MIRROR": site.address}
    line = [sys.executable, "-m", "kitae", "fetch", "cc100:ja", str(tmp_path)]
    process = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(site.asked) < 2:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "run the same command to continue" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "ja.txt.xz.part").stat().st_size == 1_000_000
    assert bring(site, "cc100:ja", tmp_path).read_bytes() == site.files["/data.statmt.org/cc-100/ja.txt.xz"]
    assert site.ranges("/data.statmt.org/cc-100/ja.txt.xz")[-1] == "bytes=1000000-"
