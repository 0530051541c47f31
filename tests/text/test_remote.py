"""Sources named by a URL: a local server that cuts, stalls and lies, and fsspec's file system in memory."""

import hashlib
import http.server
import json
import lzma
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from kitae.core.download import Patience
from kitae.core.errors import KitaeError
from kitae.core.paths import file_name, is_url, locate
from kitae.stages.corpus import SourceConfig
from kitae.text import remote
from kitae.text.readers import read
from kitae.text.remote import download
from tiny_recipe import kitae

TEXT = "\n\n".join(f"{i}番目の文書です。" for i in range(500)).encode()
Answer = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the server's script: one entry a request, the last one for all that follow."""

    server: "Server"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        script = self.server.script
        (script.pop(0) if len(script) > 1 else script[0])(self)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Answer] = []
        self.paths: list[str] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


def whole(data: bytes = TEXT) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def cut(handler: Handler) -> None:
    """States the whole length, sends half and closes."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(TEXT)))
    handler.end_headers()
    handler.wfile.write(TEXT[: len(TEXT) // 2])
    handler.close_connection = True


def chunked(*, ended: bool) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(f"{len(TEXT):x}\r\n".encode() + TEXT + (b"\r\n0\r\n\r\n" if ended else b"\r\n"))
        handler.close_connection = True

    return answer


def status(code: int) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def redirect(handler: Handler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "/moved.txt")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def reset(handler: Handler) -> None:
    handler.connection.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setattr(remote, "PATIENCE", Patience(attempts=3, wait=0.0))
    monkeypatch.setenv("KITAE_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def bring(url: str) -> Path:
    path = locate(url)
    download(url, path)
    assert [item.name for item in path.parent.iterdir()] == [path.name]  # nothing half is left
    return path


def test_where_a_copy_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITAE_CACHE", "/cache")
    first, second = locate("https://a.example/x/ja.txt.xz?download=1#sha256=ab"), locate("https://b.example/x/ja.txt.xz")
    assert first.name == second.name == "ja.txt.xz"
    assert first.parent != second.parent
    assert first.is_relative_to("/cache/sources")
    monkeypatch.delenv("KITAE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert locate("s3://bucket/a.jsonl").is_relative_to("/xdg/kitae/sources")
    assert [is_url(name) for name in ("memory://a", "hf://datasets/a/b", "C:/a.txt", "task:a/train", "sample:general", "a/b.txt")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip
    assert file_name("zip://inner.txt::https://a.example/x.zip") == "inner.txt"
    assert SourceConfig(path="https://a.example/x/ja.txt.xz?download=1#sha256=ab").label == "ja"


@pytest.mark.parametrize("answer", [whole(), chunked(ended=True), redirect], ids=["length", "chunked", "redirect"])
def test_a_file_over_http(server: Server, answer: Answer) -> None:
    server.script = [answer, whole()]
    path = bring(server.url("ja.txt"))
    assert path.read_bytes() == TEXT
    assert len(list(read(path, "text"))) == 500


@pytest.mark.parametrize("fault", [cut, chunked(ended=False), reset, status(503)], ids=["cut", "chunks", "reset", "busy"])
def test_a_cut_is_tried_again_and_never_a_short_file(server: Server, fault: Answer) -> None:
    server.script = [fault, fault, whole()]
    assert bring(server.url("ja.txt")).read_bytes() == TEXT
    server.script, server.paths = [fault], []
    url = server.url("other.txt")
    with pytest.raises(KitaeError, match="failed 3 times") as caught:
        download(url, locate(url))
    assert len(server.paths) >= 3
    assert caught.value.where == url
    assert not locate(url).exists()  # what came of it is taken up by the next run


def test_answers_that_no_second_try_mends(server: Server) -> None:
    server.script = [status(404)]
    with pytest.raises(KitaeError, match="404"):
        bring(server.url("gone.txt"))
    assert len(server.paths) == 1
    server.server_close()
    with pytest.raises(KitaeError, match="failed 3 times"):
        bring(server.url("ja.txt"))


def test_checksums(server: Server) -> None:
    server.script = [whole()]
    right = hashlib.sha256(TEXT).hexdigest()
    path = bring(server.url(f"ja.txt#sha256={right}"))
    assert path.read_bytes() == TEXT
    assert server.paths == ["/ja.txt"]
    url = server.url(f"ja.txt#sha256={'0' * 64}")
    with pytest.raises(KitaeError, match=right):
        download(url, locate(url))
    assert list(locate(url).parent.iterdir()) == []


def test_a_page_instead_of_the_archive_is_named(server: Server) -> None:
    server.script = [whole(b"<!DOCTYPE html><html>Please log in</html>")]
    with pytest.raises(KitaeError, match="sends a web page"):
        list(read(bring(server.url("ja.txt.xz")), "text"))


def page(name: str, value: str) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(b"<!DOCTYPE html><html>Please log in</html>")
        handler.close_connection = True

    return answer


def test_a_page_is_a_source_only_where_its_name_says_so(server: Server) -> None:
    server.script = [page("Content-Type", "text/html")]
    for name in ("corpus.txt", "corpus"):
        with pytest.raises(KitaeError, match="sends a web page instead of the file"):
            bring(server.url(name))
        assert not list(locate(server.url(name)).parent.iterdir())
    assert bring(server.url("qualitative.htm")).read_bytes().startswith(b"<!DOCTYPE html>")


def test_servers_that_send_us_elsewhere_or_state_nonsense(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    def away(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "ftp://127.0.0.1/etc/passwd")
        handler.end_headers()
        handler.close_connection = True

    server.script = [away]
    with pytest.raises(KitaeError, match="which is not safe"):
        bring(server.url("a.txt"))
    server.script = [page("Content-Length", "abc")]
    assert bring(server.url("b.html")).stat().st_size
    assert "so that a cut cannot be seen" in caplog.text
    for address in ("http://[::1", "http://127.0.0.1:port/a.txt"):
        with pytest.raises(KitaeError, match="is no address"):
            download(address, locate(server.url("c.txt")))
    server.script = [whole()]
    assert bring(server.url("日本 語.txt")).read_bytes() == TEXT
    assert server.paths[-1] == "/%E6%97%A5%E6%9C%AC%20%E8%AA%9E.txt"


@pytest.mark.parametrize(
    ("error", "attempts", "message"),
    [
        (FileNotFoundError("gone"), 1, "cannot be copied: gone"),
        (PermissionError("locked"), 1, "cannot be copied: locked"),
        (TypeError("no argument"), 1, "cannot be opened: TypeError: no argument"),
        (zipfile.BadZipFile("no zip"), 1, "cannot be opened: BadZipFile: no zip"),
        (ImportError("install x"), 1, "cannot be opened: ImportError: install x"),
        (TimeoutError("slow"), 3, "failed 3 times: slow"),
    ],
)
def test_what_file_systems_raise(server: Server, monkeypatch: pytest.MonkeyPatch, error: Exception, attempts: int, message: str) -> None:
    asked = []

    def refuse(self: object, path: str, **_: object) -> bool:
        asked.append(path)
        raise error

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "isfile", refuse)
    with pytest.raises(KitaeError, match=message):
        bring("memory://corpus/a.txt")
    assert len(asked) == attempts


def test_files_and_folders_of_other_file_systems(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/corpus/b/ja.txt.xz", lzma.compress(TEXT))
    memory.pipe("/corpus/a.txt", TEXT)
    try:
        assert len(list(read(bring("memory://corpus/b/ja.txt.xz"), "text"))) == 500
        folder = bring("memory://corpus")
        assert sorted(item.relative_to(folder).as_posix() for item in folder.rglob("*.*")) == ["a.txt", "b/ja.txt.xz"]
        assert len(list(read(folder, "text"))) == 1000
        with pytest.raises(KitaeError, match="a folder has no sha256"):
            bring(f"memory://corpus#sha256={'0' * 64}")
        with pytest.raises(KitaeError, match="nothing at this address"):
            bring("memory://none")
        stated = memory.info("/corpus/a.txt")
        monkeypatch.setattr(type(memory), "info", lambda self, path, **_: {**stated, "size": len(TEXT) + 1})
        with pytest.raises(KitaeError, match=f"cut after {len(TEXT):,} of {len(TEXT) + 1:,} bytes"):
            bring("memory://corpus/a.txt")
    finally:
        memory.store.clear()
    with pytest.raises(KitaeError, match="cannot be opened"):
        bring("nosuchscheme://a/b")


def test_a_recipe_downloads_once_and_goes_by_content(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    server.script = [cut, whole()]
    url = server.url("ja.txt")
    recipe = f'output = "run"\n[corpus]\nsource = [{{ path = "{url}", name = "ja" }}]\n'
    (tmp_path / "r.toml").write_text(recipe, encoding="utf-8")
    planned = kitae("plan", "r.toml")
    assert "is not downloaded yet" in " ".join(planned.stdout.split())
    assert server.paths == []  # planning asks nobody
    done = kitae("run", "r.toml")
    assert done.returncode == 0, done.stderr
    assert server.paths == ["/ja.txt"] * 2
    assert json.loads((tmp_path / "run" / "corpus" / "corpus.json").read_text(encoding="utf-8"))["documents"]["train"] == 500
    (tmp_path / "own.txt").write_bytes(TEXT)
    (tmp_path / "r.toml").write_text(recipe.replace(url, "own.txt"), encoding="utf-8")
    assert "done" in kitae("plan", "r.toml").stdout  # the same text from another place is the same corpus
    (tmp_path / "r.toml").write_text(recipe, encoding="utf-8")
    locate(url).unlink()
    assert kitae("run", "r.toml").returncode == 0  # a result outlives its source, and nothing is asked for again
    assert len(server.paths) == 2
    server.script = [cut]
    failed = kitae("run", "r.toml", "--set", "corpus.min_characters=2")
    assert failed.returncode == 2
    assert "cut after" in failed.stderr
