"""The system page, `mesh.toml`: what ops reads of it, which is `[system]` and `[part.*]`.

Each reader is strict about its own tables and blind to the others', so a misspelt field stops the start with its name
while a new policy table of the broker's needs no release of ops.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import msgspec

from atoll_ops.errors import MeshError

#: Offsets from BASE that are known outside this page. A part owns the one under its own name, and no other has it; the
#: rest are second ports: Jaeger's UI and its OTLP receivers, the broker's bus.
RESERVED_OFFSETS = {1: "dashboard", 2: "Jaeger UI", 3: "OTLP gRPC", 4: "OTLP HTTP", 5: "jaeger", 6: "the bus"}
OFFSET_MAX = 199
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


#: Who waits for a part: everybody for the core, its own function for a service, nobody for a tool.
Kind = Literal["core", "service", "tool"]


class System(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[system]`."""

    name: str = "atoll"


class PartTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[part.NAME]` as written."""

    path: str  # folder; relative to the repository, whichever mesh file names it
    port: int  # HTTP port as an offset from BASE
    kind: Kind = "service"
    settings: dict[str, str] = {}  # further environment variables: strings, as an environment has nothing else
    ready: str = "/ready"  # where it is asked whether it is ready; 200 says yes
    command: list[str] = []  # what to run in `path` instead of `python -m atoll_<folder>`: a part in any language


class Part(msgspec.Struct, frozen=True):
    """One part of the system: a deployable that runs in slots NAME/1, NAME/2, …"""

    name: str
    folder: Path
    offset: int
    kind: str
    settings: dict[str, str]
    command: tuple[str, ...]
    ready: str = "/ready"

    @property
    def module_arguments(self) -> tuple[str, ...]:
        """`python -m …` for this part. A project with several processes (ops) is told which one by the part's name."""
        module = f"atoll_{self.folder.name.replace('-', '_')}"
        return (module,) if self.folder.name == self.name else (module, self.name)


class Mesh(msgspec.Struct, frozen=True):
    """The system page, checked."""

    path: Path
    system: System
    parts: dict[str, Part]

    def only(self, names: Collection[str]) -> Mesh:
        """The same page with these parts alone, in the page's order. Raises MeshError for an unknown name."""
        self._check_known("--only", names)
        return Mesh(self.path, self.system, {name: part for name, part in self.parts.items() if name in names})

    def choose(self, only: Collection[str], without: Collection[str]) -> Mesh:
        """The page with what `up` was asked for: `only` these (empty: all), less those that it is to do `without`.

        Raises MeshError for a name that the page does not have, and where nothing would be left.
        """
        self._check_known("--without", without)
        page = self.only(only or self.parts)
        chosen = page.only([name for name in page.parts if name not in without])
        if not chosen.parts:
            raise MeshError(f"--without {','.join(without)}: leaves no part to start")
        return chosen

    def needed(self) -> list[str]:
        """The parts that a start waits for. A tool says itself what it lacks, and the system runs all the same."""
        return [name for name, part in self.parts.items() if part.kind != "tool"]

    def _check_known(self, option: str, names: Collection[str]) -> None:
        for name in names:
            if name not in self.parts:
                raise MeshError(f"{option}: {self.path.name} has no part {name!r} (it has: {', '.join(self.parts)})")


def read(path: Path, root: Path) -> Mesh:
    """Read and check a system page; folders are relative to `root`, the repository.

    Raises MeshError naming file, field and what was expected.
    """
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise MeshError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MeshError(f"{path}: not TOML: {error}") from error
    system = _table(path, "system", tables.get("system", {}), System)
    written = tables.get("part")
    if not isinstance(written, dict) or not written:
        raise MeshError(f"{path}: [part.NAME]: expected at least one")
    parts = {name: _part(path, root, name, table) for name, table in written.items()}
    _check_offsets(path, parts)
    return Mesh(path.absolute(), system, parts)


def _part(path: Path, root: Path, name: str, written: object) -> Part:
    if not _NAME.fullmatch(name):
        raise MeshError(f"{path}: [part.{name}]: a name is lower case letters, digits and -, at most 31")
    table = _table(path, f"part.{name}", written, PartTable)
    if not 0 <= table.port <= OFFSET_MAX:
        raise MeshError(f"{path}: part.{name}.port: expected an offset from 0 to {OFFSET_MAX}, not {table.port}")
    if not re.fullmatch(r"/[!-~]*", table.ready):
        raise MeshError(f"{path}: part.{name}.ready: expected a path as in /ready, not {table.ready!r}")
    for variable in table.settings:
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", variable) or variable.startswith("ATOLL_"):
            raise MeshError(f"{path}: part.{name}.settings.{variable}: expected NAME_LIKE_THIS, not ATOLL_…")
    folder = (root / table.path).resolve()
    return Part(name, folder, table.port, table.kind, table.settings, tuple(table.command), table.ready)


def _table(path: Path, where: str, written: Any, shape: type[Any]) -> Any:
    try:
        return msgspec.convert(written, shape)
    except msgspec.ValidationError as error:
        text, _, field = str(error).partition(" - at `$")
        raise MeshError(f"{path}: {where}{field.rstrip('`')}: {text}") from error


def _check_offsets(path: Path, parts: dict[str, Part]) -> None:
    owners = dict(RESERVED_OFFSETS)
    own = {owner: offset for offset, owner in RESERVED_OFFSETS.items()}
    for part in parts.values():
        if part.offset != own.get(part.name, part.offset):
            raise MeshError(f"{path}: part.{part.name}.port: expected {own[part.name]}, not {part.offset}")
        if part.offset in owners and part.name not in own:
            raise MeshError(f"{path}: part.{part.name}.port: {part.offset} belongs to {owners[part.offset]}")
        owners[part.offset] = part.name
