"""A gateway with auth and control behind it, as the dashboard sees them: real HTTP, answers shaped as the real ones."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

SCOPES = {"viewer": "ops:read", "operator": "ops:read ops:operate", "admin": "ops:read ops:operate ops:admin"}
CLIENT = {"client_id": "dashboard", "client_secret": "of the dashboard"}
Reply = tuple[int, dict[str, Any]]


@dataclass
class FakeGateway:
    """What it knows, what it was asked, and what is wrong with it. Seconds everywhere."""

    people: dict[str, tuple[str, str]] = field(default_factory=dict)  # name -> password, scopes
    token_seconds: float = 600.0
    away: set[str] = field(default_factory=set)  # "auth", "control": the gateway says that they are
    throttled: bool = False
    hold: threading.Event = field(default_factory=threading.Event)  # cleared: nothing is answered
    calls: list[tuple[str, str]] = field(default_factory=list)
    acts: list[dict[str, Any]] = field(default_factory=list)
    access: dict[str, tuple[str, float]] = field(default_factory=dict)  # token -> subject, until
    refresh: dict[str, str] = field(default_factory=dict)  # token -> subject
    revoked: list[str] = field(default_factory=list)
    url: str = ""

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(1 for _, asked in self.calls if asked.startswith(path))

    def forget(self, name: str) -> None:
        """Remove an account and all that was given to it."""
        self.people.pop(name, None)
        self.access = {token: found for token, found in self.access.items() if found[0] != name}
        self.refresh = {token: subject for token, subject in self.refresh.items() if subject != name}

    # ---- answers -------------------------------------------------------------------------------------------------

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply:
        path = urlsplit(target).path
        part = "auth" if path.startswith("/auth") else "control"
        if part in self.away:
            return 503, {"code": "service_away", "detail": f"{part} is away: nobody announced it", "status": 503}
        if path == "/auth/login":
            return self._login(json.loads(body))
        if path == "/auth/token":
            return self._token({name: values[0] for name, values in parse_qs(body.decode()).items()})
        if path == "/auth/revoke":
            token = parse_qs(body.decode())["token"][0]
            self.revoked.append(token)
            self.refresh.pop(token, None)
            return 200, {}
        subject = self._subject(headers.get("authorization", ""))
        if subject is None:
            return 401, {"code": "token_revoked", "detail": "the token is revoked", "status": 401}
        return self._ops(method, path, subject, headers, body)

    def _login(self, asked: dict[str, Any]) -> Reply:
        if self.throttled:
            return 429, {"code": "throttled", "detail": "Too many wrong attempts; try again in 12 s", "status": 429}
        known = self.people.get(asked["username"])
        if known is None or known[0] != asked["password"]:
            return 401, {"code": "invalid_credentials", "detail": "The user name or the password is wrong"}
        return 200, self._given(asked["username"], known[1], refreshed=True)

    def _token(self, form: dict[str, str]) -> Reply:
        if form["grant_type"] == "client_credentials":
            if {name: form.get(name) for name in CLIENT} != CLIENT:
                return 401, {"error": "invalid_client"}
            return 200, self._given("dashboard", "ops:read", refreshed=False)
        subject = self.refresh.pop(form["refresh_token"], None)
        if subject is None:
            return 400, {"error": "invalid_grant", "error_description": "its login has ended"}
        return 200, self._given(subject, self.people[subject][1], refreshed=True)

    def _given(self, subject: str, scope: str, *, refreshed: bool) -> dict[str, Any]:
        token = secrets.token_hex(8)
        self.access[token] = (subject, time.time() + self.token_seconds)
        given: dict[str, Any] = {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": self.token_seconds,
            "scope": scope,
        }
        if refreshed:
            given["refresh_token"] = secrets.token_hex(8)
            self.refresh[given["refresh_token"]] = subject
        return given

    def _subject(self, authorization: str) -> str | None:
        subject, until = self.access.get(authorization.removeprefix("Bearer "), (None, 0.0))
        return subject if until > time.time() else None

    def _ops(self, method: str, path: str, subject: str, headers: dict[str, str], body: bytes) -> Reply:
        if path == "/ops/snapshot":
            return 200, SNAPSHOT | {"as_of": time.time()}
        if path == "/ops/audit":
            return 200, {"items": [], "next": None}
        if method == "POST" and path.startswith("/ops/instances/"):
            self.acts.append({"who": subject, "path": path, "key": headers.get("idempotency-key")} | json.loads(body))
            return 202, {"id": "op1", "act": "kill", "name": "payments", "instance": 1, "steps": [], "done": False}
        return 404, {"code": "not_found", "detail": "There is no such thing"}


SNAPSHOT: dict[str, Any] = {
    "system": "atoll",
    "agent": {"state": "running", "pid": 7},
    "figures": {"up": 1, "of": 1, "events_per_second": 1.0, "worst_lag": None, "dead_letters": 0},
    "parts": [{"name": "payments", "instance": 1, "kind": "service", "state": "running", "why": "", "pid": 42}],
    "bus": {"available": True, "as_of": 0.0, "topics": {}, "groups": {}},
    "faults": [],
    "alarms": [],
}


@contextmanager
def fake_gateway() -> Iterator[FakeGateway]:
    """One that listens for the block."""
    fake = FakeGateway()
    fake.hold.set()
    for role, scope in SCOPES.items():
        fake.people[role] = (f"password of {role}", scope)
    fake.people["nobody"] = ("password of nobody", "orders:read")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fake.calls.append((self.command, self.path))
            fake.hold.wait(30)
            status, told = fake.answer(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            sent = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            if status == 429:
                self.send_header("Retry-After", "12")
            with suppress(OSError):  # who asked may have given up
                self.end_headers()
                self.wfile.write(sent)

        do_POST = do_GET  # noqa: N815 - the base class's name

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        fake.hold.set()
        server.shutdown()
        server.server_close()
