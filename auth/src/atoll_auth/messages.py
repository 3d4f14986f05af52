"""The shapes of what comes in and goes out over HTTP, and of the seed."""

from typing import Annotated

import msgspec
from msgspec import Meta

from .domain import NAME_PATTERN, SCOPE_CHARS_MAX, SECRET_CHARS_MAX, SECRET_CHARS_MIN, Role

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Secret = Annotated[str, Meta(min_length=SECRET_CHARS_MIN, max_length=SECRET_CHARS_MAX)]


class Login(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /auth/login`. Bounds are loose on purpose: a name that cannot exist is answered like a wrong password."""

    username: Annotated[str, Meta(min_length=1, max_length=200)]
    password: Annotated[str, Meta(min_length=1, max_length=SECRET_CHARS_MAX)]
    scope: Annotated[str, Meta(max_length=SCOPE_CHARS_MAX)] | None = None


class TokenResponse(msgspec.Struct, omit_defaults=True):
    """RFC 6749, 5.1. `expires_in` in seconds; no refresh token for clients, who can ask again."""

    access_token: str
    expires_in: int
    scope: str
    refresh_token: str | None = None
    token_type: str = msgspec.field(default_factory=lambda: "Bearer")  # a factory, or omit_defaults would drop it


class SeedClient(msgspec.Struct, forbid_unknown_fields=True):
    client_id: Name
    client_secret: Secret
    scopes: list[str]


class SeedUser(msgspec.Struct, forbid_unknown_fields=True):
    username: Name
    password: Secret
    role: Role


class Seed(msgspec.Struct, forbid_unknown_fields=True):
    """`seed.json` in ATOLL_KEYS."""

    clients: list[SeedClient] = []
    users: list[SeedUser] = []
