"""The HTTP face, as the gateway calls it; the broker is away."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from pytest_aiohttp.plugin import AiohttpClient
from support import Bus, Gateway, options

from atoll_orders import app as app_module
from atoll_orders import deadline, handlers, routes
from atoll_orders.settings import Settings

BODY: dict[str, Any] = {
    "invoice": "536365",
    "customer": "17850",
    "country": "United Kingdom",
    "placed_at": "2010-12-01T09:26:00+01:00",
    "lines": [
        {"sku": "85123A", "description": "HOLDER", "quantity": 6, "unit_price": "2.55"},
        {"sku": "71053", "description": None, "quantity": 6, "unit_price": 3.39},
    ],
}
ALL = "orders:*"
OWN = "orders:read orders:write"


class Shop:
    """A client of the service, with the gateway's signature on what it sends."""

    def __init__(self, client: TestClient[Any, Any], gateway: Gateway, bus: Bus) -> None:
        self.client, self.gateway, self.bus = client, gateway, bus

    async def post(
        self, path: str, body: Any, scope: str = ALL, subject: str = "shop", **headers: str
    ) -> tuple[int, Any, Any]:
        """(status, answer, headers). A body that is a `str` is sent as it is."""
        text = body if isinstance(body, str) else json.dumps(body)
        signed = self.gateway.headers(scope, subject) | {"Content-Type": "application/json"} | headers
        async with self.client.post(path, data=text.encode(), headers=signed) as response:
            return response.status, await response.json(content_type=None), response.headers

    async def get(self, path: str, scope: str = ALL, subject: str = "shop") -> tuple[int, Any]:
        async with self.client.get(path, headers=self.gateway.headers(scope, subject)) as response:
            return response.status, await response.json(content_type=None)


@pytest.fixture
async def shop(tmp_path: Path, aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(deadline, "PAUSE_SECONDS", 0.01)
    gateway = Gateway()
    app = app_module.make_app(options(tmp_path, gateway), Settings(saga_deadline_seconds=3600))
    client = await aiohttp_client(app)
    return Shop(client, gateway, Bus(app[routes.DATABASE], handlers.events))


@pytest.mark.parametrize(
    ("path", "status", "topic"),
    [
        ("/orders", "placed", "orders.order.placed.v1"),
        ("/returns", "received", "orders.return.received.v1"),
    ],
)
async def test_what_is_accepted_is_at_its_location(shop: Shop, path: str, status: str, topic: str) -> None:
    code, answer, headers = await shop.post(path, BODY)
    assert (code, answer["status"]) == (202, status)
    assert headers["Location"] == f"{path}/{answer['id']}"
    assert await shop.get(headers["Location"]) == (
        200,
        {
            "id": answer["id"],
            "invoice": "536365",
            "customer": "17850",
            "country": "United Kingdom",
            "placed_at": "2010-12-01T08:26:00Z",
            "status": status,
            "reason": None,
            "detail": None,
            "total": "35.64",
            "units": 12,
            "lines": [
                {"line": 1, "sku": "85123A", "description": "HOLDER", "quantity": 6, "unit_price": "2.55"},
                {"line": 2, "sku": "71053", "description": None, "quantity": 6, "unit_price": "3.39"},
            ],
        },
    )
    assert [(published, subject) for published, subject, _ in await shop.bus.published()] == [(topic, answer["id"])]


async def test_the_same_invoice_with_the_same_content_is_the_same_order(shop: Shop) -> None:
    first = await shop.post("/orders", BODY)
    again = BODY | {"placed_at": "2010-12-01T08:26:00Z"}  # another way to write the same moment
    second = await shop.post("/orders", json.dumps(again, indent=1).replace("3.39", '"3.390"'))
    assert (first[0], first[1]) == (second[0], second[1])
    assert len(await shop.bus.published()) == 1


async def test_the_same_invoice_with_another_content_is_refused(shop: Shop) -> None:
    await shop.post("/orders", BODY)
    code, problem, headers = await shop.post("/orders", BODY | {"country": "France"})
    assert (code, problem["code"], problem["field"]) == (409, "invoice_conflict", "invoice")
    assert headers["Content-Type"].startswith("application/problem+json")
    assert len(await shop.bus.published()) == 1


async def test_one_number_of_two_owners_or_of_a_return_is_another_invoice(shop: Shop) -> None:
    answers = [
        await shop.post("/orders", BODY),
        await shop.post("/orders", BODY, subject="other"),
        await shop.post("/returns", BODY),
    ]
    assert [code for code, _, _ in answers] == [202] * 3
    assert len({answer["id"] for _, answer, _ in answers}) == 3


async def test_an_idempotency_key_gives_the_same_answer_and_one_order(shop: Shop) -> None:
    key = {"Idempotency-Key": "k1"}
    first = await shop.post("/orders", BODY, **key)
    second = await shop.post("/orders", BODY, **key)
    assert first[:2] == second[:2]
    assert first[2]["Location"] == second[2]["Location"]
    assert (await shop.post("/orders", BODY | {"invoice": "2"}, **key))[0] == 422
    assert (await shop.post("/returns", BODY, **key))[0] == 422
    assert len(await shop.bus.published()) == 1


async def test_a_member_that_stands_twice_is_named_by_its_path(shop: Shop) -> None:
    twice = json.dumps(BODY).replace('"quantity": 6', '"quantity": 6, "quantity": 7')  # in both lines: the first counts
    _, problem, _ = await shop.post("/orders", twice)
    assert (problem["code"], problem["field"]) == ("duplicate_member", "lines[0].quantity")
    _, problem, _ = await shop.post("/orders", json.dumps(BODY)[:-1] + ', "country": "France"}')
    assert (problem["code"], problem["field"]) == ("duplicate_member", "country")


def line(**changed: Any) -> dict[str, Any]:
    return {"lines": [BODY["lines"][0], BODY["lines"][1] | changed]}


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("invoice", {"invoice": ""}),
        ("invoice", {"invoice": 536365}),
        ("customer", {"customer": 17850}),
        ("country", {"country": ""}),
        ("placed_at", {"placed_at": "2010-12-01T08:26:00"}),
        ("placed_at", {"placed_at": "yesterday"}),
        ("placed_at", {"placed_at": "0001-01-01T00:00:00+01:00"}),
        ("lines", {"lines": []}),
        ("lines", {"lines": None}),
        ("lines[1].sku", line(sku="A\n")),
        ("lines[1].sku", line(sku="")),
        ("lines[1].quantity", line(quantity=0)),
        ("lines[1].quantity", line(quantity=1_000_001)),
        ("lines[1].quantity", line(quantity=1.5)),
        ("lines[1].quantity", line(quantity="1")),
        ("lines[1].quantity", line(quantity=True)),
        ("lines[1].unit_price", line(unit_price="1.00001")),
        ("lines[1].unit_price", line(unit_price=1.00001)),
        ("lines[1].unit_price", line(unit_price=-0.01)),
        ("lines[1].unit_price", line(unit_price="NaN")),
        ("lines[1].unit_price", line(unit_price="Infinity")),
        ("lines[1].unit_price", line(unit_price=None)),
        ("lines[1].unit_price", line(unit_price=[1])),
        ("lines[1].unit_price", line(unit_price=1e12)),
        ("lines[1].description", line(description="x" * 257)),
        ("lines[1].colour", line(colour="red")),
        ("coupon", {"coupon": 1}),
    ],
)
async def test_a_body_that_does_not_fit_names_the_field(shop: Shop, field: str, changed: dict[str, Any]) -> None:
    code, problem, _ = await shop.post("/orders", BODY | changed)
    assert (code, problem["field"]) == (422, field)
    assert await shop.bus.published() == []


