"""Clients that break rules: in paths, in heads, in bodies, in time."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from support import Feed, Harness, Issuer, MakeGateway, MakeService, echo, make_settings, until

from atoll_gateway import paths
from atoll_gateway.problems import Problem


@pytest.fixture
async def front(service: MakeService, gateway: MakeGateway) -> Harness:
    orders = await service("orders", echo)
    return await gateway(orders, await service("admin", echo))


TRICKS = [
    "/orders/a%2f..%2f..%2fadmin", "/orders/..%2fadmin", "/orders/../admin", "/orders/./x", "/orders/%2e%2e/admin",
    "/orders/%2E%2E/admin", "/orders/.%2e/admin", "/orders/..;x/admin", "/orders/..;/admin", "/orders//x", "//admin",
    "/orders/%5c..%5cadmin", "/orders\\..\\admin", "/orders/%00", "/orders/%0d%0aX:1", "/orders/%252f..",
    "/orders/%252e%252e/x", "/orders/%25%32%66x", "/orders/%", "/orders/%zz", "/orders/%c0%af", "/orders/%ff",
    "/orders/a#b", "/orders/a b", "/orders/<x>", "http://admin/orders", "/orders/%7f", "/orders/%2F", "/orders/\u00e9",
]  # fmt: skip


@pytest.mark.parametrize("path", TRICKS)
async def test_a_path_that_reads_in_two_ways_is_refused(path: str, front: Harness) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {front.bearer('orders:* admin:*')['Authorization']}\r\n"
    answer = await front.raw(f"{head}Connection: close\r\n\r\n".encode())
    status = int(answer.split(b" ", 2)[1])
    assert status in (400, 404), answer
    assert b"application/problem+json" in answer


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=5))
def test_every_accepted_path_is_read_alike_by_whoever_reads_it_next(segments: list[str]) -> None:
    from urllib.parse import quote, unquote

    raw = "/" + "/".join(quote(segment, safe="") for segment in segments)
    try:
        target = paths.parse(raw)
    except Problem:
        return
    again = paths.parse(target.path)
    assert again == target
    assert again.path == target.path
    assert [unquote(part) for part in target.path[1:].split("/")] == list(target.segments) == segments


@given(st.text(alphabet="/.%25efEF0;\\ab", max_size=30))
def test_no_accepted_path_holds_a_dot_segment_or_a_hidden_separator(raw: str) -> None:
    from urllib.parse import unquote

    try:
        target = paths.parse("/" + raw)
    except Problem:
        return
    twice = unquote(unquote(target.path))
    assert len(twice[1:].split("/")) == len(target.segments)
    assert not {"..", "."} & {part.partition(";")[0] for part in twice[1:].split("/")}


MALFORMED = {
    "two lengths": b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length and chunks": b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded": b"GET /orders HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n folded\r\n\r\n",
    "bare LF": b"GET /orders HTTP/1.1\nHost: x\n\n",
    "NUL": b"GET /orders HTTP/1.1\r\nHost: x\r\nX-A: \x00\r\n\r\n",
    "space before colon": b"GET /orders HTTP/1.1\r\nHost : x\r\n\r\n",
    "no method": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "bad version": b"GET /orders HTTP/9.9\r\nHost: x\r\n\r\n",
    "bad chunk size": b"POST /orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "long line": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "long header": b"GET /orders HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 20_000 + b"\r\n\r\n",
    "many headers": b"GET /orders HTTP/1.1\r\nHost: x\r\n" + b"X-A: 1\r\n" * 50_000 + b"\r\n",
    "no host": b"GET /orders HTTP/1.1\r\nConnection: close\r\n\r\n",
    "two hosts": b"GET /orders HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_request_is_a_problem_without_a_traceback(
    name: str, front: Harness, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    try:
        answer = await front.raw(MALFORMED[name])
    except ConnectionError:  # closed while we were still sending 50,000 headers
        assert name in {"many headers", "long line", "long header"}
        return
    status = int(answer.split(b" ", 2)[1])
    assert status in (400, 401, 431), answer
    assert b"Content-Type: application/problem+json" in answer
    if name != "bad chunk size":
        assert status in (400, 431)
    printed = caplog.text + "".join(capsys.readouterr())
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("headers", "status", "word"),
    [
        (b"Host: x\r\n" + b"X-A: 1\r\n" * 200, 431, b"too many headers"),
        (b"", 400, b'"field":"Host"'),
        (b"Host: a\r\nHost: b\r\n", 400, b'"field":"Host"'),
        (b"Host: x\r\nX-A: \x00Missing 'Host'\r\n", 400, b'"malformed_request"'),
    ],
)
async def test_a_refused_head_is_told_what_is_wrong(headers: bytes, status: int, word: bytes, front: Harness) -> None:
    answer = await front.raw(b"GET /orders HTTP/1.1\r\n" + headers + b"\r\n")
    assert int(answer.split(b" ", 2)[1]) == status, answer
    assert word in answer


async def test_a_bad_chunk_in_an_admitted_body_is_a_problem_without_a_traceback(
    front: Harness, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    head = f"POST /orders HTTP/1.1\r\nHost: x\r\nAuthorization: {front.bearer()['Authorization']}\r\n"
    answer = await front.raw(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n\r\n")
    assert answer.split(b" ")[1] == b"400", answer
    assert b"application/problem+json" in answer
    printed = caplog.text + "".join(capsys.readouterr())
    assert "Traceback" not in printed


async def test_no_second_request_hides_in_a_body(front: Harness) -> None:
    hidden = b"GET /admin HTTP/1.1\r\nHost: x\r\n\r\n"
    token = front.bearer()["Authorization"]
    head = f"POST /orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {token}\r\n"
    answer = await front.raw(head.encode() + b"Content-Length: %d\r\n\r\n" % len(hidden) + hidden)
    assert answer.count(b"HTTP/1.1 ") == 1, "the hidden request was answered"
    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_header_cannot_be_injected_through_a_path_or_query(front: Harness) -> None:
    for path in ("/orders/%0d%0aX-Injected:%201", "/orders?x=%0d%0aX-Injected:%201"):
        answer = await front.call("GET", path)
        assert "X-Injected" not in answer.headers
        if answer.status == 200:
            assert "x-injected" not in answer.json["headers"]


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_above_the_limit_is_refused_by_its_name(
    declared: bool, service: MakeService, gateway: MakeGateway
) -> None:
    orders = await service("orders", echo)
    front = await gateway(orders, body_bytes_max=1000)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    answer = await front.call("POST", "/orders", data=b"x" * 1001 if declared else pieces())
    assert "body_bytes_max = 1000" in answer.problem(413, "body_too_large")["detail"]
    if declared:
        assert not orders.requests
    assert (await front.call("POST", "/orders", data=b"x" * 1000)).status == 200


async def test_a_half_sent_head_is_closed(service: MakeService, gateway: MakeGateway) -> None:
    front = await gateway(await service("orders", echo), head_seconds_max=0.2)
    start = time.monotonic()
    assert await front.raw(b"GET /orders HTTP/1.1\r\nHost: x\r\n") == b""
    assert await front.raw(b"") == b""
    assert time.monotonic() - start < 2
    assert await front.metric("atoll_gateway_client_connections_cut_total", why="head_timeout") == 2


def test_a_half_sent_head_that_comes_with_the_connection_is_closed(issuer: Issuer, feed: Feed, tmp_path: Path) -> None:
    """uvloop, on which the gateway runs, reads from a new connection before aiohttp's task for it has begun."""

    async def send_at_once() -> bytes:
        settings = make_settings(tmp_path, issuer, {"head_seconds_max": 0.2})
        async with aiohttp.ClientSession() as client, Harness(settings, feed, issuer, client) as front:
            with socket.create_connection(front.gateway.address) as connection:
                connection.sendall(b"GET /orders HTTP/1.1\r\nHost: x\r\n")  # the loop does not turn in between
                connection.setblocking(False)
                async with asyncio.timeout(2):
                    return await asyncio.get_running_loop().sock_recv(connection, 1)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(send_at_once()) == b""


