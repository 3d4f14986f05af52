"""A server on the loopback address that plays the host of Jaeger's releases, well or badly."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Host:
    """What it answers: `files` by path, or a redirect, a status, silence. `asked` has every path that was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.status = 200
        self.cut_after: int | None = None  # bytes, then the connection ends
        self.hang_after: int | None = None  # bytes, then nothing more comes
        self.chunk_seconds = 0.0
        self.asked: list[str] = []
        self.url = ""
        self.over = threading.Event()

    def add(self, path: str, content: bytes) -> None:
        """Have a file."""
        self.files[path] = content


class _Handler(http.server.BaseHTTPRequestHandler):
    host: Host

    def do_GET(self) -> None:
        host = self.host
        host.asked.append(self.path)
        if self.path in host.redirects:
            self.send_response(302)
            self.send_header("Location", host.redirects[self.path])
            self.end_headers()
            return
        content = host.files.get(self.path)
        if content is None or host.status != 200:
            self.send_error(404 if host.status == 200 else host.status)
            return
        self.send_response(200)
        if host.cut_after is None:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self._send(content)

    def _send(self, content: bytes) -> None:
        host, sent = self.host, 0
        while sent < len(content):
            if host.hang_after is not None and sent >= host.hang_after:
                host.over.wait(30)
                return
            end = min(len(content), sent + 4096, *(one for one in (host.cut_after, host.hang_after) if one))
            if end == sent:
                return
            try:
                self.wfile.write(content[sent:end])
            except OSError:  # the client has had enough, as some tests want it to
                return
            sent = end
            time.sleep(host.chunk_seconds)

    def log_message(self, *_: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


@contextmanager
def release_host() -> Iterator[Host]:
    """A running host, ended with the block."""
    host = Host()
    handler = type("Handler", (_Handler,), {"host": host})
    with _Server(("127.0.0.1", 0), handler) as server:
        host.url = f"http://127.0.0.1:{server.server_address[1]}"
        serving = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        serving.start()
        try:
            yield host
        finally:
            host.over.set()
            server.shutdown()
            serving.join()


def left_in(cache: Path) -> list[str]:
    """What a cache holds besides lock files, which mean nothing unless they are held."""
    files = [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return sorted(str(path.relative_to(cache)) for path in files)