@pytest.mark.parametrize("missing", ["invoice", "country", "placed_at", "lines"])
async def test_a_missing_field_is_named(shop: Shop, missing: str) -> None:
    code, problem, _ = await shop.post("/orders", {name: value for name, value in BODY.items() if name != missing})
    assert (code, problem["field"]) == (422, missing)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (400, "{"),
        (400, ""),
        (400, json.dumps(BODY).replace("3.39", "NaN")),
        (400, json.dumps(BODY).replace("3.39", "01")),
        (422, json.dumps(BODY).replace("3.39", "1e400")),
        (422, json.dumps(BODY).replace('"quantity": 6', '"quantity": 6, "quantity": 7', 1)),
        (422, json.dumps(BODY).replace('"invoice"', '"invoice": "1", "invoice"', 1)),
        (400, json.dumps(BODY).replace("3.39", "[" * 100_000 + "]" * 100_000)),
        (413, json.dumps(BODY | {"invoice": "x" * 1_100_000})),
    ],
)
async def test_a_body_that_is_no_json_to_agree_on_is_refused(shop: Shop, code: int, text: str) -> None:
    assert (await shop.post("/orders", text))[0] == code
    assert await shop.bus.published() == []


@pytest.mark.parametrize("price", ["2.55", "0", "0.0001", "1e2", "25.5e-1", "607.49"])
async def test_a_price_as_a_number_is_read_exactly(shop: Shop, price: str) -> None:
    _, answer, _ = await shop.post("/orders", json.dumps(BODY).replace("3.39", price))
    as_number = (await shop.get(f"/orders/{answer['id']}"))[1]["lines"][1]["unit_price"]
    expected = {"0": "0.00", "1e2": "100.00", "25.5e-1": "2.55"}
    assert as_number == expected.get(price, price)


