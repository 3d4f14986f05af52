"""Which headers cross the gateway.

Identity comes from the verified token alone, so whatever a client sends that a service, a framework or a proxy might
take for identity, origin or routing is dropped, also in the spelling that CGI-like frameworks fold together (`X_User`
and `X-User` are both HTTP_X_USER to them). Hop-by-hop headers end here in both directions (RFC 9110, 7.6.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from multidict import CIMultiDict, CIMultiDictProxy, MultiMapping

ASSERTION = "Atoll-Assertion"
# How long the client's address may be believed: as long as the assertion beside it.
CLIENT_ADDRESS = "Atoll-Client-Address"
# Milliseconds that the service has left to begin its answer; a duration, because clocks differ.
DEADLINE = "Atoll-Deadline-Ms"
TRACEPARENT = "traceparent"

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    }
)
# Set anew by the gateway or its HTTP client, or nobody's business behind it.
_REPLACED = frozenset(
    {"host", "expect", "content-length", "authorization", "cookie", "via", "forwarded", "baggage", "b3"}
)
_CLAIMED = re.compile(
    r"atoll-|x-atoll-|x-forwarded|x-real-|x-client-|x-cluster-|x-user|x-auth|x-remote-|x-scope|x-subject|x-sub$"
    r"|x-email|x-role|x-group|x-tenant|x-account|x-identity|x-original-|x-rewrite-|x-http-method|x-method-"
    r"|x-ssl-|ssl-client|x-cert|x-host$|x-b3-|trace(parent|state)$|remote-|true-client-|cf-connecting|fastly-client"
)
# Of the answer: connection matters, and the names that only the gateway may say to a client or a service.
_NOT_FROM_SERVICE = frozenset({"server", "set-cookie", "traceparent", "tracestate"})


def for_service(headers: CIMultiDictProxy[str], *, public: bool) -> CIMultiDict[str]:
    """The client's headers that a service may see, in their order and with their repetitions.

    `Authorization` goes on only to public routes: there the owner (auth) checks client credentials itself.
    """
    dropped = _HOP_BY_HOP | _REPLACED | _named_by_connection(headers)
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        plain = name.lower().replace("_", "-")
        if plain in dropped or _CLAIMED.match(plain):
            continue
        kept.add(name, value)
    if public and "Authorization" in headers:
        kept["Authorization"] = headers["Authorization"]
    return kept


def for_client(headers: MultiMapping[str]) -> CIMultiDict[str]:
    """The service's headers that a client may see. Cookies are left out: the house knows bearers only."""
    dropped = _HOP_BY_HOP | _NOT_FROM_SERVICE | _named_by_connection(headers)
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if (plain := name.lower()) not in dropped and not plain.startswith("atoll-") and _is_utf8(value)
    )


def encodable(headers: MultiMapping[str]) -> bool:
    """Whether all values can be written again: aiohttp reads stray bytes as lone surrogates, which no codec writes."""
    return all(value.isascii() or _is_utf8(value) for value in headers.values())


def _is_utf8(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _named_by_connection(headers: MultiMapping[str]) -> frozenset[str]:
    """Headers that `Connection` declares hop-by-hop. It cannot name what the gateway itself adds: that comes later."""
    return frozenset(_tokens(headers.getall("Connection", ())))


def _tokens(values: Iterable[str]) -> Iterable[str]:
    return (token.strip().lower() for value in values for token in value.split(","))