async def test_a_head_that_trickles_is_closed_all_the_same(service: MakeService, gateway: MakeGateway) -> None:
    """A deadline, not an idle time-out: slowloris sends a byte now and then."""
    front = await gateway(await service("orders", echo), head_seconds_max=0.3)
    reader, writer = await asyncio.open_connection(*front.gateway.address)
    start = time.monotonic()
    try:
        with pytest.raises((ConnectionError, EOFError)):  # noqa: PT012 - whichever write finds out
            while time.monotonic() - start < 3:
                writer.write(b"G" if time.monotonic() == start else b"E")
                await writer.drain()
                try:
                    async with asyncio.timeout(0.05):
                        if await reader.read(1) == b"":
                            raise EOFError
                except TimeoutError:
                    pass
    finally:
        writer.close()
    assert time.monotonic() - start < 1.5


async def test_the_second_head_of_a_connection_has_a_deadline_too(service: MakeService, gateway: MakeGateway) -> None:
    front = await gateway(await service("orders", echo), head_seconds_max=0.2)
    reader, writer = await asyncio.open_connection(*front.gateway.address)
    writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"}")
    writer.write(b"GET /live HTT")
    async with asyncio.timeout(2):
        assert await reader.read() == b""
    writer.close()


async def test_an_idle_connection_may_wait_longer_than_a_head(service: MakeService, gateway: MakeGateway) -> None:
    front = await gateway(await service("orders", echo), head_seconds_max=0.1, keepalive_seconds=5)
    reader, writer = await asyncio.open_connection(*front.gateway.address)
    for _ in range(2):
        writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(2):
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(0.3)
    writer.close()


