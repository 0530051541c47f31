"""A real web server on this machine that misbehaves on order: it cuts, refuses, lies and changes its mind."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What is served, by path; `faults` are used up one a request of a path, what was asked is kept in `asked`."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    address: str = ""

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"{self.address}{path}"

    def ranges(self, path: str) -> list[str | None]:
        """The Range header of every request of a path, in order."""
        return [asked for name, asked, _ in self.asked if name == path]


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers GET as the site's faults say, and else as a good server with ETags and ranges does."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """One answer, then the connection is closed."""
            self.close_connection = True
            site.asked.append((self.path, self.headers["Range"], self.headers["If-Range"]))
            faults = site.faults.get(self.path, [])
            fault, _, value = (faults.pop(0) if faults else "").partition(" ")
            if fault == "change":
                site.files[self.path], fault, value = value.encode(), "", ""
            if fault == "silent":
                time.sleep(float(value))
            elif fault == "redirect":
                self._head(302, 0, Location=value)
            elif fault.isdigit():
                more = {"Retry-After": value} if value else {}
                self._head(int(fault), 0, **more)
            elif fault == "page":
                body = b"<!DOCTYPE html><html><body>Please log in</body></html>"
                self._head(200, len(body), **{"Content-Type": value or "text/html; charset=utf-8"})
                self.wfile.write(body)
            elif self.path not in site.files:
                self._head(404, 0)
            else:
                self._file(site.files[self.path], fault, int(value or 0))

        def _file(self, body: bytes, fault: str, keep: int) -> None:
            tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            wanted = self.headers["Range"]
            first, status, more = 0, 200, {} if fault == "untagged" else {"ETag": tag}
            if wanted and not fault.startswith("whole") and self.headers["If-Range"] in (None, tag):
                begin, _, end = wanted.removeprefix("bytes=").partition("-")
                first, last = int(begin), min(len(body), int(end) + 1 if end else len(body)) - 1
                if first >= len(body):
                    return self._head(416, 0)
                status, more["Content-Range"] = 206, f"bytes {first}-{last}/{len(body)}"
                body = body[: last + 1]
            if fault == "chunked":  # no length; cut off after `keep` bytes, without the last chunk
                self._head(status, None, **more, **{"Transfer-Encoding": "chunked"})
                self.wfile.write(f"{keep:x}\r\n".encode() + body[first : first + keep] + b"\r\n")
                return None
            self._head(status, None if fault == "unstated" else len(body) - first, **more)
            self.wfile.write(body[first : first + keep] if fault in ("cut", "whole-cut", "unstated") else body[first:])
            return None

        def _head(self, status: int, length: int | None, **more: str) -> None:
            self.send_response(status)
            headers = {"Content-Type": "application/octet-stream", "Connection": "close", **more}
            for name, value in headers.items():
                self.send_header(name, value)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: the tests look at `asked`."""

    return Handler


@contextlib.contextmanager
def serving() -> Iterator[Site]:
    """A site that is up while the block runs."""
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(site))
    server.daemon_threads = True
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
