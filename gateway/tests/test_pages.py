"""The gateway's own pages, its policy, and what it tells telemetry."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support import Harness, MakeGateway, MakeService, echo

from atoll_gateway import policy
from atoll_gateway.policy import Policy, PolicyError
from atoll_gateway.tracing import Budget, Trace, Tracing

DESCRIBED = {
    "openapi": "3.1.0",
    "paths": {
        "/orders": {
            "post": {
                "operationId": "place",
                "summary": "Places <b>an</b> order",
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}}},
                "responses": {"202": {"description": "Accepted"}},
            }
        },
        "/orders/secret": {"get": {"responses": {}}},
    },
    "components": {"schemas": {"Order": {"properties": {"line": {"$ref": "#/components/schemas/Line"}}}}},
}


@pytest.fixture
async def front(service: MakeService, gateway: MakeGateway) -> Harness:
    auth = await service("auth", echo, routes=[("POST", "/auth/token", None)], openapi={"paths": "nonsense"})
    return await gateway(await service("orders", echo, openapi=DESCRIBED), auth)


async def test_the_document_shows_what_is_routed_and_nothing_else(front: Harness) -> None:
    document = (await front.call("GET", "/openapi.json", headers={})).json
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {"/orders", "/orders/{id}", "/auth/token"}
    place = document["paths"]["/orders"]["post"]
    assert (place["operationId"], place["tags"]) == ("orders.place", ["orders"])
    assert place["security"] == [{"atoll": ["orders:write"]}]
    assert place["requestBody"]["content"]["application/json"]["schema"]["$ref"] == "#/components/schemas/orders.Order"
    schemas = document["components"]["schemas"]
    assert schemas["orders.Order"]["properties"]["line"]["$ref"] == "#/components/schemas/orders.Line"
    assert document["paths"]["/auth/token"]["post"]["security"] == []
    assert document["paths"]["/orders/{id}"]["get"]["parameters"][0]["name"] == "id"
    scopes = document["components"]["securitySchemes"]["atoll"]["flows"]["clientCredentials"]["scopes"]
    assert set(scopes) == {"orders:read", "orders:write"}


async def test_the_head_of_a_get_is_no_operation_of_its_own(service: MakeService, gateway: MakeGateway) -> None:
    """aiohttp registers one beside each GET, and services announce what is registered."""
    announced = (("GET", "/orders"), ("HEAD", "/orders"), ("HEAD", "/orders/x"))
    routes = [(method, path, "orders:read") for method, path in announced]
    front = await gateway(await service("orders", echo, routes=routes))
    paths = (await front.call("GET", "/openapi.json", headers={})).json["paths"]
    assert {path: set(item) for path, item in paths.items()} == {"/orders": {"get"}, "/orders/x": {"head"}}
    assert (await front.call("HEAD", "/orders")).status == 200


async def test_the_page_needs_nothing_from_elsewhere_and_escapes_what_services_say(front: Harness) -> None:
    answer = await front.call("GET", "/docs", headers={})
    text = answer.body.decode()
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r"<script|<link|@import|url\(|https?://", text)
    assert "Places &lt;b&gt;an&lt;/b&gt; order" in text
    for word in ("/orders/{id}", "orders:write", "public", "/auth/token"):
        assert word in text


async def test_health_tells_what_runs(front: Harness) -> None:
    health = (await front.call("GET", "/healthz", headers={})).json
    assert (health["status"], health["as_of"], health["bus"]) == ("ok", "now", "up")
    assert health["services"]["orders"]["instances"]["orders/1"] == {"ready": True, "why": "", "version": "1.0.0"}


async def test_live_and_ready(front: Harness) -> None:
    assert (await front.call("GET", "/live", headers={})).status == 200
    for path in ("/ready", "/readyz"):
        ready = await front.call("GET", path, headers={})
        assert (ready.status, ready.json) == (200, {"ready": True, "why": "", "degraded": []})


async def test_metrics_are_by_template_never_by_path(front: Harness) -> None:
    for number in range(3):
        await front.call("GET", f"/orders/{number}")
        await front.call("GET", f"/nowhere/{number}")
    text = (await front.call("GET", "/metrics", headers={})).body.decode()
    assert 'service="orders",status="200"} 3.0' in text
    assert 'route="none"' in text
    assert "/orders/1" not in text
    assert "nowhere" not in text
    assert await front.metric("atoll_gateway_upstream_seconds_count", service="orders") == 3
    assert await front.metric("atoll_gateway_requests_in_progress") == 0


async def test_a_problems_instance_is_the_clients_trace(front: Harness) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    assert (await front.call("GET", "/orders", headers=headers)).problem(401, "missing_token")["instance"] == trace_id
    for bad in ("00-" + "0" * 32 + "-b7ad6b7169203331-01", "nonsense", f"ff-{trace_id}-b7ad6b7169203331-01"):
        answer = await front.call("GET", "/orders", headers={"traceparent": bad})
        assert answer.problem(401, "missing_token")["instance"] != trace_id


async def test_unsampled_requests_tell_the_service_so(front: Harness) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {**front.bearer(), "traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    passed = (await front.call("GET", "/orders", headers=headers)).json["headers"]["traceparent"]
    assert re.fullmatch(f"00-{trace_id}-[0-9a-f]{{16}}-00", passed)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


async def test_a_sampled_request_has_a_server_and_a_client_span(
    spans: InMemorySpanExporter, service: MakeService, gateway: MakeGateway
) -> None:
    front = await gateway(await service("orders", echo), trace_all_per_second=1000)
    told = (await front.call("GET", "/orders/7?secret=1")).json["headers"]["traceparent"]
    client, server = spans.get_finished_spans()
    assert (server.name, server.kind.name) == ("GET /orders/{id}", "SERVER")
    assert _told(server)["http.route"] == "/orders/{id}"
    assert _told(server)["http.response.status_code"] == 200
    assert _told(server)["atoll.service"] == "orders"
    assert (client.name, client.kind.name) == ("GET", "CLIENT")
    assert client.parent is not None
    assert client.parent.span_id == server.context.span_id
    assert _told(client)["http.request.method"] == "GET"
    assert _told(client)["url.full"].endswith("/orders/7")
    assert told.startswith(f"00-{server.context.trace_id:032x}-{client.context.span_id:016x}-")
    assert int(told[-2:], 16) & 1, "the service must take part in the trace"


async def test_a_failed_request_has_a_failed_span(
    spans: InMemorySpanExporter, service: MakeService, gateway: MakeGateway
) -> None:
    orders = await service("orders", echo)
    front = await gateway(orders, trace_all_per_second=1000)
    await orders.stop()
    problem = (await front.call("POST", "/orders")).problem(503, "service_away")
    server = next(span for span in spans.get_finished_spans() if span.kind.name == "SERVER")
    assert _told(server)["error.type"] == "service_away"
    assert not server.status.is_ok
    assert problem["instance"] == f"{server.context.trace_id:032x}"


async def test_own_pages_and_requests_above_the_budget_have_no_span(
    spans: InMemorySpanExporter, service: MakeService, gateway: MakeGateway
) -> None:
    front = await gateway(await service("orders", echo), trace_all_per_second=0, trace_one_in=1000)
    assert (await front.call("GET", "/orders")).json["headers"]["traceparent"].endswith("-00")
    await front.call("GET", "/live", headers={})
    assert not spans.get_finished_spans()


def begun(tracing: Tracing, method: str, path: str) -> Trace:
    """A request of a client that brings no context."""
    return tracing.begin(make_mocked_request(method, path))


def test_what_was_not_sampled_and_fails_has_its_span(spans: InMemorySpanExporter) -> None:
    tracing = Tracing(1, 1000, 5.0, lambda: 0.0)
    assert begun(tracing, "GET", "/orders").sampled
    well, failed, too_many = (begun(tracing, "GET", "/orders") for _ in range(3))
    assert not failed.sampled
    well.end(200, None)
    assert not spans.get_finished_spans()
    failed.end(503, "service_away")
    (span,) = spans.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == failed.trace_id, "the id that the client was told"
    assert (_told(span)["http.response.status_code"], _told(span)["error.type"]) == (503, "service_away")
    assert not span.status.is_ok
    too_many.end(503, "service_away")
    assert len(spans.get_finished_spans()) == 1, "everything may fail at once"


def test_what_was_not_sampled_and_is_slow_has_its_span(spans: InMemorySpanExporter) -> None:
    tracing = Tracing(1, 1000, 0.01, lambda: 0.0)
    begun(tracing, "GET", "/orders")
    slow = begun(tracing, "GET", "/orders")
    time.sleep(0.02)  # the fault itself
    slow.end(200, None)
    (span,) = spans.get_finished_spans()
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time >= 10_000_000
    assert span.status.is_ok or span.status.is_unset


def test_operators_acts_are_traced_whatever_the_load_and_their_looking_takes_nothing(
    spans: InMemorySpanExporter,
) -> None:
    tracing = Tracing(1, 1000, 5.0, lambda: 0.0)
    assert not any(begun(tracing, "GET", "/ops/snapshot").sampled for _ in range(50))
    assert begun(tracing, "POST", "/orders").sampled
    assert not begun(tracing, "POST", "/orders").sampled
    assert begun(tracing, "POST", "/ops/instances/payments/1/kill").sampled
    assert not spans.get_finished_spans()


def _told(span: ReadableSpan) -> dict[str, Any]:
    """A span's attributes."""
    return dict(span.attributes or {})


