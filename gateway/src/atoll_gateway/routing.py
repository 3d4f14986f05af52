"""From what services announce to where a request goes. Pure: no I/O, no clock.

Default deny, three times over. A request that no announced route matches is 404. A route outside its service's
prefixes, or on one of the gateway's own pages, is refused. A route without a scope is refused unless it lies under a
prefix whose owner may be public (`[gateway] public_prefixes`) - the broker checks the grant, the gateway does not take
its word for it. What was refused is kept with its reason, for the log and `/healthz`.

Two versions of a service may run side by side while one replaces the other. A route goes only to the instances that
announced it; where they differ on its scope a request must hold them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

import atoll_token

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OWN_PAGES = frozenset({"healthz", "readyz", "openapi.json", "docs", "live", "ready", "metrics"})
_TEMPLATE_BYTES_MAX = 1024


class AnnouncedRoute(msgspec.Struct, frozen=True):
    """One line of a HELLO: `path` as OpenAPI writes it; no scope means public."""

    method: str
    path: str
    scope: str | None = None


class Slot(msgspec.Struct, frozen=True):
    """One instance, as the registry tells it. Unknown fields are ignored: the broker may be newer."""

    url: str
    ready: bool = False
    why: str = ""
    version: str = ""
    prefixes: tuple[str, ...] = ()
    routes: tuple[AnnouncedRoute, ...] = ()
    openapi: dict[str, Any] = {}


Services = Mapping[str, Mapping[str, Slot]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one template of one service."""

    service: str
    method: str
    template: str
    scopes: frozenset[str]  # a request needs all of them; empty: public
    slots: frozenset[str]  # the instances that offer it

    @property
    def public(self) -> bool:
        return not self.scopes


@dataclass(frozen=True, slots=True)
class Refused:
    """An announced route that is not served, and why."""

    service: str
    slot: str
    method: str
    path: str
    why: str


@dataclass(slots=True)
class _Node:
    """One segment of the trie: literals win over a parameter, as OpenAPI 3.1 says."""

    literals: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    methods: dict[str, Route] = field(default_factory=dict)

    def child(self, part: str) -> _Node:
        if part == "{}":
            if self.parameter is None:
                self.parameter = _Node()
            return self.parameter
        return self.literals.setdefault(part, _Node())


@dataclass(frozen=True, slots=True)
class Match:
    """What a path leads to: the routes by method, none for an unknown path."""

    methods: Mapping[str, Route]

    def route(self, method: str) -> Route | None:
        """The route of a method; GET answers HEAD too, whose body the server leaves out."""
        found = self.methods.get(method)
        return self.methods.get("GET") if found is None and method == "HEAD" else found

    @property
    def allow(self) -> str:
        """The value of an Allow header."""
        implied = {"HEAD"} if "GET" in self.methods else set()
        return ", ".join(sorted(set(self.methods) | implied))


class Table:
    """All routes of all services. Immutable once built; a new registry makes a new table."""

    def __init__(self, routes: Iterable[Route] = (), refused: Iterable[Refused] = ()) -> None:
        self.routes = tuple(routes)
        self.refused = tuple(refused)
        self._root = _Node()
        for route in self.routes:
            node = self._root
            for part in _parts(route.template):
                node = node.child(part)
            node.methods[route.method] = route

    def match(self, segments: tuple[str, ...]) -> Match:
        """The routes at a path; templates with a literal where others have a parameter come first."""
        for node in _walk(self._root, segments):
            if node.methods:
                return Match(node.methods)
        return Match({})


def _walk(node: _Node, segments: tuple[str, ...]) -> Iterator[_Node]:
    if not segments:
        yield node
        return
    head, rest = segments[0], segments[1:]
    if head in node.literals:
        yield from _walk(node.literals[head], rest)
    if node.parameter is not None and head:
        yield from _walk(node.parameter, rest)