async def test_a_body_that_stops_coming_is_a_408(service: MakeService, gateway: MakeGateway) -> None:
    front = await gateway(await service("orders", echo), body_idle_seconds_max=0.2)
    head = f"POST /orders HTTP/1.1\r\nHost: x\r\nAuthorization: {front.bearer()['Authorization']}\r\n"
    answer = await front.raw(head.encode() + b"Content-Length: 10\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 408"), answer
    assert b"body_timeout" in answer


async def test_a_body_that_trickles_for_ever_is_a_408(service: MakeService, gateway: MakeGateway) -> None:
    front = await gateway(await service("orders", echo), request_seconds_max=0.4)

    async def trickle() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x"
            await asyncio.sleep(0.05)

    answer = await front.call("POST", "/orders", data=trickle())
    answer.problem(408, "body_timeout")


async def test_a_client_that_does_not_read_is_cut(service: MakeService, gateway: MakeGateway) -> None:
    from aiohttp import web

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    front = await gateway(await service("orders", endless), body_idle_seconds_max=0.3)
    _, writer = await asyncio.open_connection(*front.gateway.address, limit=1024)
    token = front.bearer()["Authorization"]
    writer.write(f"GET /orders HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
    cut = front.parts.metrics.connections_cut.labels("slow_reader")
    await until("the slow reader to be cut", lambda: cut._value.get() == 1, seconds=5)
    writer.close()


async def test_connections_are_limited(service: MakeService, gateway: MakeGateway) -> None:
    front = await gateway(await service("orders", echo), connections_max=3)
    idle = [await asyncio.open_connection(*front.gateway.address) for _ in range(3)]
    assert await front.raw(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n") == b""
    idle.pop()[1].close()
    async with asyncio.timeout(5):  # until the gateway has seen the end of that one
        answer = b""
        while not answer:
            answer = await front.raw(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b" 200 " in answer.splitlines()[0]
    for _, writer in idle:
        writer.close()


async def test_slow_clients_cost_the_others_nothing(service: MakeService, gateway: MakeGateway) -> None:
    front = await gateway(await service("orders", echo), head_seconds_max=5)
    slow = [await asyncio.open_connection(*front.gateway.address) for _ in range(200)]
    for _, writer in slow:
        writer.write(b"GET /orders HTTP/1.1\r\nHost: x\r\nX: ")
    start = time.monotonic()
    assert (await front.call("GET", "/orders")).status == 200
    assert time.monotonic() - start < 1
    for _, writer in slow:
        writer.close()


async def test_an_unknown_expectation_is_refused(front: Harness) -> None:
    headers = {**front.bearer(), "Expect": "miracles"}
    (await front.call("POST", "/orders", headers=headers, data=b"x")).problem(417, "expectation_failed")


async def test_odd_methods_and_targets_are_problems(front: Harness) -> None:
    for line in (b"OPTIONS *", b"CONNECT x:1", b"TRACE /orders", b"BREW /orders"):
        answer = await front.raw(line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert int(answer.split(b" ", 2)[1]) in (400, 404, 405), answer
        assert b"application/problem+json" in answer


async def test_stray_bytes_in_a_header_are_refused_and_utf8_passes(front: Harness) -> None:
    token = front.bearer()["Authorization"]
    head = f"GET /orders HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nConnection: close\r\n".encode()
    assert b"bad_header" in await front.raw(head + b"X-A: \xff\xfe\r\n\r\n")
    assert b" 200 " in await front.raw(head + "X-A: \u00e9\r\n\r\n".encode())


async def test_an_upgrade_is_an_ordinary_request(front: Harness) -> None:
    token = front.bearer()["Authorization"]
    head = f"GET /orders HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
    upgrade = "Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
    answer = await front.raw(f"{head}{upgrade}".encode())
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"upgrade"' not in answer