def test_the_budget_is_all_of_the_first_then_one_in_some() -> None:
    clock = [0.0]
    budget = Budget(20, 20, lambda: clock[0])
    assert sum(budget.sample() for _ in range(20)) == 20
    assert sum(budget.sample() for _ in range(400)) == 20
    clock[0] = 1.0
    assert sum(budget.sample() for _ in range(20)) == 20


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"body_byte_max": 1}, "body_byte_max"),
        ({"body_bytes_max": 0}, "gateway.body_bytes_max"),
        ({"body_bytes_max": "1"}, "gateway.body_bytes_max"),
        ({"connect_seconds_max": -1}, "gateway.connect_seconds_max"),
        ({"retry_ratio_max": 1.5}, "gateway.retry_ratio_max"),
        ({"public_prefixes": ["/"]}, "gateway.public_prefixes"),
        ({"trace_one_in": 0}, "gateway.trace_one_in"),
    ],
)
def test_a_wrong_policy_stops_with_the_fields_name(table: dict[str, object], field: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(field)):
        policy.parse({"gateway": table})


def test_the_systems_own_policy_is_valid_and_other_tables_are_not_ours() -> None:
    assert policy.parse({"gateway": {"body_bytes_max": 7}, "bus": {"what": 1}}) == Policy(body_bytes_max=7)
    mesh = Path(__file__).parents[2] / "mesh.toml"
    assert policy.load(mesh)


def test_every_knob_is_read_by_code() -> None:
    source = "".join(path.read_text() for path in Path(policy.__file__).parent.glob("*.py") if path.name != "policy.py")
    assert [name for name in Policy.__struct_fields__ if f"policy.{name}" not in source] == []


def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="ATOLL_MESH"):
        policy.load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[gateway\n")
    with pytest.raises(PolicyError, match="ATOLL_MESH"):
        policy.load(tmp_path / "bad.toml")
