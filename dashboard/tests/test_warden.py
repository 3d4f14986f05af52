"""Who may not look any more is put out; who cannot be asked about stays."""

from __future__ import annotations

import time

import pytest

from atoll_dashboard.gateway import Refused, Tokens, Trouble, Withdrawn
from atoll_dashboard.sessions import Session, Sessions
from atoll_dashboard.warden import Warden


class Fake:
    """Answers about a session by its user's name, and notes who was asked about."""

    def __init__(self, **answers: Exception) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def confirm(self, session: Session) -> None:
        self.asked.append(session.username)
        if session.username in self.answers:
            raise self.answers[session.username]


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(bytes(32), 60.0, 60.0)


def enter(sessions: Sessions, name: str) -> Session:
    return sessions.create(Tokens("a", "r", time.time() + 600, frozenset({"ops:read"})), name)


def test_who_lost_his_access_is_put_out_and_nobody_else(sessions: Sessions) -> None:
    gone, demoted, throttled, good = (enter(sessions, name) for name in ("gone", "demoted", "throttled", "good"))
    fake = Fake(gone=Withdrawn("removed"), demoted=Refused(403, "scope", "no"), throttled=Refused(429, "slow", "down"))
    Warden(sessions, fake, 15.0, clock=lambda: time.monotonic() + 16).round()
    assert fake.asked == ["gone", "demoted", "throttled", "good"]
    alive = [one for one in (gone, demoted, throttled, good) if sessions.get(one.id)]
    assert alive == [throttled, good]


def test_nobody_is_put_out_while_nobody_can_tell(sessions: Sessions) -> None:
    first, second = enter(sessions, "first"), enter(sessions, "second")
    fake = Fake(first=Trouble("auth", "away"), second=Trouble("auth", "away"))
    Warden(sessions, fake, 15.0, clock=lambda: time.monotonic() + 16).round()
    assert fake.asked == ["first"], "one answer is enough to know that auth is away"
    assert sessions.get(first.id)
    assert sessions.get(second.id)


def test_each_is_asked_about_once_in_a_while(sessions: Sessions) -> None:
    enter(sessions, "olaf")
    now = time.monotonic()
    fake = Fake()
    warden = Warden(sessions, fake, 15.0, clock=lambda: now)
    warden.round()
    assert fake.asked == []
    now += 16
    warden.round()
    warden.round()
    assert fake.asked == ["olaf"]
    now += 16
    warden.round()
    assert fake.asked == ["olaf", "olaf"]
