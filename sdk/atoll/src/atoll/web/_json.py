"""Reading a JSON body strictly: what does not fit is answered with the field's path."""

from __future__ import annotations

import hashlib
from typing import TypeVar

import msgspec
from aiohttp import ClientError, web

from .._decoding import explain
from ._problems import Problem

S = TypeVar("S", bound=msgspec.Struct)
BODY_BYTES_MAX = 1_048_576


async def read_json(request: web.Request, struct_type: type[S]) -> S:
    """Decodes the body into `struct_type` (give it `forbid_unknown_fields=True`).

    Raises Problem: 415 not JSON or compressed, 413 above 1 MiB, 400 malformed, 422 a value does not fit; the last names
    the field as a JSON path, such as `lines[0].quantity`.
    """
    body = await _read(request)
    try:
        return msgspec.json.decode(body, type=struct_type)
    except msgspec.ValidationError as error:
        text, field = explain(error)
        raise Problem(422, "validation", text, field) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, "malformed_json", f"The body is not JSON: {error}") from None
    except RecursionError:
        raise Problem(400, "malformed_json", "The body is nested too deeply") from None


async def body_hash(request: web.Request) -> str:
    """SHA-256 of the body as sent, in hex; the body is kept, so `read_json` may come before or after."""
    return hashlib.sha256(await _read(request)).hexdigest()


async def _read(request: web.Request) -> bytes:
    if request.content_type != "application/json":
        raise Problem(415, "media_type", "Expected Content-Type: application/json")
    if "Content-Encoding" in request.headers:
        raise Problem(415, "content_encoding", "Compressed bodies are not taken")
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise _too_large()
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise _too_large() from None
    except (ConnectionError, ClientError):
        # The client, or a gateway that lost patience with it, went away: no failure of this service, and no traceback.
        raise Problem(400, "body_cut_off", "The body ended before its length") from None
    if len(body) > BODY_BYTES_MAX:
        raise _too_large()
    return body


def _too_large() -> Problem:
    return Problem(413, "too_large", f"The body is larger than {BODY_BYTES_MAX} bytes", headers={"Connection": "close"})
