"""The gateway's own pages. None needs a token; none tells more than names, versions and states."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from . import __version__, docs_page, openapi
from .parts import PARTS, Parts

routes = web.RouteTableDef()


@routes.get("/live")
async def live(request: web.Request) -> web.Response:  # noqa: ARG001 - the form of a handler
    """200 while the loop turns."""
    return _json({"live": True})


@routes.get("/ready")
@routes.get("/readyz")
async def ready(request: web.Request) -> web.Response:
    """200 when requests can be served: keys and a registry are known, if only from the disk; else 503 with why."""
    parts = request.app[PARTS]
    why = parts.why_not_ready()
    body = {"ready": not why, "why": why, "degraded": parts.degraded()}
    return _json(body, status=503 if why else 200)


@routes.get("/healthz")
async def health(request: web.Request) -> web.Response:
    """The gateway is alive; and what it knows of the services. For people and dashboards, not for load balancers."""
    parts = request.app[PARTS]
    names = sorted({**parts.registry.services(), **parts.registry.absent()})
    services = {name: _service(parts, name) for name in names}
    every = all(service["ready"] for service in services.values())
    why = parts.why_not_ready()
    status = "unready" if why else "ok" if every and not parts.degraded() else "degraded"
    body = {
        "status": status,
        "why": why,
        "degraded": parts.degraded(),
        "bus": parts.bus_state(),
        "as_of": "earlier" if parts.registry.stale else "now",
        "key_set": parts.keys.version,
        "services": services,
        "refused_routes": [
            {"service": refused.service, "method": refused.method, "path": refused.path, "why": refused.why}
            for refused in parts.registry.table.refused
        ],
    }
    return _json(body)


@routes.get("/openapi.json")
async def openapi_document(request: web.Request) -> web.Response:
    """What all services offer, as OpenAPI 3.1."""
    return _json(_document(request.app[PARTS]))


@routes.get("/docs")
async def docs(request: web.Request) -> web.Response:
    """The same for people."""
    text = docs_page.page(_document(request.app[PARTS]))
    return web.Response(text=text, content_type="text/html", headers={"Cache-Control": "no-store", **docs_page.HEADERS})


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """For Prometheus."""
    parts = request.app[PARTS]
    parts.metrics.bus_up.set(parts.bus_state() == "up")
    headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    return web.Response(body=parts.metrics.exposition(), headers=headers)


def _service(parts: Parts, name: str) -> dict[str, Any]:
    slots = parts.registry.services().get(name, {})
    instances = {
        slot: {"ready": told.ready, "why": told.why, "version": told.version} for slot, told in sorted(slots.items())
    }
    return {"ready": any(told.ready for told in slots.values()), "instances": instances}


def _document(parts: Parts) -> dict[str, Any]:
    services = {**parts.registry.absent(), **parts.registry.services()}
    return openapi.document(parts.registry.table, services, __version__)


def _json(body: Any, status: int = 200) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers)
