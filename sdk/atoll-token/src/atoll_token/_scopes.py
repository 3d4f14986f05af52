"""Scopes: the words of permission, and the one rule by which a pattern covers them.

A scope is segments joined by `:` (`orders:read`, `orders:read:all`). A pattern ends in the segment `*`, which stands
for one or more segments: `orders:*` covers `orders:read`, `orders:read:all` and the pattern `orders:read:*`, but
neither `orders` nor `ordersx:read`. There is no pattern for everything.
"""

import re
from collections.abc import Iterable

_SCOPE = re.compile(r"[a-z0-9][a-z0-9._-]*(:[a-z0-9][a-z0-9._-]*)*(:\*)?", re.ASCII)


def scope_allows(granted: str | Iterable[str], needed: str) -> bool:
    """Whether `granted` (a scope claim's text, or single scopes) covers `needed` (a scope, or a pattern as a whole).

    Fails closed: what is not well-formed neither covers nor is covered.
    """
    if _SCOPE.fullmatch(needed) is None:
        return False
    scopes = granted.split(" ") if isinstance(granted, str) else granted
    return any(_covers(scope, needed) for scope in scopes)


def parse_scopes(text: str) -> frozenset[str]:
    """The scopes of a `scope` claim or parameter; empty text is none. ValueError names one that is not well-formed."""
    scopes = text.split(" ") if text else []
    for scope in scopes:
        if _SCOPE.fullmatch(scope) is None:
            raise ValueError(f"not a scope: {scope!r}")
    return frozenset(scopes)


def _covers(granted: str, needed: str) -> bool:
    if granted.endswith(":*") and _SCOPE.fullmatch(granted):
        return needed.startswith(granted[:-1])  # what follows the colon is never empty: `needed` is well-formed
    return granted == needed
