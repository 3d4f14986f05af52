"""From announcements to routes."""

from __future__ import annotations

import pytest
from support import Feed, MakeGateway, MakeService, echo

from atoll_gateway import routing
from atoll_gateway.routing import AnnouncedRoute, Slot, build

PUBLIC = ("/auth",)


def _slot(*routes: tuple[str, str, str | None], prefixes: tuple[str, ...] = ("/orders",)) -> Slot:
    return Slot("http://127.0.0.1:1", True, prefixes=prefixes, routes=tuple(AnnouncedRoute(*route) for route in routes))


def _why(service: str, slot: Slot) -> str:
    table = build({service: {f"{service}/1": slot}}, PUBLIC)
    assert not table.routes
    (refused,) = table.refused
    return refused.why


@pytest.mark.parametrize(
    ("path", "template"),
    [("orders", "/orders"), ("orders/7", "/orders/{id}"), ("orders/export", "/orders/export"),
     ("orders/7/lines/1", "/orders/{id}/lines/{line}"), ("orders/export/lines/1", "/orders/{id}/lines/{line}")],
)  # fmt: skip
def test_the_most_literal_template_wins(path: str, template: str) -> None:
    templates = ["/orders", "/orders/{id}", "/orders/export", "/orders/{id}/lines/{line}"]
    table = build({"orders": {"orders/1": _slot(*(("GET", one, "orders:read") for one in templates))}}, PUBLIC)
    route = table.match(tuple(path.split("/"))).route("GET")
    assert route is not None
    assert route.template == template


@pytest.mark.parametrize("path", ["", "other", "orders/", "orders/7/", "orders/7/lines", "ordersx"])
def test_nothing_else_matches(path: str) -> None:
    table = build({"orders": {"orders/1": _slot(("GET", "/orders/{id}", "orders:read"))}}, PUBLIC)
    assert not table.match(tuple(path.split("/"))).methods


@pytest.mark.parametrize(
    ("route", "why"),
    [
        (("GET", "/orders", None), "default deny"),
        (("GET", "/stock", "stock:read"), "outside the prefixes"),
        (("GET", "/orders-old", "orders:read"), "outside the prefixes"),
        (("BREW", "/orders", "orders:read"), "method"),
        (("get", "/orders", "orders:read"), "method"),
        (("GET", "/orders", ""), "scope"),
        (("GET", "/orders", "orders:read orders:write"), "scope"),
        (("GET", "/orders", "*"), "scope"),
        (("GET", "/orders/{id:.*}", "orders:read"), "pattern"),
        (("GET", "/orders/x-{id}", "orders:read"), "whole segment"),
        (("GET", "/orders//x", "orders:read"), "empty"),
        (("GET", "/{any}", "orders:read"), "literal first segment"),
        (("GET", "orders", "orders:read"), "begin with /"),
    ],
)
def test_a_route_is_refused_with_its_reason(route: tuple[str, str, str | None], why: str) -> None:
    assert why in _why("orders", _slot(route))


def test_a_public_route_needs_a_permitted_prefix() -> None:
    table = build({"auth": {"auth/1": _slot(("POST", "/auth/token", None), prefixes=("/auth",))}}, PUBLIC)
    assert table.routes[0].public
    both = _slot(("GET", "/orders", None), prefixes=("/auth", "/orders"))
    assert "default deny" in _why("auth", both)


def test_the_gateways_own_pages_cannot_be_taken() -> None:
    assert "itself" in _why("evil", _slot(("GET", "/metrics", "a:b"), prefixes=("/metrics",)))


def test_a_prefix_has_one_owner() -> None:
    table = build(
        {"orders": {"orders/1": _slot(("GET", "/orders", "orders:read"))},
         "pirates": {"pirates/1": _slot(("GET", "/orders", "a:b"), ("DELETE", "/orders", "a:b"))}},
        PUBLIC,
    )  # fmt: skip
    assert [route.service for route in table.routes] == ["orders"]
    assert {refused.why for refused in table.refused} == {"/orders belongs to orders"}


def test_versions_side_by_side_share_what_both_offer_and_the_stricter_scope() -> None:
    old = _slot(("GET", "/orders", "orders:read"), ("GET", "/orders/old", "orders:read"))
    new = _slot(("GET", "/orders", "orders:read:all"), ("GET", "/orders/new", "orders:read"))
    table = build({"orders": {"orders/1": old, "orders/2": new}}, PUBLIC)
    by_path = {route.template: route for route in table.routes}
    assert by_path["/orders"].scopes == {"orders:read", "orders:read:all"}
    assert by_path["/orders"].slots == {"orders/1", "orders/2"}
    assert by_path["/orders/old"].slots == {"orders/1"}
    assert by_path["/orders/new"].slots == {"orders/2"}


def test_one_instance_that_calls_a_route_public_does_not_make_it_so() -> None:
    shut = _slot(("POST", "/auth/token", "auth:use"), prefixes=("/auth",))
    wide = _slot(("POST", "/auth/token", None), prefixes=("/auth",))
    table = build({"auth": {"auth/1": wide, "auth/2": shut}}, PUBLIC)
    assert table.routes[0].scopes == {"auth:use"}


def test_head_is_answered_where_get_is() -> None:
    table = build({"orders": {"orders/1": _slot(("GET", "/orders", "orders:read"))}}, PUBLIC)
    match = table.match(("orders",))
    assert match.route("HEAD") is match.route("GET")
    assert match.allow == "GET, HEAD"
    assert {"GET", "HEAD"} <= routing.METHODS


async def test_an_unknown_path_is_404_and_a_wrong_method_405(service: MakeService, gateway: MakeGateway) -> None:
    front = await gateway(await service("orders", echo))
    (await front.call("GET", "/nowhere")).problem(404, "not_found")
    answer = await front.call("DELETE", "/orders")
    answer.problem(405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD, POST"
    own = await front.call("POST", "/healthz")
    own.problem(405, "method_not_allowed")
    assert own.headers["Allow"] == "GET, HEAD"


async def test_an_undeclared_route_of_a_service_cannot_be_reached(service: MakeService, gateway: MakeGateway) -> None:
    orders = await service("orders", echo, routes=[("GET", "/orders", None), ("GET", "/orders/{id}", "orders:read")])
    front = await gateway(orders)
    (await front.call("GET", "/orders", headers={})).problem(404, "not_found")
    (await front.call("GET", "/orders")).problem(404, "not_found")
    (await front.call("GET", "/orders/1/secret")).problem(404, "not_found")
    assert not orders.requests
    (refused,) = (await front.call("GET", "/healthz", headers={})).json["refused_routes"]
    assert "default deny" in refused["why"]


async def test_what_one_service_announces_wrongly_costs_the_others_nothing(
    service: MakeService, gateway: MakeGateway, feed: Feed
) -> None:
    orders = await service("orders", echo)
    front = await gateway(orders)
    broken = {"broken/1": {"url": 7, "routes": "none"}}
    feed.tell("registry", {"services": {"broken": broken, "orders": {"orders/1": orders.slot()}}})
    assert (await front.call("GET", "/orders")).status == 200
    feed.tell("registry", {"services": "nonsense"})
    assert (await front.call("GET", "/orders")).status == 200
