"""What exactly is wanted: the release with its checksums, and the Go module with its own.

`observability/jaeger/pins.toml` has the release, `go.mod` and `go.sum` beside it have the module. A digest over all
three and the platform names the place in the cache, so a changed pin never meets an old binary.
"""

from __future__ import annotations

import hashlib
import platform
import sys
import tomllib
from pathlib import Path

import msgspec

from atoll_ops.errors import OperationError

#: Part of the digest: raise it when the recipe (flags, layout of the cache) changes while the pins do not.
RECIPE = 1
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


class Archive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the release."""

    sha256: str
    bytes: int


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[release]`: the official one. `archives` by platform, as in linux-amd64."""

    version: str
    archives: dict[str, Archive] = {}

    def archive_name(self, here: str) -> str:
        """The archive's file name; the folder inside has the same, less its ending."""
        return f"jaeger-{self.version}-{here}.tar.gz"


class Module(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[module]`: what Go builds. Its exact version stands in go.mod; this is the Jaeger that it is."""

    package: str
    jaeger_version: str


class Pins(msgspec.Struct, frozen=True):
    """All pins, read from `folder`."""

    folder: Path
    release: Release
    module: Module
    digest: str
    here: str  # this platform

    @property
    def archive(self) -> Archive | None:
        """The pinned archive for this platform, if there is one."""
        return self.release.archives.get(self.here)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    release: Release
    module: Module


def this_platform() -> str:
    """As Jaeger's releases name it: linux-amd64, darwin-arm64, …"""
    machine = platform.machine().lower()
    return f"{sys.platform}-{_MACHINES.get(machine, machine)}"


def read(folder: Path, here: str | None = None) -> Pins:
    """The pins in `folder`. Raises OperationError naming the file and field that is wrong."""
    here = here or this_platform()
    digest = hashlib.sha256(f"{RECIPE} {here}\n".encode())
    path = folder / "pins.toml"
    try:
        for name in ("pins.toml", "go.mod", "go.sum"):
            digest.update((folder / name).read_bytes())
        found = msgspec.convert(tomllib.loads(path.read_text()), _File)
    except OSError as error:
        raise OperationError(f"{error.filename}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise OperationError(f"{path}: {error}") from error
    return Pins(folder, found.release, found.module, digest.hexdigest()[:24], here)
