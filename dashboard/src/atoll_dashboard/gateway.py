"""The gateway's HTTP, synchronous, for the script threads; and what its silence or its refusals mean."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import requests

from atoll_dashboard import instances

_SECONDS = (1.0, 5.0)  # to connect, to answer
#: A page that renews itself every two seconds has no more; a longer run would be cut off before it drew anything.
_LOOK_SECONDS = (0.4, 0.8)
_GONE_SECONDS = 3.0  # nobody looks again so soon where nothing came: it would be one wait a viewer
_RENEW_BEFORE_SECONDS = 30.0
#: What the gateway says when the part behind a route does not answer ...
_AWAY = frozenset({"service_away", "service_timeout", "service_broken"})
#: ... and when it is the gateway itself that can do nothing now: it has too much to do, or misses somebody's word.
_WAITING = "waiting"
_ITSELF = frozenset({_WAITING, "overloaded"})
#: ... and control, when it is the agent that does not answer: of one part, where each has its own.
_AGENT_GONE = "agent_gone"
#: The part that such a trouble names.
AGENT = "agent"
#: So a renewal is refused when the login has ended (RFC 6749, 5.2). Any other no, as to one of too many, is for now.
_ENDED = (400, 401)


class Trouble(Exception):  # noqa: N818 - the word that the pages use
    """Something is gone: which part, and what was seen of it."""

    def __init__(self, part: str, text: str, *, waits: bool = False) -> None:
        super().__init__(f"{part}: {text}")
        self.part, self.text = part, text
        self.waits = waits  # it is there, and lets nobody in for want of another's word


class Refused(Exception):  # noqa: N818
    """It answered no."""

    def __init__(
        self, status: int, code: str, text: str, field: str | None = None, retry_after: str | None = None
    ) -> None:
        super().__init__(f"{status} {code}: {text}")
        self.status, self.code, self.text, self.field = status, code, text, field
        self.retry_after = retry_after  # seconds, as the header has it


class Withdrawn(Exception):  # noqa: N818
    """This operator's access is gone: signed out, expired, removed."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True)
class Tokens:
    """What a login yields; `expires_at` in seconds since the epoch."""

    access: str
    refresh: str | None
    expires_at: float
    scopes: frozenset[str]

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Tokens:
        """An RFC 6749 token response. Raises Trouble for anything else: somebody sits in auth's place."""
        scopes = frozenset(str(answer.get("scope", "")).split())
        try:
            access, seconds = str(answer["access_token"]), float(answer["expires_in"])
        except (KeyError, TypeError, ValueError) as error:
            raise Trouble("auth", "its answer is no token") from error
        return cls(access, answer.get("refresh_token"), time.time() + seconds, scopes)

    @property
    def fresh(self) -> bool:
        """Whether the access token will last a little longer."""
        return time.time() < self.expires_at - _RENEW_BEFORE_SECONDS


class Holder(Protocol):
    """Whoever acts with tokens of his own: a session."""

    tokens: Tokens
    renewing: threading.Lock


