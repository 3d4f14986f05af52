"""What the gateway is started with: its environment, the policy, and its keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

import atoll
from atoll_token import PublicKey, SigningKey

from . import policy
from .policy import Policy

T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True):
    """All that is fixed at the start."""

    options: atoll.Options
    policy: Policy
    root: PublicKey  # verifies key sets
    assertion_key: SigningKey  # signs what services are told


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads `ATOLL_…`, mesh.toml and the keys. Raises atoll.ConfigurationError naming what is wrong."""
    options = atoll.Options.from_environment(environ)
    mesh = environ.get("ATOLL_MESH", "")
    if not mesh:
        raise atoll.ConfigurationError("ATOLL_MESH: expected the path of mesh.toml")
    try:
        loaded = policy.load(Path(mesh))
    except policy.PolicyError as error:
        raise atoll.ConfigurationError(str(error)) from error
    return Settings(
        options,
        loaded,
        _key(options.keys / "root.pub", PublicKey.from_pem),
        _key(options.keys / "assertion.key", SigningKey.from_pem),
    )


def _key(path: Path, read: Callable[[bytes], T]) -> T:
    try:
        return read(path.read_bytes())
    except (OSError, ValueError) as error:
        raise atoll.ConfigurationError(f"ATOLL_KEYS: expected an Ed25519 key in PEM in {path.name}: {error}") from error
