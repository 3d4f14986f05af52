"""The rules of the house that a reader of one file cannot see broken. Each failure says which file and what to do."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from fleet import REPOSITORY
from topology import DEPLOYABLES, GROUPS, LOOKERS, PARTS, PREFIXES, SDKS, SERVICES, TOPICS

PROJECTS = sorted({*DEPLOYABLES.values(), *SDKS.values()})
MESH = tomllib.loads((REPOSITORY / "mesh.toml").read_text())


def tracked() -> list[Path]:
    """Every file that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, text=True, capture_output=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    return [REPOSITORY / name for name in listed if (REPOSITORY / name).is_file()]


def project(folder: str) -> dict[str, object]:
    """A project's pyproject.toml."""
    return tomllib.loads((REPOSITORY / folder / "pyproject.toml").read_text())


@pytest.mark.parametrize("folder", sorted(set(DEPLOYABLES.values())))
def test_a_deployable_is_a_project_of_its_own(folder: str) -> None:
    for name in ("pyproject.toml", "pins.txt", "pins-test.txt", "local.txt", "Dockerfile", "CHANGELOG.md", "README.md"):
        assert (REPOSITORY / folder / name).is_file(), f"{folder} lacks {name}"
    assert (REPOSITORY / folder / "tests").is_dir(), f"{folder} has no tests of its own"


@pytest.mark.parametrize("folder", SERVICES)
def test_a_service_has_contracts_migrations_and_a_page(folder: str) -> None:
    home = REPOSITORY / "services" / folder
    assert (home / "contract" / "http.openapi.yaml").is_file()
    assert sorted((home / "migrations").glob("*.sql")), f"services/{folder} has no migrations"
    assert len((home / "README.md").read_text().splitlines()) <= 90, f"services/{folder}/README.md is to be one page"


@pytest.mark.parametrize("folder", PROJECTS)
def test_no_deployable_depends_on_another(folder: str) -> None:
    """At run time only the SDKs may be shared; in tests also the broker, for its core in memory."""
    allowed = {"atoll", "atoll-token"}
    spec = project(folder)
    names = {re.split(r"[\[<>=~ ;]", line, maxsplit=1)[0] for line in spec["project"]["dependencies"]}  # type: ignore[index]
    others = {name for name in names if name.startswith("atoll") and name not in allowed}
    assert not others, f"{folder} depends on {others}: parts share no code"
    for line in (REPOSITORY / folder / "local.txt").read_text().split():
        target = line.split("[", 1)[0]
        resolved = (REPOSITORY / folder / target).resolve()
        assert target == "." or resolved in {REPOSITORY / sdk for sdk in SDKS.values()}, f"{folder}/local.txt: {line}"


@pytest.mark.parametrize("folder", [*PROJECTS, "."])
def test_pins_have_hashes_and_name_no_place(folder: str) -> None:
    for path in sorted((REPOSITORY / folder).glob("pins*.txt")):
        text = path.read_text()
        assert "://" not in text, f"{path}: an address; compile with tools/compile-pins"
        requirements = re.split(r"\n(?=\S)", text.replace("\\\n", " ").strip())
        for requirement in requirements:
            if requirement.startswith("#"):
                continue
            assert re.match(r"^[A-Za-z0-9._-]+(\[[^]]*\])?==\S+", requirement), f"{path}: {requirement[:80]}"
            assert "--hash=sha256:" in requirement, f"{path}: no hash for {requirement[:60]}"


