"""The life of keys, simulated second by second through outages of the broker."""

import random

import msgspec
import pytest

from atoll_auth.lifecycle import KeyRecord, Schedule, Step, active_key, in_set, plan

SCHEDULE = Schedule(rotate=600, access=60, refresh=300)


def key(kid: str, created_at: int = 0, **times: int) -> KeyRecord:
    return KeyRecord(kid=kid, created_at=created_at, **times)


def test_empty_start_makes_a_key_that_signs_at_once() -> None:
    assert plan([], 0, SCHEDULE) == [Step("create_active")]


def test_nothing_is_due_between_rotations() -> None:
    assert plan([key("a", active_at=0)], 539, SCHEDULE) == []


def test_next_key_is_made_a_lead_before_the_rotation() -> None:
    assert SCHEDULE.lead == 60
    assert plan([key("a", active_at=0)], 540, SCHEDULE) == [Step("create")]


def test_key_that_the_broker_has_not_taken_never_signs() -> None:
    assert plan([key("a", active_at=0), key("b", 540)], 100_000, SCHEDULE) == []


def test_published_key_signs_after_the_lead() -> None:
    keys = [key("a", active_at=0), key("b", 540, published_at=550)]
    assert plan(keys, 609, SCHEDULE) == []
    assert plan(keys, 610, SCHEDULE) == [Step("retire", "a"), Step("activate", "b")]


def test_retired_key_stays_until_its_last_token_has_expired_everywhere() -> None:
    keys = [key("a", active_at=0, retired_at=600), key("b", 540, active_at=600)]
    assert in_set(keys, 669, SCHEDULE) == ["a", "b"]
    assert in_set(keys, 670, SCHEDULE) == ["b"]
    assert plan(keys, 909, SCHEDULE) == []
    assert plan(keys, 910, SCHEDULE) == [Step("forget", "a")]


def test_withdrawn_key_is_replaced_at_once() -> None:
    gone = key("a", active_at=0, retired_at=0)
    assert in_set([gone], 10_000, SCHEDULE) == []
    assert plan([gone], 10_000, SCHEDULE) == [Step("forget", "a"), Step("create_active")]
    assert plan([gone, key("b", 9_000)], 10_000, SCHEDULE) == [Step("forget", "a"), Step("activate", "b")]


@pytest.mark.parametrize(("rotate", "lead"), [(60, 6), (30 * 86_400, 3600)])
def test_lead_is_short_beside_the_rotation(rotate: int, lead: int) -> None:
    assert Schedule(rotate=rotate, access=600, refresh=600).lead == lead


@pytest.mark.parametrize("seed", range(20))
def test_no_token_ever_meets_a_verifier_that_lacks_its_key(seed: int) -> None:
    """A verifier hears of the set only while the broker is up; tokens are signed each second all the same."""
    chance = random.Random(seed)
    keys: dict[str, KeyRecord] = {}
    verifier: set[str] = set()
    signed: dict[int, str] = {}
    broker_up, rotations = True, 0
    for now in range(6000):
        if chance.random() < 0.01:
            broker_up = not broker_up
        for step in plan(list(keys.values()), now, SCHEDULE):
            rotations += step.do == "activate"
            _apply(keys, step, now)
        published = in_set(list(keys.values()), now, SCHEDULE)
        if broker_up or now == 0:
            verifier = set(published)
            for kid in published:
                keys[kid] = msgspec.structs.replace(keys[kid], published_at=keys[kid].published_at or now)
        active = active_key(list(keys.values()))
        assert active is not None
        signed[now] = active.kid
        for age in (0, SCHEDULE.access, SCHEDULE.access + 9):  # the oldest is one for a verifier 5 s slow, with leeway
            assert signed.get(now - age, active.kid) in verifier, f"seed {seed}, second {now}, age {age}"
    assert rotations >= 3, "too few rotations to prove anything"


def _apply(keys: dict[str, KeyRecord], step: Step, now: int) -> None:
    match step.do:
        case "create":
            keys[f"k{now}"] = key(f"k{now}", now)
        case "create_active":
            keys[f"k{now}"] = key(f"k{now}", now, active_at=now)
        case "activate":
            keys[step.kid] = msgspec.structs.replace(keys[step.kid], active_at=now)
        case "retire":
            keys[step.kid] = msgspec.structs.replace(keys[step.kid], retired_at=now)
        case "forget":
            del keys[step.kid]
