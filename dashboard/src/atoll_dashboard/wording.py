"""Numbers, times and reasons in words, as every page writes them. None is a dash: not known is not zero."""

from __future__ import annotations

import datetime
import zoneinfo

DASH = "–"


def count(value: float | None) -> str:
    """12,345."""
    return DASH if value is None else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """Per second: 0, 0.4, 12, 1,234."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def milliseconds(value: float | None) -> str:
    """0.4 ms, 12 ms, 1.3 s."""
    if value is None:
        return DASH
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def duration(seconds: float | None) -> str:
    """5 s, 3 min, 2 h, 2 h 5 min, 4 d 3 h."""
    if seconds is None:
        return DASH
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86_400:
        return f"{whole // 3600} h" + (f" {minutes} min" if (minutes := whole % 3600 // 60) else "")
    return f"{whole // 86_400} d" + (f" {hours} h" if (hours := whole % 86_400 // 3600) else "")


def clock(at: float | None, zone: str | None) -> str:
    """18:34:38 where the reader is (`zone` as the browser names it), else UTC."""
    return DASH if at is None else _local(at, zone).strftime("%H:%M:%S")


def moment(at: float | None, zone: str | None) -> str:
    """2026-11-23 18:34:38."""
    return DASH if at is None else _local(at, zone).strftime("%Y-%m-%d %H:%M:%S")


def _local(at: float, zone: str | None) -> datetime.datetime:
    try:
        where: datetime.tzinfo = zoneinfo.ZoneInfo(zone) if zone else datetime.UTC
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        where = datetime.UTC
    return datetime.datetime.fromtimestamp(at, where)


def state(waits: bool) -> str:
    """What is said of a part that does not answer, or that waits for another's word before it lets an operator in."""
    return "lets no operator in" if waits else "is gone"


def absence(part: str, text: str, *, waits: bool) -> str:
    """That, with the reason."""
    why = f"{text} of auth, which come over the broker" if waits else reason(part, text)
    return f"{part} {state(waits)}: {why}"


def reason(part: str, text: str) -> str:
    """Why a part is gone, without what the page has said already: that it is."""
    return text.removeprefix(f"{part} is away: ").removeprefix(f"the {part} is gone; ")


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 topic`, `3 topics`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
