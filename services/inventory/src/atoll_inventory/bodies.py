"""Request bodies, once more: what a struct cannot see."""

import json

from aiohttp import web

import atoll.web

_NAME_LENGTH_MAX = 64  # of what an answer repeats of the request


async def refuse_duplicate_members(request: web.Request) -> None:
    """Refuses an object that has a member twice. Decoders disagree on which one counts, and the gateway's logs, a proxy
    and this service must not each see another quantity. Call it after `read_json`, which has checked the syntax."""
    try:
        body = json.loads(await request.read(), object_pairs_hook=_Members, parse_int=str, parse_float=str)
        field = _twice(body, "")
    except RecursionError:
        raise atoll.web.Problem(400, "malformed_json", "The body is nested too deeply") from None
    if field is not None:
        raise atoll.web.Problem(422, "duplicate_member", "This member stands twice in its object", field)


class _Members(list[tuple[str, object]]):
    """The members of an object, as they stand."""


def _twice(value: object, path: str) -> str | None:
    """The JSON path of the first member that stands twice in its object."""
    if isinstance(value, _Members):
        return _twice_in_object(value, path)
    if isinstance(value, list):
        return next((found for index, item in enumerate(value) if (found := _twice(item, f"{path}[{index}]"))), None)
    return None


def _twice_in_object(members: _Members, path: str) -> str | None:
    seen: set[str] = set()
    for name, value in members:
        here = f"{path}.{name[:_NAME_LENGTH_MAX]}".removeprefix(".")
        if name in seen:
            return here
        seen.add(name)
        if (found := _twice(value, here)) is not None:
            return found
    return None
