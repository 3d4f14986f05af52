"""A gateway, auth and control in one small server, whose behaviour a test can switch while it runs."""

from __future__ import annotations

import json
import threading
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

AWAY = (503, "service_away")  # so the gateway says that a part is not there
CLIENT = {"client_id": "dashboard", "client_secret": "not a real one"}
ROLES = {
    "viewer": "ops:read",
    "operator": "ops:read ops:operate",
    "admin": "ops:read ops:operate ops:admin",
    "shopper": "orders:write",
}
_SCOPE_OF = {"GET": "ops:read", "POST": "ops:operate"}


def snapshot(*names: str, **fields: Any) -> dict[str, Any]:
    """What control says of a fleet of these parts."""
    parts = [
        {"name": name, "instance": 1, "kind": "service", "state": "running", "pid": 7, "wanted": "up", **fields}
        for name in names or ("payments",)
    ]
    figures = {"up": len(parts), "of": len(parts)}
    return {"system": "atoll", "as_of": time.time(), "parts": parts, "figures": figures, "bus": {"available": True}}


@dataclass
class Asked:
    """A request that arrived; `who` by its token."""

    method: str
    path: str
    headers: dict[str, str]
    body: str
    who: str | None


@dataclass
class State:
    """What it knows and how it behaves: `auth` and `ops` are "well", "hang", "garbage", an answer, or a refusal.

    A refusal is (status, code or body) or (status, code or body, Retry-After).
    """

    auth: Any = "well"
    ops: Any = "well"
    access_seconds: float = 600.0
    snapshot: Any = None
    lines: Any = field(default_factory=list)  # of every instance's log
    settings: Any = field(default_factory=list)  # of every instance's configuration
    users: dict[str, str] = field(default_factory=lambda: {name: name for name in ROLES})  # name -> role
    tokens: dict[str, tuple[str, str, float]] = field(default_factory=dict)  # token -> who, scopes, until
    refreshes: dict[str, str] = field(default_factory=dict)  # token -> who
    asked: list[Asked] = field(default_factory=list)
    acts: list[dict[str, Any]] = field(default_factory=list)  # those that were allowed
    released: threading.Event = field(default_factory=threading.Event)

    def count(self, method: str, prefix: str) -> int:
        """How many such requests have arrived."""
        return sum(one.method == method and one.path.startswith(prefix) for one in list(self.asked))

    def remove(self, who: str) -> None:
        """An account is removed: none of its tokens is good any more."""
        self.users.pop(who, None)
        self.tokens = {token: held for token, held in self.tokens.items() if held[0] != who}
        self.refreshes = {token: one for token, one in self.refreshes.items() if one != who}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # with the five of the library, who comes with many others waits a second for a retry


class Gateway:
    """The server, on a port of its own."""

    def __init__(self, port: int = 0) -> None:
        self.state = State()
        self._server = _Server(("127.0.0.1", port), _handler(self.state))
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Nobody listens there any more; who hangs is let go."""
        self.state.released.set()
        self._server.shutdown()
        self._server.server_close()


def _handler(state: State) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"  # no connection is kept: one that stays would hide that nobody listens any more

        def do_GET(self) -> None:
            self._serve("GET")

        def do_POST(self) -> None:
            self._serve("POST")

        def _serve(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            held = state.tokens.get((self.headers.get("Authorization") or "").removeprefix("Bearer "))
            who = held[0] if held and held[2] > time.time() else None
            state.asked.append(Asked(method, self.path, dict(self.headers), body, who))
            path = urlsplit(self.path).path
            how = state.auth if path.startswith("/auth/") else state.ops
            if how == "hang":
                state.released.wait(30)
                return
            if how == "garbage":
                self._say(200, b"<html>hello</html>", "text/html")
            elif isinstance(how, tuple):
                self._problem(*how)
            elif how != "well":
                self._say(200, json.dumps(how).encode())
            elif path.startswith("/auth/"):
                self._auth(path, body)
            else:
                self._ops(method, path, held, body)

        def _auth(self, path: str, body: str) -> None:
            if path == "/auth/login":
                told = json.loads(body)
                if state.users.get(told["username"]) and told["password"] == f"pw-{told['username']}":
                    self._tokens(told["username"], ROLES[state.users[told["username"]]])
                else:
                    self._problem(401, "unauthenticated")
                return
            form = {name: values[0] for name, values in parse_qs(body).items()}
            if path == "/auth/revoke":
                state.refreshes.pop(form["token"], None)
                self._say(200, b"{}")
            elif form["grant_type"] == "client_credentials":
                good = all(form.get(name) == value for name, value in CLIENT.items())
                if good:
                    self._tokens("dashboard", "ops:read", refresh=False)
                else:
                    self._say(401, b'{"error": "invalid_client"}')
            elif (who := state.refreshes.pop(form["refresh_token"], None)) is not None:
                self._tokens(who, ROLES[state.users[who]])
            else:
                self._say(400, b'{"error": "invalid_grant", "error_description": "no such token"}')

        def _tokens(self, who: str, scopes: str, *, refresh: bool = True) -> None:
            access = uuid.uuid4().hex
            state.tokens[access] = (who, scopes, time.time() + state.access_seconds)
            answer = {"access_token": access, "token_type": "Bearer", "scope": scopes}
            if refresh:
                answer["refresh_token"] = token = uuid.uuid4().hex
                state.refreshes[token] = who
            self._say(200, json.dumps(answer | {"expires_in": state.access_seconds}).encode())

        def _ops(self, method: str, path: str, held: tuple[str, str, float] | None, body: str) -> None:
            if held is None or held[2] <= time.time():
                self._problem(401, "unauthenticated")
            elif _SCOPE_OF[method] not in held[1].split():
                self._problem(403, "forbidden")
            elif path == "/ops/snapshot":
                self._say(200, json.dumps(state.snapshot or snapshot()).encode())
            elif path == "/ops/audit":
                self._say(200, b'{"items": [], "next": null}')
            elif method == "GET":
                what = {"log": {"lines": state.lines}, "configuration": {"settings": state.settings}}
                self._say(200, json.dumps(what[path.split("/")[-1]]).encode())
            else:
                name, instance, act = path.split("/")[-3:]
                done = {"state": "requested", "at": time.time(), "text": ""}
                key = self.headers.get("Idempotency-Key")
                state.acts.append({"who": held[0], "path": path, "key": key} | json.loads(body))
                operation = {"id": "o1", "act": act, "name": name, "instance": int(instance), "steps": [done]}
                self._say(202, json.dumps(operation | {"done": True, "ok": True}).encode())

        def _problem(self, status: int, told: str | dict[str, str], retry_after: str = "") -> None:
            body = {"code": told, "detail": f"told: {told}"} if isinstance(told, str) else told
            self._say(status, json.dumps(body).encode(), "application/problem+json", retry_after)

        def _say(self, status: int, body: bytes, kind: str = "application/json", retry_after: str = "") -> None:
            self.send_response(status)
            if retry_after:
                self.send_header("Retry-After", retry_after)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