def build(services: Services, public_prefixes: Iterable[str]) -> Table:
    """The table of a registry. Services in the order of their names, so that the outcome does not depend on arrival."""
    public = frozenset(public_prefixes)
    owners = _owners(services)
    refused: list[Refused] = []
    offered: dict[tuple[str, str], _Offer] = {}
    for service in sorted(services):
        for name, slot in sorted(services[service].items()):
            for route in slot.routes:
                why = _refusal(service, slot, route, owners, public)
                if why is not None:
                    refused.append(Refused(service, name, route.method, route.path, why))
                    continue
                key = (route.method, "/".join(("", *_parts(route.path))))
                offered.setdefault(key, _Offer(service, route)).add(name, route)
    return Table((offer.route() for offer in offered.values()), refused)


class _Offer:
    """One route while it is gathered from the instances that announce it."""

    def __init__(self, service: str, first: AnnouncedRoute) -> None:
        self._service = service
        self._first = first
        self._scopes: set[str] = set()
        self._slots: set[str] = set()

    def add(self, slot: str, announced: AnnouncedRoute) -> None:
        self._slots.add(slot)
        if announced.scope is not None:
            self._scopes.add(announced.scope)

    def route(self) -> Route:
        first = self._first
        return Route(self._service, first.method, first.path, frozenset(self._scopes), frozenset(self._slots))


def _owners(services: Services) -> dict[str, str]:
    """Prefix → the one service that has it. The broker's grants make a second claim impossible; the first name wins."""
    owners: dict[str, str] = {}
    for service in sorted(services):
        for slot in services[service].values():
            for prefix in slot.prefixes:
                owners.setdefault(prefix, service)
    return owners


def _refusal(
    service: str, slot: Slot, route: AnnouncedRoute, owners: Mapping[str, str], public: frozenset[str]
) -> str | None:
    """Why a route is not served, or None."""
    parts = _parts(route.path)
    prefix = next((own for own in slot.prefixes if _under(parts, own)), None)
    if route.method not in METHODS:
        return "the method is not one of " + ", ".join(sorted(METHODS))
    if (why := _bad_template(route.path, parts)) is not None:
        return why
    if prefix is None:
        return "it lies outside the prefixes of its service"
    if owners[prefix] != service:
        return f"{prefix} belongs to {owners[prefix]}"
    if parts[0] in OWN_PAGES:
        return "the gateway serves this page itself"
    if route.scope is None and prefix not in public:
        return "it has no scope, and its prefix is not in [gateway] public_prefixes (default deny)"
    if route.scope is not None and not _is_scope(route.scope):
        return "its scope is not one well-formed scope"
    return None


def _is_scope(text: str) -> bool:
    try:
        return len(atoll_token.parse_scopes(text)) == 1
    except ValueError:
        return False


def _bad_template(path: str, parts: tuple[str, ...]) -> str | None:
    if not path.startswith("/") or len(path) > _TEMPLATE_BYTES_MAX:
        return "the path does not begin with / or is too long"
    if parts[0] in {"", "{}"} or "" in parts[:-1]:
        return "the path has no literal first segment, or an empty one"
    if any(("{" in part or "}" in part) and part != "{}" for part in parts):
        return "a parameter must be a whole segment, without a pattern"
    return None


def _parts(template: str) -> tuple[str, ...]:
    """`/orders/{id}` → ("orders", "{}"): how a parameter is called does not matter to matching."""
    return tuple("{}" if _is_parameter(part) else part for part in template[1:].split("/"))


def _is_parameter(part: str) -> bool:
    return part.startswith("{") and part.endswith("}") and part[1:-1].isidentifier()


def _under(parts: tuple[str, ...], prefix: str) -> bool:
    """Whether a path lies under a prefix, by whole segments: `/orders-archive` is not under `/orders`."""
    own = tuple(prefix.strip("/").split("/"))
    return parts[: len(own)] == own