@pytest.mark.parametrize("folder", [*PROJECTS, "."])
def test_compiling_the_pins_again_gives_the_same(folder: str, tmp_path: Path) -> None:
    before = {path: path.read_text() for path in sorted((REPOSITORY / folder).glob("pins*.txt"))}
    try:
        done = subprocess.run(
            [str(REPOSITORY / "tools" / "compile-pins"), folder],
            cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        after = {path: path.read_text() for path in before}
    finally:
        for path, text in before.items():
            path.write_text(text)
    assert after == before, f"pins of {folder} do not follow from its pyproject.toml: run `tools/compile-pins {folder}`"


def test_names_are_one() -> None:
    """Folder = part = import name = grant: one name everywhere."""
    for package, folder in DEPLOYABLES.items():
        assert package == f"atoll_{Path(folder).name}"
        assert (REPOSITORY / folder / "src" / package / "__main__.py").is_file()
    assert {name: part["path"] for name, part in MESH["part"].items()} == PARTS | LOOKERS
    assert set(MESH["grant"]) <= set(PARTS)
    assert set(MESH["group"]) == set(GROUPS)


def test_what_people_look_through_is_nobody_on_the_bus() -> None:
    """No function of the shop can come to need it: no grant, no group, and whoever starts the shop can leave it out."""
    assert not set(LOOKERS) & set(MESH["grant"])
    assert not set(LOOKERS) & {group["part"] for group in MESH["group"].values()}
    assert set(LOOKERS).isdisjoint(PARTS)
    assert MESH["part"]["jaeger"]["kind"] == "tool"


def test_observability_is_configuration_and_listens_where_it_is_told() -> None:
    """Nothing there is imported; every address is the loopback one unless whoever starts it says otherwise."""
    found = [path for path in tracked() if path.is_relative_to(REPOSITORY / "observability")]
    assert not [path for path in found if path.suffix in (".py", ".go")]
    endpoints = [
        line.split("endpoint:")[1].strip()
        for path in found
        if path.suffix == ".yaml"
        for line in path.read_text().splitlines()
        if "endpoint:" in line
    ]
    assert len(endpoints) >= 5
    usual = re.compile(r'"(\$\{env:JAEGER_HOST:-127\.0\.0\.1\}:\$\{env:JAEGER_\w+_PORT:-\d+\}|127\.0\.0\.1:0)"( +#.*)?')
    assert [text for text in endpoints if not usual.fullmatch(text)] == []


def test_the_mesh_grants_what_the_contracts_say_and_no_service_more() -> None:
    for name, group in MESH["group"].items():
        assert set(group["topics"]) == GROUPS[name], f"mesh.toml [group.{name}]"
        assert group["part"] == name
    for service in SERVICES:
        grant = MESH["grant"].get(service, {})
        prefixes = {prefix for prefix, owner in PREFIXES.items() if owner == service}
        assert set(grant.get("announce", [])) == prefixes, f"mesh.toml [grant.{service}].announce"
        patterns = grant.get("publish", [])
        assert all(pattern.startswith(f"{service}.") for pattern in patterns), f"{service} may speak for others"
        published = {topic for topic, owner in TOPICS.items() if owner == service}
        assert bool(published) == bool(patterns)
        assert not grant.keys() & {"admin", "put", "public"}, f"{service} has a grant that only core parts have"


def test_mesh_has_no_table_that_nobody_reads() -> None:
    assert set(MESH) == {"system", "part", "grant", "group", "group_defaults", "bus", "gateway"}


def test_no_file_names_a_machine_or_a_registry() -> None:
    forbidden = re.compile(
        r"pypi\.org|pythonhosted\.org|registry\.npmjs|proxy\.golang|static\.crates|deb\.debian\.org|/home/\w+/|"
        + re.escape(str(REPOSITORY) + "/")
    )
    here = Path(__file__).resolve()
    for path in tracked():
        if path == here or path.suffix in {".png"}:
            continue
        found = forbidden.search(path.read_text(errors="replace"))
        assert not found, f"{path.relative_to(REPOSITORY)} names {found.group(0)!r}"


def test_no_lock_file_and_no_binary_is_committed() -> None:
    for path in tracked():
        assert path.name not in {"uv.lock"}, f"{path} names registries"
        if path.suffix != ".png":
            assert b"\0" not in path.read_bytes(), f"{path.relative_to(REPOSITORY)} is binary"


def test_a_lock_of_npm_has_hashes_and_names_no_place() -> None:
    for path in (path for path in tracked() if path.name == "package-lock.json"):
        text = path.read_text()
        assert "://" not in text, f"{path}: an address; install with the .npmrc beside it"
        for name, package in json.loads(text)["packages"].items():
            assert not name or package["integrity"].startswith("sha512-"), f"{path}: no hash for {name}"
        assert "omit-lockfile-registry-resolved=true" in (path.parent / ".npmrc").read_text().split()


def test_main_parses_wires_and_waits() -> None:
    """`__main__` of a service is options, signals, run: no route, no SQL, no class."""
    for service in SERVICES:
        path = REPOSITORY / "services" / service / "src" / f"atoll_{service}" / "__main__.py"
        text = path.read_text()
        assert len(text.splitlines()) <= 40, f"{path} does more than parse, wire and wait"
        assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(ast.parse(text)))


def test_sql_stands_in_the_stores_only() -> None:
    statement = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM)\b\s")
    for service in SERVICES:
        for path in sorted((REPOSITORY / "services" / service / "src").rglob("*.py")):
            if path.stem in {"store", "ledger"}:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    assert not statement.search(node.value), f"{path}:{node.lineno}: SQL belongs in store.py"


def test_money_is_never_a_float() -> None:
    for service in SERVICES:
        for path in sorted((REPOSITORY / "services" / service / "src").rglob("*.py")):
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                is_float = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float"
                assert not is_float or "seconds" in ast.unparse(node).lower(), (
                    f"{path}:{getattr(node, 'lineno', 0)}: float() near money; use Decimal"
                )


def test_every_publication_is_a_past_tense_fact_with_a_major() -> None:
    for topic, owner in TOPICS.items():
        assert re.fullmatch(rf"{owner}\.[a-z]+\.[a-z]+ed\.v[1-9]\d*|{owner}\.[a-z]+\.\w+\.v[1-9]\d*", topic)


def test_every_function_is_short_enough_to_hold() -> None:
    """Nineteen in twenty functions under 60 lines; none over 120 (style.md)."""
    long: list[str] = []
    total = 0
    for folder in PROJECTS:
        for path in sorted((REPOSITORY / folder / "src").rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    total += 1
                    lines = (node.end_lineno or node.lineno) - node.lineno + 1
                    assert lines <= 120, f"{path}:{node.lineno} {node.name} has {lines} lines"
                    if lines > 60:
                        long.append(f"{path.name}:{node.name} {lines}")
    assert len(long) * 20 <= total, long
