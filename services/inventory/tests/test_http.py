"""The HTTP face, as the gateway calls it; the broker is away."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp.test_utils import TestClient
from pytest_aiohttp.plugin import AiohttpClient
from support import Bus, Gateway, options

from atoll_inventory import app as app_module
from atoll_inventory import routes
from atoll_inventory.handlers import subscriptions
from atoll_inventory.settings import Settings

BODY: dict[str, Any] = {
    "reference": "536589",
    "lines": [{"sku": "21777", "quantity": -10, "reason": "damaged"}, {"sku": "B", "quantity": 5, "reason": "found"}],
}
ADJUSTED = "inventory.stock.adjusted.v1"


class Shop:
    """A client of the service, with the gateway's signature on what it sends."""

    def __init__(self, client: TestClient[Any, Any], gateway: Gateway, bus: Bus) -> None:
        self.client, self.gateway, self.bus = client, gateway, bus

    async def adjust(self, body: Any, scope: str = "stock:*", **headers: str) -> tuple[int, Any]:
        """(status, answer). A body that is a `str` is sent as it is."""
        text = body if isinstance(body, str) else json.dumps(body)
        signed = self.gateway.headers(scope) | {"Content-Type": "application/json"} | headers
        async with self.client.post("/stock/adjustments", data=text.encode(), headers=signed) as response:
            return response.status, await response.json(content_type=None)

    async def stock(self, sku: str, scope: str = "stock:*") -> tuple[int, Any]:
        async with self.client.get(f"/stock/{quote(sku)}", headers=self.gateway.headers(scope)) as response:
            return response.status, await response.json(content_type=None)


@pytest.fixture
async def shop(tmp_path: Path, aiohttp_client: AiohttpClient) -> Shop:
    gateway = Gateway()
    app = app_module.make_app(options(tmp_path, gateway), Settings(opening_stock=100))
    client = await aiohttp_client(app)
    return Shop(client, gateway, Bus(app[routes.DATABASE], subscriptions(opening_stock=100)))


async def test_a_sku_that_never_moved_has_the_opening_stock(shop: Shop) -> None:
    nothing_yet = {"sku": "BANK CHARGES", "available": 100, "reserved": 0, "movements": 0}
    assert await shop.stock("BANK CHARGES") == (200, nothing_yet)
    assert await shop.bus.count("SELECT count(*) FROM stock") == 0


@pytest.mark.parametrize("sku", ["-A", "A" * 33, "A\n", "Ä"])
async def test_what_is_no_sku_is_not_found(shop: Shop, sku: str) -> None:
    assert (await shop.stock(sku))[0] == 404


async def test_an_order_shows_in_the_stock(shop: Shop) -> None:
    lines = [{"line": 1, "sku": "A", "quantity": 6}, {"line": 2, "sku": "A", "quantity": 4}]
    await shop.bus.deliver("orders.order.placed.v1", "o1", {"lines": lines})
    assert (await shop.stock("A"))[1] == {"sku": "A", "available": 90, "reserved": 10, "movements": 2}
    await shop.bus.deliver("orders.order.cancelled.v1", "o1", {})
    assert (await shop.stock("A"))[1] == {"sku": "A", "available": 100, "reserved": 0, "movements": 4}


async def test_an_adjustment_moves_its_lines_and_is_told_of(shop: Shop) -> None:
    assert await shop.adjust(BODY) == (201, {"reference": "536589", "lines": 2})
    assert [(await shop.stock(sku))[1]["available"] for sku in ("21777", "B")] == [90, 105]
    assert await shop.bus.published() == [(ADJUSTED, "536589", BODY)]


async def test_an_adjustment_that_is_sent_again_changes_nothing(shop: Shop) -> None:
    for headers in ({}, {}, {"Idempotency-Key": "k"}, {"Idempotency-Key": "k"}):
        assert await shop.adjust(BODY, **headers) == (201, {"reference": "536589", "lines": 2})
    assert (await shop.stock("21777"))[1]["available"] == 90
    assert len(await shop.bus.published()) == 1


async def test_a_reference_with_other_lines_is_refused(shop: Shop) -> None:
    await shop.adjust(BODY)
    code, problem = await shop.adjust(BODY | {"lines": BODY["lines"][:1]})
    assert (code, problem["code"], problem["field"]) == (409, "reference_conflict", "reference")


async def test_a_write_off_below_zero_changes_nothing_and_names_its_line(shop: Shop) -> None:
    lost = [{"sku": "A", "quantity": -quantity, "reason": "lost"} for quantity in (60, 41)]
    lines = [BODY["lines"][1], *lost]
    code, problem = await shop.adjust({"reference": "r", "lines": lines})
    assert (code, problem["code"], problem["field"]) == (409, "stock_too_small", "lines[2].quantity")
    assert await shop.bus.count("SELECT count(*) FROM movements") == 0
    assert await shop.bus.published() == []
    assert (await shop.adjust({"reference": "r", "lines": lines[:2]}))[0] == 201


def line(**changed: Any) -> dict[str, Any]:
    return {"lines": [BODY["lines"][0], BODY["lines"][1] | changed]}


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("reference", {"reference": ""}),
        ("reference", {"reference": 1}),
        ("lines", {"lines": []}),
        ("lines[1].sku", line(sku="?")),
        ("lines[1].quantity", line(quantity=0)),
        ("lines[1].quantity", line(quantity=1.5)),
        ("lines[1].quantity", line(quantity=10**40)),
        ("lines[1].reason", line(reason="")),
        ("lines[1].reason", line(reason=None)),
        ("lines[1].note", line(note="")),
        ("note", {"note": ""}),
    ],
)
async def test_a_body_that_does_not_fit_names_the_field(shop: Shop, field: str, changed: dict[str, Any]) -> None:
    code, problem = await shop.adjust(BODY | changed)
    assert (code, problem["field"]) == (422, field)
    assert await shop.bus.published() == []


async def test_a_member_that_stands_twice_is_refused(shop: Shop) -> None:
    code, problem = await shop.adjust(json.dumps(BODY).replace('"quantity"', '"quantity": 1, "quantity"', 1))
    assert (code, problem["field"]) == (422, "lines[0].quantity")
    code, problem = await shop.adjust(json.dumps(BODY)[:-1] + ', "reference": "other"}')
    assert (code, problem["field"], problem["code"]) == (422, "reference", "duplicate_member")


async def test_an_adjustment_of_the_most_lines_fits_the_bus_or_is_refused(shop: Shop) -> None:
    lines = [{"sku": f"{n:032}", "quantity": 1, "reason": "ä" * 120} for n in range(1_000)]
    code, problem = await shop.adjust({"reference": "r", "lines": lines})
    assert (code, problem["field"]) == (413, "lines")
    assert await shop.bus.count("SELECT count(*) FROM movements") == 0
    short = [line | {"reason": "count"} for line in lines]
    assert (await shop.adjust({"reference": "r", "lines": short}))[0] == 201


async def test_each_route_has_its_scope(shop: Shop) -> None:
    assert (await shop.adjust(BODY, "stock:read"))[0] == 403
    assert (await shop.stock("A", "stock:write"))[0] == 403
    async with shop.client.get("/stock/A") as response:
        assert response.status == 401