class Gateway:
    """The gateway at `url`, with the dashboard's own client from `client.json` for what it reads for everybody."""

    def __init__(self, url: str, client: Path) -> None:
        self.url = url.rstrip("/")
        self._client: dict[str, str] = json.loads(client.read_text())
        self._own: Tokens | None = None
        self._gone: tuple[float, Trouble] | None = None
        self.acts: Counter[tuple[str, str]] = Counter()  # (act, result) -> how often
        self._http = requests.Session()
        self._http.trust_env = False  # no proxy stands between the parts of one system
        self._http.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # one jar for all people: keep it empty

    # ---- for everybody -------------------------------------------------------------------------------------------

    def login(self, username: str, password: str) -> Tokens:
        """The tokens of a person. Raises Refused (401, 429, …) or Trouble."""
        answer = self._call("POST", "/auth/login", "auth", json={"username": username, "password": password})
        return Tokens.of(answer)

    def snapshot(self) -> dict[str, Any]:
        """The fleet, read with the dashboard's own client. Raises Trouble, naming auth if no token can be had."""
        tokens = self._own
        if tokens is None or not tokens.fresh:
            tokens = self._renew_own(tokens)
        try:
            return self._call("GET", "/ops/snapshot", "control", token=tokens.access)
        except Refused as refused:
            if refused.status != 401:
                raise _refuses_us("control", refused) from refused
        self._own = None
        tokens = self._renew_own(None)  # it was revoked; nobody who watches need notice
        try:
            return self._call("GET", "/ops/snapshot", "control", token=tokens.access)
        except Refused as refused:
            raise _refuses_us("control", refused) from refused

    def _renew_own(self, old: Tokens | None) -> Tokens:
        form = {"grant_type": "client_credentials", "scope": "ops:read", **self._client}
        try:
            self._own = Tokens.of(self._call("POST", "/auth/token", "auth", data=form))
        except (Trouble, Refused) as error:
            if old is not None and time.time() < old.expires_at:
                return old  # auth is gone, and the token is still good: who watches must go on seeing
            if isinstance(error, Refused):
                raise _refuses_us("auth", error) from error
            raise
        return self._own

    # ---- for one operator ----------------------------------------------------------------------------------------

    def act(
        self,
        session: Holder,
        act: str,
        name: str,
        instance: int,
        reason: str,
        seconds: float | None = None,
        *,
        key: str,
    ) -> dict[str, Any]:
        """Ask for an act, once per `key`; the operation that began. Raises Refused, Withdrawn, Trouble."""
        body: dict[str, Any] = {"reason": reason} | ({"seconds": seconds} if seconds is not None else {})
        path = _of_instance(name, instance, act)
        result = "asked"
        try:
            return self._as(session, "POST", path, json=body, headers={"Idempotency-Key": key})
        except (Refused, Withdrawn, Trouble) as error:
            result = type(error).__name__.lower()
            raise
        finally:
            self.acts[act, result] += 1

    def stop_faults(self, session: Holder, reason: str, *, key: str) -> int:
        """End all faults on deliveries; how many there were. Raises Refused, Withdrawn, Trouble."""
        headers = {"Idempotency-Key": key}
        answer = self._as(session, "DELETE", "/ops/faults", params={"reason": reason}, headers=headers)
        return int(answer.get("stopped", 0))

    def confirm(self, session: Holder) -> None:
        """Whether this operator may still look: asked with his own token. Raises Withdrawn, Refused, Trouble."""
        self._as(session, "GET", "/ops/audit", params={"limit": 1})

    def operation(self, session: Holder, operation_id: str) -> dict[str, Any]:
        """How an operation stands."""
        return self._look(session, f"/ops/operations/{quote(operation_id, safe='')}")

    def audit(
        self, session: Holder, *, limit: int = 50, cursor: str | None = None, who: str | None = None,
        act: str | None = None, target: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """A page of the audit: `{items, next}`."""
        asked = {"limit": limit, "cursor": cursor, "who": who, "act": act, "target": target}
        return self._look(session, "/ops/audit", params={k: v for k, v in asked.items() if v is not None})

    def log(self, session: Holder, name: str, instance: int, lines: int) -> instances.Log:
        """The last lines that an instance said."""
        answer = self._look(session, _of_instance(name, instance, "log"), params={"lines": lines})
        return _understood(answer, instances.Log)

    def configuration(self, session: Holder, name: str, instance: int) -> instances.Configuration:
        """What an instance is told, secrets masked."""
        return _understood(self._look(session, _of_instance(name, instance, "configuration")), instances.Configuration)

    def revoke(self, tokens: Tokens) -> None:
        """Give a refresh token back. Nobody waits for that to succeed."""
        if tokens.refresh is None:
            return
        try:
            self._call("POST", "/auth/revoke", "auth", data={"token": tokens.refresh, **self._client})
        except (Trouble, Refused):
            return

    def _look(self, session: Holder, path: str, **more: Any) -> dict[str, Any]:
        """A read for a page that will look again. Raises as all do, but soon."""
        known = self._gone
        if known is not None and time.monotonic() - known[0] < _GONE_SECONDS:
            raise Trouble(known[1].part, known[1].text, waits=known[1].waits)
        try:
            return self._as(session, "GET", path, seconds=_LOOK_SECONDS, **more)
        except Trouble as trouble:
            if trouble.part == AGENT:  # that was quick, and says nothing of what else is asked for
                raise
            self._gone = (time.monotonic(), trouble)
            raise

    def _as(self, session: Holder, method: str, path: str, **more: Any) -> dict[str, Any]:
        tokens = self._renewed(session, session.tokens)
        try:
            return self._call(method, path, "control", token=tokens.access, **more)
        except Refused as refused:
            if refused.status != 401:
                raise
        tokens = self._renewed(session, tokens, force=True)
        try:
            return self._call(method, path, "control", token=tokens.access, **more)
        except Refused as refused:
            if refused.status == 401:
                raise Withdrawn(refused.text) from refused
            raise

    def _renewed(self, session: Holder, seen: Tokens, *, force: bool = False) -> Tokens:
        """Tokens that will do; renewed once, however many ask at the same time."""
        if seen.fresh and not force:
            return seen
        with session.renewing:
            if session.tokens is not seen:
                return session.tokens
            if seen.refresh is None:
                raise Withdrawn("your sign-in has expired")
            form = {"grant_type": "refresh_token", "refresh_token": seen.refresh}
            try:
                session.tokens = Tokens.of(self._call("POST", "/auth/token", "auth", data=form))
            except Refused as refused:
                if refused.status in _ENDED:
                    raise Withdrawn(refused.text) from refused
                raise Trouble("auth", refused.text) from refused
            except Trouble:
                if force or time.time() >= seen.expires_at:
                    raise
                return seen
            return session.tokens

    # ---- the wire ------------------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, part: str, token: str | None = None, **more: Any) -> dict[str, Any]:
        seconds = more.pop("seconds", _SECONDS)
        headers = more.pop("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        try:
            answer = self._http.request(
                method, self.url + path, headers=headers, timeout=seconds, allow_redirects=False, **more
            )
        except requests.Timeout as error:
            raise Trouble("gateway", "no answer in time") from error
        except requests.RequestException as error:
            raise Trouble("gateway", f"nobody answers at {self.url}") from error
        body = _json(answer)
        if answer.status_code < 300 and isinstance(body, dict):
            return body
        if answer.status_code < 400:  # a redirect, a page: whatever it is, it is no refusal
            raise Trouble(part, f"it answers {answer.status_code}, and nothing that is understood")
        told = body if isinstance(body, dict) else {}
        raise _error(answer.status_code, told, part, answer.headers.get("Retry-After"))


def _of_instance(name: str, instance: int, what: str) -> str:
    return f"/ops/instances/{quote(name, safe='')}/{int(instance)}/{quote(what, safe='')}"


def _understood(answer: dict[str, Any], shape: type[instances.A]) -> instances.A:
    """Raises Trouble for an answer of another shape: control is of another release, or no control."""
    try:
        return instances.read(answer, shape)
    except instances.InstanceError as error:
        raise Trouble("control", f"its answer is not understood: {error}") from error


def _json(answer: requests.Response) -> object:
    try:
        return answer.json()
    except ValueError:
        return None


def _refuses_us(part: str, refused: Refused) -> Trouble:
    return Trouble(part, f"it refuses the dashboard's own client: {refused.text}")


def _error(status: int, body: dict[str, Any], part: str, retry_after: str | None) -> Trouble | Refused:
    code = str(body.get("code") or body.get("error") or "")
    text = str(body.get("detail") or body.get("error_description") or f"it answers {status}")
    if code in _ITSELF:
        return Trouble("gateway", text, waits=code == _WAITING)
    if code == _AGENT_GONE:
        return Trouble(AGENT, text)
    if code in _AWAY or (status >= 500 and code != "busy"):
        return Trouble(part, text)
    field = body.get("field")
    return Refused(status, code, text, None if field is None else str(field), retry_after)
