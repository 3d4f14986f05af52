"""Who gets in, and what a refusal says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from aiohttp import web
from multidict import CIMultiDict
from support import Feed, Harness, Issuer, MakeGateway, MakeService, echo, until

from atoll_token import SigningKey


@pytest.fixture
async def front(service: MakeService, gateway: MakeGateway) -> Harness:
    routes = [("GET", "/orders", "orders:read"), ("POST", "/orders", "orders:write")]
    orders = await service("orders", echo, routes=routes)
    ops = await service("ops", echo, routes=[("GET", "/ops/snapshot", "ops:read")])
    return await gateway(orders, ops)


def _altered(token: str) -> str:
    """The token with one character of its claims changed."""
    head, kid, payload, signature = token.split(".")
    other = "A" if payload[20] != "A" else "B"
    return ".".join((head, kid, payload[:20] + other + payload[21:], signature))


def _last_character_varied(token: str) -> str:
    """The same signature's bytes in another base64 spelling."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


now = int(time.time())
BAD: dict[str, tuple[Callable[[Issuer], str], str]] = {
    "expired": (lambda i: i.token(iat=now - 900, nbf=now - 900, exp=now - 60), "expired"),
    "altered": (lambda i: _altered(i.token()), "bad_signature"),
    "respelled": (lambda i: _last_character_varied(i.token()), "malformed"),
    "unknown kid": (lambda i: i.token(key=SigningKey.generate()), "unknown_key"),
    "a refresh token": (lambda i: i.token(typ="refresh"), "wrong_type"),
    "an assertion": (lambda i: i.token(typ="assertion"), "wrong_type"),
    "for somebody else": (lambda i: i.token(aud="elsewhere"), "wrong_audience"),
    "of another issuer": (lambda i: i.token(iss="elsewhere"), "wrong_issuer"),
    "from the future": (lambda i: i.token(iat=now + 60, nbf=now + 60), "clock_skew"),
    "not yet valid": (lambda i: i.token(nbf=now + 60), "not_yet_valid"),
    "too long": (lambda i: i.token() + "x" * 5000, "too_long"),
    "a JWT": (lambda i: "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.", "malformed"),
    "nothing": (lambda i: "", "malformed"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_token_is_refused_by_name(name: str, front: Harness, issuer: Issuer) -> None:
    make, code = BAD[name]
    answer = await front.call("GET", "/orders", headers={"Authorization": f"Bearer {make(issuer)}"})
    answer.problem(401, code)
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="atoll", error="invalid_token"')
    assert await front.metric("atoll_gateway_auth_failures_total", code=code) == 1


async def test_another_keys_signature_under_a_known_name_is_refused(front: Harness, issuer: Issuer) -> None:
    """`kid` names the key of the set; whoever borrows the name has still to sign with that key."""
    thief = SigningKey.generate()
    token = issuer.token(key=thief)
    answer = await front.call(
        "GET", "/orders", headers={"Authorization": f"Bearer {token.replace(thief.kid, issuer.key.kid)}"}
    )
    answer.problem(401, "bad_signature")


async def test_no_token_gets_a_bare_challenge(front: Harness) -> None:
    answer = await front.call("GET", "/orders", headers={})
    answer.problem(401, "missing_token")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="atoll"'
    (await front.call("GET", "/orders", headers={"Authorization": "Basic YTpi"})).problem(401, "missing_token")


async def test_two_authorization_headers_are_refused(front: Harness, issuer: Issuer) -> None:
    headers = CIMultiDict([("Authorization", f"Bearer {issuer.token()}"), ("Authorization", "Bearer x")])
    (await front.call("GET", "/orders", headers=headers)).problem(400, "repeated_authorization")


async def test_a_token_in_the_query_is_no_token(front: Harness, issuer: Issuer) -> None:
    answer = await front.call("GET", f"/orders?access_token={issuer.token()}", headers={})
    answer.problem(401, "missing_token")


@pytest.mark.parametrize("scope", ["orders:*", "orders:read", "stock:read orders:read"])
async def test_a_covering_scope_lets_in(scope: str, front: Harness) -> None:
    assert (await front.call("GET", "/orders", headers=front.bearer(scope))).status == 200


@pytest.mark.parametrize("scope", ["", "orders:write", "orders", "stock:*", "orders:read:all"])
async def test_a_missing_scope_is_named(scope: str, front: Harness) -> None:
    answer = await front.call("GET", "/orders", headers=front.bearer(scope))
    assert "orders:read" in answer.problem(403, "insufficient_scope")["detail"]
    assert 'scope="orders:read"' in answer.headers["WWW-Authenticate"]


async def test_without_a_key_set_everybody_waits(service: MakeService, gateway: MakeGateway, feed: Feed) -> None:
    feed._told.pop("keys")
    front = await gateway(await service("orders", echo))
    answer = await front.call("GET", "/orders")
    assert answer.problem(503, "waiting")["detail"] == "waiting for: keys"
    assert answer.headers["Retry-After"]
    ready = await front.call("GET", "/readyz", headers={})
    assert (ready.status, ready.json["why"]) == (503, "waiting for: keys")
    feed.tell("keys", front.issuer.key_set())
    assert (await front.call("GET", "/orders")).status == 200


async def test_a_rotation_loses_no_token_and_a_retired_key_opens_nothing(
    front: Harness, issuer: Issuer, feed: Feed
) -> None:
    old, new = issuer.key, SigningKey.generate()
    headers = front.bearer()
    feed.tell("keys", issuer.key_set(2, old.public, new.public))
    assert (await front.call("GET", "/orders", headers=headers)).status == 200
    issuer.key = new
    assert (await front.call("GET", "/orders", headers=front.bearer())).status == 200
    feed.tell("keys", issuer.key_set(3, new.public))
    (await front.call("GET", "/orders", headers=headers)).problem(401, "unknown_key")


@pytest.mark.parametrize("why", ["older", "foreign root", "noise", "no text"])
async def test_a_bad_key_set_changes_nothing(why: str, front: Harness, issuer: Issuer, feed: Feed) -> None:
    withdrawn = SigningKey.generate()
    feed.tell("keys", issuer.key_set(5))
    bad = {
        "older": issuer.key_set(4, withdrawn.public),
        "foreign root": Issuer().key_set(9, withdrawn.public),
        "noise": "v1.noise",
        "no text": {"version": 9},
    }[why]
    feed.tell("keys", bad)
    token = issuer.token(key=withdrawn)
    (await front.call("GET", "/orders", headers={"Authorization": f"Bearer {token}"})).problem(401, "unknown_key")
    assert (await front.call("GET", "/orders")).status == 200


async def test_a_revoked_token_and_subject_are_refused_at_once(front: Harness, issuer: Issuer, feed: Feed) -> None:
    one, two, other = front.bearer(jti="one"), front.bearer(jti="two"), front.bearer(sub="bob")
    assert (await front.call("GET", "/orders", headers=one)).status == 200
    feed.tell("revocations", issuer.revocations(3, tokens={"one": now + 600}))
    (await front.call("GET", "/orders", headers=one)).problem(401, "revoked")
    assert (await front.call("GET", "/orders", headers=two)).status == 200
    feed.tell("revocations", issuer.revocations(4, subjects={"alice": now + 30}))
    (await front.call("GET", "/orders", headers=two)).problem(401, "revoked")
    assert (await front.call("GET", "/orders", headers=other)).status == 200


async def test_a_revocation_ends_open_streams(
    service: MakeService, gateway: MakeGateway, issuer: Issuer, feed: Feed
) -> None:
    async def stream(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await asyncio.sleep(30)
        return response

    front = await gateway(await service("orders", stream))
    async with front.client.get(f"{front.url}/orders", headers=front.bearer(jti="open")) as response:
        await response.content.readany()
        feed.tell("revocations", issuer.revocations(3, tokens={"open": now + 600}))
        async with asyncio.timeout(1):
            with pytest.raises(Exception, match=r"payload|reset|closed|Connection"):
                await response.content.read()
    assert await front.metric("atoll_gateway_client_connections_cut_total", why="revoked") == 1


async def test_without_auths_heartbeat_only_operating_is_refused(
    service: MakeService, gateway: MakeGateway, issuer: Issuer, feed: Feed
) -> None:
    ops = await service("ops", echo, routes=[("GET", "/ops/snapshot", "ops:read")])
    front = await gateway(ops, await service("orders", echo), heartbeat_seconds_max=1.0)
    headers = front.bearer("ops:* orders:*")
    assert (await front.call("GET", "/ops/snapshot", headers=headers)).status == 200
    await until("auth's silence", lambda: front.parts.revoked.silent)
    feed.tell("revocations", issuer.revocations(beat=2))  # the broker repeating itself is no sign of life
    answer = await front.call("GET", "/ops/snapshot", headers=headers)
    assert answer.problem(503, "waiting")["detail"] == "waiting for: revocations"
    assert (await front.call("GET", "/orders", headers=headers)).status == 200
    feed.tell("revocations", issuer.revocations(beat=3))
    assert (await front.call("GET", "/ops/snapshot", headers=headers)).status == 200


async def test_after_a_restart_the_value_that_the_broker_repeats_is_no_heartbeat(
    service: MakeService, gateway: MakeGateway, issuer: Issuer, feed: Feed
) -> None:
    first = await gateway(await service("ops", echo, routes=[("GET", "/ops/snapshot", "ops:read")]))
    headers = first.bearer("ops:*")
    assert (await first.call("GET", "/ops/snapshot", headers=headers)).status == 200
    await first.gateway.__aexit__()
    feed.fall_silent()
    second = await gateway()
    feed.tell("revocations", issuer.revocations(beat=9))  # other than what was stored, however long ago auth said it
    answer = await second.call("GET", "/ops/snapshot", headers=headers)
    assert answer.problem(503, "waiting")["detail"] == "waiting for: revocations"
    feed.tell("revocations", issuer.revocations(beat=10))
    assert (await second.call("GET", "/ops/snapshot", headers=headers)).status == 200
