"""Numbers and times in words."""

from __future__ import annotations

import pytest

from atoll_dashboard import wording


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (0, "0"), (0.04, "0.0"), (0.44, "0.4"), (9.96, "10.0"), (12.4, "12"), (1234.5, "1,234")],
)
def test_rates(value: float | None, said: str) -> None:
    assert wording.rate(value) == said


@pytest.mark.parametrize(("value", "said"), [(None, "–"), (0.42, "0.4 ms"), (12.3, "12 ms"), (1300, "1.3 s")])
def test_milliseconds(value: float | None, said: str) -> None:
    assert wording.milliseconds(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "–"), (-3, "0 s"), (59.9, "59 s"), (60, "1 min"), (3600, "1 h"), (7500, "2 h 5 min"), (86_400, "1 d"),
     (86_400 * 4 + 3 * 3600, "4 d 3 h")],
)  # fmt: skip
def test_durations(seconds: float | None, said: str) -> None:
    assert wording.duration(seconds) == said


def test_the_clock_is_the_readers() -> None:
    at = 1795482149.6
    assert wording.clock(at, "UTC") == wording.clock(at, None) == "01:02:29"
    assert wording.clock(at, "Asia/Kolkata") == "06:32:29"
    assert wording.clock(at, "No/Such_Place") == wording.clock(at, "../../etc/passwd") == "01:02:29"
    assert wording.clock(None, None) == "–"
    assert wording.moment(at, None) == "2026-11-24 01:02:29"


def test_plurals() -> None:
    assert [wording.plural(n, "topic") for n in (0, 1, 2)] == ["0 topics", "1 topic", "2 topics"]
