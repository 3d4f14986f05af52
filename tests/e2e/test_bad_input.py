"""Bad input: a clear refusal that names the field, and nothing is lost or changed by it."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet import REPOSITORY, Answer, Fleet, http, order
from polling import poll_until
from rawbus import Peer, event


@pytest.fixture(scope="module", autouse=True)
def nothing_changes(shop: Fleet) -> Iterator[None]:
    """After all the bad input, the system has no dead letter, every part its first process, and works."""
    seed_stranger(shop)
    before = {name: part["pid"] for name, part in shop.status().items()}
    yield
    assert {name: part["pid"] for name, part in shop.status().items()} == before, "bad input ended a process"
    assert not [name for name in shop.lags() if "dead" in name]
    shop.wait_order(shop.place("after-bad-input"), "confirmed")


def bad_order(**changes: Any) -> dict[str, Any]:
    """A good order with fields replaced; `line__x` replaces in its line."""
    body = order("bad-1")
    for name, value in changes.items():
        if name.startswith("line__"):
            body["lines"][0][name.removeprefix("line__")] = value
        else:
            body[name] = value
    return body


def refused(answer: Answer, status: int | tuple[int, ...], *words: str) -> None:
    """An RFC 9457 problem with one of these statuses that holds every word."""
    wanted = (status,) if isinstance(status, int) else status
    text = answer.raw.decode()
    assert answer.status in wanted, f"{answer.status} {text}"
    assert answer.headers["content-type"].startswith("application/problem+json"), text
    assert answer.body["status"] == answer.status
    for word in words:
        assert word in text, f"{word!r} is not in {text}"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (bad_order(invoice=""), "invoice"),
        (bad_order(invoice=7), "invoice"),
        (bad_order(placed_at="yesterday"), "placed_at"),
        (bad_order(lines=[]), "lines"),
        (bad_order(lines="many"), "lines"),
        (bad_order(colour="red"), "colour"),
        (bad_order(line__colour="red"), "colour"),
        (bad_order(line__sku="a/b"), "lines[0].sku"),
        (bad_order(line__sku="x" * 33), "lines[0].sku"),
        (bad_order(line__sku=""), "lines[0].sku"),
        (bad_order(line__quantity=0), "lines[0].quantity"),
        (bad_order(line__quantity=10**30), "lines[0].quantity"),
        (bad_order(line__quantity=-1), "lines[0].quantity"),
        (bad_order(line__quantity=1.5), "lines[0].quantity"),
        (bad_order(line__unit_price="-1"), "lines[0].unit_price"),
        (bad_order(line__unit_price=-0.01), "lines[0].unit_price"),
        (bad_order(line__unit_price="NaN"), "lines[0].unit_price"),
        (bad_order(line__unit_price="Infinity"), "lines[0].unit_price"),
        (bad_order(line__unit_price="1.23456"), "lines[0].unit_price"),
        (bad_order(line__unit_price=None), "lines[0].unit_price"),
        ({key: value for key, value in order("x").items() if key != "country"}, "country"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_order_is_refused_by_field(shop: Fleet, body: dict[str, Any], field: str) -> None:
    refused(shop.call("POST", "/orders", body), (400, 422), field)
    refused(shop.call("POST", "/returns", body), (400, 422), field)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (json.dumps(bad_order()).replace('"2.55"', "1e400"), "lines[0].unit_price"),
        (json.dumps(bad_order()).replace('"2.55"', "NaN"), ""),
        (json.dumps(bad_order()).replace('"2.55"', "Infinity"), ""),
        ("{", ""),
        ("[]", ""),
        ("", ""),
        ("\x00\xff", ""),
    ],
)
def test_a_body_that_is_no_order_is_refused(shop: Fleet, text: str, field: str) -> None:
    answer = shop.call("POST", "/orders", data=text.encode("latin-1"))
    refused(answer, (400, 422), field)


def test_a_price_is_read_exactly(shop: Fleet) -> None:
    """The number 0.1 is not 0.1000000000000000055: it is read from its digits."""
    text = json.dumps(order("exact-1", quantity=3)).replace('"2.55"', "0.1")
    answer = shop.call("POST", "/orders", data=text.encode())
    assert answer.status == 202, answer
    seen = shop.wait_order(answer.headers["location"].rsplit("/", 1)[1], "confirmed")
    assert (seen.body["lines"][0]["unit_price"], seen.body["total"]) in (("0.1", "0.3"), ("0.10", "0.30"))


def test_ten_megabytes_are_refused(shop: Fleet) -> None:
    text = json.dumps(bad_order(customer="x" * 10_000_000)).encode()
    refused(shop.call("POST", "/orders", data=text), 413, "1048576")


def test_another_media_type_is_refused(shop: Fleet) -> None:
    answer = shop.call("POST", "/orders", order("bad-2"), headers={"Content-Type": "text/plain"})
    refused(answer, 415)


@pytest.mark.parametrize("path", ["/nothing", "/orders/x/y/z", "/orders/..%2f..%2fadmin", "/ORDERS"])
def test_an_unknown_route_is_a_404(shop: Fleet, path: str) -> None:
    refused(shop.call("GET", path), (400, 404))


def test_a_wrong_method_is_a_405(shop: Fleet) -> None:
    refused(shop.call("DELETE", "/orders"), 405)


@pytest.mark.parametrize(("path", "word"), [("/sales?by=colour", "by"), ("/orders?status=gone", "status"),
                                            ("/orders?limit=0", "limit"), ("/orders?cursor=%21", "cursor"),
                                            ("/stock/a%24b", "sku")])  # fmt: skip
def test_a_wrong_query_is_refused_by_name(shop: Fleet, path: str, word: str) -> None:
    refused(shop.call("GET", path), (400, 404, 422), word)


def test_a_wrong_adjustment_is_refused_by_field(shop: Fleet) -> None:
    for body, field in [
        ({"reference": "a", "lines": [{"sku": "A", "quantity": 0, "reason": "r"}]}, "lines[0].quantity"),
        ({"reference": "", "lines": [{"sku": "A", "quantity": 1, "reason": "r"}]}, "reference"),
        ({"reference": "a", "lines": [{"sku": "A", "quantity": 1, "reason": "r", "x": 1}]}, "x"),
        ({"reference": "a", "lines": [{"sku": "A", "quantity": -(10**30), "reason": "r"}]}, "lines[0].quantity"),
    ]:
        refused(shop.call("POST", "/stock/adjustments", body), (400, 422), field)


# ---- tokens -------------------------------------------------------------------------------------------------------


def test_no_token_is_a_401(shop: Fleet) -> None:
    answer = http("GET", f"{shop.gateway}/orders")
    refused(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_an_altered_token_is_refused(shop: Fleet) -> None:
    token = shop.token()
    for position in (len(token) // 2, len(token) - 1, 5):
        other = "A" if token[position] != "A" else "B"
        refused(shop.call("GET", "/orders", token=token[:position] + other + token[position + 1 :]), 401)


def test_a_token_of_another_key_is_refused(shop: Fleet) -> None:
    """The same claims, the same form, the same key id: only the key is another's."""
    prefix, kid, rest = shop.token().split(".", 2)
    value = rest.rsplit(".", 1)[0]
    signature = Ed25519PrivateKey.generate().sign(value.encode())
    forged = f"{prefix}.{kid}.{value}.{_base64(signature)}"
    refused(shop.call("GET", "/orders", token=forged), 401)


