"""The HTTP face, as the gateway calls it; the broker is away."""

from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from pytest_aiohttp.plugin import AiohttpClient
from support import Bus, Gateway, options

from atoll_sales import app as app_module
from atoll_sales import handlers, routes, store


class Shop:
    """A client of the service, with the gateway's signature on what it sends."""

    def __init__(self, client: TestClient[Any, Any], gateway: Gateway, bus: Bus) -> None:
        self.client, self.gateway, self.bus = client, gateway, bus

    async def get(self, path: str, scope: str = "sales:*") -> tuple[int, Any]:
        async with self.client.get(path, headers=self.gateway.headers(scope)) as response:
            return response.status, await response.json(content_type=None)


@pytest.fixture
async def shop(tmp_path: Path, aiohttp_client: AiohttpClient) -> Shop:
    gateway = Gateway()
    app = app_module.make_app(options(tmp_path, gateway))
    client = await aiohttp_client(app)
    return Shop(client, gateway, Bus(app[routes.DATABASE], handlers.events))


def order(*skus: str) -> dict[str, Any]:
    lines = [{"sku": sku, "quantity": 2, "unit_price": "1.25"} for sku in skus]
    return {"country": "EIRE", "placed_at": "2010-12-01T08:26:00Z", "lines": lines}


async def test_sales_by_each_key_with_their_total(shop: Shop) -> None:
    await shop.bus.deliver("orders.order.confirmed.v1", "o1", order("B", "A"))
    figures = {"orders": 1, "units": 4, "revenue": "5.00"}
    half = {"orders": 1, "units": 2, "revenue": "2.50"}
    assert await shop.get("/sales?by=country") == (200, {"rows": [{"key": "EIRE", **figures}], "total": figures})
    assert await shop.get("/sales?by=day") == (200, {"rows": [{"key": "2010-12-01", **figures}], "total": figures})
    rows = [{"key": "A", **half}, {"key": "B", **half}]
    assert await shop.get("/sales?by=sku") == (200, {"rows": rows, "total": figures})


@pytest.mark.parametrize("path", ["/sales", "/sales?by=", "/sales?by=all", "/sales?by=Country"])
async def test_without_a_known_key_the_parameter_is_named(shop: Shop, path: str) -> None:
    code, problem = await shop.get(path)
    assert (code, problem["field"]) == (400, "by")


async def test_more_rows_than_an_answer_holds_are_said_to_be_more(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ROWS_MAX", 2)
    await shop.bus.deliver("orders.order.confirmed.v1", "o1", order("A", "B", "C"))
    _, answer = await shop.get("/sales?by=sku")
    assert ([row["key"] for row in answer["rows"]], answer["truncated"]) == (["A", "B"], True)
    assert answer["total"]["units"] == 6


async def test_the_route_has_its_scope(shop: Shop) -> None:
    assert (await shop.get("/sales?by=day", "orders:*"))[0] == 403
    async with shop.client.get("/sales?by=day") as response:
        assert response.status == 401
