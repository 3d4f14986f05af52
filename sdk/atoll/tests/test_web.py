"""The HTTP face: default deny, problems that name the field, health that is the service's own."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog.testing
import zmq
from aiohttp import web as http
from aiohttp.test_utils import TestClient, TestServer
from multidict import CIMultiDict
from scripted import Notes

import atoll
from atoll import web
from atoll.web._attach import ATTACHMENT
from atoll_token import Claims, SigningKey, mint

TOPIC = "orders.order.placed.v1"
CAPTURED = "payments.payment.captured.v1"
Client = TestClient[http.Request, http.Application]


class Line(msgspec.Struct, forbid_unknown_fields=True):
    sku: str
    quantity: int


class Order(msgspec.Struct, forbid_unknown_fields=True):
    invoice: str
    lines: list[Line]


@pytest.fixture
def key(options: atoll.Options) -> SigningKey:
    gateway = SigningKey.generate()
    (options.keys / "gateway.pub").write_bytes(gateway.public.to_pem())
    public, secret = zmq.curve_keypair()
    for name, text in (("curve.public", public), ("curve.secret", secret), ("broker.public", public)):
        (options.keys / name).write_bytes(text + b"\n")
    (options.contract / "publishes" / f"{TOPIC}.schema.json").write_text('{"type": "object"}')
    return gateway


def assertion(key: SigningKey, scope: str = "orders:write orders:read", **changes: Any) -> dict[str, str]:
    now = int(time.time())
    fields = {
        "iss": "atoll-gateway",
        "sub": "client-1",
        "aud": "orders",
        "scope": scope,
        "jti": uuid.uuid4().hex,
        "iat": now,
        "nbf": now,
        "exp": now + 30,
        "typ": "assertion",
        "client_id": None,
    }
    return {"Atoll-Assertion": mint(Claims(**{**fields, **changes}), key)}


def make_app(options: atoll.Options) -> http.Application:
    app = http.Application()
    database = atoll.Database(options.data / "orders.db", options.migrations)

    @web.requires("orders:write")
    async def place(request: http.Request) -> http.Response:
        order = await web.read_json(request, Order)
        digest = await web.body_hash(request)

        def effect(tx: atoll.Transaction) -> web.Answer:
            tx.execute("INSERT INTO note VALUES (?)", str(uuid.uuid4()))
            tx.publish(TOPIC, order.invoice, Notes(order.invoice))
            count = tx.one("SELECT count(*) FROM note")
            assert count is not None
            return web.Answer(202, {"count": count[0], "by": request[web.SUBJECT]}, {"Location": "/orders/1"})

        answer = await database.write(lambda tx: web.idempotent(tx, request, digest, lambda: effect(tx)))
        return answer.response()

    @web.requires("orders:read")
    async def show(request: http.Request) -> http.Response:
        if request.match_info["id"] == "slow":
            await asyncio.sleep(0.2)
        if request.match_info["id"] == "bug":
            raise RuntimeError("secret")
        if request.match_info["id"] == "gone":
            raise web.Problem(409, "already_gone", "It is gone", field="id")
        return http.json_response({"all": "orders:read:all" in request[web.SCOPES]})

    @web.public
    async def hello(_: http.Request) -> http.Response:
        return http.json_response({})

    app.router.add_post("/orders", place)
    app.router.add_put("/orders", place)
    app.router.add_post("/orders/again", place)
    app.router.add_get("/orders/{id}", show)
    app.router.add_get("/orders/public/hello", hello)
    web.attach(app, options, database=database, prefixes=["/orders"])
    return app


@pytest.fixture
async def client(options: atoll.Options, key: SigningKey) -> AsyncIterator[Client]:
    async with TestClient(TestServer(make_app(options))) as client:
        yield client


async def problem(response: Any) -> dict[str, Any]:
    assert response.content_type == "application/problem+json"
    body: dict[str, Any] = await response.json()
    assert body["status"] == response.status
    assert {"type", "title", "status", "detail", "code"} <= set(body)
    return body


ORDER = {"invoice": "i-1", "lines": [{"sku": "A", "quantity": 1}]}


async def test_a_signed_request_gets_through(client: Client, key: SigningKey) -> None:
    response = await client.post("/orders", json=ORDER, headers=assertion(key))
    assert response.status == 202
    assert await response.json() == {"count": 1, "by": "client-1"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aud": "payments"}, "wrong_audience"),
        ({"iss": "atoll-auth"}, "wrong_issuer"),
        ({"exp": int(time.time()) - 60, "iat": int(time.time()) - 90, "nbf": int(time.time()) - 90}, "expired"),
    ],
)
async def test_an_assertion_for_another_use_is_refused(
    client: Client, key: SigningKey, changes: dict[str, Any], code: str
) -> None:
    response = await client.get("/orders/1", headers=assertion(key, **changes))
    assert response.status == 401
    assert (await problem(response))["code"] == code


async def test_no_assertion_two_or_an_altered_or_foreign_one_is_refused(client: Client, key: SigningKey) -> None:
    good = assertion(key)["Atoll-Assertion"]
    flipped = good[:-10] + ("A" if good[-10] != "A" else "B") + good[-9:]
    for headers in (
        [],
        [("Atoll-Assertion", good), ("Atoll-Assertion", good)],
        [("Atoll-Assertion", flipped)],
        list(assertion(SigningKey.generate()).items()),
    ):
        response = await client.get("/orders/1", headers=headers)
        assert response.status == 401
        await problem(response)
    assert (await client.get("/orders/public/hello")).status == 200


async def test_a_missing_scope_is_named(client: Client, key: SigningKey) -> None:
    response = await client.post("/orders", json=ORDER, headers=assertion(key, "orders:read"))
    assert response.status == 403
    assert "orders:write" in (await problem(response))["detail"]


async def test_a_pattern_of_scopes_covers_what_it_says(client: Client, key: SigningKey) -> None:
    response = await client.get("/orders/1", headers=assertion(key, "orders:*"))
    assert await response.json() == {"all": True}
    response = await client.get("/orders/1", headers=assertion(key, "orders:read"))
    assert await response.json() == {"all": False}


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b"{", 400, "malformed_json", None),
        (b"", 400, "malformed_json", None),
        (b"\xff", 400, "malformed_json", None),
        (b'{"invoice": "\xff", "lines": []}', 400, "malformed_json", None),
        (b"[" * 100_000, 422, "validation", None),
        ({**ORDER, "lines": [{"sku": "A", "quantity": "x"}]}, 422, "validation", "lines[0].quantity"),
        ({**ORDER, "lines": [{"sku": "A"}]}, 422, "validation", "lines[0].quantity"),
        ({**ORDER, "lines": [{"sku": "A", "quantity": 1, "colour": "red"}]}, 422, "validation", "lines[0].colour"),
        ({"lines": []}, 422, "validation", "invoice"),
        ([], 422, "validation", None),
    ],
)
async def test_a_body_that_does_not_fit_is_answered_with_the_field(
    client: Client, key: SigningKey, body: Any, status: int, code: str, field: str | None
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {**assertion(key), "Content-Type": "application/json"}
    response = await client.post("/orders", data=data, headers=headers)
    answer = await problem(response)
    assert (response.status, answer["code"], answer.get("field")) == (status, code, field)


async def test_other_media_types_compression_and_size_are_refused(client: Client, key: SigningKey) -> None:
    response = await client.post("/orders", data=b"a=b", headers=assertion(key))
    assert response.status == 415
    headers = {**assertion(key), "Content-Type": "application/json"}
    response = await client.post("/orders", data=b" " * 1_048_577, headers=headers)
    assert response.status == 413
    await problem(response)


async def test_unknown_routes_methods_and_bugs_are_problems_too(client: Client, key: SigningKey) -> None:
    for method, path, status in (("GET", "/nowhere", 404), ("DELETE", "/orders", 405), ("GET", "/orders/bug", 500)):
        response = await client.request(method, path, headers=assertion(key))
        assert response.status == status
        assert "secret" not in json.dumps(await problem(response))
    response = await client.get("/orders/gone", headers=assertion(key))
    assert (await problem(response))["field"] == "id"


async def test_a_repeated_request_has_one_effect_and_the_same_answer(client: Client, key: SigningKey) -> None:
    headers = {**assertion(key), "Idempotency-Key": "k-1"}
    first = await client.post("/orders", json=ORDER, headers=headers)
    again = await client.post("/orders", json=ORDER, headers=headers)
    assert (again.status, await again.json()) == (first.status, await first.json())
    assert again.headers["Location"] == "/orders/1"
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await client.post("/orders", json={**ORDER, "invoice": "i-2"}, headers=headers)
    assert (other.status, (await problem(other))["code"]) == (422, "idempotency_key_reused")
    stranger = await client.post("/orders", json=ORDER, headers={**assertion(key, sub="x"), "Idempotency-Key": "k-1"})
    assert (await stranger.json())["count"] == 2, "keys are a subject's own"


async def test_a_key_belongs_to_one_method_and_path(client: Client, key: SigningKey) -> None:
    headers = {**assertion(key), "Idempotency-Key": "k-3"}
    assert (await client.post("/orders", json=ORDER, headers=headers)).status == 202
    for other in (
        client.put("/orders", json=ORDER, headers=headers),
        client.post("/orders/again", json=ORDER, headers=headers),
    ):
        answer = await other
        assert (answer.status, (await problem(answer))["code"]) == (422, "idempotency_key_reused")


async def test_a_key_whose_request_still_runs_is_a_409(client: Client, key: SigningKey) -> None:
    headers = {**assertion(key), "Idempotency-Key": "k-2"}
    answers = await asyncio.gather(*(client.post("/orders", json=ORDER, headers=headers) for _ in range(5)))
    statuses = sorted(answer.status for answer in answers)
    assert 202 in statuses
    assert set(statuses) <= {202, 409}
    final = await client.post("/orders", json=ORDER, headers=headers)
    assert (await final.json())["count"] == 1


async def test_health_needs_no_token_and_no_bus(client: Client) -> None:
    assert (await client.get("/live")).status == 200
    response = await client.get("/ready")
    assert (response.status, await response.json()) == (200, {"ready": True, "why": "", "degraded": ["bus"]})


async def test_a_service_says_what_else_does_not_work(client: Client) -> None:
    assert client.app is not None
    wrong: list[str] = []
    client.app[ATTACHMENT].also_degraded.append(lambda: wrong)
    wrong.append("maildir: no space")
    response = await client.get("/ready")
    assert (response.status, (await response.json())["degraded"]) == (200, ["bus", "maildir: no space"])


async def test_a_service_that_can_commit_nothing_says_so(options: atoll.Options, key: SigningKey) -> None:
    events = atoll.SubscriptionTable()
    events.on(CAPTURED, Notes)(lambda event, tx: None)
    (options.contract / "consumes" / f"{CAPTURED}.schema.json").write_text("{}")
    database = atoll.Database(options.data / "orders.db", options.migrations)
    attachment = web.attach(http.Application(), options, database=database, events=events)
    assert attachment._consumer is not None
    attachment._consumer.away = "orders.db: database or disk is full"
    assert attachment.degraded == [
        "bus", "storage: orders.db: database or disk is full; no event is handled until a commit succeeds"
    ]  # fmt: skip


async def test_metrics_are_prometheus_text(client: Client, key: SigningKey) -> None:
    await client.post("/orders", json=ORDER, headers=assertion(key))
    text = await (await client.get("/metrics")).text()
    assert "atoll_outbox_waiting 1.0" in text
    assert 'atoll_http_requests_total{method="POST",route="/orders",status="202"} 1.0' in text
    assert "atoll_session_up 0.0" in text
    assert 'atoll_http_request_seconds_bucket{le="+Inf",method="POST",route="/orders"} 1.0' in text
    assert "/metrics" not in text


def test_a_route_without_a_mark_refuses_the_start_and_is_named(options: atoll.Options) -> None:
    async def handler(_: http.Request) -> http.Response:
        return http.Response()

    app = http.Application()
    app.router.add_get("/orders/{id}", handler)
    with pytest.raises(atoll.ConfigurationError, match=r"route HEAD /orders/\{id\}: expected @web.requires"):
        web.attach(app, options, prefixes=["/orders"])


async def test_a_route_outside_the_prefixes_refuses_the_start(options: atoll.Options, key: SigningKey) -> None:
    @web.requires("stock:read")
    async def handler(_: http.Request) -> http.Response:
        return http.Response()

    app = http.Application()
    web.attach(app, options, prefixes=["/orders"])
    app.router.add_get("/ordersx", handler)
    with pytest.raises(atoll.ConfigurationError, match="/ordersx: expected it under one of"):
        await TestServer(app).start_server()


@pytest.mark.parametrize(("declared", "handled"), [([CAPTURED], []), ([], [CAPTURED])])
def test_handlers_and_contract_must_name_the_same_topics(
    options: atoll.Options, declared: list[str], handled: list[str]
) -> None:
    for topic in declared:
        (options.contract / "consumes" / f"{topic}.schema.json").write_text("{}")
    events = atoll.SubscriptionTable()
    for topic in handled:
        events.on(topic, Notes)(lambda event, tx: None)
    database = atoll.Database(options.data / "orders.db", options.migrations)
    with pytest.raises(atoll.ConfigurationError, match=CAPTURED):
        web.attach(http.Application(), options, events=events, database=database)


async def test_a_missing_gateway_key_refuses_the_start(options: atoll.Options, key: SigningKey) -> None:
    (options.keys / "gateway.pub").unlink()
    with pytest.raises(atoll.ConfigurationError, match=r"gateway\.pub"):
        await TestServer(make_app(options)).start_server()


async def test_a_body_that_does_not_come_is_a_408(
    client: Client, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.web._hardening.BODY_SECONDS", 0.1)
    assert client.server.port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
    head = {**assertion(key), "Content-Type": "application/json", "Content-Length": "100", "Host": "x"}
    writer.write(b"POST /orders HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in head.items()).encode() + b"\r\n{")
    async with asyncio.timeout(3):
        assert b" 408 " in await reader.readline()
    writer.close()


async def test_the_openapi_document_is_read(options: atoll.Options) -> None:
    from atoll.web import _contract

    (options.contract / "http.openapi.yaml").write_text("openapi: 3.1.0\ninfo: {title: orders, version: 2026-11-23}\n")
    assert _contract.read_openapi(options.contract)["info"]["version"] == "2026-11-23"
    (options.contract / "http.openapi.yaml").write_text("- a\n")
    with pytest.raises(atoll.ConfigurationError, match="expected a mapping"):
        _contract.read_openapi(options.contract)


def test_an_instance_that_listens_everywhere_is_known_by_its_host_name(options: atoll.Options) -> None:
    from atoll.web import _contract

    assert _contract.base_url(options, 8102) == "http://127.0.0.1:8102"
    everywhere = msgspec.structs.replace(options, host="0.0.0.0")
    assert "0.0.0.0" not in _contract.base_url(everywhere, 8102)
    assert _contract.base_url(msgspec.structs.replace(options, host="::1"), 80) == "http://[::1]:80"


def test_a_problem_is_an_error_status(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="400"):
        web.Problem(200, "ok", "no")


async def test_two_idempotency_keys_are_refused(client: Client, key: SigningKey) -> None:
    headers = [*assertion(key).items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    refused = await problem(await client.post("/orders", json=ORDER, headers=CIMultiDict(headers)))
    assert (refused["status"], refused["code"]) == (400, "idempotency_key")


async def test_a_body_that_is_cut_off_is_no_failure_of_the_service(options: atoll.Options, key: SigningKey) -> None:
    """Or any client could fill the logs with tracebacks. Not on a TestServer: that one cancels the handler instead."""
    runner = http.AppRunner(make_app(options))
    await runner.setup()
    site = http.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    head = "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in assertion(key).items())
    with structlog.testing.capture_logs() as logs:
        _, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(head.encode() + b'\r\n{"invoice"')
        await writer.drain()
        await asyncio.sleep(0.1)  # until the handler waits for the rest: nothing shows that from outside
        writer.close()
        await writer.wait_closed()
        await runner.cleanup()  # waits for the handler
    assert not [entry for entry in logs if entry["log_level"] == "error"], logs
