"""Pure rules: which role may do what, what may be asked for, what an account may be called."""

import re
from collections.abc import Iterable
from typing import Literal

from atoll_token import parse_scopes, scope_allows

Role = Literal["viewer", "operator", "admin"]

SCOPES_OF_ROLE: dict[Role, frozenset[str]] = {
    "viewer": frozenset({"ops:read"}),
    "operator": frozenset({"ops:read", "ops:operate"}),
    "admin": frozenset({"ops:read", "ops:operate", "ops:admin"}),
}

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"
SECRET_CHARS_MIN = 8
SECRET_CHARS_MAX = 256
SCOPE_CHARS_MAX = 1000
# The upper bound of AUTH_ACCESS_SECONDS: how long a revoked subject must be remembered at most.
ACCESS_SECONDS_MAX = 3600
# The gateway's word for whoever has no token.
RESERVED_NAMES = frozenset({"anonymous"})


class ScopeError(ValueError):
    """More is asked for than is allowed, or it is not a scope. The text is for the client."""


def check_name(name: str) -> None:
    """ValueError if no account may have this name."""
    if not re.fullmatch(NAME_PATTERN, name) or name.endswith("\n"):
        raise ValueError("a name has 1–64 letters, digits or . _ @ -, and begins with a letter or digit")
    if name in RESERVED_NAMES:
        raise ValueError(f"the name {name} is reserved")


def check_secret(secret: str) -> None:
    """ValueError if this is no password or client secret that we take."""
    if not SECRET_CHARS_MIN <= len(secret) <= SECRET_CHARS_MAX:
        raise ValueError(f"a secret has {SECRET_CHARS_MIN} to {SECRET_CHARS_MAX} characters")


def scope_text(scopes: Iterable[str]) -> str:
    """Scopes as the text of a claim: sorted, each once. ValueError names what is not a scope."""
    text = " ".join(sorted(set(scopes)))
    parse_scopes(text)
    if len(text) > SCOPE_CHARS_MAX:
        raise ValueError(f"scopes have at most {SCOPE_CHARS_MAX} characters together")
    return text


def grant(requested: str | None, allowed: frozenset[str]) -> str:
    """The scope of a new token: what is requested if all of it is allowed; nothing requested: all that is allowed.

    Raises ScopeError, naming the first scope at fault.
    """
    if requested is None:
        return scope_text(allowed)
    try:
        wanted = parse_scopes(requested)
    except ValueError:
        raise ScopeError("a scope is not well-formed") from None  # not echoed: RFC 6749 wants plain ASCII
    for scope in sorted(wanted):
        if not scope_allows(allowed, scope):
            raise ScopeError(f"not allowed: {scope}")
    return scope_text(wanted)


def still_allowed(scope: str, allowed: frozenset[str]) -> str:
    """What is left of a scope that was granted earlier, once the account's role has changed."""
    return scope_text(one for one in parse_scopes(scope) if scope_allows(allowed, one))