async def test_customer_and_description_may_be_missing_null_or_empty(shop: Shop) -> None:
    plain: dict[str, Any] = {"sku": "A", "quantity": 1, "unit_price": 0}
    customers: list[dict[str, Any]] = [{}, {"customer": None}, {"customer": ""}]
    for number, customer in enumerate(customers):
        body = {key: BODY[key] for key in ("country", "placed_at")} | customer
        lines = [plain, plain | {"description": ""}, plain | {"description": None}]
        assert (await shop.post("/orders", body | {"invoice": f"{number}", "lines": lines}))[0] == 202
    assert len(await shop.bus.published()) == 3


async def test_an_invoice_of_several_hundred_lines_is_taken(shop: Shop) -> None:
    _, answer, _ = await shop.post("/orders", BODY | {"lines": BODY["lines"] * 300})
    await shop.bus.deliver("payments.payment.captured.v1", answer["id"], {"amount": "10692.00"})
    assert [topic for topic, _, _ in await shop.bus.published()] == [
        "orders.order.placed.v1",
        "orders.order.confirmed.v1",
    ]


async def test_more_lines_than_an_event_can_carry_are_refused(shop: Shop) -> None:
    code, problem, _ = await shop.post("/orders", BODY | {"lines": BODY["lines"] * 2_000})
    assert (code, problem["field"]) == (413, "lines")
    assert await shop.bus.count("SELECT count(*) FROM orders") == 0


async def test_an_order_is_its_owners_alone(shop: Shop) -> None:
    _, _, headers = await shop.post("/orders", BODY, scope=OWN)
    place = headers["Location"]
    assert (await shop.get(place, OWN))[0] == 200
    assert (await shop.get(place, OWN, "other"))[0] == 404
    assert (await shop.get(place, "orders:read:all orders:read", "other"))[0] == 200
    assert (await shop.get(place, "orders:*", "other"))[0] == 200
    assert (await shop.get("/orders", OWN, "other"))[1]["items"] == []
    assert len((await shop.get("/orders", "orders:*", "other"))[1]["items"]) == 1
    assert (await shop.get(place.replace("orders", "returns")))[0] == 404


@pytest.mark.parametrize(("method", "scope"), [("post", "orders:read"), ("get", "orders:write"), ("get", "stock:*")])
async def test_without_the_scope_nothing_is_answered(shop: Shop, method: str, scope: str) -> None:
    answer = await shop.post("/orders", BODY, scope) if method == "post" else await shop.get("/orders", scope)
    assert answer[0] == 403


@pytest.mark.parametrize("audience", ["sales", None])
async def test_without_the_gateways_word_for_this_service_nothing_is_answered(shop: Shop, audience: str | None) -> None:
    headers = shop.gateway.headers(ALL, audience=audience) if audience else {}
    async with shop.client.get("/orders", headers=headers) as response:
        assert response.status == 401


async def test_lists_are_narrowed_and_paged_from_the_newest(shop: Shop) -> None:
    ids = [(await shop.post("/orders", BODY | {"invoice": f"{n}", "customer": f"c{n % 2}"}))[1]["id"] for n in range(5)]
    _, page = await shop.get("/orders?limit=3")
    assert [item["id"] for item in page["items"]] == ids[:1:-1]
    _, rest = await shop.get(f"/orders?limit=3&cursor={page['next']}")
    assert ([item["id"] for item in rest["items"]], rest["next"]) == (ids[1::-1], None)
    _, of_customer = await shop.get("/orders?customer=c1")
    assert [item["id"] for item in of_customer["items"]] == [ids[3], ids[1]]
    assert len((await shop.get("/orders?status=placed&limit=5"))[1]["items"]) == 5
    assert (await shop.get("/orders?status=confirmed"))[1] == {"items": [], "next": None}
    assert (await shop.get("/returns"))[1] == {"items": [], "next": None}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/orders?status=lost", "status"),
        ("/orders?status=received", "status"),
        ("/returns?status=placed", "status"),
        ("/orders?limit=0", "limit"),
        ("/orders?limit=201", "limit"),
        ("/orders?limit=x", "limit"),
        ("/orders?cursor=-1", "cursor"),
        ("/orders?cursor=99999999999999999999", "cursor"),
        ("/orders?customer=" + "x" * 65, "customer"),
    ],
)
async def test_a_wrong_parameter_is_named(shop: Shop, path: str, field: str) -> None:
    code, problem = await shop.get(path)
    assert (code, problem["field"]) == (400, field)


async def test_the_running_service_cancels_what_hangs(shop: Shop) -> None:
    _, answer, _ = await shop.post("/orders", BODY)
    await shop.bus.database.write(lambda tx: tx.execute("UPDATE invoices SET deadline_ms = 0"))
    for _ in range(500):
        _, order = await shop.get(f"/orders/{answer['id']}")
        if order["status"] == "cancelled":
            break
        await asyncio.sleep(0.02)
    assert (order["status"], order["reason"]) == ("cancelled", "deadline")


async def test_the_service_is_ready_without_the_broker(shop: Shop) -> None:
    async with shop.client.get("/ready") as response:
        assert (response.status, (await response.json())["degraded"]) == (200, ["bus"])
