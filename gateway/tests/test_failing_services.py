"""Services that are dead, slow, broken or too many at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from support import Feed, Handler, Issuer, MakeGateway, MakeService, echo, until

from atoll_gateway.balance import RETRY_STOCK_MAX, Load
from atoll_gateway.parts import PARTS


async def test_a_dead_service_is_named(service: MakeService, gateway: MakeGateway) -> None:
    orders, stock = await service("orders", echo), await service("stock", echo)
    front = await gateway(orders, stock)
    await orders.stop()
    for method in ("GET", "POST"):
        answer = await front.call(method, "/orders")
        assert "orders" in answer.problem(503, "service_away")["detail"]
        assert answer.headers["Retry-After"]
    assert (await front.call("GET", "/stock", headers=front.bearer("stock:*"))).status == 200


async def test_a_service_without_instances_is_away_and_not_unknown(
    service: MakeService, gateway: MakeGateway, feed: Feed
) -> None:
    front = await gateway(await service("orders", echo))
    feed.tell("registry", {"services": {}})
    assert "orders" in (await front.call("GET", "/orders")).problem(503, "service_away")["detail"]
    health = (await front.call("GET", "/healthz", headers={})).json
    assert (health["status"], health["services"]["orders"]) == ("degraded", {"ready": False, "instances": {}})


async def test_an_instance_that_is_not_ready_is_not_asked_and_says_why(
    service: MakeService, gateway: MakeGateway, feed: Feed
) -> None:
    orders = await service("orders", echo)
    front = await gateway(orders)
    feed.tell("registry", {"services": {"orders": {"orders/1": orders.slot(ready=False, why="migrating")}}})
    assert "migrating" in (await front.call("GET", "/orders")).problem(503, "service_away")["detail"]
    feed.state = "down: gone"  # then what it said of readiness is old news
    assert (await front.call("GET", "/orders")).status == 200


async def test_a_slow_service_is_a_504(service: MakeService, gateway: MakeGateway) -> None:
    async def slow(request: web.BaseRequest) -> web.Response:
        await request.read()
        await asyncio.sleep(5)
        return web.Response()

    front = await gateway(await service("orders", slow), upstream_seconds_max=0.2)
    assert "orders" in (await front.call("GET", "/orders")).problem(504, "service_timeout")["detail"]
    answer = await front.call("POST", "/orders", data=b"body")
    answer.problem(504, "service_timeout")
    assert answer.headers["Retry-After"], "as every other answer for a service that is away"


async def test_an_upload_may_take_longer_than_the_services_time(service: MakeService, gateway: MakeGateway) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield b"x"
            await asyncio.sleep(0.1)

    front = await gateway(await service("orders", echo), upstream_seconds_max=0.3)
    assert (await front.call("POST", "/orders", data=pieces())).json["body"] == "xxxxxx"


async def test_a_service_that_closes_before_its_answer_is_a_502(service: MakeService, gateway: MakeGateway) -> None:
    async def close(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    front = await gateway(await service("orders", close))
    assert "orders" in (await front.call("POST", "/orders", data=b"x")).problem(502, "service_broken")["detail"]


async def test_a_service_that_closes_in_a_small_answer_is_a_502(service: MakeService, gateway: MakeGateway) -> None:
    front = await gateway(await service("orders", _breaking(length=1000)))
    (await front.call("GET", "/orders")).problem(502, "service_broken")


@pytest.mark.parametrize("length", [1_000_000, None])
async def test_a_service_that_closes_in_a_streamed_answer_is_seen_by_the_client(
    length: int | None, service: MakeService, gateway: MakeGateway
) -> None:
    front = await gateway(await service("orders", _breaking(length=length)))
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
        await front.call("GET", "/orders")
    assert await front.metric("atoll_gateway_client_connections_cut_total", why="upstream_broken") == 1
    assert (await front.call("GET", "/live", headers={})).status == 200


def _breaking(length: int | None) -> Handler:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = length
        await response.prepare(request)
        await response.write(b"begun")
        assert request.transport is not None
        request.transport.close()
        return response

    return answer


async def test_a_stream_that_falls_silent_is_cut(service: MakeService, gateway: MakeGateway) -> None:
    async def silent(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await asyncio.sleep(30)
        return response

    front = await gateway(await service("orders", silent), stream_idle_seconds_max=0.2)
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
        await front.call("GET", "/orders")


async def test_nonsense_from_a_service_is_a_502(gateway: MakeGateway, feed: Feed, service: MakeService) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\nX: a\x00b\r\n\r\nxx")
        writer.close()

    orders = await service("orders", echo)
    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    orders.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    front = await gateway(orders)
    (await front.call("GET", "/orders")).problem(502, "service_broken")
    server.close()


@pytest.mark.parametrize("url", ["", "nonsense", "http://127.0.0.1:99999", "ftp://127.0.0.1"])
async def test_an_address_that_is_none_is_a_dead_service(url: str, service: MakeService, gateway: MakeGateway) -> None:
    orders = await service("orders", echo)
    orders.url = url
    front = await gateway(orders)
    answer = await front.call("GET", "/orders")
    assert answer.status in (502, 503)
    assert "orders" in answer.json["detail"]


async def test_a_get_is_tried_again_at_a_living_instance_a_post_is_not(
    service: MakeService, gateway: MakeGateway, feed: Feed
) -> None:
    alive, dead = await service("orders", echo), await service("orders", echo)
    front = await gateway(alive, eject_seconds=0.001)
    slots = {"orders/1": dead.slot(), "orders/2": alive.slot()}
    await dead.stop()
    feed.tell("registry", {"services": {"orders": slots}})
    headers = front.bearer()
    for _ in range(50):  # which instance is asked first is chance
        assert (await front.call("GET", "/orders", headers=headers)).status == 200
        if await front.metric("atoll_gateway_retries_total", service="orders") >= 3:
            break
    assert await front.metric("atoll_gateway_retries_total", service="orders") >= 3
    posts = {(await front.call("POST", "/orders", headers=headers)).status for _ in range(20)}
    assert posts == {200, 503}


async def test_a_get_on_a_connection_that_just_closed_is_tried_again_a_put_is_not(
    service: MakeService, gateway: MakeGateway
) -> None:
    """What a service's restart does to pooled connections. aiohttp's own client would repeat the PUT too."""

    async def once_then_gone(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        if len(orders.requests) == 2:
            request.transport.abort()
        return web.json_response({"body": (await request.read()).decode()} if len(orders.requests) != 2 else {})

    routes = [("GET", "/orders", "orders:read"), ("PUT", "/orders", "orders:write")]
    orders = await service("orders", once_then_gone, routes=routes)
    front = await gateway(orders)
    assert (await front.call("GET", "/orders")).status == 200
    assert (await front.call("GET", "/orders")).status == 200
    assert len(orders.requests) == 3
    orders.requests[1:] = []
    (await front.call("PUT", "/orders", data=b"once")).problem(502, "service_broken")
    assert len(orders.requests) == 2


async def test_a_drain_lets_requests_end_and_cuts_event_streams(service: MakeService, gateway: MakeGateway) -> None:
    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            await asyncio.sleep(0.3)
            return web.Response(text="done")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await asyncio.sleep(30)
        return response

    orders = await service("orders", slow)
    front = await gateway(orders)
    work = asyncio.create_task(front.call("POST", "/orders"))
    stream = asyncio.create_task(front.call("GET", "/orders"))
    await until("both at the service", lambda: len(orders.requests) == 2)
    async with asyncio.timeout(3):
        await front.gateway.__aexit__()
        assert (await work).body == b"done"
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
            await stream


async def test_an_event_stream_that_begins_in_the_drain_is_cut(service: MakeService, gateway: MakeGateway) -> None:
    draining = asyncio.Event()

    async def late(request: web.BaseRequest) -> web.StreamResponse:
        await draining.wait()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await asyncio.sleep(30)
        return response

    orders = await service("orders", late)
    front = await gateway(orders)
    stream = asyncio.create_task(front.call("GET", "/orders"))
    await until("it at the service", lambda: len(orders.requests) == 1)
    async with asyncio.timeout(3):
        drained = asyncio.create_task(front.gateway.__aexit__())
        await until("the drain to begin", lambda: front.gateway.app[PARTS].draining)
        draining.set()
        await drained
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
            await stream


async def test_an_instance_that_refuses_sits_out(service: MakeService, gateway: MakeGateway, feed: Feed) -> None:
    alive, dead = await service("orders", echo), await service("orders", echo)
    front = await gateway(alive, eject_seconds=60)
    await dead.stop()
    feed.tell("registry", {"services": {"orders": {"orders/1": dead.slot(), "orders/2": alive.slot()}}})
    posts = [(await front.call("POST", "/orders")).status for _ in range(20)]
    assert posts.count(503) <= 1


async def test_one_request_is_tried_twice_at_most(service: MakeService, gateway: MakeGateway) -> None:
    orders = await service("orders", echo)
    front = await gateway(orders)
    await orders.stop()
    (await front.call("GET", "/orders")).problem(503, "service_away")
    assert await front.metric("atoll_gateway_retries_total", service="orders") == 1


async def test_retries_keep_to_their_budget(service: MakeService, gateway: MakeGateway) -> None:
    orders = await service("orders", echo)
    front = await gateway(orders)
    await orders.stop()
    headers = front.bearer()
    for start in range(0, 100, 20):
        calls = [front.call("GET", f"/orders?n={start + number}", headers=headers) for number in range(20)]
        assert {answer.status for answer in await asyncio.gather(*calls)} == {503}
    retries = await front.metric("atoll_gateway_retries_total", service="orders")
    assert 0 < retries <= RETRY_STOCK_MAX + 0.2 * 100


async def test_a_full_service_is_refused_and_its_neighbour_is_not(service: MakeService, gateway: MakeGateway) -> None:
    go = asyncio.Event()

    async def wait(request: web.BaseRequest) -> web.Response:
        await go.wait()
        return web.Response()

    orders, stock = await service("orders", wait), await service("stock", echo)
    front = await gateway(orders, stock, concurrency_max=3)
    held = [asyncio.create_task(front.call("GET", "/orders")) for _ in range(3)]
    await until("three requests at the service", lambda: len(orders.requests) == 3)
    answer = await front.call("GET", "/orders")
    assert "orders" in answer.problem(503, "overloaded")["detail"]
    assert (await front.call("GET", "/stock", headers=front.bearer("stock:*"))).status == 200
    go.set()
    assert {(await one).status for one in held} == {200}
    assert (await front.call("GET", "/orders")).status == 200


def _load(clock: list[float], retry_ratio_max: float = 0.2) -> Load:
    return Load(
        "orders",
        concurrency_max=10,
        retry_ratio_max=retry_ratio_max,
        eject_seconds=1.0,
        clock=lambda: clock[0],
        choose=random.Random(7),
    )


def test_the_instance_with_fewer_in_flight_is_picked() -> None:
    load = _load([0.0])
    with load.at("orders/1"):
        assert {load.pick(["orders/1", "orders/2"]) for _ in range(50)} == {"orders/2"}
    assert {load.pick(["orders/1", "orders/2"]) for _ in range(50)} == {"orders/1", "orders/2"}
    assert load.pick([]) is None


def test_the_last_instance_is_never_left_out() -> None:
    clock = [0.0]
    load = _load(clock)
    load.failed("orders/1")
    assert {load.pick(["orders/1", "orders/2"]) for _ in range(20)} == {"orders/2"}
    load.failed("orders/2")
    assert load.pick(["orders/2"]) == "orders/2"
    clock[0] = 2.0
    assert {load.pick(["orders/1", "orders/2"]) for _ in range(50)} == {"orders/1", "orders/2"}


def test_without_a_ratio_nothing_is_retried() -> None:
    load = _load([0.0], retry_ratio_max=0)
    with load.enter():
        assert not load.may_retry()


async def test_what_was_known_serves_after_a_restart_with_everybody_away(
    service: MakeService, gateway: MakeGateway, feed: Feed, issuer: Issuer, tmp_path: Path
) -> None:
    first = await gateway(await service("orders", echo))
    feed.tell("revocations", issuer.revocations(3, tokens={"revoked": 2**31}))
    headers = first.bearer()
    await first.gateway.__aexit__()
    feed.fall_silent()
    second = await gateway()
    assert (await second.call("GET", "/orders", headers=headers)).status == 200
    ready = (await second.call("GET", "/readyz", headers={})).json
    assert ready == {"ready": True, "why": "", "degraded": ["bus", "revocations"]}
    (await second.call("GET", "/orders", headers=second.bearer(jti="revoked"))).problem(401, "revoked")
    for path in (tmp_path / "data").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


async def test_an_older_key_set_is_refused_after_a_restart_too(
    service: MakeService, gateway: MakeGateway, feed: Feed, issuer: Issuer
) -> None:
    first = await gateway(await service("orders", echo))
    feed.tell("keys", issuer.key_set(7))
    await first.gateway.__aexit__()
    feed.fall_silent()
    second = await gateway()
    withdrawn = Issuer()
    feed.tell("keys", issuer.key_set(6, withdrawn.key.public))
    token = issuer.token(key=withdrawn.key)
    (await second.call("GET", "/orders", headers={"Authorization": f"Bearer {token}"})).problem(401, "unknown_key")
    assert (await second.call("GET", "/orders")).status == 200


async def test_an_unsettled_registry_adds_and_removes_nothing(
    service: MakeService, gateway: MakeGateway, feed: Feed
) -> None:
    orders, stock = await service("orders", echo), await service("stock", echo)
    front = await gateway(orders)
    feed.tell("registry", {"services": {"stock": {"stock/1": stock.slot()}}}, settled=False)
    for path in ("/orders", "/stock"):
        assert (await front.call("GET", path, headers=front.bearer("orders:* stock:*"))).status == 200
    feed.tell("registry", {"services": {"stock": {"stock/1": stock.slot()}}})
    (await front.call("GET", "/orders")).problem(503, "service_away")


async def test_a_damaged_file_is_set_aside_and_said(
    service: MakeService, gateway: MakeGateway, feed: Feed, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("registry.json", "keys.token", "revocations.json"):
        (data / name).write_bytes(b"{damaged")
    front = await gateway(await service("orders", echo))
    assert (await front.call("GET", "/orders")).status == 200
    assert {path.name for path in data.glob("*.unreadable")} == {
        "registry.json.unreadable", "keys.token.unreadable", "revocations.json.unreadable"
    }  # fmt: skip


async def test_a_full_disk_degrades_and_does_not_close_the_door(
    service: MakeService, gateway: MakeGateway, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = await gateway(await service("orders", echo))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("atoll_gateway.storage.Shelf._replace", full)
    other = await service("stock", echo)
    feed.tell("registry", {"services": {"stock": {"stock/1": other.slot()}}})
    assert (await front.call("GET", "/stock", headers=front.bearer("stock:*"))).status == 200
    await until("the failed write", lambda: front.parts.shelf.failure)
    assert "disk" in (await front.call("GET", "/ready", headers={})).json["degraded"]
