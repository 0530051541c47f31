"""Downloads from a server that cuts, lies, refuses and changes its files: whole and right, or an error that says what and where."""

import fcntl
import hashlib
import http.client
import io
import json
import random
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from kitae.core.download import Checksum, Patience, Remote, _Redirects, beginning, download
from kitae.core.errors import KitaeError
from serving import Site, serving

BODY = random.Random(1).randbytes(1_000_000)
OTHER = random.Random(2).randbytes(1_000_000)
QUICK = Patience(timeout=5, attempts=3, wait=0.01)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        site.files["/a.bz2"] = BODY
        yield site


def sha1(data: bytes) -> Checksum:
    return Checksum(algorithm="sha1", digest=hashlib.sha1(data).hexdigest())


def remote(site: Site, *paths: str, checksum: Checksum | None = None) -> Remote:
    return Remote(name="a.bz2", urls=tuple(site.url(path) for path in paths or ("/a.bz2",)), checksum=checksum)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("checksum", [None, sha1(BODY), Checksum(algorithm="md5", digest=hashlib.md5(BODY).hexdigest())])
def test_a_file_comes_whole_and_is_not_fetched_twice(site: Site, tmp_path: Path, checksum: Checksum | None) -> None:
    for _ in range(2):
        assert download(remote(site, checksum=checksum), tmp_path / "new" / "folder", patience=QUICK).read_bytes() == BODY
    assert site.ranges("/a.bz2") == [None]
    assert left(tmp_path / "new" / "folder") == ["a.bz2"]


@pytest.mark.parametrize("checksum", [None, sha1(BODY)])
def test_a_cut_connection_is_taken_up_where_it_was(site: Site, tmp_path: Path, checksum: Checksum | None) -> None:
    """More cuts than failures are borne in a row: every one of these brought something."""
    site.faults["/a.bz2"] = ["cut 300000", "cut 100000", "cut 100", "cut 5", "503"]
    assert download(remote(site, checksum=checksum), tmp_path, patience=QUICK).read_bytes() == BODY
    assert site.ranges("/a.bz2") == [None, *(f"bytes={n}-" for n in (300_000, 400_000, 400_100, 400_105, 400_105))]
    assert left(tmp_path) == ["a.bz2"]


def test_what_is_left_of_a_failure_is_used_by_the_next_run(site: Site, tmp_path: Path) -> None:
    site.faults["/a.bz2"] = ["cut 700000", "503", "503", "503"]
    with pytest.raises(KitaeError, match=r"a.bz2 could not be downloaded: 127.0.0.1:\d+ failed 3 times, last: answers 503") as caught:
        download(remote(site, checksum=sha1(BODY)), tmp_path, patience=QUICK)
    assert "run the same command" in caught.value.cure
    assert left(tmp_path) == ["a.bz2.part", "a.bz2.part.json"]
    assert download(remote(site, checksum=sha1(BODY)), tmp_path, patience=QUICK).read_bytes() == BODY
    assert site.ranges("/a.bz2")[-1] == "bytes=700000-"
    assert left(tmp_path) == ["a.bz2"]


def test_a_server_without_ranges_begins_again(site: Site, tmp_path: Path) -> None:
    site.faults["/a.bz2"] = ["cut 300000", "whole"]
    assert download(remote(site, checksum=sha1(BODY)), tmp_path, patience=QUICK).read_bytes() == BODY


def test_a_server_that_always_cuts_at_the_same_place_is_given_up(site: Site, tmp_path: Path) -> None:
    site.faults["/a.bz2"] = ["whole-cut 1000"] * 9
    with pytest.raises(KitaeError, match="failed 3 times, last: the connection was cut after 1,000 of 1,000,000 bytes"):
        download(remote(site), tmp_path, patience=QUICK)
    assert len(site.asked) == 3


@pytest.mark.parametrize("checksum", [None, sha1(OTHER)])
def test_a_file_that_changes_between_two_tries_is_fetched_anew(site: Site, tmp_path: Path, checksum: Checksum | None) -> None:
    site.files["/a.bz2"] = b"old" * 1000
    site.faults["/a.bz2"] = ["cut 1500", "change new content of another length"]
    got = download(remote(site, checksum=None if checksum is None else sha1(b"new content of another length")), tmp_path, patience=QUICK)
    assert got.read_bytes() == b"new content of another length"
    assert site.asked[1][2] == f'"{hashlib.sha256(b"old" * 1000).hexdigest()[:16]}"'