def test_a_refresh_token_is_no_access_token(shop: Fleet) -> None:
    known = shop.credentials
    login = http(
        "POST", f"{shop.gateway}/auth/login", body={"username": known["username"], "password": known["password"]}
    )
    assert login.status == 200
    refused(shop.call("GET", "/ops/snapshot", token=login.body["refresh_token"]), 401)
    assert shop.call("GET", "/ops/snapshot", token=login.body["access_token"]).status == 200


def test_a_wrong_scope_is_named(shop: Fleet) -> None:
    refused(shop.call("POST", "/orders", order("scope-1"), token=shop.token("orders:read")), 403, "orders:write")
    refused(shop.call("GET", "/ops/snapshot"), 403, "ops:read")


def test_a_scope_beyond_the_clients_is_not_given(shop: Fleet) -> None:
    mine = shop.credentials
    form = {"grant_type": "client_credentials", "scope": "ops:admin"}
    sent = {"client_id": mine["client_id"], "client_secret": mine["client_secret"]} | form
    answer = http("POST", f"{shop.gateway}/auth/token", data=urllib.parse.urlencode(sent).encode(),
                  headers={"Content-Type": "application/x-www-form-urlencoded"})  # fmt: skip
    assert (answer.status, answer.body["error"]) == (400, "invalid_scope")


