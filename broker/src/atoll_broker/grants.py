"""Who may say what. Pure functions over mesh.toml; everything that is not granted is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from . import codec
from .commands import Endpoints, Hello
from .errors import WireError
from .mesh import Grant, Group, Mesh

if TYPE_CHECKING:
    from .taps import Tap

OPENAPI_BYTES_MAX: Final = 131_072
_NOTHING = Grant()


def grant_of(mesh: Mesh, identity: str) -> Grant:
    return mesh.grants.get(identity, _NOTHING)


def matches(pattern: str, topic: str) -> bool:
    """`orders.*` matches every topic below `orders.`; a pattern without `*` matches itself."""
    return topic.startswith(pattern[:-1]) if pattern.endswith("*") else topic == pattern


def may_publish(grant: Grant, topic: str) -> bool:
    return any(matches(pattern, topic) for pattern in grant.publish)


def check_hello(mesh: Mesh, identity: str, hello: Hello) -> None:
    """Raises WireError ACL or CONTRACT, naming what is announced beyond the grant."""
    if identity not in mesh.identities:
        raise _denied(f"mesh.toml has neither grant nor group for {identity}", None)
    grant = grant_of(mesh, identity)
    _check_owner("slot", hello.slot, identity)
    if hello.producer is not None:
        _check_owner("producer", hello.producer, identity)
    _check_topics(mesh, identity, grant, hello)
    if hello.endpoints is not None:
        _check_endpoints(identity, grant, hello.endpoints)


def check_session(mesh: Mesh, identity: str, hello: Hello, watches: Iterable[str], taps: Mapping[str, Tap]) -> None:
    """What an open session said at its start, held against the grants of now. Raises WireError."""
    check_hello(mesh, identity, hello)
    for kind in watches:
        check_watch(mesh, identity, kind)
    for tap in taps.values():
        check_tap(mesh, identity, tap.patterns)


def check_group(mesh: Mesh, identity: str, name: str, topics: list[str]) -> Group:
    """The group, if the identity may join it with these topics. Raises WireError GROUP or ACL."""
    group = mesh.groups.get(name)
    if group is None:
        raise WireError("GROUP", f"mesh.toml declares no group {name}", "group")
    if group.part != identity:
        raise WireError("ACL", f"group {name} belongs to {group.part}, not to {identity}", "group")
    for index, topic in enumerate(topics):
        if topic not in group.topics:
            raise WireError("ACL", f"group {name} does not take {topic}", f"topics[{index}]")
    return group


def check_tap(mesh: Mesh, identity: str, patterns: list[str]) -> None:
    """Each pattern must lie within one that is granted."""
    granted = grant_of(mesh, identity).tap
    for index, pattern in enumerate(patterns):
        if not any(matches(grant, pattern) for grant in granted):
            raise WireError("ACL", f"{identity} may not tap {pattern}", f"topics[{index}]")


def check_watch(mesh: Mesh, identity: str, kind: str) -> None:
    if kind not in grant_of(mesh, identity).watch:
        raise WireError("ACL", f"{identity} may not watch {kind}", "kind")


def check_put(mesh: Mesh, identity: str, kind: str) -> None:
    if kind not in grant_of(mesh, identity).put:
        raise WireError("ACL", f"{identity} may not put {kind}", "kind")


def check_admin(mesh: Mesh, identity: str) -> None:
    if not grant_of(mesh, identity).admin:
        raise WireError("ACL", f"{identity} may not administer", "verb")


def _check_owner(field: str, value: str, identity: str) -> None:
    if value.split("/", 1)[0] != identity:
        raise _denied(f"{value} does not belong to {identity}", field)


def _check_topics(mesh: Mesh, identity: str, grant: Grant, hello: Hello) -> None:
    for topic in hello.contracts.publishes:
        if not may_publish(grant, topic):
            raise _denied(f"{identity} may not publish {topic}", f"contracts.publishes.{topic}")
    consumable = {topic for group in mesh.groups.values() if group.part == identity for topic in group.topics}
    for index, topic in enumerate(hello.contracts.consumes):
        if topic not in consumable:
            raise _denied(f"no group of {identity} takes {topic}", f"contracts.consumes[{index}]")


def _check_endpoints(identity: str, grant: Grant, endpoints: Endpoints) -> None:
    for index, prefix in enumerate(endpoints.prefixes):
        if prefix not in grant.announce:
            raise _denied(f"{identity} may not announce {prefix}", f"endpoints.prefixes[{index}]")
    if not grant.announce:
        raise _denied(f"{identity} may not announce endpoints", "endpoints")
    # What stands in the registry goes to all who watch it as it came: it may not be more than they can take.
    if (size := len(memoryview(endpoints.openapi))) > OPENAPI_BYTES_MAX:
        text = f"an OpenAPI document has at most {OPENAPI_BYTES_MAX} bytes, got {size}"
        raise WireError("CONTRACT", text, "endpoints.openapi")
    codec.decode_raw(endpoints.openapi, "HEADER", "endpoints.openapi")
    for index, route in enumerate(endpoints.routes):
        field = f"endpoints.routes[{index}]"
        if not any(route.path == prefix or route.path.startswith(prefix + "/") for prefix in endpoints.prefixes):
            raise WireError("CONTRACT", f"{route.path} lies under no announced prefix", f"{field}.path")
        if route.scope is None and not grant.public:
            raise _denied(f"{identity} may not announce {route.method} {route.path} without a scope", f"{field}.scope")


def _denied(text: str, field: str | None) -> WireError:
    """A HELLO beyond the grant: there is no session to go on with, so it closes."""
    return WireError("ACL", text, field, closes=True)
