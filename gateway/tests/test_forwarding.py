"""What reaches a service, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from support import Issuer, MakeGateway, MakeService, Service, assertion_of, echo


async def test_a_request_reaches_its_service_and_its_answer_the_client(
    service: MakeService, gateway: MakeGateway, issuer: Issuer
) -> None:
    orders = await service("orders", echo)
    front = await gateway(orders)
    answer = await front.call("GET", "/orders/7?limit=2&x=%20")
    assert answer.status == 200
    assert answer.json["path"] == "/orders/7?limit=2&x=%20"
    claims = assertion_of(orders.requests[0], issuer, "orders")
    assert (claims.sub, claims.scope, claims.aud) == ("alice", "orders:*", "orders")
    assert claims.exp - claims.iat == 30


async def test_an_assertion_is_for_one_service_and_is_used_again_for_one_token(
    service: MakeService, gateway: MakeGateway, issuer: Issuer
) -> None:
    orders, stock = await service("orders", echo), await service("stock", echo)
    front = await gateway(orders, stock)
    headers = front.bearer("orders:* stock:*")
    seen = [
        (await front.call("GET", path, headers=headers)).json["headers"]["atoll-assertion"]
        for path in ("/orders", "/orders", "/stock")
    ]
    assert seen[0] == seen[1]
    assert seen[1] != seen[2]
    assert assertion_of(stock.requests[0], issuer, "stock").aud == "stock"
    other = await front.call("GET", "/orders", headers=front.bearer())
    assert other.json["headers"]["atoll-assertion"] != seen[0]


async def test_no_header_of_a_client_becomes_identity(service: MakeService, gateway: MakeGateway) -> None:
    front = await gateway(await service("orders", echo))
    headers = {
        **front.bearer(),
        "Atoll-Assertion": "forged",
        "atoll_assertion": "forged",
        "Atoll-Client-Address": "6.6.6.6",
        "X-User": "root",
        "X_User": "root",
        "X-Forwarded-For": "6.6.6.6",
        "X_FORWARDED_FOR": "6.6.6.6",
        "Forwarded": "for=6.6.6.6",
        "Remote-User": "root",
        "X-Real-IP": "6.6.6.6",
        "X-HTTP-Method-Override": "DELETE",
        "X-Original-URL": "/admin",
        "Cookie": "session=root",
        "baggage": "user=root",
        "tracestate": "x=1",
        "Connection": "keep-alive, X-Secret",
        "X-Secret": "1",
        "Proxy-Authorization": "Basic x",
        "TE": "trailers",
        "Idempotency-Key": "kept",
        "X-Request-Colour": "kept",
    }
    told = (await front.call("GET", "/orders", headers=headers)).json["headers"]
    assert told["atoll-assertion"] != "forged"
    assert told["atoll-client-address"] == "127.0.0.1"
    assert (told["idempotency-key"], told["x-request-colour"]) == ("kept", "kept")
    allowed = {
        "host", "accept", "accept-encoding", "user-agent", "idempotency-key", "x-request-colour", "atoll-assertion",
        "atoll-client-address", "atoll-deadline-ms", "traceparent",
    }  # fmt: skip
    assert set(told) <= allowed, set(told) - allowed


async def test_the_services_headers_stay_inside(service: MakeService, gateway: MakeGateway) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        headers = {"Set-Cookie": "a=b", "Atoll-Debug": "x", "Server": "a/1.2", "Location": "/orders/9", "X-Own": "1"}
        return web.Response(status=202, text="{}", headers=headers)

    front = await gateway(await service("orders", answer))
    got = (await front.call("POST", "/orders", data=b"{}")).headers
    assert (got["Location"], got["X-Own"], got["Server"]) == ("/orders/9", "1", "atoll")
    assert not {"Set-Cookie", "Atoll-Debug"} & set(got)


async def test_redirects_are_the_clients_to_follow(service: MakeService, gateway: MakeGateway) -> None:
    async def away(request: web.BaseRequest) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/inside"})

    front = await gateway(await service("orders", away))
    assert (await front.call("GET", "/orders")).status == 307


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 300_000])
async def test_bodies_pass_both_ways_whole(size: int, service: MakeService, gateway: MakeGateway) -> None:
    async def mirror(request: web.BaseRequest) -> web.Response:
        return web.Response(body=await request.read())

    front = await gateway(await service("orders", mirror))
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert (await front.call("POST", "/orders", data=body)).body == body


async def test_a_body_of_unknown_length_passes(service: MakeService, gateway: MakeGateway) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one", b"two", b"three"):
            yield piece
            await asyncio.sleep(0)

    orders = await service("orders", echo)
    front = await gateway(orders)
    answer = await front.call("POST", "/orders", data=pieces())
    assert answer.json["body"] == "onetwothree"
    assert "content-length" not in answer.json["headers"]


async def test_a_known_length_is_told_to_the_service(service: MakeService, gateway: MakeGateway) -> None:
    front = await gateway(await service("orders", echo))
    told = (await front.call("POST", "/orders", data=b"12345")).json["headers"]
    assert told["content-length"] == "5"
    assert "transfer-encoding" not in told


async def test_head_and_empty_answers_pass(service: MakeService, gateway: MakeGateway) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"12345") if request.method == "HEAD" else web.Response(status=204)

    orders = await service("orders", answer)
    front = await gateway(orders)
    head = await front.call("HEAD", "/orders")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, "5", b"")
    empty = await front.call("POST", "/orders")
    assert (empty.status, empty.body) == (204, b"")


async def test_compressed_bodies_pass_unread(service: MakeService, gateway: MakeGateway) -> None:
    """An 815 KB bomb would inflate to 800 MB; here nobody opens it, either way."""
    import zlib

    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([packer.compress(bytes(1 << 20)) for _ in range(200)]) + packer.flush()
    arrived: list[int] = []

    async def take(request: web.BaseRequest) -> web.Response:
        arrived.append(len(await request.read()))
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    front = await gateway(await service("orders", take))
    headers = {**front.bearer(), "Content-Encoding": "gzip"}
    answer = await front.call("POST", "/orders", data=bomb, headers=headers)
    assert arrived == [len(bomb)]
    assert answer.body == bomb
    assert answer.headers["Content-Encoding"] == "gzip"


async def test_events_are_passed_on_as_they_come(service: MakeService, gateway: MakeGateway) -> None:
    go = asyncio.Event()

    async def stream(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await go.wait()
        await response.write(b"data: 2\n\n")
        return response

    front = await gateway(await service("orders", stream))
    async with front.client.get(f"{front.url}/orders", headers=front.bearer()) as response:
        async with asyncio.timeout(2):
            assert await response.content.readany() == b"data: 1\n\n"
        go.set()
        async with asyncio.timeout(2):
            assert await response.content.read() == b"data: 2\n\n"


async def test_a_client_that_leaves_frees_the_service(service: MakeService, gateway: MakeGateway) -> None:
    left = asyncio.Event()

    async def wait(request: web.BaseRequest) -> web.StreamResponse:
        try:
            await asyncio.sleep(30)
        finally:
            left.set()
        return web.Response()

    orders = Service("orders", wait)
    orders._runner = web.ServerRunner(web.Server(orders._record, handler_cancellation=True), shutdown_timeout=0.1)
    async with orders:
        front = await gateway(orders)
        with pytest.raises(TimeoutError):
            await front.call("GET", "/orders", timeout=aiohttp.ClientTimeout(total=0.2))
        async with asyncio.timeout(2):
            await left.wait()
        assert await front.metric("atoll_gateway_requests_total", status="499") == 1


async def test_a_public_route_gets_an_anonymous_assertion_and_client_credentials(
    service: MakeService, gateway: MakeGateway, issuer: Issuer
) -> None:
    auth = await service("auth", echo, routes=[("POST", "/auth/token", None)])
    front = await gateway(auth)
    answer = await front.call("POST", "/auth/token", headers={"Authorization": "Basic abc"}, data=b"grant_type=x")
    assert answer.status == 200
    assert answer.json["headers"]["authorization"] == "Basic abc"
    claims = assertion_of(auth.requests[0], issuer, "auth")
    assert (claims.sub, claims.scope) == ("anonymous", "")


async def test_a_token_never_reaches_a_service(service: MakeService, gateway: MakeGateway) -> None:
    front = await gateway(await service("orders", echo))
    assert "authorization" not in (await front.call("GET", "/orders")).json["headers"]


async def test_a_body_is_invited_only_after_admission(service: MakeService, gateway: MakeGateway) -> None:
    front = await gateway(await service("orders", echo))
    answer = await front.call("POST", "/orders", data=b"12345", expect100=True)
    assert answer.json["body"] == "12345"
    head = b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    refused = await front.raw(head)
    assert refused.startswith(b"HTTP/1.1 401")