def test_a_wrong_secret_and_an_unknown_client_answer_alike(shop: Fleet) -> None:
    answers = []
    for client in (shop.credentials["client_id"], "nobody"):
        form = {"grant_type": "client_credentials", "client_id": client, "client_secret": "wrong"}
        answers.append(http("POST", f"{shop.gateway}/auth/token", data=urllib.parse.urlencode(form).encode(),
                            headers={"Content-Type": "application/x-www-form-urlencoded"}))  # fmt: skip
    known, unknown = answers
    assert (known.status, known.body) == (unknown.status, unknown.body)
    assert known.status == 401


def test_another_subjects_order_is_not_there(shop: Fleet) -> None:
    order_id = shop.place("mine-1")
    token = stranger_token(shop)
    refused(shop.call("GET", f"/orders/{order_id}", token=token), 404)
    assert order_id not in shop.call("GET", "/orders", token=token).raw.decode()
    own = shop.call("POST", "/orders", order("mine-1"), token=token)  # the same invoice number is theirs to use
    assert own.status == 202
    assert own.headers["location"] != f"/orders/{order_id}"


STRANGER = {
    "client_id": "stranger",
    "client_secret": "a-secret-of-the-stranger-0123456789",
    "scopes": ["orders:read", "orders:write"],
}


def seed_stranger(shop: Fleet) -> None:
    """A second client, who may only see orders of its own; auth takes it from its seed file at the next start."""
    path = shop.state / "keys" / "auth" / "seed.json"
    seed = json.loads(path.read_text())
    if STRANGER not in seed["clients"]:
        path.write_text(json.dumps(seed | {"clients": [*seed["clients"], STRANGER]}))
        shop.atoll("restart", "auth")
        poll_until("auth behind the gateway again", lambda: stranger_token(shop), seconds=15)


def stranger_token(shop: Fleet) -> str:
    """A token of the second client."""
    form = {name: str(STRANGER[name]) for name in ("client_id", "client_secret")}
    form["grant_type"] = "client_credentials"
    answer = http("POST", f"{shop.gateway}/auth/token", data=urllib.parse.urlencode(form).encode(),
                  headers={"Content-Type": "application/x-www-form-urlencoded"})  # fmt: skip
    assert answer.status == 200, answer
    return str(answer.body["access_token"])


def test_a_service_takes_nobody_but_the_gateway(shop: Fleet) -> None:
    for headers in ({}, {"Authorization": f"Bearer {shop.token()}"}, {"Atoll-Assertion": shop.token()}):
        answer = http("GET", f"http://127.0.0.1:{shop.port('orders')}/orders", headers=headers)
        refused(answer, 401)


