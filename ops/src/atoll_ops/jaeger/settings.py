"""`[part.jaeger.settings]`, and what the configuration files in observability/jaeger are told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from atoll_ops.errors import MeshError

STORAGE = "JAEGER_STORAGE"
STORAGES = ("memory", "badger")
TRACES_MAX = "JAEGER_MEMORY_TRACES_MAX"
_TRACES_RANGE = (1, 1_000_000)
#: Further variables that a user may want for the program itself, as any Go program has them.
_OF_GO = ("GOMEMLIMIT", "GOGC", "GOMAXPROCS")


def check(settings: Mapping[str, str], where: str) -> None:
    """Raises MeshError naming the setting that is unknown or wrong; `where` says whose settings these are."""
    for name in settings:
        if name not in (STORAGE, TRACES_MAX, *_OF_GO):
            raise MeshError(f"{where}.{name}: expected one of {', '.join((STORAGE, TRACES_MAX, *_OF_GO))}")
    storage = settings.get(STORAGE, STORAGES[0])
    if storage not in STORAGES:
        raise MeshError(f"{where}.{STORAGE}: expected {' or '.join(STORAGES)}, not {storage!r}")
    least, most = _TRACES_RANGE
    kept = settings.get(TRACES_MAX, str(least))
    if not (kept.isascii() and kept.isdecimal() and least <= int(kept) <= most):
        raise MeshError(f"{where}.{TRACES_MAX}: expected a number of traces from {least} to {most}, not {kept!r}")


def configuration(folder: Path, storage: str) -> list[str]:
    """The command line words that give Jaeger its configuration."""
    files = (folder / "jaeger.yaml", folder / f"storage-{storage}.yaml")
    return [word for file in files for word in ("--config", str(file))]