def test_parts_of_different_files_are_noticed_by_the_checksum(site: Site, tmp_path: Path) -> None:
    """Another server goes on with what the first began; the one's file is not the other's."""
    site.files |= {"/b.bz2": OTHER}
    site.faults["/b.bz2"] = ["cut 400000", "503", "503", "503"]
    got = download(remote(site, "/b.bz2", "/a.bz2", checksum=sha1(BODY)), tmp_path, patience=QUICK)
    assert got.read_bytes() == BODY
    assert site.ranges("/a.bz2") == ["bytes=400000-", None]


def test_without_a_checksum_no_server_goes_on_with_anothers_part(site: Site, tmp_path: Path) -> None:
    site.files |= {"/b.bz2": OTHER}
    site.faults["/b.bz2"] = ["cut 400000", "503", "503", "503"]
    assert download(remote(site, "/b.bz2", "/a.bz2"), tmp_path, patience=QUICK).read_bytes() == BODY
    assert site.ranges("/a.bz2") == [None]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("404", "answers 404"),
        ("403", "answers 403"),
        ("page", "sends a web page"),
        ("page application/x-bzip2", "sends a web page"),
        ("redirect file:///etc/passwd", "answers 302"),
        ("redirect ftp://127.0.0.1/a", "ftp://127.0.0.1/a, which is not safe"),
    ],
)
def test_what_is_not_the_file_is_refused_and_the_next_server_asked(site: Site, tmp_path: Path, fault: str, reason: str) -> None:
    site.faults["/b.bz2"] = [fault] * 6
    with pytest.raises(KitaeError, match=reason):
        download(remote(site, "/b.bz2"), tmp_path, patience=QUICK)
    assert left(tmp_path) == []
    site.faults["/b.bz2"] = [fault] * 6
    assert download(remote(site, "/b.bz2", "/a.bz2"), tmp_path, patience=QUICK).read_bytes() == BODY


def test_a_wrong_checksum_is_refused_and_nothing_is_left(site: Site, tmp_path: Path) -> None:
    site.files["/b.bz2"] = OTHER
    with pytest.raises(KitaeError, match=f"{sha1(OTHER).digest}, but {sha1(BODY).digest} is published"):
        download(remote(site, "/b.bz2", checksum=sha1(BODY)), tmp_path, patience=QUICK)
    assert left(tmp_path) == []
    assert download(remote(site, "/b.bz2", "/a.bz2", checksum=sha1(BODY)), tmp_path, patience=QUICK).read_bytes() == BODY


def test_a_redirect_is_followed_with_its_range(site: Site, tmp_path: Path) -> None:
    site.faults |= {"/here": [f"redirect {site.url('/a.bz2')}"] * 2, "/a.bz2": ["cut 500000"]}
    assert download(remote(site, "/here", checksum=sha1(BODY)), tmp_path, patience=QUICK).read_bytes() == BODY
    assert site.ranges("/a.bz2") == [None, "bytes=500000-"]


def test_https_never_becomes_http() -> None:
    request = urllib.request.Request("https://a.example/x")
    with pytest.raises(Exception, match="not safe"):
        _Redirects().redirect_request(request, io.BytesIO(), 302, "Found", http.client.HTTPMessage(), "http://a.example/x")


def test_a_passing_refusal_is_waited_for(site: Site, tmp_path: Path) -> None:
    site.faults["/a.bz2"] = ["503", "429 1"]
    begun = time.monotonic()
    assert download(remote(site), tmp_path, patience=QUICK).read_bytes() == BODY
    assert time.monotonic() - begun >= 1, "Retry-After was not waited for"


def test_a_silent_server_and_a_dead_one(site: Site, tmp_path: Path) -> None:
    site.faults["/a.bz2"] = ["silent 1", "silent 1"]
    dead = Remote(name="a.bz2", urls=("http://127.0.0.1:9/a.bz2", site.url("/a.bz2")))
    with pytest.raises(KitaeError, match=r"127.0.0.1:9 failed 2 times, last: Connection refused; .* the server is silent"):
        download(dead, tmp_path, patience=Patience(timeout=0.2, attempts=2, wait=0.01))


