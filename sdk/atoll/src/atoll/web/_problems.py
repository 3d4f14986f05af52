"""Errors as RFC 9457 problem details: `{type, title, status, detail, code, field, instance}`.

`code` is for programs and stable, `detail` for people, `field` a JSON path into the body where one is at fault,
`instance` the trace id: what to give an engineer.
"""

from __future__ import annotations

import http
from collections.abc import Mapping

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from .. import _tracing
from .._errors import OverloadedError, StorageError

CONTENT_TYPE = "application/problem+json"
_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 408: "timeout", 413: "too_large"}
_log = structlog.get_logger("atoll.web")


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """Raise in an HTTP handler: becomes the answer, as problem details."""

    def __init__(
        self, status: int, code: str, detail: str, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        if not 400 <= status <= 599:
            raise ValueError(f"a problem's status is 400…599, not {status}")
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        """The answer, with the current trace's id as `instance`."""
        body: dict[str, object] = {
            "type": "about:blank",
            "title": _title(self.status),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.field is not None:
            body["field"] = self.field
        trace_id = _tracing.trace_id()
        if trace_id is not None:
            body["instance"] = trace_id
        return web.Response(
            status=self.status, body=msgspec.json.encode(body), content_type=CONTENT_TYPE, headers=self.headers
        )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns what a handler raises into problem details; nothing of an unforeseen error is told to the client."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _of_http(error).response()
    except OverloadedError:
        return Problem(503, "overloaded", "Too many writes wait; try again", headers={"Retry-After": "1"}).response()
    except StorageError as error:
        _log.error("storage failed", error=str(error))
        return Problem(503, "storage", "The service cannot write now", headers={"Retry-After": "1"}).response()
    except Exception:
        _log.exception("request failed", method=request.method, path=request.path[:200])
        return Problem(500, "internal", "The service failed; the trace id says where").response()


def _of_http(error: web.HTTPException) -> Problem:
    headers = {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
    code = _CODES.get(error.status) or _title(error.status).lower().replace(" ", "_")
    return Problem(error.status, code, error.reason or _title(error.status), headers=headers)


def _title(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"
