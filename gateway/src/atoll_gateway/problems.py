"""Errors as RFC 9457 problem details, the only error shape that leaves the gateway."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

# The rest of the request is not coming, or not wanted: the connection has no use left.
_CLOSING = frozenset({408, 413})
CONTENT_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """An answer other than success: raised anywhere, turned into a response in one place.

    `detail` is for people and never repeats unchecked bytes of the request; `code` is for programs.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.headers = dict(headers or {})

    def body(self, trace_id: str | None) -> bytes:
        """The JSON document; `instance` is the trace id, by which engineers find the request."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": title(self.status),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.field is not None:
            document["field"] = self.field
        if trace_id is not None:
            document["instance"] = trace_id
        return msgspec.json.encode(document)

    def response(self, trace_id: str | None = None) -> web.Response:
        """The whole answer. Problems are about one moment, so no cache may keep them."""
        headers = {"Cache-Control": "no-store", **self.headers}
        response = web.Response(
            status=self.status, body=self.body(trace_id), content_type=CONTENT_TYPE, headers=headers
        )
        if self.status in _CLOSING:
            response.force_close()
        return response


def title(status: int) -> str:
    """The reason phrase, which RFC 9457 advises as title for `about:blank`."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def of_http_exception(error: web.HTTPException) -> Problem:
    """aiohttp's own refusals (404, 405 of the gateway's own pages) in our shape, with their Allow header."""
    headers = {name: value for name, value in error.headers.items() if name == "Allow"}
    return Problem(error.status, title(error.status).lower().replace(" ", "_"), error.reason, headers=headers)
