"""What the service has promised in `contract/`, and that its code keeps to it; else it does not start.

contract/publishes/<topic>.schema.json    topics it may publish, with the schema of their data
contract/consumes/<topic>.schema.json     topics it handles: exactly those of its SubscriptionTable
contract/http.openapi.yaml                its HTTP face, announced to the gateway
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from .. import _codec as wire
from .._errors import ConfigurationError
from .._events import SubscriptionTable
from .._options import Options
from ._security import PUBLIC, scope_of

_SUFFIX = ".schema.json"
_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised, not bound


def read_contracts(folder: Path, events: SubscriptionTable | None) -> wire.Contracts:
    """The announced contracts. Raises ConfigurationError naming the file or the topic that does not match."""
    publishes = {topic: _read_schema(path) for topic, path in _schemas(folder / "publishes")}
    declared = {topic for topic, _ in _schemas(folder / "consumes")}
    handled = set(events.topics) if events is not None else set()
    for topic in sorted(declared - handled):
        raise ConfigurationError(f"contract/consumes has {topic}: expected a handler of it in the SubscriptionTable")
    for topic in sorted(handled - declared):
        raise ConfigurationError(f"a handler takes {topic}: expected contract/consumes/{topic}{_SUFFIX}")
    return wire.Contracts(publishes, sorted(handled))


def read_routes(app: web.Application, exempt: Iterable[str]) -> list[wire.Route]:
    """The routes with their scopes. Raises ConfigurationError naming the first that is marked with none."""
    skip = frozenset(exempt)
    routes = []
    for route in app.router.routes():
        path = route.resource.canonical if route.resource is not None else ""
        if path in skip:
            continue
        scope = scope_of(route.handler)
        if scope is None:
            raise ConfigurationError(f"route {route.method} {path}: expected @web.requires(scope) or @web.public")
        if route.method == "*":
            raise ConfigurationError(f"route * {path}: expected one route a method")
        routes.append(wire.Route(route.method, path, None if scope == PUBLIC else scope))
    return routes


def check_prefixes(routes: Sequence[wire.Route], prefixes: Sequence[str]) -> None:
    """Every route lies under an announced prefix. Raises ConfigurationError naming one that does not."""
    for route in routes:
        if not any(route.path == prefix or route.path.startswith(prefix + "/") for prefix in prefixes):
            raise ConfigurationError(f"route {route.method} {route.path}: expected it under one of {list(prefixes)}")


def read_openapi(folder: Path) -> dict[str, Any]:
    """The OpenAPI document; empty if there is none. Raises ConfigurationError if it cannot be read."""
    path = folder / "http.openapi.yaml"
    if not path.exists():
        return {}
    import yaml  # 0.1 s to import: only for those who have a document

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - a safe loader
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"contract/http.openapi.yaml: {error}") from None
    if not isinstance(document, dict):
        raise ConfigurationError("contract/http.openapi.yaml: expected a mapping")
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(document))  # dates and the like become text
    return plain


def base_url(options: Options, port: int) -> str:
    """Where the gateway reaches this instance. Listening everywhere, it is known by its host's name (a container's)."""
    host = socket.gethostname() if options.host in _WILDCARDS else options.host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _schemas(folder: Path) -> list[tuple[str, Path]]:
    return [(path.name.removesuffix(_SUFFIX), path) for path in sorted(folder.glob(f"*{_SUFFIX}"))]


def _read_schema(path: Path) -> dict[str, Any]:
    try:
        schema = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"contract/publishes/{path.name}: expected a JSON Schema object: {error}") from None
    return schema
