"""One OpenAPI 3.1 document made of what the services announce. Pure.

Only what is routed is shown, so that the document never promises more than the table keeps: an operation that a
service describes and does not announce is left out, one that it announces and does not describe gets a minimal entry.
Services are independent, so their component names collide (`Order` here and there): each is prefixed with its service.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .problems import CONTENT_TYPE
from .routing import Route, Services, Slot, Table

_COMPONENT = re.compile(r"(#/components/[A-Za-z]+/)([^/\s]+)")
_PARAMETER = re.compile(r"\{([^}]+)\}")
_SECTIONS = ("schemas", "responses", "parameters", "examples", "requestBodies", "headers", "links", "pathItems")
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "for people"},
        "code": {"type": "string", "description": "for programs; stable"},
        "field": {"type": "string", "description": "JSON path of what is at fault"},
        "instance": {"type": "string", "description": "trace id"},
    },
}
_ERROR = {
    "description": "Problem details",
    "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


_OK = {"description": "Success"}


def document(table: Table, services: Services, version: str) -> dict[str, Any]:
    """The whole document."""
    described = {service: _description(slots.values()) for service, slots in services.items()}
    paths: dict[str, dict[str, Any]] = {}
    for route in sorted(table.routes, key=lambda route: (route.template, route.method)):  # GET comes before HEAD
        if route.method == "HEAD" and "get" in paths.get(route.template, {}):
            continue  # every GET answers it; an entry without parameters and answers would only mislead
        operation = _operation(route, described.get(route.service, {}))
        paths.setdefault(route.template, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Atoll", "version": version, "description": "All that the gateway offers."},
        "tags": [{"name": service} for service in sorted({route.service for route in table.routes})],
        "paths": paths,
        "components": _components(described, table),
    }


def _description(slots: Iterable[Slot]) -> Mapping[str, Any]:
    """A service's own document: of several versions side by side the newest by name."""
    newest = max(slots, key=lambda slot: slot.version, default=None)
    return newest.openapi if newest else {}


def _operation(route: Route, described: Mapping[str, Any]) -> dict[str, Any]:
    item = _mapping(_mapping(described.get("paths")).get(route.template))
    operation = dict(_mapping(item.get(route.method.lower())))
    if shared := _list(item.get("parameters")):
        operation["parameters"] = [*shared, *_list(operation.get("parameters"))]
    operation = {key: _renamed(value, route.service) for key, value in operation.items()}
    if "operationId" in operation:
        operation["operationId"] = f"{route.service}.{operation['operationId']}"
    if "parameters" not in operation and (names := _PARAMETER.findall(route.template)):
        operation["parameters"] = [_path_parameter(name) for name in names]
    operation["tags"] = [route.service]
    operation["security"] = [] if route.public else [{"atoll": sorted(route.scopes)}]
    operation["responses"] = {"default": _ERROR, **(_mapping(operation.get("responses")) or {"200": _OK})}
    return operation


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _components(described: Mapping[str, Mapping[str, Any]], table: Table) -> dict[str, Any]:
    components: dict[str, Any] = {"schemas": {"Problem": _PROBLEM}}
    for service in sorted(described):
        own = _mapping(described[service].get("components"))
        for section in _SECTIONS:
            for name, content in _mapping(own.get(section)).items():
                components.setdefault(section, {})[f"{service}.{name}"] = _renamed(content, service)
    components["securitySchemes"] = {"atoll": _security_scheme(table)}
    return components


def _security_scheme(table: Table) -> dict[str, Any]:
    scopes = sorted({scope for route in table.routes for scope in route.scopes})
    flow = {"tokenUrl": "/auth/token", "refreshUrl": "/auth/token", "scopes": dict.fromkeys(scopes, "")}
    return {
        "type": "oauth2",
        "description": "Send `Authorization: Bearer <token>`. Tokens are not JWTs.",
        "flows": {"clientCredentials": flow},
    }


def _renamed(content: Any, service: str) -> Any:
    """The content with its references to components (`$ref`, and a discriminator's mapping) prefixed like those."""
    if isinstance(content, dict):
        return {key: _renamed(value, service) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_renamed(value, service) for value in content]
    if isinstance(content, str) and (match := _COMPONENT.fullmatch(content)):
        return f"{match[1]}{service}.{match[2]}"
    return content


def _mapping(value: Any) -> Mapping[str, Any]:
    """What a service announced where an object belongs; anything else counts as nothing."""
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
