"""Jaeger's query API: read as the real one answers, and no viewer waits for another's while it hangs."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from atoll_dashboard import jaeger
from atoll_dashboard.fleetview import View
from atoll_dashboard.gateway import Trouble
from atoll_dashboard.jaeger import Jaeger, Search, TooMuch
from atoll_dashboard.pages import traces

Answer = Callable[[str], tuple[int, str, bytes | Iterator[bytes]]]

PATIENCE_SECONDS = jaeger._PATIENCE_SECONDS


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no Jaeger that hangs."""
    monkeypatch.setattr(jaeger, "_PATIENCE_SECONDS", 10.0)


@contextmanager
def server(answer: Answer, hold: threading.Event | None = None, location: str = "") -> Iterator[str]:
    """Whoever is at Jaeger's address; a body in pieces has no length, and goes on until nobody reads it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if hold is not None:
                hold.wait(30)
            status, kind, body = answer(self.path)
            with suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                if location:
                    self.send_header("Location", location)
                if isinstance(body, bytes):
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                for piece in [body] if isinstance(body, bytes) else body:
                    self.wfile.write(piece)

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

    def answer(path: str) -> tuple[int, str, bytes | Iterator[bytes]]:
        asked.append(path.split("?")[0])
        return of_json({"data": []})(path) if "/api/" in path else of_html(b"<title>Jaeger UI</title>")(path)

    with server(answer) as url:
        client = Jaeger(f"{url}/base", "https://ops.example/jaeger")
        assert client.search(Search("gateway")) == []
        assert client.trace("a1") is None
        assert client.has_ui()
        assert asked == ["/base/api/traces", "/base/api/traces/a1", "/base/"]
        assert client.page_of("a1") == "https://ops.example/jaeger/trace/a1"
        assert Jaeger(f"{url}/base").page_of("a1") == f"{url}/base/trace/a1"


def test_the_built_one_has_no_pages() -> None:
    for page, has in ((b"<p>This is not the Jaeger UI</p>", False), (b"<title>Jaeger UI</title>", True)):
        with server(of_html(page)) as url:
            assert Jaeger(url).has_ui() is has
    assert not Jaeger("http://127.0.0.1:9").has_ui()


def test_nobody_is_asked_but_who_was_named() -> None:
    asked: list[str] = []

    def elsewhere(path: str) -> tuple[int, str, bytes | Iterator[bytes]]:
        asked.append(path)
        return (of_json({"data": []}) if "/api/" in path else of_html(b"<title>Jaeger UI</title>"))(path)

    with server(elsewhere) as other:
        for kind in ("application/json", "text/html"):
            with server(lambda _, kind=kind: (302, kind, b"{}"), location=f"{other}/api/traces") as url:  # type: ignore[misc]
                with pytest.raises(Trouble):
                    Jaeger(url).search(Search("gateway"))
                assert not Jaeger(url).has_ui()
    assert asked == []


def test_more_than_is_read_is_said_and_the_rest_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaeger, "_ANSWER_BYTES_MAX", 1024 * 1024)
    sent = [0]

    def endless() -> Iterator[bytes]:
        while True:
            sent[0] += 64 * 1024
            yield b" " * 64 * 1024

    with server(lambda _: (200, "application/json", endless())) as url:
        client = Jaeger(url)
        for _ in range(2):  # the second from what is kept
            with pytest.raises(TooMuch, match="more than 1 MiB"):
                client.search(Search("gateway"))
        said = traces._without_jaeger(TooMuch(), View(None, None, 0.0, float("inf"), float("inf")))
        assert "more than 1 MiB" in said
        assert "gone" not in said
    assert sent[0] < 16 * 1024 * 1024, "what the machine holds on the way, and no more"
    whole = b'{"data": []}'.ljust(1024 * 1024)
    with server(lambda _: (200, "application/json", whole)) as url:
        assert Jaeger(url).search(Search("gateway")) == []


def test_a_page_without_end_is_not_read_to_its_end() -> None:
    with server(lambda _: (200, "text/html", itertools.repeat(b"<p>Jaeger UI</p>" * 4096))) as url:
        assert Jaeger(url).has_ui()


def test_a_jaeger_that_hangs_does_not_make_viewers_wait_for_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaeger, "_PATIENCE_SECONDS", PATIENCE_SECONDS)
    hold = threading.Event()
    with server(of_json({"data": []}), hold) as url:
        client = Jaeger(url)

        def look() -> float:
            began = time.monotonic()
            with suppress(Trouble):
                client.search(Search("gateway"))
            return time.monotonic() - began

        with ThreadPoolExecutor(4) as pool:
            took = [one.result() for one in [pool.submit(look) for _ in range(4)]]
    assert max(took) < 7, f"the last of four viewers waited {max(took):.0f} s"
