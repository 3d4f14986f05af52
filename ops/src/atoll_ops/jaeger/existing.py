"""Somebody's Jaeger that runs already, named by `up --jaeger URL`: no process of ours, and nothing that we can mend."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from atoll_ops.errors import OperationError

OTLP_HTTP_PORT = 4318
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SECONDS = 2.0
_ANSWER_BYTES_MAX = 1024 * 1024


def query_url(given: str) -> str:
    """`--jaeger` as we keep it. Raises OperationError, exit code 2, for what is no address of a query API."""
    try:
        parts = urlsplit(given)
        rest = parts.query or parts.fragment or parts.port == 0
        fits = parts.scheme in ("http", "https") and parts.hostname and not rest
    except ValueError:
        fits = False
    if not fits or "@" in given or any(letter <= " " for letter in given):
        wrong = OperationError(f"--jaeger {given!r}: expected the address of its query API, as in http://HOST:16686")
        wrong.code = 2
        raise wrong
    return given.rstrip("/")


def otlp_url(query: str) -> str:
    """Where its collector takes spans over HTTP, unless OTEL_EXPORTER_OTLP_ENDPOINT says otherwise: the usual port."""
    parts = urlsplit(query)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{OTLP_HTTP_PORT}"


def _opener(query: str) -> urllib.request.OpenerDirector:
    """A proxy of the user's leads out of this machine, and to nothing on it."""
    here = urlsplit(query).hostname in LOOPBACK
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if here else []))


def silence(query: str) -> str:
    """Why it does not look like a Jaeger now, or nothing. A stranger's page answers 200 too: JSON tells."""
    try:
        with _opener(query).open(f"{query}/api/services", timeout=_SECONDS) as answer:
            json.loads(answer.read(_ANSWER_BYTES_MAX))["data"]
    except urllib.error.HTTPError as error:
        return f"/api/services answers {error.code}"
    except (OSError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", None) or error)
    except (ValueError, KeyError, TypeError):
        return "/api/services answers something else"
    return ""