def test_two_authorizations_are_refused(shop: Fleet) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", int(shop.gateway.rsplit(":", 1)[1]), timeout=5)
    connection.putrequest("GET", "/orders")
    connection.putheader("Authorization", f"Bearer {shop.token()}")
    connection.putheader("Authorization", "Bearer x")
    connection.endheaders()
    assert connection.getresponse().status in (400, 401)
    connection.close()


# ---- the bus ------------------------------------------------------------------------------------------------------


@pytest.fixture
def bus(shop: Fleet) -> tuple[str, bytes, Path]:
    """Endpoint and public key of the broker, and the folder of keys."""
    key = (shop.state / "keys" / "orders" / "broker.public").read_bytes().strip()
    return shop.bus, key, shop.state / "keys"


def schema(name: str, topic: str) -> dict[str, Any]:
    """The publisher's own schema of a topic."""
    path = REPOSITORY / "services" / name / "contract" / "publishes" / f"{topic}.schema.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_an_unknown_key_hears_nothing(bus: tuple[str, bytes, Path]) -> None:
    peer = Peer(bus[0], None, bus[1])
    with pytest.raises(TimeoutError):
        peer.hello("orders")
    peer.close()


def test_a_topic_that_is_not_granted_is_named(bus: tuple[str, bytes, Path]) -> None:
    peer = Peer(bus[0], bus[2] / "sales", bus[1])
    command, header = peer.hello("sales", publishes={"orders.order.placed.v1": {"type": "object"}})
    assert command == "ERR"
    assert "orders.order.placed.v1" in header["text"] + str(header.get("field"))
    peer.close()


def test_a_group_that_is_not_granted_is_named(bus: tuple[str, bytes, Path]) -> None:
    peer = Peer(bus[0], bus[2] / "sales", bus[1])
    assert peer.hello("sales")[0] == "WELCOME"
    peer.send("SUB", {"group": "payments", "topics": ["orders.order.placed.v1"], "max_in_flight": 1})
    command, header = peer.receive("SUBOK", "ERR")
    assert command == "ERR"
    assert "payments" in header["text"]
    peer.close()


def test_an_event_outside_its_schema_is_refused_by_field(bus: tuple[str, bytes, Path]) -> None:
    topic = "payments.payment.captured.v1"
    peer = Peer(bus[0], bus[2] / "payments", bus[1])
    producer = f"payments/{'0' * 8}-0000-4000-8000-{'0' * 12}"
    command, _ = peer.hello("payments", publishes={topic: schema("payments", topic)}, producer=producer)
    assert command == "WELCOME"
    peer.send("PUB", {"producer": producer, "first": 1}, [event("payments", topic, "order-x", {"order_id": "order-x"})])
    command, header = peer.receive("PUBACK", "PUBNACK", "ERR")
    assert command == "PUBACK", header
    (refusal,) = header["refused"]
    assert refusal["code"] == "SCHEMA"
    assert "payment_id" in refusal["field"] + refusal["text"] or "amount" in refusal["field"] + refusal["text"]
    peer.close()


def test_a_peer_that_speaks_rubbish_is_told_or_cut_and_stalls_nobody(shop: Fleet, bus: tuple[str, bytes, Path]) -> None:
    peer = Peer(bus[0], bus[2] / "sales", bus[1])
    for frames in ([b""], [b"XX"], [b"A1HELLO"], [b"A1HELLO", b"{"], [b"A1NOPE", b"{}"], [b"A1PUB", b"[]"],
                   [b"A1HELLO", b"{}", b"x"], [b"\xff" * 100] * 50, [b"A1HELLO", b"[" * 100_000]):  # fmt: skip
        peer.socket.send_multipart(frames)
    peer.close()
    import socket

    for payload in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 1000, bytes(range(256)) * 100):
        with socket.create_connection(("127.0.0.1", int(bus[0].rsplit(":", 1)[1])), timeout=5) as raw:
            raw.sendall(payload)
    shop.wait_order(shop.place("during-rubbish"), "confirmed")


def _base64(raw: bytes) -> str:
    import base64

    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
