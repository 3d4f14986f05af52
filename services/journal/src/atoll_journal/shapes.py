"""What the headers of wire version 1 hold, as data: broker/spec/wire-1.md §2, §3 and §11, in its own order.

A *check* takes a value and its path and returns the value with defaults filled in, or raises WireError HEADER naming
the path. Unknown fields are left out: the spec says that both sides ignore them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from atoll_journal.errors import WireError

Check = Callable[[Any, str], Any]
EXACT_MAX = 2**53 - 1
_NEEDED = object()

_SEGMENT = r"[a-z][a-z0-9_-]{0,39}"
_WORD = r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,63}"
_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,31}"
_IDENTITY = r"[a-z][a-z0-9-]{0,31}"


def wrong(path: str, expected: str) -> WireError:
    return WireError("HEADER", f"expected {expected}", path or None)


def integer(least: int = 0, most: int = EXACT_MAX) -> Check:
    def check(value: Any, path: str) -> int:
        if type(value) is not int or not least <= value <= most:
            raise wrong(path, f"an integer, {least} to {most}")
        return value

    return check


def number(value: Any, path: str) -> int | float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= EXACT_MAX:
        raise wrong(path, "a number, not negative")
    return value


def boolean(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise wrong(path, "true or false")
    return value


def anything(value: Any, path: str) -> Any:  # noqa: ARG001 - a Check
    return value


def text(least: int = 0, most: int = 4096) -> Check:
    def check(value: Any, path: str) -> str:
        if not isinstance(value, str) or not least <= len(value) <= most:
            raise wrong(path, f"a string of {least} to {most} characters")
        return value

    return check


def form(pattern: str, what: str, most: int = 400) -> Check:
    compiled = re.compile(pattern, re.ASCII)

    def check(value: Any, path: str) -> str:
        if not isinstance(value, str) or len(value) > most or not compiled.fullmatch(value):
            raise wrong(path, what)
        return value

    return check


def one_of(*words: str) -> Check:
    def check(value: Any, path: str) -> str:
        if value not in words or not isinstance(value, str):
            raise wrong(path, f"one of {', '.join(words)}")
        return value

    return check


def maybe(inner: Check) -> Check:
    return lambda value, path: None if value is None else inner(value, path)


def many(inner: Check, most: int, least: int = 0) -> Check:
    def check(value: Any, path: str) -> list[Any]:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise wrong(path, f"a list of {least} to {most}")
        return [inner(each, f"{path}[{index}]") for index, each in enumerate(value)]

    return check


def several(*inner: Check) -> Check:
    """A list of just these."""

    def check(value: Any, path: str) -> list[Any]:
        if not isinstance(value, list) or len(value) != len(inner):
            raise wrong(path, f"a list of {len(inner)}")
        return [each(part, f"{path}[{index}]") for index, (each, part) in enumerate(zip(inner, value, strict=True))]

    return check


def named(key: Check, inner: Check, most: int) -> Check:
    """An object used as a table; a wrong key is the table's fault."""

    def check(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > most:
            raise wrong(path, f"an object of at most {most}")
        return {key(name, path): inner(each, f"{path}.{name}") for name, each in value.items()}

    return check


class Shape:
    """An object with these fields. As a Check, and with `&` to need another's fields too."""

    def __init__(self, **fields: Check | tuple[Check, Any]) -> None:
        self._fields: Mapping[str, tuple[Check, Any]] = {
            name: field if isinstance(field, tuple) else (field, _NEEDED) for name, field in fields.items()
        }

    def __call__(self, value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise wrong(path, "an object")
        out: dict[str, Any] = {}
        for name, (check, default) in self._fields.items():
            at = f"{path}.{name}" if path else name
            if name in value:
                out[name] = check(value[name], at)
            elif default is _NEEDED:
                raise wrong(at, "a value, it is missing")
            else:
                out[name] = default() if callable(default) else default
        return out


NAME = text(1, 64)
TOPIC = form(rf"{_SEGMENT}(\.{_SEGMENT}){{1,6}}\.v[1-9][0-9]{{0,2}}", "a topic such as orders.order.placed.v1", 200)
PATTERN = form(
    rf"({_SEGMENT}\.){{0,7}}\*|{_SEGMENT}(\.{_SEGMENT}){{1,6}}\.v[1-9][0-9]{{0,2}}", "a pattern such as orders.*", 200
)
TAP = form(r"~[a-z0-9-]{1,31}", "a tap's name such as ~look")
SLOT = form(rf"{_IDENTITY}/[0-9]{{1,4}}", "a slot such as orders/1")
PRODUCER = form(rf"{_IDENTITY}/[A-Za-z0-9-]{{1,64}}", "a producer such as orders/<uuid>")
PREFIX = form(rf"(/{_WORD}){{1,4}}", "a prefix such as /orders")
ROUTE_PATH = form(rf"(/(\.?{_WORD}|\{{{_NAME}\}})){{1,16}}", "a path such as /orders/{id}")
MILLISECONDS = integer(0, 86_400_000)
SEQ_FENCE = many(several(integer(), integer()), 4096)
REFUSAL = Shape(pseq=integer(), code=NAME, field=maybe(text()), text=text(0, EXACT_MAX))
WINDOW = Shape(events=integer(), bytes=integer())
ROUTE = Shape(method=form(r"[A-Z]{1,16}", "a method such as GET"), path=ROUTE_PATH, scope=(maybe(text(1, 64)), None))
ENDPOINTS = Shape(
    url=form(r"https?://[^/\s]{1,255}", "http://host:port"),
    prefixes=many(PREFIX, 32),
    routes=many(ROUTE, 256),
    openapi=(anything, dict),
)
CONTRACTS = Shape(publishes=(named(TOPIC, anything, 256), dict), consumes=(many(TOPIC, 256), list))

TO_BROKER: Mapping[str, Shape] = {
    "HELLO": Shape(
        slot=SLOT,
        process=NAME,
        sdk=(text(0, 64), ""),
        version=(text(0, 64), ""),
        producer=(maybe(PRODUCER), None),
        endpoints=(maybe(ENDPOINTS), None),
        contracts=(CONTRACTS, lambda: {"publishes": {}, "consumes": []}),
        resume=(maybe(NAME), None),
    ),
    "PUB": Shape(producer=PRODUCER, first=integer(1)),
    "SUB": Shape(group=NAME, topics=many(TOPIC, 256, least=1), max_in_flight=integer(1, 65_536)),
    "CREDIT": Shape(group=NAME, events=integer(0, 1_000_000), bytes=integer(0, 1 << 30)),
    "ACK": Shape(group=NAME, done=(SEQ_FENCE, list), duplicate=(SEQ_FENCE, list)),
    "NACK": Shape(group=NAME, messages=SEQ_FENCE, delay_ms=(maybe(MILLISECONDS), None), error=(text(), "")),
    "TERM": Shape(group=NAME, messages=SEQ_FENCE, reason=(text(), ""), error=(text(), "")),
    "WIP": Shape(group=NAME, messages=SEQ_FENCE),
    "TAP": Shape(tap=TAP, topics=many(PATTERN, 64), after=(maybe(integer()), None)),
    "WATCH": Shape(kind=one_of("registry", "keys", "revocations")),
    "PUT": Shape(kind=one_of("keys", "revocations"), value=anything, request=(maybe(NAME), None)),
    "ADMIN": Shape(
        request=NAME,
        verb=NAME,
        group=(maybe(NAME), None),
        subject=(maybe(text(1, 256)), None),
        after=(integer(), 0),
        limit=(integer(1, 1000), 100),
        seq=(maybe(integer()), None),
        first=(maybe(integer()), None),
        last=(maybe(integer()), None),
        event_id=(maybe(text(1, 128)), None),
        id=(maybe(NAME), None),
        dry_run=(boolean, False),
        by=(text(0, 256), ""),
        event=(anything, None),
        fault=(anything, None),
    ),
    "PING": Shape(
        lag_ms=(number, 0),
        in_flight=(integer(), 0),
        oldest_ms=(number, 0),
        ready=(boolean, True),
        why=(text(), ""),
    ),
    "DRAIN": Shape(group=NAME),
    "BYE": Shape(reason=(text(), "")),
}

_LONG = text(0, EXACT_MAX)
TO_CLIENT: Mapping[str, Shape | Check] = {
    "WELCOME": Shape(
        session=NAME,
        log=text(1, EXACT_MAX),
        boot=integer(),
        producer=maybe(Shape(mark=integer(), last_id=maybe(_LONG), refused=many(REFUSAL, EXACT_MAX))),
        oldest=integer(),
        heartbeat_ms=integer(1),
        limits=Shape(event_bytes=integer(), batch_events=integer(), batch_bytes=integer()),
        credit=WINDOW,
    ),
    "PUBACK": Shape(producer=PRODUCER, upto=integer(), refused=many(REFUSAL, EXACT_MAX), credit=WINDOW),
    "SUBOK": Shape(group=NAME, lease_ms=integer()),
    "GAP": Shape(
        group=NAME, gaps=many(Shape(first=integer(), last=integer(), why=_LONG, at_ms=integer()), EXACT_MAX, least=1)
    ),
    "STALE": Shape(group=NAME, messages=many(several(integer(), integer()), EXACT_MAX)),
    "STATE": Shape(kind=NAME, version=several(integer(), integer()), settled=boolean, state=anything),
    "PONG": Shape(),
    "FENCED": Shape(reason=_LONG),
    "BYE": Shape(reason=_LONG),
    "ERR": Shape(code=NAME, text=_LONG, field=maybe(_LONG), closes=boolean, request=(maybe(NAME), None)),
}
_BUSY = Shape(producer=PRODUCER, code=one_of("BUSY"), retry_after_ms=integer())
_EXPECTED = Shape(producer=PRODUCER, code=one_of("EXPECTED"), expected=integer())
_RESULT = Shape(request=maybe(NAME))
_MSG = Shape(group=NAME, messages=many(several(integer(), integer(1), integer(), integer()), EXACT_MAX, least=1))
_ZERO = integer(0, 0)
_TAPPED = Shape(
    group=TAP, messages=many(several(integer(), _ZERO, _ZERO, _ZERO), EXACT_MAX, least=1), lost=(integer(), 0)
)


def pubnack(value: Any, path: str) -> dict[str, Any]:
    busy = isinstance(value, dict) and value.get("code") == "BUSY"
    return (_BUSY if busy else _EXPECTED)(value, path)


def result(value: Any, path: str) -> dict[str, Any]:
    """Beside `request` its fields depend on the verb."""
    return dict(value) | _RESULT(value, path)


def msg(value: Any, path: str) -> dict[str, Any]:
    tapped = isinstance(value, dict) and str(value.get("group")).startswith("~")
    return (_TAPPED if tapped else _MSG)(value, path)


TO_CLIENT = {**TO_CLIENT, "PUBNACK": pubnack, "RESULT": result, "MSG": msg}