def test_a_length_that_nobody_says(site: Site, tmp_path: Path) -> None:
    """Chunked and cut off: not a shorter file, but a failure, and then the whole."""
    site.faults["/a.bz2"] = ["chunked 300000"]
    assert download(remote(site, checksum=sha1(BODY)), tmp_path, patience=QUICK).read_bytes() == BODY


def test_what_is_there_is_checked(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.bz2").write_bytes(OTHER)
    with pytest.raises(KitaeError, match="is there already") as caught:
        download(remote(site, checksum=sha1(BODY)), tmp_path, patience=QUICK)
    assert "remove it" in caught.value.cure
    assert site.asked == []


def test_a_whole_part_is_only_named(site: Site, tmp_path: Path) -> None:
    """The process died between the last byte and the new name."""
    (tmp_path / "a.bz2.part").write_bytes(BODY)
    (tmp_path / "a.bz2.part.json").write_text(json.dumps({"url": site.url("/a.bz2"), "mark": "", "total": len(BODY)}))
    assert download(remote(site, checksum=sha1(BODY)), tmp_path, patience=QUICK).read_bytes() == BODY
    assert site.asked == []
    assert left(tmp_path) == ["a.bz2"]


def test_a_damaged_part_or_note_costs_only_time(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.bz2.part").write_bytes(OTHER[:1000])
    (tmp_path / "a.bz2.part.json").write_text("{")
    assert download(remote(site, checksum=sha1(BODY)), tmp_path, patience=QUICK).read_bytes() == BODY
    (tmp_path / "a.bz2").unlink()
    (tmp_path / "a.bz2.part").write_bytes(BODY + b"too much")
    assert download(remote(site, checksum=sha1(BODY)), tmp_path, patience=QUICK).read_bytes() == BODY


def test_another_process_at_the_same_file(site: Site, tmp_path: Path) -> None:
    with (tmp_path / "a.bz2.part").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(KitaeError, match="being downloaded by another process"):
            download(remote(site), tmp_path, patience=QUICK)


def test_a_full_disk_keeps_the_part(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder]).returncode:
        pytest.skip("a tmpfs cannot be mounted here: it needs root")
    try:
        with pytest.raises(KitaeError, match="are missing, but only") as caught:
            download(remote(site), folder, patience=QUICK)
        assert "free some space" in caught.value.cure
        site.faults["/a.bz2"] = ["chunked 900000"]  # no length, so that nothing warns
        with pytest.raises(KitaeError, match="the disk is full"):
            download(remote(site), folder, patience=QUICK)
        part = folder / "a.bz2.part"
        assert 0 < part.stat().st_size < len(BODY)
        assert BODY.startswith(part.read_bytes())
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_folder_that_cannot_be_made(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KitaeError, match="cannot be written"):
        download(remote(site), tmp_path / "file" / "folder", patience=QUICK)


def test_the_beginning_of_a_file(site: Site) -> None:
    assert beginning(remote(site), 5000, patience=QUICK) == BODY[:5000]
    site.faults["/a.bz2"] = ["whole", "cut 10"]
    assert beginning(remote(site), 5000, patience=QUICK) == BODY[:5000]
    assert beginning(remote(site), 2_000_000, patience=QUICK) == BODY
    assert site.ranges("/a.bz2") == ["bytes=0-4999", "bytes=0-4999", "bytes=0-1999999", "bytes=0-1999999"]


def test_a_length_that_nobody_states_is_warned_of(site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site.faults["/a.bz2"] = ["unstated 1000"]
    assert download(remote(site), tmp_path, patience=QUICK).stat().st_size == 1000  # nothing tells that it was cut
    assert "does not say how long the file is" in caplog.text
    caplog.clear()
    site.faults["/a.bz2"] = [f"unstated {len(BODY)}"]
    assert download(remote(site, checksum=sha1(BODY)), tmp_path / "checked", patience=QUICK).read_bytes() == BODY
    assert "does not say" not in caplog.text
