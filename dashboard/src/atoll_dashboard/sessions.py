"""Who is signed in. The cookie carries a signed random id alone; what it stands for never leaves this process.

Sessions live in memory: after a restart people sign in again. That costs them a moment, and no token is ever on a disk.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from itsdangerous import BadSignature, TimestampSigner

from atoll_dashboard.gateway import Tokens

SESSIONS_MAX = 1000
#: Of one account: who signs in again and again ends his own sessions, not other people's.
SESSIONS_EACH_MAX = 50
_KEY_FILE = "cookie.key"
_ROLES = (("admin", "ops:admin"), ("operator", "ops:operate"), ("viewer", "ops:read"))


@dataclass(eq=False)
class Session:
    """A person at a browser. `began` and `used` by the monotonic clock."""

    id: str
    username: str
    tokens: Tokens
    csrf: str
    began: float
    used: float
    confirmed: float  # when it was last sure that its operator may look
    renewing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def scopes(self) -> frozenset[str]:
        """What the last token allowed. Only for what to show: the ops API decides."""
        return self.tokens.scopes

    @property
    def role(self) -> str:
        """viewer, operator or admin."""
        return next((role for role, scope in _ROLES if scope in self.scopes), "nobody")

    def may(self, scope: str) -> bool:
        """Whether to offer what needs this scope."""
        return scope in self.scopes


class Sessions:
    """The sessions of this process. Safe from any thread."""

    def __init__(self, key: bytes, session_seconds: float, idle_seconds: float) -> None:
        self._signer = TimestampSigner(key, salt="atoll-dashboard-session")
        self._session_seconds = session_seconds
        self._idle_seconds = idle_seconds
        self._known: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def create(self, tokens: Tokens, username: str) -> Session:
        """A new session; the one that was longest unused goes when there are too many, the account's own first."""
        now = time.monotonic()
        session = Session(secrets.token_urlsafe(32), username, tokens, secrets.token_urlsafe(32), now, now, now)
        with self._lock:
            self._forget(now)
            own = [one.id for one in self._known.values() if one.username == username]
            for session_id in own[: max(0, len(own) - SESSIONS_EACH_MAX + 1)]:
                del self._known[session_id]
            while len(self._known) >= SESSIONS_MAX:
                self._known.popitem(last=False)
            self._known[session.id] = session
        return session

    def _forget(self, now: float) -> None:
        for session in [one for one in self._known.values() if self._over(one, now)]:
            del self._known[session.id]

    def _over(self, session: Session, now: float) -> bool:
        return now - session.began > self._session_seconds or now - session.used > self._idle_seconds

    def cookie(self, session: Session) -> str:
        """The value of the session's cookie."""
        return self._signer.sign(session.id).decode()

    def of_cookie(self, value: str | None) -> Session | None:
        """Whose cookie that is; None for one that is forged, expired, or of a session that has ended."""
        if not value or len(value) > 500:
            return None
        try:
            session_id = self._signer.unsign(value, max_age=int(self._session_seconds) + 1).decode()
        except (BadSignature, UnicodeDecodeError):
            return None
        return self.get(session_id)

    def get(self, session_id: str, *, touch: bool = True) -> Session | None:
        """A session that lives; looking is using it, unless `touch` is off."""
        now = time.monotonic()
        with self._lock:
            session = self._known.get(session_id)
            if session is None:
                return None
            if self._over(session, now):
                del self._known[session_id]
                return None
            if touch:
                session.used = now
                self._known.move_to_end(session_id)
            return session

    def in_use(self, seconds: float) -> list[Session]:
        """Those that were used within so many seconds: with a page open, every two."""
        now = time.monotonic()
        with self._lock:
            return [session for session in self._known.values() if now - session.used < seconds]

    def end(self, session_id: str) -> Session | None:
        """End a session; its open pages lose their connection within a second or two."""
        with self._lock:
            return self._known.pop(session_id, None)


def key(data: Path) -> bytes:
    """The key that signs cookies, made once, readable by its owner alone."""
    path = data / _KEY_FILE
    try:
        found = path.read_bytes()
        if len(found) >= 32:
            return found
    except FileNotFoundError:
        pass
    made = secrets.token_bytes(32)
    passing = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(made)
    passing.replace(path)
    return made


def current() -> Session | None:
    """The session of the page that is being drawn, looked up anew."""
    import streamlit as st

    from atoll_dashboard.world import world

    here = world()
    return here.sessions.of_cookie(st.context.cookies.get(here.options.session_cookie))
