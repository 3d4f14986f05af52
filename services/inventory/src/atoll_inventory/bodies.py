"""Request bodies, once more: what a struct cannot see."""

import json

from aiohttp import web

import atoll.web


async def refuse_duplicate_members(request: web.Request) -> None:
    """Refuses an object that has a member twice. Decoders disagree on which one counts, and the gateway's logs, a proxy
    and this service must not each see another quantity. Call it after `read_json`, which has checked the syntax."""
    try:
        json.loads(await request.read(), object_pairs_hook=_unique, parse_int=str, parse_float=str)
    except _DuplicateError as error:
        detail = f"{error.name!r} stands twice in one object"
        raise atoll.web.Problem(422, "duplicate_member", detail, error.name) from None
    except RecursionError:
        raise atoll.web.Problem(400, "malformed_json", "The body is nested too deeply") from None


class _DuplicateError(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name[:64]


def _unique(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise _DuplicateError(name)
        seen.add(name)
