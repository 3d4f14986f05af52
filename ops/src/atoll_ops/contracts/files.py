"""The contracts as files: `<part's folder>/contract/{publishes,consumes}/<topic>.schema.json`, in a folder or a commit.

A part's folder has the part's name: names are one here. What cannot be read is a break like any other, so one bad file
does not hide what is wrong with the rest.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from atoll_ops.contracts.shapes import Schema
from atoll_ops.errors import OperationError

_PLACE = re.compile(r"(?:[^/.][^/]*/){0,3}(?P<part>[^/.][^/]*)/contract/(?P<side>publishes|consumes)/(?P<topic>[^/]+)")
_SUFFIX = ".schema.json"
_SECONDS_MAX = 60.0
_BYTES_MAX = 1 << 20


class Break(msgspec.Struct, frozen=True):
    """One thing that is not as it should be: where, which rule, and what was expected."""

    file: str  # relative to the repository; of a running part its slot
    field: str
    rule: str
    text: str


class Contract(msgspec.Struct, frozen=True):
    """One schema in its file."""

    part: str
    topic: str
    file: str
    schema: Schema


class Contracts(msgspec.Struct, frozen=True):
    """All that there are, in the order of their files, and what could not be read."""

    publishes: list[Contract]
    consumes: list[Contract]
    broken: list[Break]

    def publishers(self) -> dict[str, Contract]:
        """By topic; of two that publish one, the first (the other is a break)."""
        found: dict[str, Contract] = {}
        for contract in self.publishes:
            found.setdefault(contract.topic, contract)
        return found


def in_folder(root: Path) -> Contracts:
    """The contracts that lie in a repository's folder now. Raises OperationError if there are none."""
    folders = (side for depth in ("*", "*/*") for side in root.glob(f"{depth}/contract/*"))
    paths = sorted(path.relative_to(root).as_posix() for side in folders for path in side.glob("*"))
    return _gathered(((path, (root / path).read_bytes()) for path in paths if _PLACE.fullmatch(path)), str(root))


def in_commit(root: Path, revision: str) -> Contracts:
    """The contracts as of a commit. Raises OperationError for one that git does not know, or that has none."""
    commit = _git(root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    listed = _git(root, "ls-tree", "-r", "--name-only", "--full-tree", "-z", commit)
    paths = [path for path in listed.decode().split("\0") if _PLACE.fullmatch(path)]
    blobs = _blobs(root, [f"{commit}:{path}" for path in paths])
    return _gathered(zip(paths, blobs, strict=True), revision)


def _gathered(found: Iterable[tuple[str, bytes]], where: str) -> Contracts:
    contracts = Contracts([], [], [])
    for path, raw in found:
        place = _PLACE.fullmatch(path)
        assert place is not None
        schema = _read(path, raw)
        if isinstance(schema, Break):
            contracts.broken.append(schema)
            continue
        side = contracts.publishes if place["side"] == "publishes" else contracts.consumes
        side.append(Contract(place["part"], place["topic"].removesuffix(_SUFFIX), path, schema))
    if not contracts.publishes and not contracts.broken:
        raise OperationError(f"{where} has no …/contract/publishes/TOPIC{_SUFFIX}: is it a repository of Atoll's?")
    return contracts


def _read(path: str, raw: bytes) -> Schema | Break:
    if not path.endswith(_SUFFIX):
        return Break(path, "", "file", f"expected TOPIC{_SUFFIX}")
    if len(raw) > _BYTES_MAX:
        return Break(path, "", "file", f"expected at most {_BYTES_MAX} bytes, found {len(raw)}")
    try:
        schema = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return Break(path, "", "file", f"expected JSON: {error}")
    if not isinstance(schema, dict):
        return Break(path, "", "file", "expected a JSON Schema, which is an object")
    return schema


def _blobs(root: Path, names: list[str]) -> Iterator[bytes]:
    """Files out of a commit, in one go."""
    said = _git(root, "cat-file", "--batch", given="".join(f"{name}\n" for name in names).encode())
    at = 0
    for name in names:
        head, _, _ = said[at:].partition(b"\n")
        kind = head.split()
        if len(kind) != 3 or kind[1] != b"blob":
            raise OperationError(f"git has no file {name}: {head.decode(errors='replace')}")
        at += len(head) + 1
        yield said[at : at + int(kind[2])]
        at += int(kind[2]) + 1


def _git(root: Path, *words: str, given: bytes = b"") -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words],  # noqa: S607 - the user's own git
            input=given, capture_output=True, timeout=_SECONDS_MAX, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise OperationError("--range needs git, which is not on PATH") from None
    except subprocess.TimeoutExpired:
        raise OperationError(f"--range: git did not answer within {_SECONDS_MAX:.0f} s") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        what = f"git knows no commit {words[-1].removesuffix('^{commit}')}" if words[0] == "rev-parse" else "git says"
        raise OperationError(f"--range: {what}: {said[-1] if said else done.returncode}")
    return done.stdout


def plain(contracts: Contracts) -> dict[str, Any]:
    """How much there is, for who asks what was looked at."""
    parts = {one.part for one in (*contracts.publishes, *contracts.consumes)}
    return {"parts": len(parts), "publishes": len(contracts.publishes), "consumes": len(contracts.consumes)}
