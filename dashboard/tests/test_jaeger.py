"""Jaeger's query API: read as the real one answers, and no viewer waits for another's while it hangs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from atoll_dashboard.gateway import Trouble
from atoll_dashboard.jaeger import Jaeger, Search

Answer = Callable[[str], tuple[int, str, bytes]]


@contextmanager
def server(answer: Answer, hold: threading.Event | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if hold is not None:
                hold.wait(30)
            status, kind, body = answer(self.path)
            with suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}"
    finally:
        if hold is not None:
            hold.set()
        running.shutdown()
        running.server_close()


def of_json(document: object, status: int = 200) -> Answer:
    return lambda _: (status, "application/json", json.dumps(document).encode())


def of_html(page: bytes) -> Answer:
    return lambda _: (200, "text/html; charset=utf-8", page)


@pytest.mark.parametrize(
    "answer",
    [
        of_html(b"<html>somebody's page</html>"),
        lambda _: (200, "application/json", b"{not json"),
        of_json([1, 2]),
        of_json({"data": "x"}),
        of_json({"data": [{"spans": [{}]}]}),
        of_json({"errors": [{"code": 500}]}, 500),
    ],
)
def test_whoever_else_answers_at_its_address_is_trouble_and_no_crash(answer: Answer) -> None:
    with server(answer) as url:
        with pytest.raises(Trouble) as trouble:
            Jaeger(url).search(Search("gateway"))
        assert trouble.value.part == "jaeger"


def test_a_base_path_leads_all_that_is_asked_and_linked() -> None:
    asked: list[str] = []

    def answer(path: str) -> tuple[int, str, bytes]:
        asked.append(path.split("?")[0])
        return of_json({"data": []})(path) if "/api/" in path else of_html(b"<title>Jaeger UI</title>")(path)

    with server(answer) as url:
        jaeger = Jaeger(f"{url}/base", "https://ops.example/jaeger")
        assert jaeger.search(Search("gateway")) == []
        assert jaeger.trace("a1") is None
        assert jaeger.has_ui()
        assert asked == ["/base/api/traces", "/base/api/traces/a1", "/base/"]
        assert jaeger.page_of("a1") == "https://ops.example/jaeger/trace/a1"
        assert Jaeger(f"{url}/base").page_of("a1") == f"{url}/base/trace/a1"


def test_the_built_one_has_no_pages() -> None:
    for page, has in ((b"<p>This is not the Jaeger UI</p>", False), (b"<title>Jaeger UI</title>", True)):
        with server(of_html(page)) as url:
            assert Jaeger(url).has_ui() is has
    assert not Jaeger("http://127.0.0.1:9").has_ui()


def test_a_jaeger_that_hangs_does_not_make_viewers_wait_for_one_another() -> None:
    hold = threading.Event()
    with server(of_json({"data": []}), hold) as url:
        jaeger = Jaeger(url)

        def look() -> float:
            began = time.monotonic()
            with suppress(Trouble):
                jaeger.search(Search("gateway"))
            return time.monotonic() - began

        with ThreadPoolExecutor(4) as pool:
            took = [one.result() for one in [pool.submit(look) for _ in range(4)]]
    assert max(took) < 7, f"the last of four viewers waited {max(took):.0f} s"
